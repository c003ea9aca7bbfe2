"""From the arguments of an `IssuedTokenMiddleware` to its pipeline."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.key_set import KeySet
from podproof._authentication.key_source import FileKeys, KeySource, URLKeys
from podproof._request.pipeline import RequestPipeline
from podproof._request.setup import build_authorize, new_request_id
from podproof.errors import ConfigurationError
from podproof.exchange.discovered_keys import DiscoveredKeys
from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.issued_token_verifier import ClaimedPods, IssuedTokenVerifier
from podproof.exchange.nonces import Nonces
from podproof.exchange.possession import Possession
from podproof.exchange.target_uri import normal_uri
from podproof.options import OptionArguments, Options

_FIXED: Mapping[str, Any] = {
    "issuers": (),
    "verify": "review",
    "jwks": None,
    "pods": None,
    "watch_namespaces": (),
    "source_address": "off",
    "host_network": True,
}
"""Options about the API server and the address of a pod: neither has a part in checking an issued token."""


class IssuedTokenOptions(TypedDict, total=False):
    """What an `IssuedTokenMiddleware` takes besides the options of a `PodAuthMiddleware`.

    `issuer`: the exchange, as in its tokens. `jwks`: its keys, as an https URL or a mounted file, by default found by
    its discovery document. `ca_file`: the certificate authorities that are trusted there, by default the system's.
    `dpop`: whether a token has to be bound to a key, which its sender proves to have. `nonce`: whether a proof has to
    have a nonce of ours. `origins`: the origins that callers know this app by, such as `https://ledger.example`, by
    default the scheme and Host header of each request.
    """

    issuer: str
    jwks: str | None
    ca_file: str | os.PathLike[str] | None
    dpop: Literal["required", "optional"]
    nonce: bool
    origins: Sequence[str]


class IssuedTokenArguments(IssuedTokenOptions, OptionArguments, total=False):
    """All that an `IssuedTokenMiddleware` takes."""


def build_issued_pipeline(given: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ) -> RequestPipeline:
    """Return the pipeline of an `IssuedTokenMiddleware`. Raises ConfigurationError."""
    own = {name: value for name, value in given.items() if name in IssuedTokenOptions.__annotations__}
    common = {name: value for name, value in given.items() if name not in own}
    if meaningless := sorted({*common} & {*_FIXED, "authenticator"}):
        raise ConfigurationError(f"{meaningless[0]} has no meaning for issued tokens")
    options = Options.read({**common, **_FIXED}, environ)
    issuer, dpop = own.get("issuer"), own.get("dpop", "required")
    if not isinstance(issuer, str) or not issuer:
        raise ConfigurationError('no issuer was given: name the exchange, as issuer="https://bridge"')
    if dpop not in ("required", "optional"):
        raise ConfigurationError(f'invalid dpop {dpop!r:.80}: expected "required" or "optional"')
    verifier = IssuedTokenVerifier(issuer, KeySet(_key_source(own, issuer)), options.audience)
    # Verifying costs a signature check and asks nobody, so rejected tokens need not be limited.
    authenticator = Authenticator(options, verifier, ClaimedPods(), max_rejections=sys.maxsize)
    possession = Possession(
        DPoPVerifier(nonces=Nonces() if own.get("nonce") else None),
        required=dpop == "required",
        origins=[_origin(one) for one in own.get("origins", ())],
    )
    return RequestPipeline(
        options,
        authenticator,
        build_authorize(options, authenticator),
        monotonic=authenticator.monotonic,
        new_id=new_request_id,
        proof=possession,
    )


def _key_source(own: Mapping[str, Any], issuer: str) -> KeySource:
    jwks, ca_file = own.get("jwks"), own.get("ca_file")
    if jwks is None:
        return DiscoveredKeys(issuer, ca_file=ca_file)
    return FileKeys(jwks) if jwks.startswith("/") else URLKeys(jwks, ca_file=ca_file)


def _origin(given: str) -> str:
    origin = normal_uri(given)
    if origin is None or not origin.endswith("/") or origin.count("/") > len("://"):
        raise ConfigurationError(
            f"invalid origin {given!r:.80}: expected a scheme and a host, as https://ledger.example"
        )
    return origin.rstrip("/")
