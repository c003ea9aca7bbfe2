"""From the arguments of an `IssuedTokenMiddleware` to its pipeline."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Literal, Required, TypedDict, get_type_hints

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.json_url import JSONURL
from podproof._authentication.key_set import KeySet
from podproof._authentication.key_source import FileKeys, KeySource, URLKeys
from podproof._authorization.path_pattern import is_path_pattern
from podproof._request.paths import PathPatterns
from podproof._request.pipeline import RequestPipeline, StatusCheck
from podproof._request.setup import build_authorize, new_request_id
from podproof._token.token_file import TokenFile, default_path
from podproof.errors import ConfigurationError
from podproof.exchange.discovered_keys import DiscoveredKeys
from podproof.exchange.dpop import DPoPVerifier
from podproof.exchange.issued_token_verifier import ClaimedPods, IssuedTokenVerifier
from podproof.exchange.nonces import Nonces
from podproof.exchange.possession import Possession
from podproof.exchange.target_uri import normal_uri
from podproof.options import OptionArguments, Options, signature

_FIXED: Mapping[str, Any] = {
    "verify": "review",
    "jwks": None,
    "pods": None,
    "watch_namespaces": (),
    "watch_labels": None,
    "watch_fields": None,
    "source_address": "off",
    "host_network": True,
    "trusted_proxies": (),
    "max_staleness": 120.0,
    "max_outage": None,
    "other_credentials": "refuse",
}
"""Options that have no part in checking an issued token: about the API server, a pod's address, other credentials."""

_MEANINGLESS = frozenset({*_FIXED, "issuers", "authenticator"})


class IssuedTokenOptions(TypedDict, total=False):
    """What an `IssuedTokenMiddleware` takes besides the options of a `PodAuthMiddleware`.

    `issuer`: the exchange, as in its tokens. `jwks`: its keys, as an https URL or a mounted file, by default found by
    its discovery document. `ca_file`: the certificate authorities that are trusted there, by default the system's.
    `dpop`: whether a token has to be bound to a key, which its sender proves to have. `nonce`: whether a proof has to
    have a nonce of ours. `origins`: the origins that callers know this app by, such as `https://ledger.example`, by
    default the scheme and Host header of each request.

    `introspect`: on which requests the exchange is asked whether the token is still active: all (True), or those for
    these paths, exact or as "prefix/*". `introspection_endpoint`: where it is asked, by default "/introspect" below the
    issuer. `token_file`: the file of this pod's own token for the exchange, by default as for `TokenClient(exchange=)`.
    """

    issuer: Required[str]
    jwks: str | None
    ca_file: str | os.PathLike[str] | None
    dpop: Literal["required", "optional"]
    nonce: bool
    origins: Sequence[str]
    introspect: bool | Sequence[str]
    introspection_endpoint: str | None
    token_file: str | os.PathLike[str] | None


_DEFAULTS: Mapping[str, object] = {
    "issuer": Parameter.empty,
    "jwks": None,
    "ca_file": None,
    "dpop": "required",
    "nonce": False,
    "origins": (),
    "introspect": False,
    "introspection_endpoint": None,
    "token_file": None,
}
"""What an option of `IssuedTokenOptions` is if it is not given."""


class IssuedTokenArguments(IssuedTokenOptions, OptionArguments, total=False):
    """All that an `IssuedTokenMiddleware` takes."""


def build_issued_pipeline(given: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ) -> RequestPipeline:
    """Return the pipeline of an `IssuedTokenMiddleware`. Raises ConfigurationError."""
    common = {name: value for name, value in given.items() if name not in _DEFAULTS}
    own = {name: given.get(name, default) for name, default in _DEFAULTS.items()}
    if meaningless := sorted({*common} & _MEANINGLESS):
        raise ConfigurationError(f"{meaningless[0]} has no meaning for issued tokens")
    issuer, dpop = own["issuer"], own["dpop"]
    if not isinstance(issuer, str) or not issuer:
        raise ConfigurationError('no issuer was given: name the exchange, as issuer="https://bridge"')
    options = Options.read({**common, **_FIXED, "issuers": (issuer,)}, environ)
    if dpop not in ("required", "optional"):
        raise ConfigurationError(f'invalid dpop {dpop!r:.80}: expected "required" or "optional"')
    verifier = IssuedTokenVerifier(issuer, KeySet(_key_source(own, issuer)), options.audience)
    # Verifying costs a signature check and asks nobody, so rejected tokens need not be limited.
    authenticator = Authenticator(options, verifier, ClaimedPods(), max_rejections=sys.maxsize)
    possession = Possession(
        DPoPVerifier(nonces=Nonces() if own["nonce"] else None),
        required=dpop == "required",
        origins=[_origin(one) for one in own["origins"]],
    )
    return RequestPipeline(
        options,
        authenticator,
        build_authorize(options, authenticator),
        monotonic=authenticator.monotonic,
        new_id=new_request_id,
        proof=possession,
        status=_build_introspection(own, issuer, authenticator),
    )


def issued_signature() -> Signature:
    """Return the signature of an `IssuedTokenMiddleware`, for `help()` and editors."""
    common = [one for one in signature().parameters.values() if one.name not in _MEANINGLESS]
    hints = get_type_hints(IssuedTokenOptions)
    own = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=hints[name], default=default)
        for name, default in _DEFAULTS.items()
    ]
    return Signature([common[0], *own, *common[1:]])


def _build_introspection(own: Mapping[str, Any], issuer: str, authenticator: Authenticator) -> StatusCheck | None:
    introspect = own["introspect"]
    if introspect is False:
        return None
    # Here and not above: only where it is used.
    from podproof.exchange.introspection import Introspection  # noqa: PLC0415

    url = own["introspection_endpoint"] or f"{issuer.rstrip('/')}/introspect"
    return Introspection(
        JSONURL(url, "the introspection endpoint", ca_file=own["ca_file"]),
        TokenFile(own["token_file"] or os.environ.get("PODPROOF_TOKEN_FILE") or default_path(None)),
        None if introspect is True else PathPatterns(_patterns(introspect)),
        authenticator.threads,
    )


def _patterns(introspect: object) -> Sequence[str]:
    given = introspect if isinstance(introspect, Sequence) and not isinstance(introspect, str) else ()
    if not given or not all(isinstance(one, str) and is_path_pattern(one) for one in given):
        raise ConfigurationError(
            f'invalid introspect {introspect!r:.80}: expected True, or paths as ["/transfers/*", "/account"]'
        )
    return given


def _key_source(own: Mapping[str, Any], issuer: str) -> KeySource:
    jwks, ca_file = own["jwks"], own["ca_file"]
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
