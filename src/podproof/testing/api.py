"""The emulated API server's endpoints: from who asks what to the answer."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from podproof.testing import rbac, status, tokens
from podproof.testing.rbac import User
from podproof.testing.requestinfo import RequestInfo
from podproof.testing.resources import RESOURCES
from podproof.testing.reviews import AUTHENTICATION, AUTHORIZATION, Reviews
from podproof.testing.server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podproof.testing.authentication import Authentication
    from podproof.testing.resources import Resource, Resources
    from podproof.testing.server import Call
    from podproof.testing.store import Store

TEXT = "text/plain; charset=utf-8"
REVIEWS = {
    (AUTHENTICATION, "tokenreviews"): "TokenReview",
    (AUTHORIZATION, "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    (AUTHORIZATION, "subjectaccessreviews"): "SubjectAccessReview",
}
VERSION = {
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.24.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}
EMULATION_SINCE = (1, 33)
"""KEP-4330: from here on `/version` says which older versions the server is compatible with."""
CONSTRAINED_IMPERSONATION_SINCE = (1, 36)
"""KEP-5284, on by default from here on: who may impersonate, and for which verbs, can be granted apart."""

SHAPE = {
    "token": str,
    "audiences": list,
    "expirationSeconds": int,
    "boundObjectRef": dict,
    "user": str,
    "groups": list,
    "resourceAttributes": dict,
    "nonResourceAttributes": dict,
}


class API:
    """Answers calls from the store, for those who are allowed to ask."""

    def __init__(
        self,
        store: Store,
        authentication: Authentication,
        resources: Resources,
        version: tuple[int, int],
        url: Callable[[], str],
    ) -> None:
        self._store = store
        self._authentication = authentication
        self._resources = resources
        self._reviews = Reviews(store, authentication, version)
        self._version = version
        self._url = url

    def user(self, call: Call) -> User | None:
        """Return who is calling: anonymous without a credential, None with one that is no good."""
        return self._authentication.header(call.authorization, self._authentication.api_audiences).user

    def respond(self, call: Call, asked: RequestInfo, user: User | None) -> Answer:
        """Answer what this user asked. Raises `Failure` for what the API server refuses."""
        if user is None:
            raise status.unauthorized()
        if call.impersonated:
            user = self._impersonated(call.impersonated, user, asked)
        self._authorize(user, asked)
        if not asked.resource:
            return self._at_url(call.method, asked.path)
        if (kind := REVIEWS.get((asked.group, asked.resource))) is not None:
            return self._review(call, asked, user, kind)
        resource = RESOURCES.get((asked.group, asked.version, asked.resource))
        if resource is None or (asked.namespace and asked.resource != "namespaces" and not resource.namespaced):
            raise status.unknown_resource()
        if asked.subresource:
            return self._subresource(call, asked)
        return self._resource(call, asked, resource)

    def _impersonated(self, username: str, user: User, asked: RequestInfo) -> User:
        """Return who a call is made as, if its caller may (the header Impersonate-User).

        Raises the 403 of the first check that fails where none of the ways is open, as the API server does.
        """
        match username.split(":"):
            case ["system", "serviceaccount", namespace, name]:
                mode, place = "serviceaccount", ("v1", namespace, "serviceaccounts", "", name)
                groups = rbac.service_account_groups(namespace)
            case _:
                mode, place = "user-info", ("v1", "", "users", "", username)
                groups = ("system:authenticated",)
        wanted = RequestInfo("impersonate", "", "", *place)
        if self._version < CONSTRAINED_IMPERSONATION_SINCE:
            self._authorize(user, wanted)
            return User(username, groups=groups)
        on_behalf = dataclasses.replace(asked, verb=f"impersonate-on:{mode}:{asked.verb}")
        constrained = RequestInfo(f"impersonate:{mode}", "", AUTHENTICATION, *place)
        try:
            self._authorize(user, on_behalf)
            self._authorize(user, constrained)
        except status.Failure:
            if rbac.reason(self._store, user, wanted) is None:
                raise
        return User(username, groups=groups)

    def _authorize(self, user: User, asked: RequestInfo) -> None:
        if rbac.reason(self._store, user, asked) is None:
            raise status.forbidden(user.name, asked)

    def _review(self, call: Call, asked: RequestInfo, user: User, kind: str) -> Answer:
        if asked.version != "v1" or asked.name or asked.namespace:
            raise status.unknown_resource()
        if asked.verb != "create":
            raise status.not_allowed()
        review = _question(call, {"kind": kind, "apiVersion": f"{asked.group}/v1"})
        match kind:
            case "TokenReview":
                return Answer(201, self._reviews.token_review(review))
            case "SelfSubjectAccessReview":
                return Answer(201, self._reviews.access_review(review, user))
            case _:
                return Answer(201, self._reviews.access_review(review))

    def _subresource(self, call: Call, asked: RequestInfo) -> Answer:
        match asked.full_resource, asked.verb:
            case "serviceaccounts/token", "create":
                request = _question(call, {"kind": "TokenRequest", "apiVersion": f"{AUTHENTICATION}/v1"})
                return Answer(201, self._reviews.token_request(asked.namespace, asked.name, request))
            case "pods/status", "patch":
                return Answer(200, self._resources.patch_status(asked.namespace, asked.name, _json(call, "Pod")))
            case "serviceaccounts/token" | "pods/status", _:
                raise status.not_allowed()
            case _:
                raise status.unknown_resource()

    def _resource(self, call: Call, asked: RequestInfo, resource: Resource) -> Answer:
        namespace = asked.namespace if resource.namespaced else ""
        match asked.verb:
            case "list":
                return Answer(200, self._resources.list(resource, namespace, call.query))
            case "watch":
                return Answer(200, stream=self._resources.watch(resource, namespace, call.query))
            case _ if resource.namespaced and not namespace:
                raise status.not_allowed()
            case "get":
                return Answer(200, self._store.require(resource.name, namespace, asked.name, resource.group))
            case "create" if not asked.name:
                wanted = _object(call, resource.type_meta)
                return Answer(201, self._resources.create(resource, namespace, wanted))
            case "delete":
                options = _json(call, "DeleteOptions") if call.body else {}
                if "gracePeriodSeconds" in call.query:
                    options["gracePeriodSeconds"] = int(call.query["gracePeriodSeconds"])
                return Answer(200, self._resources.delete(resource, namespace, asked.name, options))
            case _:
                raise status.not_allowed()

    def _at_url(self, method: str, path: str) -> Answer:
        if (content := self._document(path.rstrip("/"))) is None:
            return Answer(404, b"404 page not found\n", TEXT)
        if method != "GET":
            raise status.not_allowed()
        return content

    def _document(self, path: str) -> Answer | None:
        match path:
            case "/version":
                major, minor = self._version
                known = {"major": str(major), "minor": str(minor), "gitVersion": f"v{major}.{minor}.0"}
                if self._version >= EMULATION_SINCE:
                    known |= {"emulationMajor": str(major), "emulationMinor": str(minor)}
                    known |= {"minCompatibilityMajor": str(major), "minCompatibilityMinor": str(minor - 1)}
                return Answer(200, known | VERSION)
            case "/readyz" | "/livez" | "/healthz":
                return Answer(200, b"ok", TEXT)
            case "/openid/v1/jwks":
                keys = {"keys": [tokens.jwk(self._authentication.key.public_key())]}
                return Answer(200, keys, "application/jwk-set+json")
            case "/.well-known/openid-configuration":
                return Answer(200, self._discovery())
            case _:
                return None

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self._authentication.issuer,
            "jwks_uri": f"{self._url()}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


def _json(call: Call, kind: str) -> dict[str, Any]:
    problem = f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind"
    try:
        content = json.loads(call.body)
    except ValueError as error:
        raise status.bad_request(f"{problem}; json parse error: {error}") from error
    if not isinstance(content, dict):
        raise status.bad_request(f"{problem}; json parse error: json: cannot unmarshal")
    return content


def _object(call: Call, type_meta: Mapping[str, str]) -> dict[str, Any]:
    """Read an object of the kind that the endpoint is for, which it may leave unsaid."""
    kind = type_meta["kind"]
    content = {**type_meta, **_json(call, kind)}
    if content["kind"] != kind:
        package = type_meta["apiVersion"].rpartition("/")[0].partition(".")[0] or "core"
        given = content["apiVersion"].rpartition("/")[2]
        raise status.bad_request(
            f'{content["kind"]} in version "{content["apiVersion"]}" cannot be handled as a {kind}:'
            f" converting ({given}.{content['kind']}) to ({package}.{kind}): unknown conversion"
        )
    return content


def _question(call: Call, type_meta: Mapping[str, str]) -> dict[str, Any]:
    """Read a review or a TokenRequest, whose spec may be left out and must have fields of the right types."""
    kind = type_meta["kind"]
    content = {"spec": {}, **_object(call, type_meta)}
    spec = content["spec"]
    if not isinstance(spec, dict) or not all(isinstance(spec.get(name), SHAPE[name] | None) for name in SHAPE):
        raise status.bad_request(f'{kind} in version "v1" cannot be handled as a {kind}: spec')
    return content
