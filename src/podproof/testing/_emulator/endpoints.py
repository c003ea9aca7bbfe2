"""The emulated API server's endpoints: from an authenticated request to its response."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import role_bindings, status_errors, tokens
from podproof.testing._emulator.http_server import ServerResponse
from podproof.testing._emulator.request_info import RequestInfo
from podproof.testing._emulator.resources import RESOURCES
from podproof.testing._emulator.reviews import AUTHENTICATION, AUTHORIZATION, Reviews
from podproof.testing._emulator.users import UserInfo, service_account_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from podproof.testing._emulator.http_server import ServerRequest
    from podproof.testing._emulator.object_store import ObjectStore
    from podproof.testing._emulator.resources import Resource, ResourceStorage
    from podproof.testing._emulator.token_authenticator import TokenAuthenticator

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
"""KEP-5284, on by default from here on: a grant to impersonate can be limited to some verbs."""

SPEC_TYPES = {
    "token": str,
    "audiences": list,
    "expirationSeconds": int,
    "boundObjectRef": dict,
    "user": str,
    "groups": list,
    "resourceAttributes": dict,
    "nonResourceAttributes": dict,
}


class Endpoints:
    """Authorizes requests and responds to them from the store."""

    def __init__(
        self,
        store: ObjectStore,
        authenticator: TokenAuthenticator,
        resources: ResourceStorage,
        version: tuple[int, int],
        url: Callable[[], str],
    ) -> None:
        self._store = store
        self._authenticator = authenticator
        self._resources = resources
        self._reviews = Reviews(store, authenticator, version)
        self._version = version
        self._url = url

    def authenticate(self, request: ServerRequest) -> UserInfo | None:
        """Return the user of a request: anonymous without a credential, None if the credential is invalid."""
        return self._authenticator.authenticate_header(request.authorization, self._authenticator.api_audiences).user

    def respond(self, request: ServerRequest, info: RequestInfo, user: UserInfo | None) -> ServerResponse:
        """Return the response to a request. Raises `StatusError` for what the API server refuses."""
        if user is None:
            raise status_errors.unauthorized()
        if request.impersonated:
            user = self._impersonate(request.impersonated, user, info)
        self._authorize(user, info)
        if not info.resource:
            return self._document_at(request.method, info.path)
        if (kind := REVIEWS.get((info.group, info.resource))) is not None:
            return self._review(request, info, user, kind)
        resource = RESOURCES.get((info.group, info.version, info.resource))
        if resource is None or (info.namespace and info.resource != "namespaces" and not resource.namespaced):
            raise status_errors.unknown_resource()
        if info.subresource:
            return self._subresource(request, info)
        return self._resource(request, info, resource)

    def _impersonate(self, username: str, user: UserInfo, info: RequestInfo) -> UserInfo:
        """Return the user that the header Impersonate-User names.

        Raises the 403 of the first failed check if neither constrained nor plain impersonation is allowed.
        """
        match username.split(":"):
            case ["system", "serviceaccount", namespace, name]:
                mode, place = "serviceaccount", ("v1", namespace, "serviceaccounts", "", name)
                groups = service_account_groups(namespace)
            case _:
                mode, place = "user-info", ("v1", "", "users", "", username)
                groups = ("system:authenticated",)
        wanted = RequestInfo("impersonate", "", "", *place)
        if self._version < CONSTRAINED_IMPERSONATION_SINCE:
            self._authorize(user, wanted)
            return UserInfo(username, groups=groups)
        on_behalf = dataclasses.replace(info, verb=f"impersonate-on:{mode}:{info.verb}")
        constrained = RequestInfo(f"impersonate:{mode}", "", AUTHENTICATION, *place)
        try:
            self._authorize(user, on_behalf)
            self._authorize(user, constrained)
        except status_errors.StatusError:
            if role_bindings.allow_reason(self._store, user, wanted) is None:
                raise
        return UserInfo(username, groups=groups)

    def _authorize(self, user: UserInfo, info: RequestInfo) -> None:
        if role_bindings.allow_reason(self._store, user, info) is None:
            raise role_bindings.forbidden(user, info)

    def _review(self, request: ServerRequest, info: RequestInfo, user: UserInfo, kind: str) -> ServerResponse:
        if info.version != "v1" or info.name or info.namespace:
            raise status_errors.unknown_resource()
        if info.verb != "create":
            raise status_errors.not_allowed()
        review = _review_object(request, {"kind": kind, "apiVersion": f"{info.group}/v1"})
        match kind:
            case "TokenReview":
                return ServerResponse(201, self._reviews.token_review(review))
            case "SelfSubjectAccessReview":
                return ServerResponse(201, self._reviews.access_review(review, user))
            case _:
                return ServerResponse(201, self._reviews.access_review(review))

    def _subresource(self, request: ServerRequest, info: RequestInfo) -> ServerResponse:
        match info.full_resource, info.verb:
            case "serviceaccounts/token", "create":
                wanted = _review_object(request, {"kind": "TokenRequest", "apiVersion": f"{AUTHENTICATION}/v1"})
                return ServerResponse(201, self._reviews.token_request(info.namespace, info.name, wanted))
            case "pods/status", "patch":
                return ServerResponse(
                    200, self._resources.patch_status(info.namespace, info.name, _json(request, "Pod"))
                )
            case "serviceaccounts/token" | "pods/status", _:
                raise status_errors.not_allowed()
            case _:
                raise status_errors.unknown_resource()

    def _resource(self, request: ServerRequest, info: RequestInfo, resource: Resource) -> ServerResponse:
        namespace = info.namespace if resource.namespaced else ""
        match info.verb:
            case "list":
                return ServerResponse(200, self._resources.list(resource, namespace, request.query))
            case "watch":
                return ServerResponse(200, stream=self._resources.watch(resource, namespace, request.query))
            case _ if resource.namespaced and not namespace:
                raise status_errors.not_allowed()
            case "get":
                return ServerResponse(200, self._store.require(resource.name, namespace, info.name, resource.group))
            case "create" if not info.name:
                wanted = _object(request, resource.type_meta)
                return ServerResponse(201, self._resources.create(resource, namespace, wanted))
            case "delete":
                options = _json(request, "DeleteOptions") if request.body else {}
                if "gracePeriodSeconds" in request.query:
                    options["gracePeriodSeconds"] = int(request.query["gracePeriodSeconds"])
                return ServerResponse(200, self._resources.delete(resource, namespace, info.name, options))
            case _:
                raise status_errors.not_allowed()

    def _document_at(self, method: str, path: str) -> ServerResponse:
        if (content := self._document(path.rstrip("/"))) is None:
            return ServerResponse(404, b"404 page not found\n", TEXT)
        if method != "GET":
            raise status_errors.not_allowed()
        return content

    def _document(self, path: str) -> ServerResponse | None:
        match path:
            case "/version":
                major, minor = self._version
                fields = {"major": str(major), "minor": str(minor), "gitVersion": f"v{major}.{minor}.0"}
                if self._version >= EMULATION_SINCE:
                    fields |= {"emulationMajor": str(major), "emulationMinor": str(minor)}
                    fields |= {"minCompatibilityMajor": str(major), "minCompatibilityMinor": str(minor - 1)}
                return ServerResponse(200, fields | VERSION)
            case "/readyz" | "/livez" | "/healthz":
                return ServerResponse(200, b"ok", TEXT)
            case "/openid/v1/jwks":
                keys = {"keys": [tokens.jwk(self._authenticator.key.public_key())]}
                return ServerResponse(200, keys, "application/jwk-set+json")
            case "/.well-known/openid-configuration":
                return ServerResponse(200, self._discovery())
            case _:
                return None

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self._authenticator.issuer,
            "jwks_uri": f"{self._url()}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


def _json(request: ServerRequest, kind: str) -> dict[str, Any]:
    problem = f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind"
    try:
        content = json.loads(request.body)
    except ValueError as error:
        raise status_errors.bad_request(f"{problem}; json parse error: {error}") from error
    if not isinstance(content, dict):
        raise status_errors.bad_request(f"{problem}; json parse error: json: cannot unmarshal")
    return content


def _object(request: ServerRequest, type_meta: Mapping[str, str]) -> dict[str, Any]:
    """Return the object in a request's body, which may leave its kind out.

    Raises a 400 `StatusError` for an object of another kind.
    """
    kind = type_meta["kind"]
    content = {**type_meta, **_json(request, kind)}
    if content["kind"] != kind:
        package = type_meta["apiVersion"].rpartition("/")[0].partition(".")[0] or "core"
        given = content["apiVersion"].rpartition("/")[2]
        raise status_errors.bad_request(
            f'{content["kind"]} in version "{content["apiVersion"]}" cannot be handled as a {kind}:'
            f" converting ({given}.{content['kind']}) to ({package}.{kind}): unknown conversion"
        )
    return content


def _review_object(request: ServerRequest, type_meta: Mapping[str, str]) -> dict[str, Any]:
    """Return the review or TokenRequest in a request's body, whose spec may be missing.

    Raises a 400 `StatusError` for a field of the wrong type.
    """
    kind = type_meta["kind"]
    content = {"spec": {}, **_object(request, type_meta)}
    spec = content["spec"]
    if not isinstance(spec, dict) or not all(
        isinstance(spec.get(name), SPEC_TYPES[name] | None) for name in SPEC_TYPES
    ):
        raise status_errors.bad_request(f'{kind} in version "v1" cannot be handled as a {kind}: spec')
    return content
