"""The API server fails in every way: cached callers notice nothing, and new callers are denied with 503 in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from podproof._apiserver.client import ATTEMPTS, BACKOFF
from podproof._apiserver.connection import load_configuration
from podproof.errors import Unavailable
from podproof.identity import PodIdentity
from podproof.testing._emulator.certificates import authority
from tests.security.attacked_app import AttackedApp, AttackEnv, OffsetClock
from tests.support.leak_detector import LeakDetector

ENTRY_POINTS = ("wsgi", "asgi")
HANGING = ("silent", "hang", "drip-headers", "drip-body")
SHORT, AMPLE = 1.0, 20.0
"""Timeouts in seconds: for faults that last until the timeout, and for all others, on a machine that may be busy."""
TOLERANCE = 10.0
"""Seconds after the timeout until a request counts as hanging."""
CACHE_TTL = 300.0
"""Seconds, which must be longer than a test takes: its clock runs on."""

CONNECTION_FAULTS = ("refuse", "silent", "foreign-certificate", "wrong-name")
STATUSES = (400, 401, 403, 409, 429, 500, 501, 502, 503, 504)
RESPONSE_FAULTS = (
    "hang",
    "close",
    "reset",
    "cut",
    "drip-headers",
    "drip-body",
    "html",
    "content-type",
    "truncated",
    "huge",
)
FAULTS = [
    *(pytest.param(kind, {}, id=str(kind)) for kind in (*CONNECTION_FAULTS, *RESPONSE_FAULTS, *STATUSES)),
    *(pytest.param(kind, {"path": "*/pods/*"}, id=f"{kind} for pods") for kind in (*RESPONSE_FAULTS, *STATUSES)),
    *(pytest.param(429, {"retry_after": after}, id=f"429 after {after}") for after in (0, 60)),
    pytest.param(404, {"path": "*/tokenreviews"}, id="404 for reviews"),
]
RETRIED = (*RESPONSE_FAULTS[1:4], "html", "content-type", "truncated", "huge", 429, 500, 502, 503, 504)


@pytest.fixture(autouse=True)
def heal_api_server(attack_env: AttackEnv) -> Iterator[None]:
    yield
    attack_env.cluster.heal()


@pytest.fixture
def clock() -> OffsetClock:
    return OffsetClock()


MakeApp = Callable[[object], AttackedApp]


@pytest.fixture
def make_app(attack_env: AttackEnv, leak_detector: LeakDetector, clock: OffsetClock) -> MakeApp:
    """Return a function that makes an app with a timeout for one kind of fault."""

    def make(kind: object) -> AttackedApp:
        return attack_env.make_app(
            leak_detector, clock, timeout=SHORT if kind in HANGING else AMPLE, cache_ttl=CACHE_TTL
        )

    return make


@pytest.fixture
def app(make_app: MakeApp) -> AttackedApp:
    return make_app(None)


def assert_unavailable(app: AttackedApp, entry_point: str, token: str) -> str:
    """Send a token that is not cached, which is denied with 503 in time; return the reason in the log."""
    begun = time.monotonic()
    result = app.send_token(entry_point, token)
    assert time.monotonic() - begun < app.authenticator.options.timeout + TOLERANCE
    assert (result.status, result.code) == (503, "unavailable")
    assert int(result.headers["retry-after"]) > 0
    return result.reason


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize(("kind", "how"), FAULTS)
def test_cached_callers_are_allowed_new_ones_get_503_and_no_failure_is_cached(
    attack_env: AttackEnv, make_app: MakeApp, entry_point: str, kind: Any, how: dict[str, Any]
) -> None:
    app = make_app(kind)
    cached, new = attack_env.alice.token("bob"), attack_env.alice.token("bob")
    assert app.send_token(entry_point, cached).allowed
    attack_env.cluster.fail(kind, **how)
    assert app.send_token(entry_point, cached).allowed
    assert_unavailable(app, entry_point, new)
    assert app.send_token(entry_point, cached).allowed
    attack_env.cluster.heal()
    assert app.send_token(entry_point, new).allowed
    assert app.send_token(entry_point, cached).allowed


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", ["refuse", "hang", "html", 401, 500])
def test_a_caller_whose_cache_entry_expires_during_an_outage_gets_503(
    attack_env: AttackEnv, make_app: MakeApp, clock: OffsetClock, entry_point: str, kind: Any
) -> None:
    app = make_app(kind)
    token = attack_env.alice.token("bob")
    assert app.send_token(entry_point, token).allowed
    attack_env.cluster.fail(kind)
    clock.advance(CACHE_TTL / 2)
    assert app.send_token(entry_point, token).allowed
    clock.advance(CACHE_TTL / 2)
    assert_unavailable(app, entry_point, token)
    attack_env.cluster.heal()
    assert app.send_token(entry_point, token).allowed


@pytest.mark.parametrize("kind", HANGING)
def test_many_new_callers_all_get_503_in_time(attack_env: AttackEnv, make_app: MakeApp, kind: Any) -> None:
    app = make_app(kind)
    tokens = [attack_env.alice.token("bob") for _ in range(40)]
    attack_env.cluster.fail(kind)
    with ThreadPoolExecutor(len(tokens)) as callers:
        begun = time.monotonic()
        outcomes = list(callers.map(app.authenticate, tokens))
        assert time.monotonic() - begun < SHORT + TOLERANCE
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    attack_env.cluster.heal()
    assert all(isinstance(app.authenticate(token), PodIdentity) for token in tokens)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", RETRIED)
def test_a_failure_that_passes_is_retried_unnoticed(
    attack_env: AttackEnv, app: AttackedApp, clock: OffsetClock, entry_point: str, kind: Any
) -> None:
    attack_env.cluster.fail(kind, times=ATTEMPTS - 1)
    before = attack_env.cluster.count("tokenreviews")
    assert app.send_token(entry_point, attack_env.alice.token("bob")).allowed
    assert attack_env.cluster.count("tokenreviews") == before + ATTEMPTS
    assert len(clock.sleeps) == ATTEMPTS - 1
    assert all(0 <= pause <= BACKOFF * 2**number for number, pause in enumerate(clock.sleeps))


def test_pauses_between_attempts_are_random(attack_env: AttackEnv, app: AttackedApp, clock: OffsetClock) -> None:
    attack_env.cluster.fail(503)
    for _ in range(4):
        app.send_token("wsgi", attack_env.alice.token("bob"))
    assert len(set(clock.sleeps)) == len(clock.sleeps) == 4 * (ATTEMPTS - 1)


@pytest.mark.parametrize("after", [0, 60])
def test_retry_after_is_obeyed_within_the_deadline(
    attack_env: AttackEnv, app: AttackedApp, clock: OffsetClock, after: int
) -> None:
    attack_env.cluster.fail(429, times=1, retry_after=after)
    result = app.send_token("wsgi", attack_env.alice.token("bob"))
    assert (result.status, clock.sleeps) == ((200, [0]) if after == 0 else (503, []))


def test_a_certificate_renewed_by_the_same_authority_is_accepted(attack_env: AttackEnv, app: AttackedApp) -> None:
    assert app.send_token("wsgi", attack_env.alice.token("bob")).allowed
    attack_env.cluster.fail("new-certificate")
    assert app.send_token("wsgi", attack_env.alice.token("bob")).allowed


@pytest.mark.parametrize("kind", ["foreign-certificate", "wrong-name"])
def test_a_wrong_certificate_is_named_in_the_log(attack_env: AttackEnv, app: AttackedApp, kind: Any) -> None:
    attack_env.cluster.fail(kind)
    reason = assert_unavailable(app, "wsgi", attack_env.alice.token("bob"))
    assert "SSLCertVerificationError" in reason


def test_a_new_certificate_authority_is_trusted_as_soon_as_it_is_mounted(
    attack_env: AttackEnv, leak_detector: LeakDetector, tmp_path: Path
) -> None:
    mounted = attack_env.cluster.mount(tmp_path, "default/bob")
    host, _, port = attack_env.cluster.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    app = attack_env.make_app(leak_detector, load=partial(load_configuration, environ=environ, mounted=mounted))
    (mounted / "ca.crt").write_text(authority("earlier").pem)
    assert_unavailable(app, "wsgi", attack_env.token)
    (mounted / "ca.crt").write_text(attack_env.cluster.ca_pem)
    assert app.send_token("wsgi", attack_env.token).allowed


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("path", "permission"), [("*/tokenreviews", "create tokenreviews.authentication.k8s.io"), ("*/pods/*", "get pods")]
)
def test_a_missing_permission_is_retried_once_and_named_in_the_log(
    attack_env: AttackEnv, app: AttackedApp, entry_point: str, path: str, permission: str
) -> None:
    attack_env.cluster.fail(403, path=path)
    before = len(attack_env.cluster.requests)
    reason = assert_unavailable(app, entry_point, attack_env.alice.token("bob"))
    assert f"forbids us to {permission} (403)" in reason
    assert len(attack_env.cluster.requests) - before == 2 + ("pods" in path)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_a_rejected_credential_of_the_app_is_reloaded_once(
    attack_env: AttackEnv, leak_detector: LeakDetector, tmp_path: Path, entry_point: str
) -> None:
    kubeconfig = json.loads(attack_env.cluster.kubeconfig_for("default/bob").read_text())
    good = kubeconfig["users"][0]["user"]["token"]
    path = tmp_path / "kubeconfig"
    loads: list[Path] = []

    def write(token: str) -> None:
        kubeconfig["users"][0]["user"]["token"] = token
        path.write_text(json.dumps(kubeconfig))

    def load(configuration: Configuration) -> None:
        loads.append(path)
        load_configuration(configuration, environ={"KUBECONFIG": str(path)})

    write(attack_env.cluster.forge(good))
    app = attack_env.make_app(leak_detector, load=load)
    for secret in (good, attack_env.cluster.forge(good)):
        leak_detector.add_secret(secret)
    reason = assert_unavailable(app, entry_point, attack_env.token)
    assert "does not accept our own credential (401)" in reason
    assert len(loads) == 2
    write(good)
    assert app.send_token(entry_point, attack_env.token).allowed
    assert len(loads) == 3


def test_a_role_bound_late_takes_effect_with_the_next_request(
    attack_env: AttackEnv, leak_detector: LeakDetector, tmp_path: Path
) -> None:
    kubeconfig = attack_env.cluster.kubeconfig_for("default/late-app")
    app = attack_env.make_app(leak_detector, load=partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)}))
    reason = assert_unavailable(app, "wsgi", attack_env.token)
    assert "create tokenreviews.authentication.k8s.io" in reason
    attack_env.cluster.grant("default/late-app", verbs=["create"], resources=["tokenreviews"])
    reason = assert_unavailable(app, "wsgi", attack_env.token)
    assert "get pods" in reason
    attack_env.cluster.grant("default/late-app", verbs=["get"], resources=["pods"])
    assert app.send_token("wsgi", attack_env.token).allowed
