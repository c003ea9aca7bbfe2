"""What a pod's spec says, to one who looks from outside: the tokens it mounts, and what stands before its port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from podproof._apiserver.connection import MOUNTED
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.mounts import TOKENS
from podproof.identity import ServiceAccount

_SIDECARS = ("istio-proxy", "linkerd-proxy", "envoy", "kuma-sidecar", "consul-dataplane")


def audiences(spec: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return by audience the volume's name and the source of each token that is not for the API server."""
    return {
        source["serviceAccountToken"]["audience"]: (volume["name"], source["serviceAccountToken"])
        for volume in spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
        if source.get("serviceAccountToken", {}).get("audience")
    }


def check_caller(spec: Mapping[str, Any], wanted: str | None, account: ServiceAccount) -> Iterator[Finding]:
    """Look for a token for the audience that is wanted, or for any."""
    found = audiences(spec)
    if not found or (wanted and wanted not in found):
        others = f"; there is one for {', '.join(sorted(found))}" if found else ""
        yield fail(
            "token",
            f"no volume projects a token for the audience {wanted or 'of an app'}{others}",
            f"podproof manifests --only caller --caller {account} --audience {wanted or 'bob'}",
        )
    for audience, (volume, source) in found.items():
        yield _check_mount(spec, audience, volume, source)
    if spec.get("hostNetwork"):
        yield warn(
            "token",
            "it is on the host network, and refused (host-network) unless the app has host_network on",
            "In the pod's spec:\nhostNetwork: false",
        )


def _check_mount(spec: Mapping[str, Any], audience: str, volume: str, source: Mapping[str, Any]) -> Finding:
    mounts = [
        mount
        for container in spec["containers"]
        for mount in container.get("volumeMounts", ())
        if mount["name"] == volume
    ]
    right = f"volumeMounts:\n  - name: {volume}\n    mountPath: {TOKENS / audience}\n    readOnly: true"
    if not mounts:
        return fail("token", f"no container mounts the volume {volume}, which has the token for {audience}", right)
    if any("subPath" in mount for mount in mounts):
        return fail("token", f"the token for {audience} is mounted by subPath: it is never renewed", right)
    files = [f"{mount['mountPath'].rstrip('/')}/{source['path']}" for mount in mounts]
    return ok("token", f"one for {audience} is mounted at {' and '.join(files)}, and renewed")


def check_server(spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Look for the app's own credential, and for a mesh's proxy that would be every caller's address."""
    paths = [mount["mountPath"] for one in spec["containers"] for mount in one.get("volumeMounts", ())]
    if str(MOUNTED) not in paths:
        yield fail(
            "credential",
            "no container mounts a token for the API server",
            "In the pod's spec, or its ServiceAccount:\nautomountServiceAccountToken: true",
        )
    yield from _check_sidecars(spec)


def _check_sidecars(spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Look for a mesh's proxy, which would be every caller's address."""
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    for name in [one["name"] for one in containers if one["name"] in _SIDECARS]:
        yield warn(
            "server",
            f"the sidecar {name} takes each connection first: every caller seems to come from this pod (wrong-address)",
            "In the pod's metadata, with the app's port:\n"
            "annotations:\n"
            '  traffic.sidecar.istio.io/excludeInboundPorts: "8080"\n'
            '  config.linkerd.io/skip-inbound-ports: "8080"',
        )
