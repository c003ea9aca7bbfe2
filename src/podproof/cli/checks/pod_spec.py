"""The spec of a pod, examined from outside: the tokens that it mounts, and its sidecars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.mounts import CREDENTIAL_DIRECTORY, TOKEN_DIRECTORY
from podproof.cli.variables import items
from podproof.identity import ServiceAccount

if TYPE_CHECKING:
    from podproof.options import Options

_MESHES = ("istio-proxy", "linkerd-proxy", "envoy", "kuma-sidecar", "consul-dataplane")
_PROXIES = ("queue-proxy", "oauth2-proxy", "kube-rbac-proxy", "nginx", "caddy", "haproxy", "traefik")


def projected_tokens(spec: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return for each audience the volume and the source of its token, except for the API server's audience."""
    return {
        token["audience"]: (volume["name"], token)
        for volume in items(spec, "volumes")
        for source in items(volume.get("projected") or {}, "sources")
        if (token := source.get("serviceAccountToken") or {}).get("audience")
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
    mounts = [mount for mount in _volume_mounts(spec) if mount["name"] == volume]
    fix = f"volumeMounts:\n  - name: {volume}\n    mountPath: {TOKEN_DIRECTORY / audience}\n    readOnly: true"
    if not mounts:
        return fail("token", f"no container mounts the volume {volume} with the token for {audience}", fix)
    for option in ("subPath", "subPathExpr"):
        if any(mount.get(option) for mount in mounts):
            return fail("token", f"the token for {audience} is mounted with {option}: it is never renewed", fix)
    files = [f"{mount['mountPath'].rstrip('/')}/{source['path']}" for mount in mounts]
    return ok("token", f"the token for {audience} is mounted at {' and '.join(files)}, and is renewed")


def _volume_mounts(spec: Mapping[str, Any]) -> list[Any]:
    return [mount for container in items(spec, "containers") for mount in items(container, "volumeMounts")]


def check_server_spec(spec: Mapping[str, Any], options: Options | None) -> Iterator[Finding]:
    """Check that the app's own credential is mounted, and that no sidecar replaces the callers' addresses."""
    if CREDENTIAL_DIRECTORY not in [mount["mountPath"].rstrip("/") for mount in _volume_mounts(spec)]:
        yield fail(
            "credential",
            "no container mounts a token for the API server",
            "In the pod's spec, or its ServiceAccount:\nautomountServiceAccountToken: true",
        )
    for container in [*items(spec, "containers"), *items(spec, "initContainers")]:
        yield from _check_sidecar(container, options)


def _check_sidecar(container: Mapping[str, Any], options: Options | None) -> Iterator[Finding]:
    """Recognize a sidecar by its name or its image's."""
    image = str(container.get("image") or "").rpartition("/")[2].partition("@")[0].partition(":")[0]
    names = (container["name"], image)
    mesh = next((name for name in _MESHES if name in names), None)
    proxy = next((name for name in _PROXIES if name in names), None)
    if mesh is not None:
        yield warn(
            "server",
            f"the sidecar {mesh} accepts the connections: all callers seem to have this pod's address (wrong-address)",
            "In the pod template's metadata, with the app's port:\n"
            "annotations:\n"
            '  traffic.sidecar.istio.io/excludeInboundPorts: "8080"\n'
            '  config.linkerd.io/skip-inbound-ports: "8080"',
        )
    elif proxy is not None and _trusts_loopback(options):
        yield ok("server", f"the sidecar {proxy} is a trusted proxy (127.0.0.1)")
    elif proxy is not None:
        yield warn(
            "server",
            f"requests that pass the sidecar {proxy} come from this pod itself, not from the caller's address "
            "(wrong-address)",
            "Point the Service's targetPort at the app's own port; or, if the sidecar sends X-Forwarded-For:\n"
            "kubectl set env deployment/NAME PODPROOF_TRUSTED_PROXIES=127.0.0.1   (and the proxies before it)",
        )


def _trusts_loopback(options: Options | None) -> bool:
    return options is not None and any(ip_address("127.0.0.1") in network for network in options.trusted_proxies)
