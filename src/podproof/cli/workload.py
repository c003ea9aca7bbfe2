"""The pod that is examined: the one that the doctor runs in, or one that the API server returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podproof._authentication.pod_address import canonical_address
from podproof.cli.command_line import find_server
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding
from podproof.cli.variables import VariableReader, expand_references, items, sets_options
from podproof.identity import ServiceAccount


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod: the variables and command lines of its main container, and its addresses.

    `name` and `spec` are empty for the pod that the doctor runs in, whose command lines are those of all running
    processes, PID 1 first. `complete` is False if the value of a variable is not known; `findings` says why.
    """

    name: str
    variables: Mapping[str, str]
    commands: Sequence[Sequence[str]]
    addresses: Sequence[str]
    spec: Mapping[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    complete: bool = True

    @property
    def sets_options(self) -> bool:
        """Whether a variable sets an option of the middlewares, as far as is known."""
        return sets_options(self.variables)

    @property
    def runs_server(self) -> bool:
        """Whether a known web server runs in it."""
        return any(find_server(command, self.variables) for command in self.commands)


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
    return [_parse_pod(environment, pod) for pod in replicas.values()]


def _owner_uid(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or [metadata]
    return str(owners[0]["uid"])


def _parse_pod(environment: Environment, pod: Mapping[str, Any]) -> Workload:
    reader = VariableReader(environment, pod)
    containers = []
    for container in items(pod["spec"], "containers"):
        variables = reader.read(container)
        words = [*items(container, "command"), *items(container, "args")]
        containers.append((variables, [expand_references(word, variables) for word in words]))
    # The main container is the one with podproof's options, else the one with a known server, else the first.
    variables, command = max(
        containers, key=lambda one: (sets_options(one[0]), find_server(one[1], one[0]) is not None)
    )
    return Workload(
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
        variables,
        [command],
        [entry["ip"] for entry in items(pod["status"], "podIPs")],
        pod["spec"],
        reader.findings,
        reader.complete,
    )


def _running(environment: Environment) -> Iterator[list[str]]:
    for file in sorted((environment.root / "proc").glob("[0-9]*/cmdline"), key=lambda file: int(file.parent.name)):
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
