"""The spec of a pod, examined from outside: the tokens that it mounts, and its sidecars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from podproof._apiserver.connection import MOUNTED
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.mounts import TOKEN_DIRECTORY
from podproof.identity import ServiceAccount

_SIDECARS = ("istio-proxy", "linkerd-proxy", "envoy", "kuma-sidecar", "consul-dataplane")


def projected_tokens(spec: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return for each audience the volume and the source of its token, except for the API server's audience."""
    return {
        source["serviceAccountToken"]["audience"]: (volume["name"], source["serviceAccountToken"])
        for volume in spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
        if source.get("serviceAccountToken", {}).get("audience")
    }


def check_caller_spec(spec: Mapping[str, Any], audience: str | None, account: ServiceAccount) -> Iterator[Finding]:
    """Check that a token for `audience`, or for any audience if None, is mounted and renewed."""
    found = projected_tokens(spec)
    if not found or (audience and audience not in found):
        others = f"; there is one for {', '.join(sorted(found))}" if found else ""
        yield fail(
            "token",
            f"no volume projects a token for the audience {audience or 'of an app'}{others}",
            f"podproof manifests --only caller --caller {account} --audience {audience or 'bob'}",
        )
    for name, (volume, source) in found.items():
        yield _check_mount(spec, name, volume, source)
    if spec.get("hostNetwork"):
        yield warn(
            "token",
            "the pod is on the host network, and is denied (host-network) unless the app sets host_network",
            "In the pod's spec:\nhostNetwork: false",
        )


def _check_mount(spec: Mapping[str, Any], audience: str, volume: str, source: Mapping[str, Any]) -> Finding:
    mounts = [
        mount
        for container in spec["containers"]
        for mount in container.get("volumeMounts", ())
        if mount["name"] == volume
    ]
    fix = f"volumeMounts:\n  - name: {volume}\n    mountPath: {TOKEN_DIRECTORY / audience}\n    readOnly: true"
    if not mounts:
        return fail("token", f"no container mounts the volume {volume} with the token for {audience}", fix)
    if any("subPath" in mount for mount in mounts):
        return fail("token", f"the token for {audience} is mounted with subPath: it is never renewed", fix)
    files = [f"{mount['mountPath'].rstrip('/')}/{source['path']}" for mount in mounts]
    return ok("token", f"the token for {audience} is mounted at {' and '.join(files)}, and is renewed")


def check_server_spec(spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that the app's own credential is mounted, and that no sidecar replaces the callers' addresses."""
    paths = [mount["mountPath"] for one in spec["containers"] for mount in one.get("volumeMounts", ())]
    if str(MOUNTED) not in paths:
        yield fail(
            "credential",
            "no container mounts a token for the API server",
            "In the pod's spec, or its ServiceAccount:\nautomountServiceAccountToken: true",
        )
    yield from _check_sidecars(spec)


def _check_sidecars(spec: Mapping[str, Any]) -> Iterator[Finding]:
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    for name in [one["name"] for one in containers if one["name"] in _SIDECARS]:
        yield warn(
            "server",
            f"the sidecar {name} accepts the connections: all callers seem to have this pod's address (wrong-address)",
            "In the pod template's metadata, with the app's port:\n"
            "annotations:\n"
            '  traffic.sidecar.istio.io/excludeInboundPorts: "8080"\n'
            '  config.linkerd.io/skip-inbound-ports: "8080"',
        )
