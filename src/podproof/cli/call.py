"""`podproof call URL`: make a caller's request, and explain the response."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from podproof._token.header_name import AUTHORIZATION
from podproof._token.jwt import read_claims
from podproof.cli.durations import format_duration
from podproof.cli.errors import CommandError
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.mounts import token_files
from podproof.client import TokenClient, TokenUnavailable
from podproof.errors import ConfigurationError

if TYPE_CHECKING:
    import requests

_REALM = re.compile(r'Bearer realm="([^"]*)"(?:, error="([^"]*)")?')
_LONGEST_BODY = 500
_DOCTOR = "kubectl exec deployment/SERVER -- podproof doctor"


class CallOptions(NamedTuple):
    """What to call: `audience`, `path` and `header` of the token as `TokenClient` has them; `timeout` in seconds."""

    url: str
    method: str = "GET"
    audience: str | None = None
    path: str | None = None
    timeout: float = 10.0
    header: str = AUTHORIZATION


def make_call(options: CallOptions, now: float, root: Path = Path("/")) -> Iterator[Finding]:
    """Make a request with `TokenClient`, and yield findings on the token, the way there and the response.

    `now` is in Unix seconds; mounted tokens are looked for below `root`. No finding contains the token.

    Raises CommandError for an invalid URL, audience or header, or if several tokens are mounted.
    """
    if re.match(r"https?://[^/]", options.url) is None:
        raise CommandError(f"invalid URL {options.url!r:.200}: expected one such as http://bob/whoami")
    try:
        path = options.path or _find_token(options.audience, root)
        client = TokenClient(options.audience, path=path, header=options.header)
        token = client.token()
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    except TokenUnavailable as error:
        yield fail("token", *map(str, error.args))
        return
    claims = read_claims(token)
    yield _describe_token(claims, now)
    import requests  # noqa: PLC0415  takes longer to import than the rest of the command

    with client.session() as session:
        if requests.utils.select_proxy(options.url, requests.utils.get_environ_proxies(options.url)):
            yield warn(
                "proxy",
                "the environment names a proxy for this URL: it replaces this pod's address (wrong-address), and over "
                "http it sees the token",
                f"export NO_PROXY={urlsplit(options.url).hostname}",
            )
        try:
            response = session.request(options.method, options.url, timeout=options.timeout)
        except requests.RequestException as error:
            yield _explain_failure(options, error)
        else:
            yield from _explain_response(response, options.header, claims, token)


def _find_token(audience: str | None, root: Path) -> Path | None:
    """Return the only mounted token if no audience selects one; None leaves the choice to `TokenClient`."""
    files = token_files(root, os.environ) if audience is None else []
    if len(files) > 1 and not os.environ.get("PODPROOF_TOKEN_FILE"):
        names = " or ".join(file.parent.name for file in files)
        raise CommandError(f"several tokens are mounted: choose one with --audience {names}")
    return files[0] if files else None


def _describe_token(claims: Mapping[str, Any], now: float) -> Finding:
    text = f"for {' and '.join(_audiences(claims))}, {format_duration(max(claims['exp'] - now, 0))} left"
    bound = claims.get("kubernetes.io")
    if isinstance(bound, dict) and isinstance(pod := bound.get("pod"), dict):
        return ok("token", f"{text}, bound to pod {bound.get('namespace')}/{pod.get('name')}")
    return warn(
        "token",
        f"{text}; it is not bound to a pod and is rejected (not-pod-bound)",
        "podproof manifests --only caller --caller NAMESPACE/NAME --audience bob",
    )


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    named = claims.get("aud")
    return [str(one) for one in (named if isinstance(named, list) else [named])]


# The explanation, by a word in the error's text, which contains those that it wraps.
_FAILURES = (
    ("Proxy", "the proxy cannot be reached or refused to connect", "export NO_PROXY={host}"),
    ("NameResolution", "the name {host} cannot be resolved", "kubectl get services --all-namespaces"),
    (
        "SSL",
        "the server's certificate is not accepted",
        "export REQUESTS_CA_BUNDLE=FILE   (the authority's certificate)",
    ),
    (
        "ConnectTimeout",
        "there was no connection within {timeout:g} s; a NetworkPolicy may block it",
        "kubectl get networkpolicies --all-namespaces",
    ),
    ("ReadTimeout", "the server sent no response within {timeout:g} s", "kubectl logs deployment/SERVER"),
    (
        "refused",
        "the connection was refused: no server listens at this address and port",
        "kubectl get endpoints --all-namespaces   (and in the server's pod: podproof doctor)",
    ),
)


def _explain_failure(options: CallOptions, error: BaseException) -> Finding:
    values = {"host": urlsplit(options.url).hostname, "timeout": options.timeout}
    for word, message, fix in _FAILURES:
        if word in repr(error):
            return fail("response", message.format_map(values), fix.format_map(values))
    return fail("response", f"the request failed with {type(error).__name__}", "kubectl get services --all-namespaces")


def _explain_response(
    response: requests.Response, header: str, claims: Mapping[str, Any], token: str
) -> Iterator[Finding]:
    status = f"{response.status_code} {response.reason}"
    problem = _problem(response)
    detail = f": {problem['detail']}" if problem.get("detail") else ""
    challenge = _REALM.search(response.headers.get("WWW-Authenticate", ""))
    if response.history:
        yield ok("response", f"redirected to {response.url}")
    if response.ok:
        yield ok("response", f"{status}: the caller is allowed\n{_body(response, token)}")
    elif not problem and challenge is None:
        yield fail(
            "response",
            f"{status}, not from podproof: another server or the app itself sent it\n{_body(response, token)}",
            "kubectl logs deployment/SERVER",
        )
    else:
        text = f"{status}{detail}"
        if request_id := problem.get("request_id"):
            text += f" (request id {request_id})"
        meaning, fix = _meaning(response.status_code, challenge, header, claims)
        yield fail("response", f"{_redact(text, token)}\n{meaning}", fix)


def _meaning(status: int, challenge: re.Match[str] | None, header: str, claims: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a denied request means for the caller, and what to do."""
    expected = challenge[1] if challenge else ""
    match status:
        case 401 if challenge and challenge[2] is None:
            return (
                f"The server received no token: a proxy or a redirect removed the {header} header, or the server takes "
                "tokens in another one (its PODPROOF_HEADER).",
                "Call the server's Service directly, with --header if it has another one.",
            )
        case 401 if expected not in _audiences(claims):
            return (
                f"The server's audience is {expected}, and the token is for {' and '.join(_audiences(claims))} "
                "(wrong-audience).",
                f"podproof manifests --only caller --caller NAMESPACE/NAME --audience {expected}",
            )
        case 401:
            return (
                "The token is rejected: it is expired, invalid or not bound to a pod, or its pod no longer exists.",
                f"podproof inspect\nand, with the request id, for the reason in the server's log:\n"
                f"kubectl logs deployment/SERVER\n{_DOCTOR}",
            )
        case 403:
            return (
                "The token is accepted, but the caller is not allowed (not-allowed), or the server sees another "
                "address than this pod's (wrong-address).",
                "Add the caller to PODPROOF_ALLOW or to the rules; the server's log has the reason:\n"
                f"kubectl logs deployment/SERVER\n{_DOCTOR}",
            )
        case 503:
            return (
                "The server cannot authenticate callers now: it does not reach the API server, is overloaded, or this "
                "pod has just started.",
                f"Try again; if it persists:\n{_DOCTOR}",
            )
        case _:
            return "The server does not accept the request in this form.", "kubectl logs deployment/SERVER"


def _problem(response: requests.Response) -> Mapping[str, Any]:
    """Return the problem details (RFC 9457) of a response, empty if it has none."""
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    try:
        document = json.loads(response.content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _body(response: requests.Response, token: str) -> str:
    text = _redact(response.text, token)[:_LONGEST_BODY]
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text).strip()


def _redact(text: str, token: str) -> str:
    """Replace the token and its parts: an app may send back what it got."""
    for secret in (token, *token.split(".")):
        text = text.replace(secret, "TOKEN")
    return text
