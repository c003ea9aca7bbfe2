"""From the pod that a token is bound to, to the live pod."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from podproof._apiserver.protocols import PodReader
from podproof._authentication.pod_address import canonical_address as canonical
from podproof.errors import PodFinished, PodGone, ServiceAccountMismatch, Unavailable
from podproof.identity import Pod, ServiceAccount

# Pending: an init container may call. Succeeded and Failed are the end, and another pod may have the address by now.
_LIVE_PHASES = ("Pending", "Running")


class PodStore(Protocol):
    """Knows the live pods."""

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> Pod:
        """Return a live pod; raise InvalidToken or Unavailable."""


class PodLookup:
    """Reads the live pod from the API server, by one GET."""

    def __init__(self, reader: PodReader) -> None:
        self._reader = reader

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> Pod:
        """Return the live pod that a service account's token is bound to. `deadline` is in monotonic seconds.

        Raises PodGone, PodFinished, ServiceAccountMismatch, or Unavailable.
        """
        response = self._reader.read_pod(service_account.namespace, name, deadline)
        if response is None:
            raise PodGone(f"there is no pod {service_account.namespace}/{name}")
        return match_pod(response, service_account, name, uid)


def match_pod(pod: Mapping[str, Any], service_account: ServiceAccount, name: str, uid: str) -> Pod:
    """Return the pod that a service account's token is bound to, if a Pod as the API server returned it is that one.

    A terminating pod is a legitimate caller: it may take its whole grace period to finish its work.

    Raises PodGone, PodFinished, ServiceAccountMismatch, or Unavailable if this is another pod or not a Pod.
    """
    metadata, spec, status = (_mapping(pod, key) for key in ("metadata", "spec", "status"))
    namespace = service_account.namespace
    if metadata.get("namespace") != namespace or metadata.get("name") != name:
        raise Unavailable(f"the API server returned another pod than {namespace}/{name}")
    if metadata.get("uid") != uid:
        raise PodGone(f"pod {namespace}/{name} was recreated since the token was issued")
    if spec.get("serviceAccountName") != service_account.name:
        raise ServiceAccountMismatch(f"pod {namespace}/{name} does not run as {service_account}")
    if status.get("phase") not in _LIVE_PHASES:
        raise PodFinished(f"pod {namespace}/{name} is in phase {status.get('phase')!r:.20}")
    node, host_network = spec.get("nodeName"), spec.get("hostNetwork")
    return Pod(
        namespace=namespace,
        name=name,
        uid=uid,
        addresses=_addresses(status, "podIP"),
        node=node if isinstance(node, str) else None,
        host_network=host_network is not None and host_network is not False,
        node_addresses=_addresses(status, "hostIP"),
    )


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise Unavailable(f"the API server's Pod has no {key}")
    return value


def _addresses(status: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return all addresses under a key and its plural, the primary one first: both families on a dual-stack cluster."""
    listed = status.get(f"{key}s")
    entries = [status.get(key)]
    if isinstance(listed, list):
        entries += [entry.get("ip") for entry in listed if isinstance(entry, dict)]
    found = (canonical(entry) for entry in entries if isinstance(entry, str))
    return tuple(dict.fromkeys(address for address in found if address is not None))
