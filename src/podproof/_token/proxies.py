"""Proxies from the environment (HTTP_PROXY), to which a plain-http request would carry the token unencrypted.

An https request goes through a proxy as an encrypted tunnel: nothing here is about those.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from podproof.errors import HostNotAllowed


def require_no_proxy(url: str, *, for_requests: bool) -> None:
    """Raise HostNotAllowed if a request to a plain-http URL would go through a proxy that the environment names.

    `requests` and httpx read NO_PROXY in different ways: each is asked about in its own.
    """
    parts = urlsplit(url)
    if parts.scheme != "http":
        return
    proxy = _proxy_of_requests(url) if for_requests else _proxy_of_httpx(parts.hostname or "", parts.port)
    if proxy is not None:
        raise HostNotAllowed(
            f"the token would be sent unencrypted to the proxy {_address(proxy)} that HTTP_PROXY or ALL_PROXY names: "
            f"add {parts.hostname} to NO_PROXY, use https, or use TokenClient.session(), which bypasses the proxy"
        )


def _address(proxy: str) -> str:
    """Return a proxy's host and port, without its scheme and password."""
    return proxy.rpartition("//")[2].rpartition("@")[2].rstrip("/")


def _proxy_of_requests(url: str) -> str | None:
    from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415  loaded, since requests calls

    return select_proxy(url, get_environ_proxies(url))


def _proxy_of_httpx(host: str, port: int | None) -> str | None:
    from urllib.request import getproxies  # noqa: PLC0415  loaded, since httpx has imported it

    proxies = getproxies()
    no_proxy = [entry.strip().lower() for entry in proxies.get("no", "").split(",")]
    if any(_is_covered(host, port, entry) for entry in no_proxy if entry):
        return None
    return proxies.get("http") or proxies.get("all")


def _is_covered(host: str, port: int | None, entry: str) -> bool:
    """Return True if httpx bypasses its proxies for a host because of this entry of NO_PROXY.

    `bob` covers bob and its subdomains, `.bob` its subdomains alone. An entry that httpx reads in yet another way
    counts as not covering: the request is refused, never sent to a proxy by mistake.
    """
    if entry in {"*", host}:
        return True
    if entry == "localhost":
        return False
    target = f"{host}:{port}" if ":" in entry else host
    return target == entry or target.endswith(entry if entry.startswith(".") else f".{entry}")
