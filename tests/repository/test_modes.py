"""Each security test runs in every mode, or stands here with the reason: a new one cannot forget the modes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]

BELOW = "what both modes are made of; the authenticator that is made of it: unit/authentication/test_authenticator.py"
BEFORE = (
    "decided before a token is looked at; hostile headers in each mode: security/test_headers.py, test_addresses.py"
)
CALLERS = "the caller's half, which knows no mode"
RULES = "unit/authorization/test_rules.py"

IN_ONE_MODE = {
    "process/frameworks/test_path_matrix.py": "paths, which are judged after the token",
    "process/test_first_request.py": "threads of each mode after a fork: unit/authentication/test_pod_watch.py",
    "security/test_grpc_proxies.py": "addresses; credentials of gRPC in each mode: test_grpc.py",
    "security/test_people_apps.py": "people's tokens; beside pods' in each mode: test_people_and_pods.py",
    "security/test_small_apps.py": "one attack of 40 on apps as the docs have them; all of them: the other files here",
    "unit/apiserver/test_client.py": BELOW,
    "unit/apiserver/test_connection.py": BELOW,
    "unit/apiserver/test_startup.py": BELOW,
    "unit/apiserver/test_stream.py": BELOW,
    "unit/authentication/test_claims.py": BELOW,
    "unit/authentication/test_fair_share.py": "floods of reviews; in each mode: security/test_forgery_floods.py",
    "unit/authentication/test_junk_tokens.py": BEFORE,
    "unit/authentication/test_key_set.py": BELOW,
    "unit/authentication/test_key_source.py": BELOW,
    "unit/authentication/test_pod_address.py": BELOW,
    "unit/authentication/test_pod_view.py": BELOW,
    "unit/authentication/test_pod_watch.py": BELOW,
    "unit/authentication/test_pods.py": BELOW,
    "unit/authentication/test_review_rate.py": "counts reviews; the calls of each mode: repository/test_api_load.py",
    "unit/authentication/test_signing_keys.py": BELOW,
    "unit/authentication/test_token_review.py": BELOW,
    "unit/authorization/test_namespace_labels.py": "decided after the token, by a call of its own",
    "unit/authorization/test_rbac.py": "decided after the token, by reviews of their own",
    f"{RULES}::test_an_exact_rule_is_about_the_path_with_and_without_a_trailing_slash": "decided after the token",
    "unit/cache/test_fork_local.py": BELOW,
    "unit/cache/test_identity_cache.py": BELOW,
    "unit/cache/test_review_threads.py": BELOW,
    "unit/cache/test_single_flight.py": BELOW,
    "unit/cache/test_ttl_cache.py": BELOW,
    "unit/client/test_auth.py": CALLERS,
    "unit/client/test_hosts.py": CALLERS,
    "unit/client/test_own_header.py": CALLERS,
    "unit/client/test_proxies.py": CALLERS,
    "unit/client/test_token_file.py": CALLERS,
    "unit/request/test_credential.py": BEFORE,
    "unit/request/test_paths.py": BEFORE,
    "unit/request/test_peer.py": BEFORE,
    "unit/request/test_problem.py": "how a denial looks; in each mode: security/test_indistinguishable_denials.py",
    "unit/request/test_real_proxies.py": BEFORE,
    "unit/request/test_routing.py": BEFORE,
    "unit/request/test_setup.py": "constructors, before a mode does anything",
    "unit/test_asgi.py::test_a_wrong_option_fails_the_lifespan_if_the_constructor_runs_on_an_event_loop": "it fails "
    "before there is a mode",
    "unit/test_errors.py": "errors are no mode's",
    "unit/test_identity.py": "values are no mode's",
    "unit/test_options.py": "options are no mode's",
}
"""Test files with tests of traps, or of tests/security, that do not run in every mode, and why they need not."""

IN_MODES = re.compile(r"\b(MODES|AUTO|make_apps|modes_in_turn|pairs_in_turn|ModeEnv)\b")
"""What a file names that goes through the modes itself."""

GIVES_MODES = {"make_authenticator", "make_client", "mode"}
"""Fixtures of tests/conftest.py by which a trap's test runs in every mode."""


@cache
def functions(path: Path) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]:
    tree = ast.parse(path.read_text())
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_marked(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    return any(ast.unparse(decorator).startswith(name) for decorator in function.decorator_list)


def arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}


def fixtures_with_modes(path: Path) -> set[str]:
    """Return the fixtures that a file's tests can take which lead to the mode."""
    conftests = [folder / "conftest.py" for folder in path.parents if folder.is_relative_to(TESTS)]
    known = [
        one
        for file in (path, *conftests)
        if file.exists()
        for one in functions(file)
        if is_marked(one, "pytest.fixture")
    ]
    found = set(GIVES_MODES)
    while more := {one.name for one in known if one.name not in found and arguments(one) & found}:
        found |= more
    return found


def in_one_mode() -> Iterator[str]:
    """Yield the files that never go through the modes, and `FILE::TEST` of the others' tests that do not."""
    for path in sorted(TESTS.rglob("test_*.py")):
        if IN_MODES.search(path.read_text()) or TESTS / "integration" in path.parents:
            continue
        name, with_modes = str(path.relative_to(TESTS)), fixtures_with_modes(path)
        traps = [one for one in functions(path) if is_marked(one, "pytest.mark.trap")]
        without = [one.name for one in traps if not arguments(one) & with_modes]
        if path.parent.name == "security" or (without and len(without) == len(traps)):
            yield name
        else:
            yield from (f"{name}::{one}" for one in without)


def test_each_security_test_runs_in_every_mode_or_says_why_not() -> None:
    assert {*in_one_mode()} == {*IN_ONE_MODE}
