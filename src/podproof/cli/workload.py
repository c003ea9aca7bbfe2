"""The pod that is examined: the one that the doctor runs in, or one that the API server returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podproof._authentication.pod_address import canonical_address
from podproof.cli.environment import Environment
from podproof.identity import ServiceAccount


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod: its main container's environment variables, its command lines and its addresses.

    `name` and `spec` are empty for the pod that the doctor runs in.
    """

    name: str
    variables: Mapping[str, str]
    commands: Sequence[Sequence[str]]
    addresses: Sequence[str]
    spec: Mapping[str, Any] = field(default_factory=dict)


def read_own_workload(environment: Environment) -> Workload:
    """Return the pod that the doctor runs in; outside of a pod there are no commands and no addresses."""
    if not environment.in_pod:
        return Workload("", environment.variables, (), ())
    return Workload("", environment.variables, list(_running(environment)), list(_addresses(environment)))


def list_workloads(environment: Environment, account: ServiceAccount) -> list[Workload]:
    """Return the pods that run as a service account, one for each set of replicas.

    Raises Unavailable.
    """
    query = f"fieldSelector=spec.serviceAccountName%3D{account.name}&limit=500"
    response = environment.client.get(f"/api/v1/namespaces/{account.namespace}/pods?{query}", environment.deadline())
    replicas = {_owner_uid(pod): pod for pod in response.document.get("items", ())}
    return [_parse_pod(pod) for pod in replicas.values()]


def _owner_uid(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or [metadata]
    return str(owners[0]["uid"])


def _parse_pod(pod: Mapping[str, Any]) -> Workload:
    containers = pod["spec"]["containers"]
    environments = [_literal_variables(container) for container in containers]
    return Workload(
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
        next((one for one in environments if any(name.startswith("PODPROOF_") for name in one)), environments[0]),
        [[*one.get("command", ()), *one.get("args", ())] for one in containers],
        [entry["ip"] for entry in pod["status"].get("podIPs", ())],
        pod["spec"],
    )


def _literal_variables(container: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container.get("env", ()) if "valueFrom" not in one}


def _running(environment: Environment) -> Iterator[list[str]]:
    for file in sorted((environment.root / "proc").glob("[0-9]*/cmdline")):
        try:
            line = file.read_bytes().decode(errors="replace")
        except OSError:  # the process has ended meanwhile
            continue
        yield line.removesuffix("\0").split("\0")


def _addresses(environment: Environment) -> Iterator[str]:
    """Read this pod's addresses from the hosts file, where the kubelet writes them with the pod's name."""
    hosts = environment.root / "etc/hosts"
    for line in hosts.read_text().splitlines() if hosts.exists() else ():
        address, *names = line.partition("#")[0].split() or [""]
        if environment.variables.get("HOSTNAME") in names and (known := canonical_address(address)):
            yield known
