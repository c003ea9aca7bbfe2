from __future__ import annotations

import datetime as dt
import ipaddress
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from podproof.client import TokenClient
from tests.support.fake_api import NOW, Clock
from tests.support.http_libraries import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.http_libraries import SendRequest

HOUR = 3600.0


@dataclass
class Volume:
    """A projected volume, written as the kubelet does: `token -> ..data/token`, `..data -> ..<n>`, replaced at once."""

    folder: Path
    versions: int = 0

    @property
    def file(self) -> Path:
        return self.folder / "token"

    def write(self, content: str | bytes) -> None:
        self.versions += 1
        version = self.folder / f"..{self.versions}"
        version.mkdir()
        (version / "token").write_bytes(content.encode() if isinstance(content, str) else content)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/token")

    def rotate(self, audience: str = "bob", lifetime: float = HOUR) -> str:
        token = mint(aud=[audience], exp=NOW + lifetime, jti=str(self.versions))
        self.write(token)
        return token


def mint(**claims: object) -> str:
    return jwt.encode(claims, "a key of at least thirty-two bytes for HS256", algorithm="HS256")


@dataclass(frozen=True)
class ReceivedRequest:
    method: str
    path: str
    authorization: str | None
    body: bytes
    headers: Mapping[str, str]


@dataclass
class RecordingServer:
    """A server that responds as `respond` says, by default with 200, and keeps the requests it received."""

    url: str = ""
    certificate: str | None = None
    requests: list[ReceivedRequest] = field(default_factory=list)
    respond: Callable[[ReceivedRequest], Response] = lambda _: Response("fine")

    @property
    def authorizations(self) -> list[str | None]:
        return [request.authorization for request in self.requests]

    def redirect(self, target: str, status: int = 307) -> None:
        """Redirect every request that is not for `/there`."""
        self.respond = lambda request: (
            Response("there") if request.path == "/there" else Response(status=status, headers={"Location": target})
        )

    def app(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = Request(environ)
        received = ReceivedRequest(
            request.method,
            request.path,
            request.headers.get("Authorization"),
            request.get_data(),
            dict(request.headers),
        )
        self.requests.append(received)
        return self.respond(received)(environ, start_response)


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        pass


@contextmanager
def run_recording_server(host: str, tls: tuple[str, str] | None = None) -> Iterator[RecordingServer]:
    server = RecordingServer(certificate=tls and tls[0])
    http = make_server(host, 0, server.app, threaded=True, request_handler=QuietHandler, ssl_context=tls)
    server.url = f"{'https' if tls else 'http'}://{host}:{http.port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "PODPROOF_TOKEN_FILE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    folder = tmp_path / "volume"
    folder.mkdir()
    return Volume(folder)


@pytest.fixture
def token_client(volume: Volume, clock: Clock) -> TokenClient:
    return TokenClient("bob", path=volume.file, clock=clock)


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with run_recording_server("127.0.0.1") as server:
        yield server


@pytest.fixture
def other_server() -> Iterator[RecordingServer]:
    with run_recording_server("127.0.0.2") as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bob")])
    today = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "certificate.pem"), str(folder / "key.pem")


@pytest.fixture
def tls_server(certificate: tuple[str, str]) -> Iterator[RecordingServer]:
    with run_recording_server("127.0.0.1", tls=certificate) as server:
        yield server


@pytest.fixture(params=list(LIBRARIES.values()), ids=list(LIBRARIES))
def send(request: pytest.FixtureRequest) -> SendRequest:
    library: SendRequest = request.param
    return library
