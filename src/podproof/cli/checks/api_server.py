"""The API server: whether it responds, with a valid certificate, a known version and the same time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from podproof._token.jwt import CLOCK_SKEW
from podproof.cli.durations import format_duration
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.errors import Unavailable

OLDEST = (1, 20)
"""The oldest Kubernetes version that podproof is tested on."""

_PODS_NODE = (1, 30)
"""KEP-4193: since this version a token and its review name the pod's node and the credential's id."""

_CLOSE = 10
"""Seconds by which clocks may differ without a warning."""

# The fix, by a word in the reason of the failed call.
_FIXES = (
    ("CertVerif", "In a pod: kubectl rollout restart deployment/NAME, so that the current ca.crt is mounted.\n"
     "In a kubeconfig: certificate-authority must be this API server's, and server a name in its certificate:\n"
     "kubectl config view --raw --minify"),
    ("ProxyError", "kubectl set env deployment/NAME NO_PROXY=$KUBERNETES_SERVICE_HOST   (HTTPS_PROXY is set there)"),
    ("ConnectionRefused", "kubectl get endpoints kubernetes --namespace default   (does something listen there?)"),
    ("Timeout", "A NetworkPolicy may block it. This one allows the pod to reach the API server:\n"
     "egress:\n"
     "  - to:\n"
     "      - ipBlock: {cidr: APISERVER/32}\n"
     "    ports:\n"
     "      - {protocol: TCP, port: 6443}"),
    ("NameResolution", "kubectl run --rm -it --image busybox dns -- nslookup kubernetes.default.svc"),
    ("(401)", "kubectl rollout restart deployment/NAME   (the service account may have been recreated)"),
    ("(403)", "kubectl get clusterrolebinding system:public-info-viewer --output yaml"),
    ("onfigur", "In a pod: automountServiceAccountToken: true. Elsewhere: export KUBECONFIG=FILE"),
)  # fmt: skip


def check_api_server(environment: Environment) -> Iterator[Finding]:
    """Call the API server, and check its version and its clock."""
    try:
        endpoint = environment.client.endpoint()
        if not endpoint.verified:
            yield fail(
                "api server",
                f"the certificate of {endpoint.url} is not verified: a man in the middle can authenticate any token",
                "kubectl config view --minify\nThe cluster needs an https server and a certificate-authority, without "
                "insecure-skip-tls-verify.",
            )
            return
        response = environment.client.get("/version", environment.deadline())
    except Unavailable as error:
        fix = next((fix for word, fix in _FIXES if word in error.reason), "kubectl get --raw /version")
        yield fail("api server", error.reason, fix)
        return
    if endpoint.proxy:
        host = endpoint.url.removeprefix("https://").partition(":")[0]
        yield warn(
            "api server",
            f"calls go through the proxy {endpoint.proxy} (HTTPS_PROXY), which is not needed inside a cluster",
            f"kubectl set env deployment/NAME NO_PROXY={host}",
        )
    yield _check_version(endpoint.url, str(response.document.get("gitVersion")))
    clock = response.clock()
    if clock is not None:
        yield _check_clock(environment.now() - clock)


def _check_version(url: str, text: str) -> Finding:
    match = re.match(r"v([1-9]\d*)\.(\d+)", text)
    if match is None:  # Debian's build has none, for example
        return ok("api server", f"{url} responds; its build of Kubernetes has no version ({text})")
    version = int(match[1]), int(match[2])
    if version < OLDEST:
        return warn(
            "api server",
            f"{url} responds as Kubernetes {text}; podproof is tested on {'.'.join(map(str, OLDEST))} and newer",
            "kubectl version",
        )
    remark = "" if version >= _PODS_NODE else " (before 1.30 tokens do not name their node)"
    return ok("api server", f"{url} responds, Kubernetes {text}{remark}")


def _check_clock(ahead: float) -> Finding:
    off = f"this clock is {format_duration(ahead)} {'ahead of' if ahead > 0 else 'behind'} the API server's"
    if abs(ahead) > CLOCK_SKEW:
        return fail(
            "clock", f"{off}: valid tokens are rejected as expired or not yet valid", "timedatectl set-ntp true"
        )
    if abs(ahead) > _CLOSE:
        return warn("clock", f"{off}; {CLOCK_SKEW:.0f} s are tolerated", "timedatectl set-ntp true")
    return ok("clock", "the same as the API server's to within a few seconds")
