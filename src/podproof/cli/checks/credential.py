"""Our own credential for the API server."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from podproof._token.jwt import CLOCK_SKEW, read_claims
from podproof.cli.checks.exec_plugin import check_exec_plugin
from podproof.cli.checks.token_files import READABLE
from podproof.cli.durations import format_duration
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.kubeconfig import KubeconfigInvalid, read_kubeconfig
from podproof.errors import MalformedToken

# The kubelet's tokens can be valid for a year (--service-account-extend-token-expiration).
_TOO_LONG = 400 * 86400

_MOUNT = """\
In the pod's spec, or its ServiceAccount:
automountServiceAccountToken: true"""

_RENEW = "kubectl rollout restart deployment/NAME   (and read the kubelet's log on the node: it renews this file)"


def check_credential(environment: Environment) -> Iterator[Finding]:
    """Check the files that the kubelet mounts for calls to the API server, or the kubeconfig."""
    if environment.uses_mounted_credential:
        yield from _check_mounted(environment)
    else:
        yield from _check_kubeconfig(environment)


def _check_kubeconfig(environment: Environment) -> Iterator[Finding]:
    try:
        kubeconfig = read_kubeconfig(environment.variables, environment.context)
    except KubeconfigInvalid as error:
        if environment.in_pod:
            fix = "kubectl set env deployment/NAME KUBECONFIG-   (the pod's mounted credential is used without it)"
        else:
            fix = "kubectl config get-contexts\nexport KUBECONFIG=FILE   (or podproof doctor --kubeconfig FILE)"
        yield fail("credential", str(error), fix)
        return
    if kubeconfig is None:  # the call to the API server reports it
        return
    if kubeconfig.missing:
        yield warn(
            "credential",
            f"KUBECONFIG names {kubeconfig.missing[0]}, which does not exist, and is used without it",
            f"export KUBECONFIG={os.pathsep.join(map(str, kubeconfig.files))}",
        )
    plugin = kubeconfig.user.get("exec")
    if plugin and (problem := check_exec_plugin(plugin, kubeconfig.files[0].parent, environment.timeout)):
        yield problem
        return
    files = os.pathsep.join(map(str, kubeconfig.files))
    source = f", its credential by the exec plugin {plugin.get('command')}" if plugin else ""
    yield ok("credential", f"the context {kubeconfig.context} of {files}{source}")


def _check_mounted(environment: Environment) -> Iterator[Finding]:
    certificate, file = environment.credential_directory / "ca.crt", environment.credential_directory / "token"
    try:
        text = file.read_text(errors="replace").strip()
    except FileNotFoundError:
        yield fail("credential", f"{file} does not exist: this app cannot call the API server", _MOUNT)
        return
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        yield fail("credential", message, READABLE)
        return
    if not certificate.is_file() or not certificate.stat().st_size:
        yield fail(
            "credential",
            f"{certificate} is missing or empty: the API server's certificate cannot be verified",
            "kubectl get configmap kube-root-ca.crt --output yaml   (a controller writes it, the kubelet mounts it)",
        )
        return
    if not text:
        yield fail("credential", f"{file} is empty", _RENEW)
        return
    try:
        claims = read_claims(text)
    except MalformedToken:
        yield fail("credential", f"{file} does not hold a JSON Web Token", _RENEW)
        return
    yield _check_lifetime(environment, claims.get("exp"))


def _check_lifetime(environment: Environment, expires_at: object) -> Finding:
    left = expires_at - environment.now() if isinstance(expires_at, int | float) else math.inf
    if left > _TOO_LONG:
        return warn(
            "credential",
            f"{environment.app_name} calls the API server with a token that is valid for years, "
            "from a Secret or made by hand",
            "kubectl get secrets --field-selector type=kubernetes.io/service-account-token\n"
            "Do not mount such a Secret: since Kubernetes 1.21 the kubelet mounts a token that expires, and renews it.",
        )
    if left < -CLOCK_SKEW:
        return fail(
            "credential",
            f"{environment.app_name}'s token for the API server expired {format_duration(left)} ago",
            _RENEW,
        )
    return ok("credential", f"{environment.app_name}'s token for the API server, {format_duration(left)} left")
