"""The tokens that are mounted to be sent to apps: for whom, of which pod, for how long, and whether renewed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from podproof._token.jwt import read_claims
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.times import span
from podproof.client import TokenFile, TokenUnavailable

_RENEWED = 0.9
"""The part of a token's life by which the kubelet has renewed it: it begins to try at four fifths."""


def check(facts: Environment, wanted: str | None) -> Iterator[Finding]:
    """Look at each file that a `TokenClient` may read, and for one for the audience that is wanted."""
    files = facts.token_files
    folders = [file.parent.name for file in files]
    if not files or (wanted and wanted not in folders and not facts.environ.get("PODPROOF_TOKEN_FILE")):
        yield from _check_file(facts, facts.folder / (wanted or "") / "token", wanted)
    for file in files:
        # A folder is named for the audience of the token in it.
        yield from _check_file(facts, file, file.parent.name if file.parent.parent == facts.folder else wanted)


def _check_file(facts: Environment, file: Path, audience: str | None) -> Iterator[Finding]:
    try:
        text = TokenFile(file, audience=audience, clock=facts.now).read()
    except TokenUnavailable as problem:
        yield fail("token", *problem.args)
        return
    found = read_claims(text)
    yield from _check_binding(facts, file, found)
    yield from _check_renewal(facts, file, found)


def _check_binding(facts: Environment, file: Path, found: Mapping[str, Any]) -> Iterator[Finding]:
    bound = found.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, dict) else None
    if not isinstance(bound, dict) or not isinstance(pod, dict):
        yield fail(
            "token",
            f"{file} is bound to no pod, and refused (unbound): it comes from a Secret, or kubectl create token",
            "Mount it by a projected volume:\npodproof manifests --only caller --caller NAMESPACE/NAME --audience bob",
        )
        return
    name, node = str(pod.get("name")), bound.get("node")
    here = facts.environ.get("HOSTNAME", "")
    if node is not None and isinstance(node, dict) and here == node.get("name"):
        yield warn(
            "token",
            f"{file}: pod {name} seems to be on the host network (its HOSTNAME is the node's), and is refused there "
            "unless the app has host_network on",
            "In the pod's spec:\nhostNetwork: false",
        )
    elif here and here != name[:63]:
        yield warn(
            "token",
            f"{file} is bound to pod {name}, and here HOSTNAME is {here}: from here it is refused (wrong-address)",
            "Let each pod mount its own token by a projected volume; neither copy it nor share it.",
        )


def _check_renewal(facts: Environment, file: Path, found: Mapping[str, Any]) -> Iterator[Finding]:
    left = found["exp"] - facts.now()
    issued_at = found.get("iat")
    life = found["exp"] - issued_at if isinstance(issued_at, int | float) else None
    for_whom = found.get("aud")
    audiences = for_whom if isinstance(for_whom, list) else [for_whom]
    if not file.is_symlink():
        yield warn(
            "token",
            f"{file} is a file of its own, not the kubelet's link: mounted by subPath, or copied, it is never renewed",
            "volumeMounts:\n  - name: podproof\n    mountPath: " + str(file.parent) + "   # the folder, and no subPath",
        )
    elif life is not None and left < life * (1 - _RENEWED):
        yield warn(
            "token",
            f"{file} has {span(max(left, 0))} left of {span(life)}: the kubelet should have renewed it by now",
            "kubectl get pod NAME --output yaml   (is it being deleted? Such a pod's token is not renewed.)",
        )
    else:
        yield ok("token", f"{file}: for {' and '.join(map(str, audiences))}, {span(max(left, 0))} left")
