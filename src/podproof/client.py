"""The caller's half: the token file that the kubelet keeps fresh, and how its token goes on a request."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Generator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from podproof._token.jwt import CLOCK_SKEW, numeric_date, read_claims
from podproof.errors import ConfigurationError, MalformedToken

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)

_FOLDER = Path("/var/run/secrets/podproof")

_VOLUME = """\
The kubelet keeps a token there in a pod with this volume:

volumes:
  - name: podproof
    projected:
      sources:
        - serviceAccountToken:
            audience: {audience}
            expirationSeconds: 3600
            path: {file}
containers:
  - volumeMounts:
      - name: podproof
        mountPath: {folder}
        readOnly: true
"""

_NOT_REFRESHED = (
    "The kubelet does not refresh the token of a pod that is being deleted (kubernetes#116481). "
    "If this pod is not, see the kubelet's log on its node."
)


class TokenUnavailable(Exception):
    """There is no token to send. Says which file, what is wrong with it, and what to do; never a token."""

    def __str__(self) -> str:
        return "\n".join(self.args)


class HostNotAllowed(Exception):
    """The request goes to a host that is not among `hosts`: it is not sent, with the token or without."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires_at: float


class TokenFile:
    """A mounted token file, read anew each time: that takes microseconds, and sees every rotation at once.

    The last good token is kept for one purpose: while it has life left, it stands in for a file that is
    missing, empty or otherwise of no use for a moment. Safe to share between threads.

    `clock` gives Unix seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        audience: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._audience = audience
        self._clock = clock
        self._kept: _Token | None = None
        self._failing = False

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r}, audience={self._audience!r})"

    def read(self) -> str:
        """Return the token.

        Raises TokenUnavailable when no token read earlier has life left and the file is missing, unreadable,
        empty, no JSON Web Token, for another audience than the one given, or expired for more than
        `CLOCK_SKEW` seconds.
        """
        try:
            token = self._look()
        except TokenUnavailable as problem:
            kept = self._kept
            if kept is None or (left := kept.expires_at - self._clock()) <= 0:
                raise
            if not self._failing:
                self._failing = True
                _log.warning("%s. The token read before it is used for another %.0f s.", problem.args[0], left)
            return kept.text
        self._kept, self._failing = token, False
        return token.text

    def _look(self) -> _Token:
        try:
            text = self._path.read_bytes().decode("ascii", "replace").strip()
        except OSError as error:
            raise self._unavailable(f"cannot be read: {error.strerror}") from error
        if not text:
            raise self._unavailable("is empty")
        try:
            found = read_claims(text)
        except MalformedToken:
            raise self._unavailable("does not hold a JSON Web Token") from None

        named = found.get("aud")
        audiences = named if isinstance(named, list) else [named]
        if self._audience is not None and self._audience not in audiences:
            issued_for = ", ".join(map(str, audiences))
            raise self._unavailable(f"holds a token for {issued_for}, not for {self._audience}")

        try:
            expires_at = numeric_date(found, "exp")
        except MalformedToken:
            raise self._unavailable("holds a token without an end, which no projected volume does") from None
        if (late := self._clock() - expires_at) > CLOCK_SKEW:
            raise TokenUnavailable(
                f"the token file {self._path} holds a token that expired {late:.0f} s ago", _NOT_REFRESHED
            )
        return _Token(text, expires_at)

    def _unavailable(self, problem: str) -> TokenUnavailable:
        volume = _VOLUME.format(audience=self._audience or "AUDIENCE", file=self._path.name, folder=self._path.parent)
        return TokenUnavailable(f"the token file {self._path} {problem}", volume)


class _Request(Protocol):
    @property
    def url(self) -> object: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def request(self) -> _Request: ...


_R = TypeVar("_R", bound=_Request)

# An httpx request may come by more than once: sent again by the app, or as the next one of a redirect. By this
# extension we know that its header is ours, to be replaced, not the app's, which wins; and where there is none any
# more, that it was taken off because the redirect leads elsewhere.
_OURS = "podproof.authorized"


class TokenAuth:
    """Puts the token on requests of `requests`, httpx and httpx2: the value of their `auth=`.

    A header that is there already wins. `TokenClient.auth` makes these.
    """

    def __init__(self, file: TokenFile, hosts: Collection[_Host] | None = None) -> None:
        self._file = file
        self._hosts = hosts

    def __repr__(self) -> str:
        return f"TokenAuth({self._file!r})"

    def __call__(self, request: _R) -> _R:
        """Put the token on the request and return it: what `requests` calls.

        Raises TokenUnavailable, HostNotAllowed.
        """
        sent = self._authorize(request)
        if sent is not None and hasattr(request, "register_hook"):
            request.register_hook("response", _Retry(self._file, sent))
        return request

    def auth_flow(self, request: _Request) -> Generator[_Request, _Response, None]:
        """Send the request with the token, and once more after a 401: what httpx calls on its own `Auth`.

        Raises TokenUnavailable, HostNotAllowed.
        """
        sent = self._authorize(request)
        response = yield request
        # The request that got this answer: the first one, or where its redirects led.
        last = response.request
        if (fresh := _newer(self._file, sent, response)) and _is_in_memory(last):
            last.headers["Authorization"] = fresh
            yield last

    def _authorize(self, request: _Request) -> str | None:
        extensions: MutableMapping[str, object] = getattr(request, "extensions", {})
        if ("Authorization" in request.headers) != (_OURS in extensions):
            return None
        if self._hosts is not None:
            _check_host(str(request.url), self._hosts)
        request.headers["Authorization"] = sent = _authorization(self._file)
        extensions[_OURS] = True
        return sent


class TokenClient:
    """Sends this pod's token with requests to one app, which names itself by `audience`.

    The token file is `path`, else `$PODPROOF_TOKEN_FILE`, else `/var/run/secrets/podproof/<audience>/token` where an
    audience is given, else `/var/run/secrets/podproof/token`. With an audience, a token for another is not sent.

    >>> with TokenClient("bob").session() as http:
    ...     http.get("http://bob/whoami").json()
    {'service_account': 'default/alice', 'pod': 'default/alice-pod'}

    The same with httpx or httpx2, sync or async:

    >>> with httpx.Client(auth=TokenClient("bob").auth) as http:
    ...     http.get("http://bob/whoami").json()
    {'service_account': 'default/alice', 'pod': 'default/alice-pod'}

    No request leaves without the token: where there is none to send, TokenUnavailable is raised. Only a
    request that has an Authorization header already keeps that one. After a 401 the request is sent once more
    if the file holds another token by then and the body can be sent again.

    In a redirect the token stays on its origin: scheme, host and port, where only `http` may turn to `https` on
    the standard ports. Another origin is asked without it. `hosts` narrows where it goes to begin with: names
    such as `bob`, `bob.default.svc:8080` or `*.default.svc` (every name below that one). A request to any other
    host raises HostNotAllowed and is not sent.

    `clock` gives Unix seconds. Raises ConfigurationError.
    """

    def __init__(
        self,
        audience: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        hosts: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = TokenFile(
            path or os.environ.get("PODPROOF_TOKEN_FILE") or _mounted(audience),
            audience=audience,
            clock=clock,
        )
        names = [hosts] if isinstance(hosts, str) else hosts
        self._hosts = None if names is None else tuple(map(_parse_host, names))

    def __repr__(self) -> str:
        return f"TokenClient({self._file!r})"

    def token(self) -> str:
        """Return the token as it is in the file now. Raises TokenUnavailable."""
        return self._file.read()

    def headers(self) -> dict[str, str]:
        """Return the header for one request, where `auth` does not serve (aiohttp, gRPC metadata).

        Ask anew for each request, since the token rotates. Where it goes is yours to see: neither `hosts` nor
        redirects are watched here. Raises TokenUnavailable.
        """
        return {"Authorization": _authorization(self._file)}

    @property
    def auth(self) -> TokenAuth:
        """The `auth=` of `requests`, httpx and httpx2, sync and async.

        With `requests`, prefer `session()`: in a redirect, a `.netrc` takes the place of any other `auth`.
        With httpx or httpx2, ask for it once that is imported: before, it puts on the token but cannot retry.
        """
        # httpx shows a response only to subclasses of its own Auth, and an app that uses it has imported it.
        bases = [base for name in ("httpx", "httpx2") if (base := getattr(sys.modules.get(name), "Auth", None))]
        return _auth_class(*bases)(self._file, self._hosts)

    def session(self) -> requests.Session:
        """Return a new `requests.Session` that sends the token, whatever a `.netrc` says."""
        session = _session_class()()
        session.auth = self.auth
        return session


def _mounted(audience: str | None) -> Path:
    """Return the default token file. Raises ConfigurationError where the audience cannot name its folder."""
    if audience is None:
        return _FOLDER / "token"
    if audience in {"", ".", ".."} or "/" in audience:
        raise ConfigurationError(
            f"audience: {audience!r} cannot name the token's folder: give path=, or set PODPROOF_TOKEN_FILE"
        )
    return _FOLDER / audience / "token"


@functools.cache
def _auth_class(*bases: type) -> type[TokenAuth]:
    return type("TokenAuth", (TokenAuth, *bases), {}) if bases else TokenAuth


@functools.cache
def _session_class() -> type[requests.Session]:
    import requests  # noqa: PLC0415 - httpx users need not load it

    class Session(requests.Session):
        def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
            """Let the token stay on its host in a redirect, where `requests` would prefer a .netrc to it."""
            before, after = response.request.url, prepared_request.url
            if self.should_strip_auth(before, after):  # type: ignore[no-untyped-call]  # by types-requests
                prepared_request.headers.pop("Authorization", None)

    return Session


@dataclass(frozen=True, slots=True)
class _Retry:
    """A response hook for `requests`: after a 401, the same request with another token, if there is one."""

    file: TokenFile
    sent: str = field(repr=False)

    def __call__(self, response: requests.Response, **options: Any) -> requests.Response:
        fresh = _newer(self.file, self.sent, response)
        if fresh is None or not _rewind(response.request):
            return response
        # The connection goes back to its pool once the body is read.
        _ = response.content
        request = response.request.copy()
        request.headers["Authorization"] = fresh
        answer: requests.Response = response.connection.send(request, **options)
        answer.history.append(response)
        return answer


def _authorization(file: TokenFile) -> str:
    return f"Bearer {file.read()}"


def _newer(file: TokenFile, sent: str | None, response: _Response) -> str | None:
    """Return another Authorization than the refused one, if there is one by now.

    Nothing is thrown away here: what another thread has just read stays good for all.
    """
    if response.status_code != 401 or sent is None:
        return None
    if response.request.headers.get("Authorization") != sent:
        # A redirect led away from the token's host: a 401 from there must not call the token back.
        return None
    try:
        fresh = _authorization(file)
    except TokenUnavailable:
        return None
    return fresh if fresh != sent else None


def _rewind(request: requests.PreparedRequest) -> bool:
    """Make the body ready to be sent again, if it can be."""
    body: object = request.body
    if body is None or isinstance(body, bytes | str):
        return True
    from requests.exceptions import UnrewindableBodyError  # noqa: PLC0415 - loaded by now
    from requests.utils import rewind_body  # noqa: PLC0415 - loaded by now

    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True


def _is_in_memory(request: _Request) -> bool:
    """Tell whether an httpx request's body can be sent again: a streamed one cannot."""
    try:
        return hasattr(request, "content")
    except RuntimeError:  # httpx's RequestNotRead
        return False


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    subdomains: bool
    port: int | None

    def __str__(self) -> str:
        return ("*." if self.subdomains else "") + self.name + ("" if self.port is None else f":{self.port}")

    def matches(self, name: str, port: int | None) -> bool:
        same = name.endswith(f".{self.name}") if self.subdomains else name == self.name
        return same and self.port in {None, port}


_HOST = re.compile(r"(\*\.)?([\w.-]+|\[[0-9a-f:.]+\])(?::(\d+))?", re.ASCII | re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


def _parse_host(text: str) -> _Host:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"hosts: {text!r} is no host: give names such as 'bob', 'bob.default.svc:8080' or '*.default.svc'"
        )
    wildcard, name, port = match.groups()
    return _Host(name.strip("[]").lower(), wildcard is not None, None if port is None else int(port))


def _check_host(url: str, hosts: Collection[_Host]) -> None:
    parts = urlsplit(url)
    name = parts.hostname or ""
    port = parts.port or _PORTS.get(parts.scheme)
    if not any(host.matches(name, port) for host in hosts):
        allowed = ", ".join(map(str, hosts)) or "none"
        raise HostNotAllowed(f"the token does not go to {name}:{port}: the hosts allowed are {allowed}")
