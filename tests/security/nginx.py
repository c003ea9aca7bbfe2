"""A real nginx in front of a Bob. By the Host header it is a proxy of each kind that people make of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.server_process import TIMEOUT_SECONDS, ServerProcess, free_port

ADDRESS, BEFORE = "127.0.0.100", "127.0.0.101"
"""Where nginx calls Bob from, and itself where it is in front of itself."""

BINARY = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
REQUIRED = "PODPROOF_REQUIRE_NGINX" in os.environ
needed = pytest.mark.skipif(BINARY is None and not REQUIRED, reason="there is no nginx: apt-get install nginx-light")

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


def _server(name: str, headers: str, port: int, bob: int) -> str:
    bind = "off" if name == "unbound" else ADDRESS
    extra = "underscores_in_headers on;" if name == "underscores" else ""
    return _SERVER.format(name=name, headers=headers, port=port, to=bob, bind=bind, extra=extra)


@contextmanager
def in_front_of(bob: ServerProcess, folder: Path) -> Iterator[ServerProcess]:
    """Run nginx: as each of its kinds by the Host header, and as `twice`, which passes on to `appends`."""
    assert BINARY is not None, "nginx is required here, and not installed"
    port = free_port()
    twice = _APPEND + " proxy_set_header Host appends;"
    servers = [_server(name, headers, port, bob.port) for name, headers in _KINDS.items()]
    servers.append(_SERVER.format(name="twice", headers=twice, port=port, to=port, bind=BEFORE, extra=""))
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(address=ADDRESS, servers="".join(servers)))
    command = [BINARY, "-p", str(folder), "-c", str(configuration), "-e", "error.log"]
    with (folder / "nginx.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    nginx = ServerProcess(port, folder / "socket", folder / "error.log", process.pid)
    try:
        end = time.monotonic() + TIMEOUT_SECONDS
        while not nginx.is_up():
            assert process.poll() is None, (folder / "nginx.out").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield nginx
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_SECONDS)
