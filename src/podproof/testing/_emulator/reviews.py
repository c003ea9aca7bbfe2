"""TokenReview, TokenRequest and the access reviews, of which nothing is stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import role_bindings, status_errors, timestamps
from podproof.testing._emulator.request_info import RequestInfo
from podproof.testing._emulator.users import UserInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podproof.testing._emulator.object_store import ObjectStore
    from podproof.testing._emulator.token_authenticator import TokenAuthenticator

AUTHENTICATION = "authentication.k8s.io"
AUTHORIZATION = "authorization.k8s.io"
SHORTEST, LONGEST = 600, 1 << 32
"""Seconds a requested token may live."""
METADATA_SINCE = (1, 21)
NO_NULL_TIMES_SINCE = (1, 34)
"""kubernetes#130989: a creationTimestamp that is not set is left out, where it was null before."""
UID_SINCE = (1, 34)
"""The gate TokenRequestServiceAccountUIDValidation: a TokenRequest comes back with the service account's UID."""
JSON_VALUES_SINCE = (1, 34)
"""From here on a validation error shows the value that it is about as JSON, where it was Go's `%#v` before."""


class Reviews:
    """The reviews of one emulated cluster. Methods raise `StatusError` for what the API server refuses."""

    def __init__(self, store: ObjectStore, authenticator: TokenAuthenticator, version: tuple[int, int]) -> None:
        self._store = store
        self._authenticator = authenticator
        self._version = version

    def _metadata(self) -> dict[str, Any]:
        return {} if self._version >= NO_NULL_TIMES_SINCE else {"creationTimestamp": None}

    def token_review(self, review: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reviewed TokenReview. Audiences default to the API server's own."""
        spec = review["spec"]
        if not spec.get("token"):
            raise status_errors.bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or self._authenticator.api_audiences)
        result = self._authenticator.authenticate_header(f"Bearer {spec['token']}", audiences)
        status: dict[str, Any] = {"user": {}}
        if result.user is None:
            status["error"] = result.error
        else:
            status = {
                "authenticated": True,
                "user": result.user.json(),
                "audiences": list(result.audiences),
            }
        return {**review, "metadata": self._metadata(), "status": status}

    def token_request(self, namespace: str, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a TokenRequest with a new token of a service account, bound to a pod if it names one."""
        account = self._store.require("serviceaccounts", namespace, name)
        spec = {"expirationSeconds": 3600, "boundObjectRef": None, **request["spec"]}
        spec["audiences"] = list(spec.get("audiences") or self._authenticator.api_audiences)
        lifetime = spec["expirationSeconds"]
        if not SHORTEST <= lifetime <= LONGEST:
            limit = "less than 10 minutes" if lifetime < SHORTEST else "larger than 2^32 seconds"
            message = f"Invalid value: {lifetime}: may not specify a duration {limit}"
            raise status_errors.invalid("TokenRequest", AUTHENTICATION, "spec.expirationSeconds", message)
        bound = spec["boundObjectRef"]
        pod = None if bound is None else self._pod_to_bind(namespace, name, bound)
        claims = self._authenticator.claims(account, pod, spec["audiences"], lifetime)
        status = {
            "token": self._authenticator.sign(claims),
            "expirationTimestamp": timestamps.text(claims["exp"]),
        }
        metadata = self._metadata()
        if self._version >= METADATA_SINCE:
            now = timestamps.text(self._authenticator.clock())
            metadata = {"name": name, "namespace": namespace, "creationTimestamp": now}
        if self._version >= UID_SINCE:
            metadata["uid"] = account["metadata"]["uid"]
        return {**request, "metadata": metadata, "spec": spec, "status": status}

    def _pod_to_bind(self, namespace: str, account: str, bound: Mapping[str, str]) -> Mapping[str, Any]:
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod"):
            group, _, version = bound.get("apiVersion", "").rpartition("/")
            raise status_errors.bad_request(
                f"cannot bind token to object of type {group}/{version}, Kind={bound.get('kind', '')}"
            )
        name = bound.get("name", "")
        pod = self._store.require("pods", namespace, name)
        if pod["spec"]["serviceAccountName"] != account:
            raise status_errors.bad_request(
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            )
        wanted = bound.get("uid")
        if wanted and wanted != pod["metadata"]["uid"]:
            reason = (
                f"the UID in the bound object reference ({wanted}) does not match the UID in record."
                " The object might have been deleted and then recreated"
            )
            raise status_errors.conflict("Pod", name, reason)
        return pod

    def access_review(self, review: Mapping[str, Any], user: UserInfo | None = None) -> dict[str, Any]:
        """Return the reviewed access review of a user, by default of the one that it names."""
        spec = review["spec"]
        info = self._request_info(spec)
        if user is None:
            user = UserInfo(spec.get("user", ""), groups=tuple(spec.get("groups", ())))
            if not (user.name or user.groups):
                message = 'Invalid value: "": at least one of user or group must be specified'
                raise status_errors.invalid("", AUTHORIZATION, "spec.user", message)
        reason = role_bindings.allow_reason(self._store, user, info)
        status: dict[str, Any] = {"allowed": reason is not None}
        if reason:
            status["reason"] = reason
        return {**review, "metadata": self._metadata(), "status": status}

    def _request_info(self, spec: Mapping[str, Any]) -> RequestInfo:
        resource, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        as_json = self._version >= JSON_VALUES_SINCE
        if resource is not None and url is not None:
            written = json.dumps({"Path": url.get("path", ""), "Verb": url.get("verb", "")}, separators=(",", ":"))
            if not as_json:
                written = (
                    f'authorization.NonResourceAttributes{{Path:"{url.get("path", "")}", Verb:"{url.get("verb", "")}"}}'
                )
            message = f"Invalid value: {written}: cannot be specified in combination with resourceAttributes"
            raise status_errors.invalid("", AUTHORIZATION, "spec.nonResourceAttributes", message)
        if url is not None:
            return RequestInfo(url.get("verb", ""), url.get("path", ""))
        if resource is None:
            written = "null" if as_json else '"null"'
            problem = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            message = f"Invalid value: {written}: {problem}"
            raise status_errors.invalid("", AUTHORIZATION, "spec.resourceAttributes", message)
        fields = ("group", "version", "namespace", "resource", "subresource", "name")
        return RequestInfo(resource.get("verb", ""), "", **{field: resource.get(field, "") for field in fields})
