"""Whose token it is: the API server's own authenticators, with the cache of what they accepted."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing import timestamps, tokens
from podproof.testing.rbac import ANONYMOUS, User, service_account_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from podproof.testing.store import Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
LEEWAY = 60
"""Seconds by which a token, its service account or its pod may be past their end (go-jose's DefaultLeeway)."""
CACHE = 10
"""Seconds for which an accepted token is not looked at again (--authentication-token-cache-ttl's default)."""
NODE_CLAIMS_SINCE = (1, 30)
"""KEP-4193: from here on tokens carry a `jti` and the pod's node."""
INVALID = "invalid bearer token"
WORDS_SINCE = (1, 21)
"""The reasons of a refusal were worded anew after 1.20."""
KEYS_BY_ID_SINCE = (1, 32)
"""KEP-740: from here on a token is verified with the key that its `kid` names, where it names one."""

_OLD_WORDS = {
    "signature": "square/go-jose: error in cryptographic primitive",
    "odd": "Token could not be validated.",
    "early": "Token could not be validated.",
    "expired": "Token has expired",
    "invalidated": "Token has been invalidated",
    "account": "ServiceAccount UID ({live}) does not match claim ({claimed})",
    "pod": "Pod UID ({live}) does not match claim ({claimed})",
}
_WORDS = {
    "signature": "go-jose/go-jose: error in cryptographic primitive",
    "odd": "service account token claims could not be validated due to unexpected validation error",
    "early": "service account token is not valid yet",
    "expired": "service account token has expired",
    "invalidated": "service account token has been invalidated",
    "account": "service account UID ({live}) does not match claim ({claimed})",
    "pod": "pod UID ({live}) does not match service account pod ref claim ({claimed})",
}


class TokenReviewFailed(Exception):
    """A token that is recognized and refused; the text is the API server's."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a token: the user and the audiences it is good for, or an error, or neither."""

    user: User | None = None
    audiences: tuple[str, ...] = ()
    error: str = ""


def go_list(items: Sequence[str]) -> str:
    """Write strings as Go's `%q` does."""
    return "[" + " ".join(json.dumps(item, ensure_ascii=False) for item in items) + "]"


def _uid(thing: Mapping[str, Any]) -> str:
    uid: str = thing["metadata"]["uid"]
    return uid


class Authentication:
    """The token authenticators of one emulated cluster, which look in the store for what a token is bound to."""

    def __init__(self, store: Store, clock: Callable[[], float], version: tuple[int, int]) -> None:
        self._store = store
        self.clock = clock
        self._version = version
        self._words = _WORDS if version >= WORDS_SINCE else _OLD_WORDS
        self._accepted: dict[tuple[str, tuple[str, ...]], tuple[float, Decision]] = {}
        self.key = tokens.signing_key()
        self._key_id = tokens.key_id(self.key.public_key())
        self.issuer = ISSUER
        self.api_audiences: tuple[str, ...] = (ISSUER,)
        self.static: dict[str, User] = {}

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

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Sign claims with the cluster's key."""
        return tokens.sign(claims, self.key)

    def header(self, value: str | None, audiences: tuple[str, ...]) -> Decision:
        """Judge the value of an Authorization header, the way the API server takes it apart.

        It splits at blanks, so what follows a second one is not seen; and when there are two in a row there is no
        token at all, which makes the caller anonymous rather than refused.
        """
        parts = (value or "").strip().split(" ")
        if len(parts) < 2 or parts[0].lower() != "bearer" or not parts[1]:
            return Decision(ANONYMOUS, audiences)
        return self._cached(parts[1], audiences)

    def _cached(self, token: str, audiences: tuple[str, ...]) -> Decision:
        now = self.clock()
        known = self._accepted.get((token, audiences))
        if known is not None and now < known[0]:
            return known[1]
        try:
            verdict = self._judge(token, audiences)
        except TokenReviewFailed as error:
            return Decision(error=f"[{INVALID}, {error}]")
        if verdict.user is not None:
            self._accepted[token, audiences] = (now + CACHE, verdict)
        return verdict

    def _judge(self, token: str, audiences: tuple[str, ...]) -> Decision:
        if (static := self.static.get(token)) is not None:
            shared = tuple(audience for audience in self.api_audiences if audience in audiences)
            return Decision(static, shared) if shared else Decision(error=INVALID)
        if tokens.issuer(token) != self.issuer:
            return Decision(error=INVALID)
        try:
            parsed = tokens.parse(token)
        except ValueError:
            return Decision(error=INVALID)
        if self._version >= KEYS_BY_ID_SINCE and parsed.header.get("kid") not in {None, "", self._key_id}:
            raise TokenReviewFailed("invalid signature, no keys found")
        if not parsed.is_signed_by(self.key.public_key()):
            raise TokenReviewFailed(self._words["signature"])
        claims = parsed.claims
        for_whom = claims.get("aud") or self.api_audiences
        known = [for_whom] if isinstance(for_whom, str) else list(for_whom)
        shared = tuple(audience for audience in audiences if audience in known)
        if not shared:
            raise TokenReviewFailed(
                f"token audiences {go_list(known)} is invalid for the target audiences {go_list(audiences)}"
            )
        try:
            return Decision(self._user(claims), shared)
        except (KeyError, TypeError) as error:
            raise TokenReviewFailed(self._words["odd"]) from error

    def _user(self, claims: Mapping[str, Any]) -> User:
        now = self.clock()
        if now + LEEWAY < claims["nbf"]:
            raise TokenReviewFailed(self._words["early"])
        if now - LEEWAY > claims["exp"]:
            raise TokenReviewFailed(self._words["expired"])
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        live = self._store.get("serviceaccounts", namespace, account["name"])
        if live is None:
            raise TokenReviewFailed(f'serviceaccounts "{account["name"]}" not found')
        if _uid(live) != account["uid"]:
            raise TokenReviewFailed(self._words["account"].format(live=_uid(live), claimed=account["uid"]))
        if (pod := private.get("pod")) is not None:
            self._check_pod(namespace, pod, now)
        return User(
            claims["sub"],
            account["uid"],
            service_account_groups(namespace),
            _extra(claims),
        )

    def _check_pod(self, namespace: str, claimed: Mapping[str, str], now: float) -> None:
        live = self._store.get("pods", namespace, claimed["name"])
        if live is None or _is_long_gone(live, now):
            raise TokenReviewFailed(self._words["invalidated"])
        if _uid(live) != claimed["uid"]:
            raise TokenReviewFailed(self._words["pod"].format(live=_uid(live), claimed=claimed["uid"]))


def _is_long_gone(pod: Mapping[str, Any], now: float) -> bool:
    gone = pod["metadata"].get("deletionTimestamp")
    return gone is not None and timestamps.seconds(gone) < now - LEEWAY


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
