"""Callers of this test process that no pipeline checks: each request with the credential of one is allowed."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import replace
from uuid import NAMESPACE_URL, uuid5

from podproof._authentication.cached_identity import CachedIdentity
from podproof._request.flow import Allowed, Flow
from podproof._request.incoming import IncomingRequest
from podproof._request.pipeline import RequestPipeline
from podproof.identity import Pod, PodIdentity, ServiceAccount
from podproof.testing._emulator.objects import EmulatedPod

_LIFETIME_SECONDS = 3600

_callers: dict[tuple[str, ...], PodIdentity] = {}
"""By the Authorization headers of their requests."""

_decide = RequestPipeline.decide


def force_caller(identity: PodIdentity) -> str:
    """Return a token that each pipeline of this process takes for this caller's from now on, without any check.

    A pipeline that the app makes has no part in this: it is the class that is told, and in test processes alone.
    """
    token = f"forced-{secrets.token_hex(16)}"
    _callers[f"Bearer {token}",] = identity
    RequestPipeline.decide = _decide_or_allow  # type: ignore[assignment, method-assign]
    return token


def identity_of(pod: str | EmulatedPod | PodIdentity) -> PodIdentity:
    """Return the identity of a pod; without an audience, which is each app's own, unless it is one already.

    `namespace/name` is the pod of this name, the same at each call, with a service account of its name.
    """
    if isinstance(pod, PodIdentity):
        return pod
    if isinstance(pod, EmulatedPod):
        account, seen = pod.service_account, Pod(pod.namespace, pod.name, pod.uid, pod.addresses)
    else:
        namespace, _, account = pod.partition("/")
        seen = Pod(namespace, account, str(uuid5(NAMESPACE_URL, pod)))
    expires_at = time.time() + _LIFETIME_SECONDS
    return PodIdentity(ServiceAccount(seen.namespace, account), seen, "", expires_at)


def _decide_or_allow(
    pipeline: RequestPipeline, request: IncomingRequest, key: bytes | None = None, known: CachedIdentity | None = None
) -> Flow:
    identity = _callers.get(tuple(request.authorization))
    if identity is None:
        return (yield from _decide(pipeline, request, key, known))
    identity = replace(identity, audience=identity.audience or pipeline.options.audience[0])
    caller = CachedIdentity(identity, identity.identity, identity.scopes, (None,), math.inf, math.inf, math.inf)
    return Allowed(caller, request.remote, pipeline)
