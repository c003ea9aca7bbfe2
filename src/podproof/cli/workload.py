"""What runs the app or the caller: this pod, or one that the API server shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podproof._authentication.pod_address import canonical_address as canonical
from podproof.cli.environment import Environment
from podproof.identity import ServiceAccount


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod with its main container's environment, the command lines in it, and its addresses.

    `name` is empty for this pod, `spec` too: it has files to look at instead.
    """

    name: str
    environ: Mapping[str, str]
    commands: Sequence[Sequence[str]]
    addresses: Sequence[str]
    spec: Mapping[str, Any] = field(default_factory=dict)


def here(facts: Environment) -> Workload:
    """Return this pod; a machine that is none has no web servers and addresses to look at."""
    if not facts.in_pod:
        return Workload("", facts.environ, (), ())
    return Workload("", facts.environ, list(_running(facts)), list(_addresses(facts)))


def of(facts: Environment, account: ServiceAccount) -> list[Workload]:
    """Return the pods that run as a service account, of several replicas one.

    Raises Unavailable.
    """
    query = f"fieldSelector=spec.serviceAccountName%3D{account.name}&limit=500"
    answer = facts.own.get(f"/api/v1/namespaces/{account.namespace}/pods?{query}", facts.deadline())
    replicas = {_owner(pod): pod for pod in answer.document.get("items", ())}
    return [_workload(pod) for pod in replicas.values()]


def _owner(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or [metadata]
    return str(owners[0]["uid"])


def _workload(pod: Mapping[str, Any]) -> Workload:
    containers = pod["spec"]["containers"]
    environments = [_environment(container) for container in containers]
    return Workload(
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
        next((one for one in environments if any(name.startswith("PODPROOF_") for name in one)), environments[0]),
        [[*one.get("command", ()), *one.get("args", ())] for one in containers],
        [entry["ip"] for entry in pod["status"].get("podIPs", ())],
        pod["spec"],
    )


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    """Return what a container's spec itself says; values from a ConfigMap or a Secret are not looked up."""
    return {one["name"]: one.get("value", "") for one in container.get("env", ()) if "valueFrom" not in one}


def _running(facts: Environment) -> Iterator[list[str]]:
    for file in sorted((facts.root / "proc").glob("[0-9]*/cmdline")):
        try:
            line = file.read_bytes().decode(errors="replace")
        except OSError:  # the process has ended since
            continue
        yield line.removesuffix("\0").split("\0")


def _addresses(facts: Environment) -> Iterator[str]:
    """Read this pod's addresses from its hosts file: the kubelet writes them there, with the pod's name."""
    hosts = facts.root / "etc/hosts"
    for line in hosts.read_text().splitlines() if hosts.exists() else ():
        address, *names = line.partition("#")[0].split() or [""]
        if facts.environ.get("HOSTNAME") in names and (known := canonical(address)):
            yield known
