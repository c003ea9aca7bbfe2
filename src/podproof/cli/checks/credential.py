"""The app's own credential for the API server."""

from __future__ import annotations

import math
from collections.abc import Iterator

from podproof._token.jwt import CLOCK_SKEW, read_claims
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.times import span
from podproof.errors import MalformedToken

# The kubelet's own may be good for a year (--service-account-extend-token-expiration).
_YEARS = 400 * 86400

_MOUNT = """\
In the pod's spec, or its ServiceAccount:
automountServiceAccountToken: true"""

_RENEW = "kubectl rollout restart deployment/NAME   (and see the kubelet's log on the node: it keeps this file fresh)"


def check(facts: Environment) -> Iterator[Finding]:
    """Look at the files that the kubelet mounts for calls to the API server, or for the kubeconfig."""
    if facts.in_pod:
        yield from _check_mounted(facts)
    elif named := facts.environ.get("KUBECONFIG"):
        missing = [path for path in named.split(":") if not (facts.root / path.lstrip("/")).is_file()]
        if missing:
            yield fail("credential", f"KUBECONFIG names {missing[0]}, which is not there", "export KUBECONFIG=FILE")
        else:
            yield ok("credential", f"the kubeconfig {named}")


def _check_mounted(facts: Environment) -> Iterator[Finding]:
    certificate, file = facts.mounted / "ca.crt", facts.mounted / "token"
    try:
        text = file.read_text(errors="replace").strip()
    except FileNotFoundError:
        yield fail("credential", f"there is no {file}: this app cannot ask the API server", _MOUNT)
        return
    except OSError as error:
        seen = f"{file} cannot be read: {error.strerror}"
        yield fail("credential", seen, "In the pod's spec:\nsecurityContext:\n  fsGroup: 65532")
        return
    if not certificate.is_file() or not certificate.stat().st_size:
        yield fail(
            "credential",
            f"there is no {certificate}: the API server's certificate cannot be checked",
            "kubectl get configmap kube-root-ca.crt --output yaml   (the kubelet mounts it; a controller fills it in)",
        )
        return
    if not text:
        yield fail("credential", f"{file} is empty", _RENEW)
        return
    try:
        found = read_claims(text)
    except MalformedToken:
        yield fail("credential", f"{file} does not hold a JSON Web Token", _RENEW)
        return
    yield _check_life(facts, found.get("exp"))


def _check_life(facts: Environment, expires_at: object) -> Finding:
    who = facts.who
    left = expires_at - facts.now() if isinstance(expires_at, int | float) else math.inf
    if left > _YEARS:
        return warn(
            "credential",
            f"{who} calls the API server with a token that is good for years: a Secret's, or made by hand",
            "kubectl get secrets --field-selector type=kubernetes.io/service-account-token\n"
            "and mount no such Secret: from Kubernetes 1.21 on, the kubelet mounts a token that ends, and renews it",
        )
    if left < -CLOCK_SKEW:
        return fail("credential", f"{who}'s token for the API server expired {span(left)} ago", _RENEW)
    return ok("credential", f"{who}'s token for the API server, {span(left)} left")
