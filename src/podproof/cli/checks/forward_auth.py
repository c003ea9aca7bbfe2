"""Forward auth, where it is configured by the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from podproof.cli.finding import Finding, fail, ok
from podproof.cli.proxy_configurations import PROXIES
from podproof.options import Options

PROXY = "PODPROOF_FORWARD_AUTH_PROXY"


def check_forward_auth(variables: Mapping[str, str], options: Options | None) -> Iterator[Finding]:
    """Check which proxy is said to ask, and that its address is known."""
    if PROXY not in variables:
        return
    proxy = variables[PROXY].strip()
    if proxy not in PROXIES:
        expected = ", ".join(PROXIES)
        yield fail("forward-auth", f"invalid {PROXY} {proxy!r}: expected one of {expected}", f"{PROXY}=nginx")
    elif options is not None and not options.trusted_proxies:
        yield fail(
            "forward-auth",
            f"no trusted_proxies are set: {proxy} is not believed",
            "PODPROOF_TRUSTED_PROXIES=127.0.0.1   (where the proxy is in the same pod)",
        )
    else:
        yield ok("forward-auth", f"{proxy} asks")
