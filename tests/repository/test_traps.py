"""What goes wrong in systems like this one, and what podproof does about it: each row has at least one test.

A test names the rows that it covers by `@pytest.mark.trap(row, ...)`. To add a row, add it to TRAPS and mark its test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Trap(NamedTuple):
    """What goes wrong, and what podproof does."""

    problem: str
    solution: str


TRAPS = {
    # The TokenReview
    1: Trap(
        "a token with a leading blank is authenticated as system:anonymous, with our audience in the response",
        "rejected by its characters before the review; only system:serviceaccount: usernames are accepted",
    ),
    2: Trap(
        "`tok`, `tok ` and `tok junk` are the same token to the API server",
        "one canonical spelling, any other is denied with 400, and no spelling is a cache key of its own",
    ),
    3: Trap(
        "an authenticator without audiences responds `authenticated: true` and empty status.audiences",
        "rejected unless status.audiences has one of our audiences",
    ),
    4: Trap(
        "without an audience, tokens for the API server itself are accepted, and this app could replay them",
        "an audience is mandatory; one that is also the API server's is an error at startup",
    ),
    5: Trap(
        "an audience is taken from the token or the Host header, or a failure is retried with a weaker one",
        "audiences come from the options alone, and there is no second attempt with others",
    ),
    6: Trap(
        "status.error has the same text for every failure, also for those that pass",
        "logged, never sent to the caller, and never a reason to accept a token",
    ),
    7: Trap(
        "some errors of the API server look as if they would pass, and do not",
        "at most three attempts within one deadline",
    ),
    8: Trap(
        "401 and 403 from the API server are about this app's credential or its RBAC permissions",
        "503 to the caller, this app's token is read again, and the missing permission is logged",
    ),
    9: Trap(
        "fields of the response are missing, empty, doubled or of another type",
        "rejected unless exactly as specified",
    ),
    10: Trap("service account names may contain dots; usernames have exactly four parts", "parsed accordingly"),
    11: Trap("node-name and credential-id are absent before Kubernetes 1.30", "both are optional"),
    12: Trap("tokens that are bound to no pod name no pod to compare with", "rejected"),
    13: Trap(
        "a RoleBinding cannot grant tokenreviews, which are cluster-scoped",
        "missing permissions are logged at startup, not at the first request",
    ),
    # The pod and its address
    14: Trap("a pod is recreated under the same name", "UIDs are compared"),
    15: Trap(
        "the API server does not check that the pod runs as the service account of the token",
        "spec.serviceAccountName is compared",
    ),
    16: Trap("a terminating pod still works", "allowed until it is gone: deletionTimestamp is no reason to deny"),
    17: Trap(
        "a Succeeded or Failed pod keeps a valid token and an address that another pod may have by now",
        "denied by its phase",
    ),
    18: Trap(
        "a pod has no address in the API server just after its start",
        "on a mismatch the pod is read once more, about once a second at most",
    ),
    19: Trap(
        "a pod has several addresses, and an address several spellings",
        "all of status.podIPs are compared as parsed addresses, IPv4-mapped ones as IPv4",
    ),
    20: Trap("a pod on the host network has its node's address", "denied unless host_network is on"),
    21: Trap(
        "an address is reused, and a result that is cached by token alone outlives it",
        "addresses are compared on every request",
    ),
    22: Trap(
        "X-Forwarded-For is written by the caller",
        "used only from trusted_proxies, all occurrences joined, from right to left",
    ),
    23: Trap(
        "a server replaces the peer's address with one from a header (uvicorn does by default, from 127.0.0.1)",
        "detected and denied, with what to change",
    ),
    24: Trap("a sidecar or a port-forward makes every peer a loopback address", "denied with an error that names it"),
    25: Trap("source addresses can be spoofed on some networks", "an address without a valid token allows nothing"),
    26: Trap("a Unix socket has no peer address", "denied"),
    # Load
    27: Trap(
        "the first of several waiting callers disconnects, and the lookup that they share ends with it",
        "the lookup goes on with a deadline of its own, and its result is for all",
    ),
    28: Trap(
        "a cache is unbounded, or junk evicts what is valid",
        "caches are bounded, and rejected tokens have a cache of their own",
    ),
    29: Trap(
        "every forged token costs the API server a review",
        "rejected first by shape, size, audience, issuer and expiry; concurrent reviews are limited",
    ),
    30: Trap("a cached token is accepted beyond its expiry", "the cache's TTL ends with the token"),
    31: Trap("WebSockets and streams outlive the check", "closed when the token expires"),
    32: Trap("connections that cross a fork mix up responses", "each process has its own"),
    33: Trap("tokens leak through logs, traces and errors", "no log, trace, repr or error holds a token"),
    # HTTP
    34: Trap("two Authorization headers are joined by one server and passed on by another", "denied with 400"),
    35: Trap("an invalid credential counts as none where callers are optional", "always denied"),
    36: Trap("the app, its error pages and its logs see the token", "removed from the request"),
    37: Trap(
        "an identity is read from a header that a client can set",
        "set only in scope and environ keys that no client can reach",
    ),
    38: Trap(
        "a path has several spellings, and an exempt one is matched in the wrong one", "only the exact path is exempt"
    ),
    39: Trap(
        "frameworks respond with 400, 403 or 500 at will, and close WebSockets with 1000",
        "401 with a challenge, 403, or 503 with Retry-After, for WebSockets too",
    ),
    40: Trap("under ASGI, Django's RemoteUserMiddleware trusts a Remote-User header", "the header is removed"),
    # This app's credential, and the client
    41: Trap(
        "a mounted token rotates, and its file is missing or empty for a moment",
        "read again; the old token is kept until there is a new one",
    ),
    42: Trap(
        "many threads get a 401 for the same old token",
        "one retry each, with the new token, if the body can be sent again",
    ),
    43: Trap("a token file cannot be read, and the request is sent without a token", "an error"),
    44: Trap("a redirect takes the token to another host", "the token is not sent there"),
    45: Trap(
        "the kubelet stops refreshing the token of a terminating pod",
        "an expired token file is reported with this reason",
    ),
    46: Trap(
        "kubernetes 36.0.0 sends no Authorization header from inside a pod",
        "excluded as a dependency; a test reads the header off the wire",
    ),
    47: Trap("retries of urllib3 multiply a timeout", "no retries, one deadline, also if the server hangs or drips"),
    48: Trap("clocks differ by some seconds", "the API server decides; local checks allow 60 s either way"),
    # Servers, frameworks, people
    49: Trap(
        "each framework takes a root off the path in its own way, wherever it stands, or by a root of its own",
        "read as the wrapped app's framework does; a path with two readings is covered by no exemption and no rule",
    ),
    50: Trap(
        "a path with a trailing slash leads to the handler of the one without, past its rule",
        "an exact rule is about both forms; where a framework takes one for the other, both have to be allowed",
    ),
    51: Trap(
        "servers copy contexts into tasks, threads, timers and the next request of a kept connection",
        "what the context variable holds is emptied when the request ends",
    ),
    52: Trap(
        "servers fork in C: a thread started before dies with the locks that it holds",
        "no thread, no I/O and no connection before the first request of a process",
    ),
    53: Trap(
        "a server or middleware takes an address from X-Real-Ip, True-Client-IP, CF-Connecting-IP or another header",
        "the peer's address is looked for in every header that names one, before it is trusted",
    ),
    54: Trap(
        "OpenShift's router and Knative's queue-proxy send X-Forwarded-For and Forwarded, with empty parameters",
        "accepted where both lead to the same peer; an empty parameter is skipped",
    ),
    55: Trap(
        "the peer is the pod's node or a bridge (SNAT), and advice to trust it lets every process there in",
        "named as what it is, never as a proxy; a proxy that is trusted already is not to be named again",
    ),
    56: Trap(
        "trusted_proxies that cover every address, or the pod network, void the address check",
        "a configuration error; a warning; if all hops are trusted, none is the caller",
    ),
    57: Trap(
        "long headers cost CPU time before a token is looked at",
        "each header is bounded before it is parsed, and what a caller wrote is in no shared cache",
    ),
    58: Trap(
        "one address fills the queue of reviews before its first rejection is counted",
        "an address has a share of the places, waiting addresses take turns, and IPv6 counts by /64",
    ),
    59: Trap(
        "one hung connection takes the whole deadline, and each idle connection of the pool one request",
        "an attempt has a share of the deadline, and idle connections are not tried one by one",
    ),
    60: Trap(
        "a stray 404, or an error of etcd or a webhook in a TokenReview, is cached against a valid token",
        "401 needs the API server's word about this token or this pod; all else is 503, and is not cached",
    ),
    61: Trap(
        "servers take an error in the lifespan for an app without one, and start an app that answers 500",
        "a wrong option fails the startup with its message",
    ),
    62: Trap(
        "a WSGI response is discarded after its side effects; a body, a file or an upload goes on beyond the expiry",
        "the expiry is known before the app runs, and the first chunk is always sent; then each body ends",
    ),
    63: Trap(
        "HTTP_PROXY in the caller's pod sends the token of a plain-http request to the proxy",
        "the proxy is bypassed, or the request is not sent",
    ),
    64: Trap(
        "a denial reaches an app's own error handlers, which send its reason or a 500",
        "raised in the framework's own form, and one response in all",
    ),
    65: Trap(
        "ASGI scopes other than http, websocket and lifespan reach the app unauthenticated",
        "denied; only lifespan passes",
    ),
    66: Trap(
        "a managed cluster or an external signer has keys that are not in the JWK Set; another issuer's keys are in it",
        "a token of an unknown key or issuer is asked by a TokenReview, and each issuer has keys of its own",
    ),
    67: Trap(
        "a stateful MCP session belongs to whoever names its id, and a stream to whoever names one of its events",
        "both are bound to the pod that they were given to",
    ),
    68: Trap(
        "uvicorn's httptools parser adds trailers, which the caller writes, to the headers",
        "denied behind a trusted proxy where a header is there twice or announced as a trailer",
    ),
    # Forward auth
    69: Trap(
        "Envoy asks by the path of the caller's request: a probe that responds with 200 there lets it in",
        "whatever a trusted proxy sends is a question, at each path; nobody else may ask",
    ),
    70: Trap(
        "a request that is judged by X-Original-URI or X-Forwarded-Uri, which a caller or another proxy can write too",
        "one proxy's headers count, once each, from a trusted address; others have to say the same",
    ),
    71: Trap(
        "Caddy removes what the caller's Connection names from what it passes on, the identity headers too",
        "the documented configuration writes Connection itself",
    ),
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
def covered_rows() -> set[int]:
    return {row for path in TESTS.rglob("test_*.py") for row in marked_rows(path.read_text())}


@pytest.mark.parametrize("row", TRAPS)
def test_each_trap_has_a_test(covered_rows: set[int], row: int) -> None:
    assert row in covered_rows, TRAPS[row]


def test_each_marker_names_a_trap(covered_rows: set[int]) -> None:
    assert covered_rows <= set(TRAPS)


def test_markers_are_found_in_decorators_only() -> None:
    source = "@pytest.mark.trap(1, 2)\ndef test_a(): ...\n@pytest.mark.trap(3)\nasync def test_b(): ...\n# trap(4)\n"
    assert [*marked_rows(source)] == [1, 2, 3]
