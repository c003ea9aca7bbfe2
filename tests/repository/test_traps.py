"""What goes wrong in this field, and what podproof does about it: each row has at least one test that says so.

A test names the rows that it guards by `@pytest.mark.trap(row, ...)`. "The server" is the API server.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TRAPS = {
    # What a TokenReview answers
    1: "a token with a blank before it is reviewed as system:anonymous, for our audience: only service accounts pass",
    2: "the server takes `tok`, `tok ` and `tok junk` for one token: here a token has one spelling, or is refused",
    3: "an authenticator may vouch and know no audiences: one of ours must be echoed",
    4: "without an audience the server's own tokens pass, to be replayed by us: one is needed, and not the server's",
    5: "an audience from the request is the caller's choice: ours comes from the options, and there is no weaker retry",
    6: "the error text is the same for every failure: it decides nothing, and is shown to nobody",
    7: "some errors of the server look as if they would pass: three attempts within one deadline, and no more",
    8: "the server's 401 and 403 are about our credential: a 503, our token read anew, the missing permission named",
    9: "any field may be missing, empty, doubled or of another type: what is not as specified is refused",
    10: "a service account's name may hold dots, its username has four parts: parsed so",
    11: "node and credential are not named before Kubernetes 1.30: both may be missing",
    12: "some tokens are bound to no pod: there is none to compare with, so they are refused",
    13: "a RoleBinding grants no TokenReviews: said at start, not at the first request",
    # The pod and its address
    14: "a pod of the same name may have taken its place: UIDs are compared",
    15: "the server does not check whose the pod is: its service account is compared",
    16: "a terminating pod has work to finish: it is let in until it has gone",
    17: "a finished pod's token is still good, and its address may be another's: refused by its phase",
    18: "a pod's address comes late: from the wrong place the pod is read once more, at most once a second",
    19: "a pod has several addresses, each with several spellings: all are compared, in one spelling",
    20: "a pod on the host network has its node's address: refused unless asked for",
    21: "addresses change hands, and are no part of what is remembered of a token: compared for each request",
    22: "a forwarded header is written by the caller: believed from named proxies only, from right to left",
    23: "a server may put a header's address in the place of the peer's: noticed and refused, with what to change",
    24: "a sidecar hides its pod behind loopback: refused, and said so",
    25: "an address can be forged: without a good token it opens nothing",
    26: "a Unix socket has no peer address: no entry",
    # Load
    27: "the first of many who wait may give up: the question goes on, and its answer is for all",
    28: "memory is finite, and junk pushes out what is good: bounded, with refusals in a memory of their own",
    29: "each forgery costs the server a review: refused by form first, and only so many at a time",
    30: "a token may end before it is forgotten: remembered no longer than it is good",
    31: "a connection outlives its check: it ends with the token",
    32: "a connection that crosses a fork mixes up answers: each process has its own",
    33: "tokens leak through logs and errors: none is in any",
    # The HTTP edge
    34: "two credentials, joined or apart, are read differently by each server: refused",
    35: "a bad credential must not pass for none: optional is for no credential alone",
    36: "the app and its logs see the token: it is taken off the request",
    37: "a header could say who is calling: an identity is only where no header reaches",
    38: "a path has many spellings: only the plain one is exempt",
    39: "frameworks answer 400, 403 or 500 at will: 401 with a challenge, 403, 503 with Retry-After; WebSockets too",
    40: "under ASGI, Django's RemoteUserMiddleware believes a Remote-User header: it is taken off",
    # Our own credential, and the client's half
    41: "a mounted token rotates, and its file may be empty for a moment: read anew, and an empty one is no token",
    42: "many threads get a 401 for one old token: one retry each, with the new one, if the body can be sent again",
    43: "a token file that cannot be read must not mean a request without a token: an error",
    44: "a redirect leads elsewhere: the token stays",
    45: "the kubelet stops refreshing a terminating pod's token: an expired file is told, with the reason",
    46: "a release of the official client sent no Authorization header from a pod: excluded, and seen on the wire",
    47: "urllib3's retries multiply a timeout: one deadline, kept by a server that hangs or drips",
    48: "clocks differ: a minute either way is left to the server's verdict",
    # The edges: servers, frameworks, people
    51: "contexts are copied into tasks, timers and the next request: what they hold is emptied when the request ends",
    52: "servers fork in C: no thread, no I/O and no connection before the first request of a process",
    56: "trusted proxies that cover everything void the address check: refused",
    59: "a hung connection takes a share of the deadline only, and idle connections are not tried one by one",
    61: "an error in the lifespan is taken for an app without one: a wrong option fails the startup with its message",
    62: "a response may begin after the token's end: known before the app runs; its first chunk passes",
    63: "HTTP_PROXY would see the token of a plain-http request: the proxy is bypassed, or the request is not sent",
    65: "a scope that is neither http, websocket nor lifespan would run the app unauthenticated: denied",
}

TESTS = Path(__file__).parents[1]


def marked_rows(source: str) -> Iterator[int]:
    """Return the rows that the tests of a file name in their decorators."""
    for node in ast.walk(ast.parse(source)):
        for decorator in getattr(node, "decorator_list", ()):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.trap":
                assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                assert node.name.startswith("test_")
                yield from (ast.literal_eval(argument) for argument in decorator.args)


@pytest.fixture(scope="module")
def guarded() -> set[int]:
    return {row for path in TESTS.rglob("test_*.py") for row in marked_rows(path.read_text())}


@pytest.mark.parametrize("row", TRAPS)
def test_each_danger_has_a_test(guarded: set[int], row: int) -> None:
    assert row in guarded, TRAPS[row]


def test_each_marker_names_a_danger(guarded: set[int]) -> None:
    assert guarded <= set(TRAPS)
    assert [*TRAPS] == sorted(TRAPS)
    assert {*range(1, 49)} <= set(TRAPS)


def test_a_marker_is_found_where_it_stands() -> None:
    source = "@pytest.mark.trap(1, 2)\ndef test_a(): ...\n@pytest.mark.trap(3)\nasync def test_b(): ...\n# trap(4)\n"
    assert [*marked_rows(source)] == [1, 2, 3]
