"""A real Envoy in front of an app. By the Host header it is a proxy of each kind of configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.security.proxy_process import ADDRESS, BEFORE, running_proxy
from tests.support.server_process import ServerProcess, free_port

BINARY = Path(sys.executable).with_name("envoy")

_REMOTE = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
_WITHOUT_FORWARDED: dict[str, Any] = {"request_headers_to_remove": ["forwarded"]}


def _header(name: str, value: str, action: str) -> dict[str, Any]:
    return {"request_headers_to_add": [{"header": {"key": name, "value": value}, "append_action": action}]}


_KINDS: dict[str, dict[str, Any]] = {
    "appends": _WITHOUT_FORWARDED,
    "overwrites": _WITHOUT_FORWARDED | _header("x-forwarded-for", _REMOTE, "OVERWRITE_IF_EXISTS_OR_ADD"),
    "forwarded": {"request_headers_to_remove": ["x-forwarded-for"]}
    | _header("forwarded", f"for={_REMOTE};by={ADDRESS}", "APPEND_IF_EXISTS_OR_ADD"),
    "underscores": _WITHOUT_FORWARDED,
    "both": {},
    "unbound": _WITHOUT_FORWARDED,
}
"""What each does to the headers. It appends to X-Forwarded-For by itself; all others pass as they come."""


_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def _cluster(name: str, port: int, source: str | None, *, http2: bool) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    bound: dict[str, Any] = (
        {"upstream_bind_config": {"source_address": {"address": source, "port_value": 0}}} if source else {}
    )
    if http2:
        bound["typed_extension_protocol_options"] = _HTTP2
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        **bound,
    }


def _host(name: str, rules: dict[str, Any], **route: str) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, "route": route}]
    return {"name": name, "domains": [name], "routes": routes, **rules}


def _configuration(port: int, to: int, *, http2: bool) -> dict[str, Any]:
    hosts = [_host(name, rules, cluster="unbound" if name == "unbound" else "app") for name, rules in _KINDS.items()]
    hosts.append(_host("twice", _WITHOUT_FORWARDED, cluster="itself", host_rewrite_literal="appends"))
    extensions = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{extensions}.http.router.v3.Router"}}
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "use_remote_address": True,
        "http_filters": [router],
        "route_config": {"virtual_hosts": hosts},
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    ways = (("app", to, ADDRESS), ("unbound", to, None), ("itself", port, BEFORE))
    clusters = [_cluster(*way, http2=http2) for way in ways]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextmanager
def in_front_of(app: ServerProcess, folder: Path) -> Iterator[ServerProcess]:
    """Run Envoy: as each of its kinds by the Host header, and as `twice`, which passes on to `appends`."""
    with _running(app.port, folder, http2=False) as proxy:
        yield proxy


@contextmanager
def in_front_of_grpc(port: int, folder: Path) -> Iterator[str]:
    """Run Envoy in front of a port of gRPC, which it calls by HTTP/2, and yield the target for clients."""
    with _running(port, folder, http2=True) as proxy:
        yield f"127.0.0.1:{proxy.port}"


@contextmanager
def _running(to: int, folder: Path, *, http2: bool) -> Iterator[ServerProcess]:
    port = free_port()
    configuration = folder / "envoy.json"
    configuration.write_text(json.dumps(_configuration(port, to, http2=http2)))
    command = [str(BINARY), "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with running_proxy(command, port, folder) as proxy:
        yield proxy
