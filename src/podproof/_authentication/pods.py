"""From the pod that a token is bound to, to the live pod."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from podproof._apiserver.protocols import PodReader
from podproof._authentication.pod_address import canonical_address as canonical
from podproof.errors import PodFinished, PodGone, ServiceAccountMismatch, Unavailable
from podproof.identity import Owner, Pod, ServiceAccount, frozen_dict

# Pending: an init container may call. Succeeded and Failed are the end, and another pod may have the address by now.
_LIVE_PHASES = ("Pending", "Running")


class FoundPod(NamedTuple):
    """A live pod, and until when that counts, in monotonic seconds.

    Until `fresh_until` it need not be looked up again; until `stale_until`, not while the API server cannot be asked.
    """

    pod: Pod
    fresh_until: float = math.inf
    stale_until: float = -math.inf


class PodStore(Protocol):
    """Knows the live pods."""

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        """Return a live pod; raise InvalidToken or Unavailable."""

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> FoundPod | None:
        """Return what is known without asking, however old; raise InvalidToken for a pod that is known to be gone."""


class PodLookup:
    """Reads the live pod from the API server, by one GET. `max_outage` is for how long it then counts in an outage."""

    def __init__(
        self, reader: PodReader, *, max_outage: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._max_outage = max_outage
        self._monotonic = monotonic

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> None:
        """Return None: no pod is kept."""

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        """Return the live pod that a service account's token is bound to. `deadline` is in monotonic seconds.

        Raises PodGone, PodFinished, ServiceAccountMismatch, or Unavailable.
        """
        stale_until = self._monotonic() + self._max_outage
        response = self._reader.read_pod(service_account.namespace, name, deadline)
        if response is None:
            raise PodGone(f"there is no pod {service_account.namespace}/{name}")
        return FoundPod(match_pod(read_record(response), service_account, name, uid), stale_until=stale_until)


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What is kept of a Pod (v1): what decides whether it is a token's pod, and its addresses in canonical form.

    What the API server gave as anything but text is None, which equals nothing that a token names. What many pods share
    is one object for all. `owner` is the controller.
    """

    namespace: str | None
    name: str | None
    uid: str | None
    service_account: str | None
    phase: str | None
    addresses: tuple[str, ...]
    node: str | None
    host_network: bool
    node_addresses: tuple[str, ...]
    labels: Mapping[str, str]
    owner: Owner | None

    @property
    def live(self) -> bool:
        """False for a pod that has finished, or whose phase is none of those in which a pod runs."""
        return self.phase in _LIVE_PHASES


def read_record(pod: Mapping[str, Any]) -> PodRecord:
    """Return what is kept of a Pod as the API server returned it. Raises Unavailable if it is not a Pod."""
    metadata, spec, status = (_mapping(pod, key) for key in ("metadata", "spec", "status"))
    host_network = spec.get("hostNetwork")
    name, uid = metadata.get("name"), metadata.get("uid")
    return PodRecord(
        namespace=_shared_text(metadata.get("namespace")),
        name=name if isinstance(name, str) else None,
        uid=uid if isinstance(uid, str) else None,
        service_account=_shared_text(spec.get("serviceAccountName")),
        phase=_shared_text(status.get("phase")),
        addresses=_addresses(status, "podIP"),
        node=_shared_text(spec.get("nodeName")),
        host_network=host_network is not None and host_network is not False,
        node_addresses=_shared_tuple(_addresses(status, "hostIP")),
        labels=_labels(metadata),
        owner=_owner(metadata),
    )


def match_pod(pod: PodRecord, service_account: ServiceAccount, name: str, uid: str) -> Pod:
    """Return the pod that a service account's token is bound to, if this is that one.

    A terminating pod is a legitimate caller: it may take its whole grace period to finish its work.

    Raises PodGone, PodFinished, ServiceAccountMismatch, or Unavailable if this is another pod.
    """
    namespace = service_account.namespace
    if pod.namespace != namespace or pod.name != name:
        raise Unavailable(f"the API server returned another pod than {namespace}/{name}")
    if pod.uid != uid:
        raise PodGone(f"pod {namespace}/{name} was recreated since the token was issued")
    if pod.service_account != service_account.name:
        raise ServiceAccountMismatch(f"pod {namespace}/{name} does not run as {service_account}")
    if not pod.live:
        raise PodFinished(f"pod {namespace}/{name} is in phase {pod.phase!r:.20}")
    return Pod(
        namespace=namespace,
        name=name,
        uid=uid,
        addresses=pod.addresses,
        node=pod.node,
        host_network=pod.host_network,
        node_addresses=pod.node_addresses,
        labels=pod.labels,
        owner=pod.owner,
    )


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise Unavailable(f"the API server's Pod has no {key}")
    return value


def _shared_text(value: object) -> str | None:
    return sys.intern(value) if isinstance(value, str) else None


@lru_cache(maxsize=8192)  # one entry a node: a cluster has at most 5,000 (kubernetes.io/docs/setup/best-practices)
def _shared_tuple(addresses: tuple[str, ...]) -> tuple[str, ...]:
    return addresses


def _labels(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    given = metadata.get("labels")
    pairs = given.items() if isinstance(given, dict) else ()
    return _shared_labels(tuple((sys.intern(key), sys.intern(value)) for key, value in pairs if isinstance(value, str)))


@lru_cache(maxsize=8192)  # the pods of a ReplicaSet have the same
def _shared_labels(pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return frozen_dict(dict(pairs))


def _owner(metadata: Mapping[str, Any]) -> Owner | None:
    """Return the one owner that is the controller (meta/v1 OwnerReference): of several, none is believed."""
    given = metadata.get("ownerReferences")
    references = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    controllers = [one for one in references if one.get("controller") is True]
    if len(controllers) != 1:
        return None
    version, kind, name = (controllers[0].get(key) for key in ("apiVersion", "kind", "name"))
    if not (isinstance(version, str) and isinstance(kind, str) and isinstance(name, str)):
        return None
    group, slash, _ = version.partition("/")
    return _shared_owner(kind, name, group if slash else "")


_shared_owner = lru_cache(maxsize=8192)(Owner)


def _addresses(status: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return all addresses under a key and its plural, the primary one first: both families on a dual-stack cluster."""
    listed = status.get(f"{key}s")
    entries = [status.get(key)]
    if isinstance(listed, list):
        entries += [entry.get("ip") for entry in listed if isinstance(entry, dict)]
    found = (canonical(entry) for entry in entries if isinstance(entry, str))
    return tuple(dict.fromkeys(address for address in found if address is not None))
