"""What both middlewares do alike: from a request's facts to a question, and from a refusal to its answer."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence

from podproof.address import canonical, find_peer
from podproof.authenticator import Authenticator
from podproof.bearer import bearer_token
from podproof.errors import ConfigurationError, PodAuthError, Unavailable
from podproof.options import GivenOptions, Options
from podproof.paths import ExemptPaths
from podproof.problem import Answer, answer
from podproof.startup import authenticator_for

log = logging.getLogger("podproof")

# W3C Trace Context section 3.2: version, trace-id, parent-id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class Given(GivenOptions, total=False):
    """What a middleware takes: options, or an authenticator that has them already."""

    authenticator: Authenticator


class Gate:
    """An app's front door."""

    def __init__(
        self,
        given: Given,
        *,
        environ: Mapping[str, str] = os.environ,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        authenticator = given.get("authenticator")
        if authenticator is not None and len(given) > 1:
            raise ConfigurationError("an authenticator was given, and options beside it; it has options of its own")
        self.authenticator = authenticator or authenticator_for(Options.read(given, environ))
        self._options = self.authenticator.options
        self._exempt = ExemptPaths(self._options.exempt)
        self._new_id = new_id

    @property
    def keep_authorization(self) -> bool:
        """Whether the Authorization header stays on the request."""
        return self._options.keep_authorization

    def question(
        self,
        *,
        path: str,
        raw_path: str | None,
        authorization: Sequence[str],
        remote: str | None,
        x_forwarded_for: Sequence[str],
        forwarded: Sequence[str],
        rewritten: bool,
    ) -> tuple[str, str | None] | None:
        """Return the token and the peer's address to be judged, or None for a request that is open to all.

        Raises NoCredential, MalformedCredential or NoPeer.
        """
        if self._exempt and self._exempt.open(path, raw_path):
            return None
        if not authorization and self._options.optional:
            return None
        token = bearer_token(authorization)
        if self._options.source_address == "off":
            return token, None
        peer = find_peer(
            remote,
            self._options.trusted_proxies,
            x_forwarded_for=x_forwarded_for,
            forwarded=forwarded,
            rewritten=rewritten,
        )
        return token, peer

    def refuse(
        self, refusal: PodAuthError, *, method: str, path: str, remote: str | None, traceparent: str | None
    ) -> Answer:
        """Log a refusal with its reason, and return the answer, which does not have it."""
        trace = _TRACEPARENT.fullmatch(traceparent or "")
        request_id = trace[1] if trace else self._new_id()
        log.log(
            logging.ERROR if isinstance(refusal, Unavailable) else logging.WARNING,
            "refused with %d %s: %s [service_account=%s pod=%s peer=%s request=%s %s request_id=%s]",
            refusal.status,
            refusal.code,
            refusal.reason,
            refusal.service_account or "-",
            refusal.pod or "-",
            canonical(remote or "") or "-",  # as parsed: a server may have taken it from a header
            ascii(method)[1:-1],
            ascii(path),
            request_id,
            extra={"code": refusal.code, "status": refusal.status, "request_id": request_id},
        )
        return answer(refusal, realm=self._options.audience[0], request_id=request_id)
