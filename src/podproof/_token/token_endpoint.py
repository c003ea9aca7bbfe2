"""`TokenEndpoint`: trades a pod's token for one of another audience (RFC 8693)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from podproof._token.exchange import Exchange
from podproof.errors import TokenUnavailable

if TYPE_CHECKING:
    from podproof._token.proof_key import ProofKey

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  RFC 8693 section 2.1
JWT = "urn:ietf:params:oauth:token-type:jwt"  # RFC 8693 section 3

RENEWED_AT = 0.6
"""The part of its life after which a token is renewed: one of 5 minutes is then good for another 2."""

MAX_RESPONSE = 65_536
"""The longest response, in bytes."""

_FIXES = {
    "invalid_request": "The exchange does not accept the token file's token: is it for the exchange's own audience?",
    "invalid_dpop_proof": "The exchange does not accept the DPoP proof: are the clocks right, and is this its own URL?",
    "invalid_scope": "No grant of the exchange lets this pod have all these scopes.",
    "invalid_target": "No grant of the exchange lets this pod have a token for this audience.",
    "unauthorized_client": "The exchange does not allow this pod, or no grant lets it have a token for this audience.",
    "temporarily_unavailable": "The exchange cannot identify callers just now: its log says why.",
}
_FIX = "Its log says why, by the request_id of its response."


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, when it is to be renewed, and when it expires, in Unix seconds."""

    text: str = field(repr=False)
    renewed_at: float
    expires_at: float


class TokenEndpoint:
    """The token endpoint of an exchange, for one audience. `clock` returns Unix seconds."""

    def __init__(self, exchange: Exchange, audience: str, *, clock: Callable[[], float] = time.time) -> None:
        self._exchange = exchange
        self._audience = audience
        self._clock = clock

    def trade(self, token: str, key: ProofKey | None, nonces: MutableMapping[str, str]) -> IssuedToken:
        """Return the token that is issued for a pod's own, bound to a key if there is one.

        `nonces` has the last nonce of each origin. Raises TokenUnavailable.
        """
        parts = urlsplit(self._exchange.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": token,
            "subject_token_type": JWT,
            "audience": self._audience,
        }
        if self._exchange.scopes:
            form["scope"] = " ".join(self._exchange.scopes)
        now = self._clock()
        status, nonce, document = self._post(form, key, nonces.get(origin))
        if nonce is not None:
            nonces[origin] = nonce
            if document.get("error") == "use_dpop_nonce":  # RFC 9449 section 8
                status, _, document = self._post(form, key, nonce)
        if status != 200:
            raise self._failure(status, document)
        return self._parse(document, now, bound=key is not None)

    def _post(
        self, form: dict[str, str], key: ProofKey | None, nonce: str | None
    ) -> tuple[int, str | None, dict[str, Any]]:
        """Return the status, the nonce and the JSON of the response, an empty object if it is something else."""
        # Here and not above: httpx users need not load requests before they trade.
        from requests import RequestException, Session  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        url = self._exchange.url
        headers = {"Accept": "application/json"}
        if key is not None:
            headers["DPoP"] = key.prove("POST", url, nonce=nonce)
        try:
            with Session() as session:
                session.trust_env = url.startswith("https:")  # over plain http a proxy would see the token
                response = session.post(
                    url,
                    data=form,
                    headers=headers,
                    auth=lambda request: request,  # else a .netrc adds a password
                    timeout=self._exchange.timeout,
                    allow_redirects=False,  # it might lead anywhere, with the token
                    verify=True if self._exchange.ca_file is None else str(self._exchange.ca_file),
                    stream=True,
                )
                body = response.raw.read(MAX_RESPONSE + 1, decode_content=True)
        except (RequestException, HTTPError, OSError) as error:
            raise TokenUnavailable(
                f"the exchange {url} did not respond as needed: {type(error).__name__}",
                "Is this its URL, is its certificate trusted (ca_file), and may this pod connect to it?",
            ) from None
        try:
            document = json.loads(body) if len(body) <= MAX_RESPONSE else None
        except (ValueError, RecursionError):
            document = None
        return response.status_code, response.headers.get("DPoP-Nonce"), document if isinstance(document, dict) else {}

    def _failure(self, status: int, document: dict[str, Any]) -> TokenUnavailable:
        error = document.get("error")
        known = isinstance(error, str) and len(error) <= 64 and error.isascii() and error.isprintable()
        return TokenUnavailable(
            f"the exchange {self._exchange.url} issued no token for {self._audience}: status {status}"
            + (f", {error}" if known else ""),
            _FIXES.get(error, _FIX) if isinstance(error, str) else _FIX,
        )

    def _parse(self, document: dict[str, Any], now: float, *, bound: bool) -> IssuedToken:
        token, kind, lifetime = (document.get(name) for name in ("access_token", "token_type", "expires_in"))
        expected = "DPoP" if bound else "Bearer"
        if not isinstance(kind, str) or kind.lower() != expected.lower():
            raise TokenUnavailable(
                f"the exchange {self._exchange.url} issued a token that is not of the type {expected}",
                "It does not bind tokens to keys. Exchange(..., dpop=False) takes tokens that whoever steals can use.",
            )
        usable = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token and token
        if not usable or isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime < 1e9:
            raise TokenUnavailable(
                f"the exchange {self._exchange.url} responded without a token and its expires_in",
                "Is this the URL of its token endpoint?",
            )
        return IssuedToken(str(token), now + RENEWED_AT * lifetime, now + lifetime)
