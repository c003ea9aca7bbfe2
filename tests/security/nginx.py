"""A real nginx in front of an app. By the Host header it is a proxy of each kind of configuration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.security.proxy_process import ADDRESS, BEFORE, running_proxy
from tests.support.server_process import ServerProcess, free_port

BINARY = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
REQUIRED = "REQUIRE_NGINX" in os.environ
"""Set where nginx must be there: unlike the other proxies it is not on PyPI, and without it its tests are left out."""

_CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_http_version 1.1;
    map $http_forwarded $forwarded {{
        "" "for=$remote_addr;by={address}";
        default "$http_forwarded, for=$remote_addr;by={address}";
    }}
    {servers}
}}
"""

_SERVER = """
    server {{
        listen 127.0.0.1:{port};
        server_name {name};
        {extra}
        location / {{
            {headers}
            proxy_bind {bind};
            proxy_pass http://127.0.0.1:{to};
        }}
    }}
"""

_APPEND = 'proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Forwarded "";'
_KINDS = {
    "appends": _APPEND,
    "overwrites": 'proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Forwarded "";',
    "forwarded": 'proxy_set_header Forwarded $forwarded; proxy_set_header X-Forwarded-For "";',
    "underscores": _APPEND,
    "both": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "unbound": _APPEND,
}
"""What each does to the headers. All others pass as they come, but for names with underscores."""


def _server(name: str, headers: str, port: int, to: int) -> str:
    bind = "off" if name == "unbound" else ADDRESS
    extra = "underscores_in_headers on;" if name == "underscores" else ""
    return _SERVER.format(name=name, headers=headers, port=port, to=to, bind=bind, extra=extra)


@contextmanager
def in_front_of(app: ServerProcess, folder: Path) -> Iterator[ServerProcess]:
    """Run nginx: as each of its kinds by the Host header, and as `twice`, which passes on to `appends`."""
    assert BINARY is not None, "nginx is required here, and not installed: apt-get install nginx-light"
    port = free_port()
    twice = _APPEND + " proxy_set_header Host appends;"
    servers = [_server(name, headers, port, app.port) for name, headers in _KINDS.items()]
    servers.append(_SERVER.format(name="twice", headers=twice, port=port, to=port, bind=BEFORE, extra=""))
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(address=ADDRESS, servers="".join(servers)))
    command = [BINARY, "-p", str(folder), "-c", str(configuration), "-e", "error.log"]
    with running_proxy(command, port, folder) as proxy:
        yield proxy
