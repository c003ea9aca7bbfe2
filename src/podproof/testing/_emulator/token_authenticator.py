"""The authentication of tokens: the API server's own authenticators, and its cache of authenticated tokens."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import timestamps, tokens
from podproof.testing._emulator.users import ANONYMOUS, UserInfo, service_account_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podproof.testing._emulator.object_store import ObjectStore

ISSUER = "https://kubernetes.default.svc.cluster.local"
LEEWAY = 60
"""Seconds by which a token, its service account or its pod may be past their end (go-jose's DefaultLeeway)."""
CACHE = 10
"""Seconds for which the authentication of a token is cached (the API server's own default)."""
NODE_CLAIMS_SINCE = (1, 30)
"""KEP-4193: from here on tokens carry a `jti` and the pod's node."""
INVALID = "invalid bearer token"
MESSAGES_SINCE = (1, 21)
"""The messages of rejected tokens changed after 1.20."""
KEYS_BY_ID_SINCE = (1, 32)
"""KEP-740: from here on a token is verified with the key that its `kid` names, where it names one."""

_OLD_MESSAGES = {
    "signature": "square/go-jose: error in cryptographic primitive",
    "odd": "Token could not be validated.",
    "early": "Token could not be validated.",
    "expired": "Token has expired",
    "invalidated": "Token has been invalidated",
    "account": "ServiceAccount UID ({live}) does not match claim ({claimed})",
    "pod": "Pod UID ({live}) does not match claim ({claimed})",
}
_MESSAGES = {
    "signature": "go-jose/go-jose: error in cryptographic primitive",
    "odd": "service account token claims could not be validated due to unexpected validation error",
    "early": "service account token is not valid yet",
    "expired": "service account token has expired",
    "invalidated": "service account token has been invalidated",
    "account": "service account UID ({live}) does not match claim ({claimed})",
    "pod": "pod UID ({live}) does not match service account pod ref claim ({claimed})",
}


class TokenRejected(Exception):
    """A token that an authenticator recognizes and rejects; the text is the API server's."""


@dataclass(frozen=True, slots=True)
class TokenReviewStatus:
    """The status of a TokenReview: a user and audiences if the token is authenticated, else an error."""

    user: UserInfo | None = None
    audiences: tuple[str, ...] = ()
    error: str = ""


def go_list(items: Sequence[str]) -> str:
    """Return strings in the form of Go's `%q`."""
    return "[" + " ".join(json.dumps(item, ensure_ascii=False) for item in items) + "]"


def _uid(thing: Mapping[str, Any]) -> str:
    uid: str = thing["metadata"]["uid"]
    return uid


class TokenAuthenticator:
    """The token authenticators of one emulated cluster. They look up in the store what a token is bound to."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float], version: tuple[int, int]) -> None:
        self._store = store
        self.clock = clock
        self._version = version
        self._messages = _MESSAGES if version >= MESSAGES_SINCE else _OLD_MESSAGES
        self._cache: dict[tuple[str, tuple[str, ...]], tuple[float, TokenReviewStatus]] = {}
        self.key = tokens.signing_key()
        self._key_id = tokens.key_id(self.key.public_key())
        self.issuer = ISSUER
        self.api_audiences: tuple[str, ...] = (ISSUER,)
        self.static: dict[str, UserInfo] = {}

    def claims(
        self,
        account: Mapping[str, Any],
        pod: Mapping[str, Any] | None,
        audiences: Sequence[str],
        lifetime: float,
    ) -> dict[str, Any]:
        """Return the claims of a new token for a service account, bound to a pod or to nothing."""
        now = int(self.clock())
        namespace, name = account["metadata"]["namespace"], account["metadata"]["name"]
        private: dict[str, Any] = {"namespace": namespace}
        claims: dict[str, Any] = {
            "aud": list(audiences),
            "exp": now + int(lifetime),
            "iat": now,
            "iss": self.issuer,
        }
        if self._version >= NODE_CLAIMS_SINCE:
            claims["jti"] = str(uuid.uuid4())
        if pod is not None:
            node_name = pod["spec"].get("nodeName", "")
            if self._version >= NODE_CLAIMS_SINCE and node_name:
                node = self._store.get("nodes", "", node_name)
                # A node that does not exist is named without a UID.
                private["node"] = {"name": node_name} | ({} if node is None else {"uid": _uid(node)})
            private["pod"] = {"name": pod["metadata"]["name"], "uid": _uid(pod)}
        private["serviceaccount"] = {"name": name, "uid": _uid(account)}
        subject = f"system:serviceaccount:{namespace}:{name}"
        return claims | {"kubernetes.io": private, "nbf": now, "sub": subject}

    def issue(
        self,
        account: Mapping[str, Any],
        pod: Mapping[str, Any] | None,
        audience: str | Sequence[str],
        lifetime: float,
    ) -> str:
        """Return a new token for one audience or several."""
        audiences = [audience] if isinstance(audience, str) else audience
        return self.sign(self.claims(account, pod, audiences, lifetime))

    def clear_cache(self) -> None:
        """Forget which tokens were authenticated."""
        self._cache.clear()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return claims as a token signed by the cluster's key."""
        return tokens.sign(claims, self.key)

    def authenticate_header(self, value: str | None, audiences: tuple[str, ...]) -> TokenReviewStatus:
        """Return the status of the token in an Authorization header.

        Like the API server it splits the value at blanks: what follows a second one is ignored, and with two blanks in
        a row there is no token, which makes the request anonymous.
        """
        parts = (value or "").strip().split(" ")
        if len(parts) < 2 or parts[0].lower() != "bearer" or not parts[1]:
            return TokenReviewStatus(ANONYMOUS, audiences)
        return self._review(parts[1], audiences)

    def _review(self, token: str, audiences: tuple[str, ...]) -> TokenReviewStatus:
        now = self.clock()
        cached = self._cache.get((token, audiences))
        if cached is not None and now < cached[0]:
            return cached[1]
        try:
            result = self._verify(token, audiences)
        except TokenRejected as error:
            return TokenReviewStatus(error=f"[{INVALID}, {error}]")
        if result.user is not None:
            self._cache[token, audiences] = (now + CACHE, result)
        return result

    def _verify(self, token: str, audiences: tuple[str, ...]) -> TokenReviewStatus:
        if (static := self.static.get(token)) is not None:
            shared = tuple(audience for audience in self.api_audiences if audience in audiences)
            return TokenReviewStatus(static, shared) if shared else TokenReviewStatus(error=INVALID)
        if tokens.issuer(token) != self.issuer:
            return TokenReviewStatus(error=INVALID)
        try:
            parsed = tokens.parse(token)
        except ValueError:
            return TokenReviewStatus(error=INVALID)
        key_id = parsed.header.get("kid")
        if not isinstance(key_id, str | None):
            return TokenReviewStatus(error=INVALID)
        if self._version >= KEYS_BY_ID_SINCE and key_id not in {None, "", self._key_id}:
            raise TokenRejected("invalid signature, no keys found")
        if not parsed.is_signed_by(self.key.public_key()):
            raise TokenRejected(self._messages["signature"])
        claims = parsed.claims
        audience_claim = claims.get("aud") or self.api_audiences
        claimed = [audience_claim] if isinstance(audience_claim, str) else audience_claim
        if not isinstance(claimed, list | tuple):
            raise TokenRejected(self._messages["odd"])
        shared = tuple(audience for audience in audiences if audience in claimed)
        if not shared:
            raise TokenRejected(
                f"token audiences {go_list(claimed)} is invalid for the target audiences {go_list(audiences)}"
            )
        try:
            return TokenReviewStatus(self._user(claims), shared)
        except (KeyError, TypeError) as error:
            raise TokenRejected(self._messages["odd"]) from error

    def _user(self, claims: Mapping[str, Any]) -> UserInfo:
        now = self.clock()
        if now + LEEWAY < claims["nbf"]:
            raise TokenRejected(self._messages["early"])
        if now - LEEWAY > claims["exp"]:
            raise TokenRejected(self._messages["expired"])
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        live = self._store.get("serviceaccounts", namespace, account["name"])
        if live is None:
            raise TokenRejected(f'serviceaccounts "{account["name"]}" not found')
        if _uid(live) != account["uid"]:
            raise TokenRejected(self._messages["account"].format(live=_uid(live), claimed=account["uid"]))
        if (pod := private.get("pod")) is not None:
            self._check_pod(namespace, pod, now)
        return UserInfo(
            claims["sub"],
            account["uid"],
            service_account_groups(namespace),
            _extra(claims),
        )

    def _check_pod(self, namespace: str, claimed: Mapping[str, str], now: float) -> None:
        live = self._store.get("pods", namespace, claimed["name"])
        if live is None or _was_deleted_long_ago(live, now):
            raise TokenRejected(self._messages["invalidated"])
        if _uid(live) != claimed["uid"]:
            raise TokenRejected(self._messages["pod"].format(live=_uid(live), claimed=claimed["uid"]))


def _was_deleted_long_ago(pod: Mapping[str, Any], now: float) -> bool:
    deleted_at = pod["metadata"].get("deletionTimestamp")
    return deleted_at is not None and timestamps.seconds(deleted_at) < now - LEEWAY


def _extra(claims: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    prefix = "authentication.kubernetes.io/"
    extra: dict[str, tuple[str, ...]] = {}
    if "jti" in claims:
        extra[f"{prefix}credential-id"] = (f"JTI={claims['jti']}",)
    for kind in ("node", "pod"):
        if (bound := claims["kubernetes.io"].get(kind)) is not None:
            extra[f"{prefix}{kind}-name"] = (bound["name"],)
            if "uid" in bound:
                extra[f"{prefix}{kind}-uid"] = (bound["uid"],)
    return extra
