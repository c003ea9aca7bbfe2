"""The mounted tokens that a caller sends: their audience, pod, lifetime and renewal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from podproof._token.jwt import read_claims
from podproof.cli.durations import format_duration
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.client import TokenFile, TokenUnavailable

_RENEWED_BY = 0.9
"""The share of a token's lifetime after which the kubelet must have renewed it: it starts to try at 80 %."""

READABLE = f"""\
In the pod's spec (the kubelet makes the files of its volumes readable for this group):
securityContext:
  fsGroup: {os.getegid() or 65532}"""


def check_token_files(environment: Environment, audience: str | None) -> Iterator[Finding]:
    """Check each file that a `TokenClient` may read, and that there is one for `audience`, if given."""
    files = environment.token_files
    directories = [file.parent.name for file in files]
    named = environment.variables.get("PODPROOF_TOKEN_FILE")
    if not files or (audience and audience not in directories and not named):
        yield from _check_token_file(environment, environment.token_directory / (audience or "") / "token", audience)
    for file in files:
        # A directory is named after the audience of its token.
        expected = file.parent.name if file.parent.parent == environment.token_directory else audience
        yield from _check_token_file(environment, file, expected)


def _check_token_file(environment: Environment, file: Path, audience: str | None) -> Iterator[Finding]:
    try:
        token = TokenFile(file, audience=audience, clock=environment.now).read()
    except TokenUnavailable as error:
        message, fix = map(str, error.args)
        yield fail("token", message, READABLE if isinstance(error.__cause__, PermissionError) else fix)
        return
    claims = read_claims(token)
    yield from _check_binding(environment, file, claims)
    yield _check_renewal(environment, file, claims)


def _check_binding(environment: Environment, file: Path, claims: Mapping[str, Any]) -> Iterator[Finding]:
    bound = claims.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, dict) else None
    if not isinstance(bound, dict) or not isinstance(pod, dict):
        yield fail(
            "token",
            f"{file} is not bound to a pod and is rejected (not-pod-bound): it is from a Secret or from "
            "kubectl create token",
            "Mount the token from a projected volume:\n"
            "podproof manifests --only caller --caller NAMESPACE/NAME --audience bob",
        )
        return
    name, node = str(pod.get("name")), bound.get("node")
    hostname = environment.variables.get("HOSTNAME", "")
    if isinstance(node, dict) and hostname == node.get("name"):
        yield warn(
            "token",
            f"{file}: HOSTNAME is the node's name, so pod {name} seems to be on the host network; it is denied "
            "(host-network) unless the app sets host_network",
            "In the pod's spec:\nhostNetwork: false",
        )
    elif hostname and hostname != name[:63]:
        yield warn(
            "token",
            f"{file} is bound to pod {name}, but HOSTNAME is {hostname}: requests from here are denied (wrong-address)",
            "Mount a token in each pod from a projected volume; do not copy or share it.",
        )


def _check_renewal(environment: Environment, file: Path, claims: Mapping[str, Any]) -> Finding:
    left = max(claims["exp"] - environment.now(), 0)
    issued_at = claims.get("iat")
    lifetime = claims["exp"] - issued_at if isinstance(issued_at, int | float) else None
    named = claims.get("aud")
    audiences = named if isinstance(named, list) else [named]
    if not file.is_symlink():
        return warn(
            "token",
            f"{file} is a regular file instead of the kubelet's symbolic link: it is mounted with subPath, or copied, "
            "and is never renewed",
            f"volumeMounts:\n  - name: podproof\n    mountPath: {file.parent}   # the directory, without subPath",
        )
    if lifetime is not None and left < lifetime * (1 - _RENEWED_BY):
        return warn(
            "token",
            f"{file} has {format_duration(left)} left of {format_duration(lifetime)}: the kubelet should have renewed "
            "it by now",
            "kubectl get pod NAME --output yaml   (the token of a pod that is being deleted is not renewed)",
        )
    return ok("token", f"{file}: for {' and '.join(map(str, audiences))}, {format_duration(left)} left")
