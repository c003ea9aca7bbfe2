"""A caller's proxy variables: a proxy sees the token of a plain-http call, and hides the pod's address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from podproof.cli.finding import Finding, warn

_CLUSTER_DOMAINS = (".svc", ".cluster.local")


def check_proxy_variables(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Check that NO_PROXY excludes the cluster's Services from HTTP_PROXY, HTTPS_PROXY and ALL_PROXY."""
    no_proxy = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    excluded = [entry.strip().removeprefix("*").lstrip(".") for entry in no_proxy.split(",")]
    missing = [domain for domain in _CLUSTER_DOMAINS if domain.lstrip(".") not in excluded]
    if not missing or no_proxy.strip() == "*":
        return
    for scheme in ("http", "https", "all"):
        name = next((name for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if variables.get(name)), None)
        if name is None:
            continue
        seen = "" if scheme == "https" else " sees the token of each call over http, and"
        yield warn(
            "proxy",
            f"{name} is set: the proxy {_host(variables[name])}{seen} replaces this pod's address (wrong-address)",
            f"kubectl set env deployment/NAME NO_PROXY={','.join([*filter(None, [no_proxy]), *missing])}\n"
            "and add the server's name as it is called, such as bob",
        )


def _host(url: str) -> str:
    """Return a proxy's host and port: its URL may contain a password."""
    return urlsplit(url if "//" in url else f"//{url}").netloc.rpartition("@")[2]
