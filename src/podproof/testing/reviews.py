"""TokenReview, TokenRequest and the access reviews: questions that leave nothing behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from podproof.testing import rbac, status, timestamps
from podproof.testing.requestinfo import RequestInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podproof.testing.authentication import Authentication
    from podproof.testing.rbac import User
    from podproof.testing.store import Store

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
    """The answers of one emulated cluster. Methods raise `Failure` for what the API server refuses."""

    def __init__(self, store: Store, authentication: Authentication, version: tuple[int, int]) -> None:
        self._store = store
        self._authentication = authentication
        self._version = version

    def _metadata(self) -> dict[str, Any]:
        return {} if self._version >= NO_NULL_TIMES_SINCE else {"creationTimestamp": None}

    def token_review(self, review: Mapping[str, Any]) -> dict[str, Any]:
        """Answer whether a token is good for the audiences asked, by default the API server's own."""
        spec = review["spec"]
        if not spec.get("token"):
            raise status.bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or self._authentication.api_audiences)
        verdict = self._authentication.header(f"Bearer {spec['token']}", audiences)
        answer: dict[str, Any] = {"user": {}}
        if verdict.user is None:
            answer["error"] = verdict.error
        else:
            answer = {
                "authenticated": True,
                "user": verdict.user.json(),
                "audiences": list(verdict.audiences),
            }
        return {**review, "metadata": self._metadata(), "status": answer}

    def token_request(self, namespace: str, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Issue a token for a service account, bound to a pod when one is named."""
        account = self._store.require("serviceaccounts", namespace, name)
        spec = {"expirationSeconds": 3600, "boundObjectRef": None, **request["spec"]}
        spec["audiences"] = list(spec.get("audiences") or self._authentication.api_audiences)
        lifetime = spec["expirationSeconds"]
        if not SHORTEST <= lifetime <= LONGEST:
            limit = "less than 10 minutes" if lifetime < SHORTEST else "larger than 2^32 seconds"
            message = f"Invalid value: {lifetime}: may not specify a duration {limit}"
            raise status.invalid("TokenRequest", AUTHENTICATION, "spec.expirationSeconds", message)
        bound = spec["boundObjectRef"]
        pod = None if bound is None else self._pod_to_bind(namespace, name, bound)
        claims = self._authentication.claims(account, pod, spec["audiences"], lifetime)
        answer = {
            "token": self._authentication.sign(claims),
            "expirationTimestamp": timestamps.text(claims["exp"]),
        }
        metadata = self._metadata()
        if self._version >= METADATA_SINCE:
            now = timestamps.text(self._authentication.clock())
            metadata = {"name": name, "namespace": namespace, "creationTimestamp": now}
        if self._version >= UID_SINCE:
            metadata["uid"] = account["metadata"]["uid"]
        return {**request, "metadata": metadata, "spec": spec, "status": answer}

    def _pod_to_bind(self, namespace: str, account: str, bound: Mapping[str, str]) -> Mapping[str, Any]:
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod"):
            group, _, version = bound.get("apiVersion", "").rpartition("/")
            raise status.bad_request(
                f"cannot bind token to object of type {group}/{version}, Kind={bound.get('kind', '')}"
            )
        name = bound.get("name", "")
        pod = self._store.require("pods", namespace, name)
        if pod["spec"]["serviceAccountName"] != account:
            raise status.bad_request(
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            )
        wanted = bound.get("uid")
        if wanted and wanted != pod["metadata"]["uid"]:
            why = (
                f"the UID in the bound object reference ({wanted}) does not match the UID in record."
                " The object might have been deleted and then recreated"
            )
            raise status.conflict("Pod", name, why)
        return pod

    def access_review(self, review: Mapping[str, Any], user: User | None = None) -> dict[str, Any]:
        """Answer whether a user may do something: the one given, or the one that the review names."""
        spec = review["spec"]
        asked = self._asked(spec)
        if user is None:
            user = rbac.User(spec.get("user", ""), groups=tuple(spec.get("groups", ())))
            if not (user.name or user.groups):
                message = 'Invalid value: "": at least one of user or group must be specified'
                raise status.invalid("", AUTHORIZATION, "spec.user", message)
        why = rbac.reason(self._store, user, asked)
        answer: dict[str, Any] = {"allowed": why is not None}
        if why:
            answer["reason"] = why
        return {**review, "metadata": self._metadata(), "status": answer}

    def _asked(self, spec: Mapping[str, Any]) -> RequestInfo:
        resource, url = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        as_json = self._version >= JSON_VALUES_SINCE
        if resource is not None and url is not None:
            written = json.dumps({"Path": url.get("path", ""), "Verb": url.get("verb", "")}, separators=(",", ":"))
            if not as_json:
                written = (
                    f'authorization.NonResourceAttributes{{Path:"{url.get("path", "")}", Verb:"{url.get("verb", "")}"}}'
                )
            message = f"Invalid value: {written}: cannot be specified in combination with resourceAttributes"
            raise status.invalid("", AUTHORIZATION, "spec.nonResourceAttributes", message)
        if url is not None:
            return RequestInfo(url.get("verb", ""), url.get("path", ""))
        if resource is None:
            written = "null" if as_json else '"null"'
            problem = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            message = f"Invalid value: {written}: {problem}"
            raise status.invalid("", AUTHORIZATION, "spec.resourceAttributes", message)
        fields = ("group", "version", "namespace", "resource", "subresource", "name")
        return RequestInfo(resource.get("verb", ""), "", **{field: resource.get(field, "") for field in fields})
