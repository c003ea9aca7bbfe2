"""The API server: that it answers, over TLS that is checked, with our time and a version that we know."""

from __future__ import annotations

import re
from collections.abc import Iterator

from podproof._token.jwt import CLOCK_SKEW
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.times import span
from podproof.errors import Unavailable

OLDEST = (1, 20)
"""The oldest Kubernetes that podproof is tried on."""

_PODS_NODE = (1, 30)
"""KEP-4193: from here on a token and its review tell the pod's node and the credential's id."""

_CLOSE = 10
"""Seconds by which clocks may differ without a word."""

# Which mend, by what stands in the reason that nobody was reached.
_MENDS = (
    ("CertVerif", "In a pod: kubectl rollout restart deployment/NAME, so that the present ca.crt is mounted.\n"
     "In a kubeconfig: certificate-authority must be this API server's, and server a name in its certificate:\n"
     "kubectl config view --raw --minify"),
    ("ProxyError", "kubectl set env deployment/NAME NO_PROXY=$KUBERNETES_SERVICE_HOST   (HTTPS_PROXY is set there)"),
    ("ConnectionRefused", "kubectl get endpoints kubernetes --namespace default   (is anything listening there?)"),
    ("Timeout", "A NetworkPolicy may be in the way. One that lets the pod out to the API server:\n"
     "egress:\n"
     "  - to:\n"
     "      - ipBlock: {cidr: APISERVER/32}\n"
     "    ports:\n"
     "      - {protocol: TCP, port: 6443}"),
    ("NameResolution", "kubectl run --rm -it --image busybox dns -- nslookup kubernetes.default.svc"),
    ("(401)", "kubectl rollout restart deployment/NAME   (the token's service account may have been made anew)"),
    ("(403)", "kubectl get clusterrolebinding system:public-info-viewer --output yaml"),
    ("configured", "In a pod: automountServiceAccountToken: true. Elsewhere: export KUBECONFIG=FILE"),
)  # fmt: skip


def check(facts: Environment) -> Iterator[Finding]:
    """Call the API server, and look at what it says of itself."""
    try:
        endpoint = facts.own.endpoint()
        if not endpoint.verified:
            yield fail(
                "api server",
                f"the certificate of {endpoint.url} is not checked: whoever sits on the way can vouch for any token",
                "kubectl config view --minify\nand give the cluster an https: server, a certificate-authority, and no "
                "insecure-skip-tls-verify",
            )
            return
        answer = facts.own.get("/version", facts.deadline())
    except Unavailable as trouble:
        mend = next((mend for word, mend in _MENDS if word in trouble.reason), "kubectl get --raw /version")
        yield fail("api server", trouble.reason, mend)
        return
    if endpoint.proxy:
        host = endpoint.url.removeprefix("https://").partition(":")[0]
        yield warn(
            "api server",
            f"calls to it go through the proxy {endpoint.proxy} (HTTPS_PROXY), which inside a cluster they need not",
            f"kubectl set env deployment/NAME NO_PROXY={host}",
        )
    yield _version(endpoint.url, str(answer.document.get("gitVersion")))
    clock = answer.clock()
    if clock is not None:
        yield _clock(facts.now() - clock)


def _version(url: str, text: str) -> Finding:
    match = re.match(r"v([1-9]\d*)\.(\d+)", text)
    if match is None:  # Debian's, for one, is built without
        return ok("api server", f"{url} answers, a build of Kubernetes that does not tell its version ({text})")
    version = int(match[1]), int(match[2])
    if version < OLDEST:
        return warn(
            "api server",
            f"{url} answers as Kubernetes {text}; podproof is tried on {'.'.join(map(str, OLDEST))} and newer",
            "kubectl version",
        )
    remark = "" if version >= _PODS_NODE else " (before 1.30 a token does not tell its node)"
    return ok("api server", f"{url} answers, Kubernetes {text}{remark}")


def _clock(ahead: float) -> Finding:
    off = f"this clock is {span(ahead)} {'ahead of' if ahead > 0 else 'behind'} the API server's"
    if abs(ahead) > CLOCK_SKEW:
        return fail("clock", f"{off}: good tokens are refused as expired or not begun", "timedatectl set-ntp true")
    if abs(ahead) > _CLOSE:
        return warn("clock", f"{off}; more than {CLOCK_SKEW:.0f} s would be too much", "timedatectl set-ntp true")
    return ok("clock", "the same as the API server's, to a few seconds")
