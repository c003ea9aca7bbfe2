"""What both middlewares do alike: from a request's facts to a question, and from what was decided to the books."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from podproof._authentication.authenticator import Authenticator
from podproof._authorization.policy import Decision
from podproof._request.credential import bearer_token
from podproof._request.paths import ExemptPaths, is_unambiguous
from podproof._request.peer import find_peer
from podproof._request.problem import Answer, answer
from podproof._request.setup import build_authenticator, build_policy
from podproof._telemetry import decision_log, metrics, traces
from podproof.errors import ConfigurationError, NotAllowed, PodAuthError
from podproof.identity import PodIdentity
from podproof.options import OptionArguments, Options

F = TypeVar("F")


class MiddlewareOptions(OptionArguments, total=False):
    """What a middleware takes: options, or an authenticator that has them already."""

    authenticator: Authenticator


class RequestPipeline:
    """An app's front door.

    `keep_authorization`: the Authorization header stays on the request. `judges_paths`: paths matter here; where they
    do not, none has to be told.
    """

    def __init__(
        self,
        given: MiddlewareOptions,
        *,
        environ: Mapping[str, str] = os.environ,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        authenticator = given.get("authenticator")
        if authenticator is not None and len(given) > 1:
            raise ConfigurationError("an authenticator was given, and options beside it; it has options of its own")
        self.authenticator = authenticator or build_authenticator(Options.read(given, environ))
        self._options = self.authenticator.options
        self._exempt = ExemptPaths(self._options.exempt) if self._options.exempt else None
        self._policy = build_policy(self._options)
        self._new_id = new_id
        self.keep_authorization = self._options.keep_authorization
        self.judges_paths = self._exempt is not None or self._policy is not None

    def question(
        self,
        *,
        path: str = "",
        raw_path: str | None = None,
        authorization: Sequence[str],
        remote: str | None,
        x_forwarded_for: Sequence[str],
        forwarded: Sequence[str],
        rewritten: bool,
    ) -> tuple[str, str | None] | None:
        """Return the token and the peer's address to be judged, or None for a request that is open to all.

        Raises NoCredential, MalformedCredential or NoPeer.
        """
        if self._exempt is not None and self._exempt.open(path, raw_path):
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

    def permit(
        self, identity: PodIdentity, peer: str | None, *, method: str, path: str = "", raw_path: str | None = None
    ) -> Future[Decision] | None:
        """Return for a known caller who may do this; where somebody has to be asked, return what brings the verdict.

        Raises NotAllowed, or Unavailable.
        """
        if self._policy is None:
            return None
        try:
            if not is_unambiguous(path, raw_path):
                raise NotAllowed("the path is not in the one form that every router reads alike, so nobody is allowed")
            # Some frameworks route "get" as GET.
            return self._policy.check(identity, method.upper(), path)
        except PodAuthError as refusal:
            raise refusal.with_identity(identity, peer) from None

    def conclude(self, verdict: Decision | None, identity: PodIdentity, peer: str | None) -> None:
        """Return where the verdict on a known caller, None if it did not come in time, is that it may.

        Raises NotAllowed, or Unavailable.
        """
        verdict = verdict or self.authenticator.too_late()
        if isinstance(verdict, PodAuthError):
            raise verdict.without_traceback().with_identity(identity, peer)

    def admit(
        self,
        identity: PodIdentity | None,
        peer: str | None,
        request: Callable[[F], decision_log.RequestRecord],
        facts: F,
    ) -> None:
        """Write down that a request was let in; without an identity, to what is open to all.

        `request` makes of the `facts` what is written of it, if anybody reads that.
        """
        if identity is None:
            metrics.allowed_anonymous.inc()
        else:
            metrics.allowed.inc()
            if traces.INSTALLED:
                traces.set_caller_attributes(identity)
        if decision_log.log.isEnabledFor(logging.INFO):
            decision_log.record_allowed(identity, peer, request(facts))

    def refuse(self, refusal: PodAuthError, request: decision_log.RequestRecord) -> Answer:
        """Write down a refusal with its reason, and return the answer, which does not have it."""
        request_id = request.trace_id or self._new_id()
        metrics.decisions.labels("denied", refusal.code).inc()
        decision_log.record_denied(refusal, request, request_id)
        return answer(refusal, realm=self._options.audience[0], request_id=request_id)
