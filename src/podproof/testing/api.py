"""The emulated API server's endpoints: from who asks what to the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podproof.testing import rbac, status, timestamps, tokens
from podproof.testing.server import Answer, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from podproof.testing.authentication import Authentication
    from podproof.testing.rbac import Grant, User
    from podproof.testing.requestinfo import RequestInfo
    from podproof.testing.server import Call
    from podproof.testing.store import Store

AUTHENTICATION = "authentication.k8s.io"


class API:
    """Answers calls from the store, for those whom the grants allow to ask."""

    def __init__(
        self,
        store: Store,
        authentication: Authentication,
        grants: list[Grant],
        clock: Callable[[], float],
        version: tuple[int, int],
    ) -> None:
        self._store = store
        self._authentication = authentication
        self._grants = grants
        self._clock = clock
        self._version = version

    def user(self, call: Call) -> User:
        """Return who is calling. Raises a 401 `Failure` for a credential that is no good."""
        scheme, _, credential = (call.authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer":
            return rbac.ANONYMOUS
        verdict = self._authentication.bearer(credential, self._authentication.api_audiences)
        if verdict.user is None:
            raise status.unauthorized()
        return verdict.user

    def respond(self, call: Call, asked: RequestInfo, user: User) -> Answer:
        """Answer what this user asked. Raises `Failure` for what the API server refuses."""
        if not rbac.allows(self._grants, user, asked):
            raise status.forbidden(user.name, asked)
        if not asked.resource:
            return self._url(asked.path)
        match asked.group, asked.full_resource, asked.verb:
            case "authentication.k8s.io", "tokenreviews", "create":
                return json_answer(201, self._review(_body(call, "TokenReview")))
            case "", "serviceaccounts/token", "create":
                return json_answer(201, self._token(asked, _body(call, "TokenRequest")))
            case "", "pods", "get":
                return json_answer(200, self._store.require("pods", asked.namespace, asked.name))
            case _:
                raise status.unknown_resource()

    def _url(self, path: str) -> Answer:
        match path:
            case "/version" | "/version/":
                major, minor = self._version
                return json_answer(
                    200, {"major": str(major), "minor": str(minor), "gitVersion": f"v{major}.{minor}.0"}
                )
            case "/readyz" | "/livez" | "/healthz":
                return Answer(200, b"ok", headers={"Content-Type": "text/plain; charset=utf-8"})
            case "/openid/v1/jwks":
                keys = {"keys": [tokens.jwk(tokens.signing_key().public_key())]}
                return Answer(
                    200, json.dumps(keys).encode(), headers={"Content-Type": "application/jwk-set+json"}
                )
            case _:
                return Answer(
                    404, b"404 page not found\n", headers={"Content-Type": "text/plain; charset=utf-8"}
                )

    def _review(self, asked: dict[str, Any]) -> dict[str, Any]:
        spec = asked.get("spec", {})
        token = spec.get("token", "")
        if not token:
            raise status.bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or self._authentication.api_audiences)
        verdict = self._authentication.bearer(token, audiences)
        answer: dict[str, Any] = {"user": {}}
        if verdict.user is not None:
            answer = {
                "authenticated": True,
                "user": verdict.user.json(),
                "audiences": list(verdict.audiences),
            }
        if verdict.error:
            answer["error"] = verdict.error
        return asked | {"metadata": {"creationTimestamp": None}, "status": answer}

    def _token(self, asked: RequestInfo, request: dict[str, Any]) -> dict[str, Any]:
        account = self._store.require("serviceaccounts", asked.namespace, asked.name)
        spec = request.get("spec", {})
        pod = None
        if (bound := spec.get("boundObjectRef")) is not None:
            pod = self._store.require("pods", asked.namespace, bound["name"])
        lifetime = spec.get("expirationSeconds", 3600)
        claims = self._authentication.claims(account, pod, spec["audiences"], lifetime)
        answer = {
            "token": self._authentication.sign(claims),
            "expirationTimestamp": timestamps.text(claims["exp"]),
        }
        return request | {"metadata": {"creationTimestamp": None}, "status": answer}


def _body(call: Call, kind: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(call.body)
    return {"kind": kind, "apiVersion": f"{AUTHENTICATION}/v1"} | content
