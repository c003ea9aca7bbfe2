"""A real Caddy in front of an app. By the Host header it is a proxy of each kind of configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.security.proxy_process import ADDRESS, BEFORE, running_proxy
from tests.support.server_process import ServerProcess, free_port

BINARY = Path(sys.executable).with_name("caddy")

_APPEND = "trusted_proxies 127.0.0.0/8\nheader_up -Forwarded"
_KINDS = {
    "appends": _APPEND,
    "overwrites": "header_up -Forwarded",
    "forwarded": f'header_up -X-Forwarded-For\nheader_up +Forwarded "for={{remote_host}};by={ADDRESS}"',
    "underscores": _APPEND,
    "both": "trusted_proxies 127.0.0.0/8",
    "unbound": _APPEND,
}
"""What each does to the headers. Unless it trusts what comes before it, it overwrites X-Forwarded-For by itself."""

_SITE = """
http://{name}:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{to} {{
        {headers}
        {transport}
    }}
}}
"""


def _site(name: str, headers: str, port: int, to: int, source: str | None) -> str:
    transport = f"transport http {{\nlocal_address {source}\n}}" if source else ""
    return _SITE.format(name=name, headers=headers, port=port, to=to, transport=transport)


@contextmanager
def in_front_of(app: ServerProcess, folder: Path) -> Iterator[ServerProcess]:
    """Run Caddy: as each of its kinds by the Host header, and as `twice`, which passes on to `appends`."""
    port = free_port()
    sites = [
        _site(name, headers, port, app.port, None if name == "unbound" else ADDRESS) for name, headers in _KINDS.items()
    ]
    sites.append(_site("twice", f"{_APPEND}\nheader_up Host appends", port, port, BEFORE))
    configuration = folder / "Caddyfile"
    settings = f"{{\nadmin off\nauto_https off\npersist_config off\nstorage file_system {folder}/caddy\n}}\n"
    configuration.write_text(settings + "".join(sites))
    command = [str(BINARY), "run", "--config", str(configuration), "--adapter", "caddyfile"]
    with running_proxy(command, port, folder) as proxy:
        yield proxy
