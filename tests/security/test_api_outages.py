"""The API server fails in every way: cached callers notice nothing, and new callers are denied with 503 in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from podproof._apiserver.client import ATTEMPTS, BACKOFF
from podproof._apiserver.connection import load_configuration
from podproof.errors import Unavailable
from podproof.identity import PodIdentity
from podproof.testing import EmulatedPod
from podproof.testing._emulator.certificates import authority
from tests.security.attacked_app import ALICE, AttackedApp, AttackEnv, OffsetClock
from tests.support.leak_detector import LeakDetector
from tests.support.modes import DEFAULT, LOOKING_UP, MODES, REVIEWING, Mode, modes_in_turn

CALLING = [mode for mode in MODES if any(mode.calls(1, 1))]
"""The modes in which a pod's first token takes a call."""
BY_KEYS = [mode for mode in MODES if mode.verify == "keys"]

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


MakeApp = Callable[..., AttackedApp]


@pytest.fixture
def make_app(attack_env: AttackEnv, leak_detector: LeakDetector, clock: OffsetClock) -> Iterator[MakeApp]:
    """Return a function that makes an app with a timeout for one kind of fault."""
    made: list[AttackedApp] = []

    def make(kind: object, **how: Any) -> AttackedApp:
        timeout = SHORT if kind in HANGING else AMPLE
        made.append(attack_env.make_app(leak_detector, clock, timeout=timeout, cache_ttl=CACHE_TTL, **how))
        return made[-1]

    yield make
    for app in made:
        app.close()


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    mode: Mode = request.param
    return mode


@pytest.fixture
def app(make_app: MakeApp, mode: Mode) -> AttackedApp:
    return make_app(None, mode=mode)


@pytest.fixture
def entry_point(mode: Mode) -> str:
    """Return an entry point of a mode's: the modes take them in turn."""
    return ENTRY_POINTS[MODES.index(mode) % len(ENTRY_POINTS)]


@pytest.fixture
def stranger(attack_env: AttackEnv) -> Iterator[EmulatedPod]:
    """Return a pod that has not called, and that was there before the fault."""
    pod = attack_env.cluster.pod("default/stranger", addresses=[ALICE])
    yield pod
    pod.remove()


def assert_unavailable(app: AttackedApp, entry_point: str, token: str) -> str:
    """Send a token that is not cached, which is denied with 503 in time; return the reason in the log."""
    begun = time.monotonic()
    result = app.send_token(entry_point, token)
    assert time.monotonic() - begun < app.authenticator.options.timeout + TOLERANCE
    assert (result.status, result.code) == (503, "unavailable")
    assert int(result.headers["retry-after"]) > 0
    return result.reason


def concerns(mode: Mode, path: str = "*") -> bool:
    """Return True if a fault of these paths is one of a call that a pod's first token takes in a mode."""
    reviews, reads = mode.calls(1, 1)
    return bool(reviews if path == "*/tokenreviews" else reads if path == "*/pods/*" else reviews or reads)


def with_modes(faults: list[Any]) -> Iterator[Any]:
    """Yield each fault in each mode that looks pods up, and in one of the others, which take their turn."""
    watching = cycle(mode for mode in MODES if mode.pods == "watch")
    for fault in faults:
        for mode in (*LOOKING_UP, next(watching)):
            yield pytest.param(*fault.values, mode, id=f"{fault.id}-{mode}")


@pytest.mark.parametrize(("kind", "how", "mode"), [*with_modes(FAULTS)])
def test_cached_callers_are_allowed_new_ones_get_503_where_they_take_a_call_and_no_failure_is_cached(
    attack_env: AttackEnv,
    make_app: MakeApp,
    stranger: EmulatedPod,
    mode: Mode,
    entry_point: str,
    *,
    kind: Any,
    how: Any,
) -> None:
    app = make_app(kind, mode=mode)
    cached, new = attack_env.alice.token("bob"), stranger.token("bob")
    assert app.send_token(entry_point, cached).allowed
    app.settle()
    attack_env.cluster.fail(kind, **how)
    assert app.send_token(entry_point, cached).allowed
    if concerns(mode, **{name: value for name, value in how.items() if name == "path"}):
        assert_unavailable(app, entry_point, new)
    else:  # by the keys and a view that is watched, an outage is not noticed
        assert app.send_token(entry_point, new).allowed
    assert app.send_token(entry_point, cached).allowed
    attack_env.cluster.heal()
    assert app.send_token(entry_point, new).allowed
    assert app.send_token(entry_point, cached).allowed


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*((kind, mode) for kind in ("refuse", 500) for mode in MODES), *zip(("hang", "html", 401), CALLING, strict=True)],
    ids=str,
)
def test_a_caller_whose_cache_entry_expires_during_an_outage_gets_503_after_max_outage(
    attack_env: AttackEnv, make_app: MakeApp, clock: OffsetClock, mode: Mode, entry_point: str, *, kind: Any
) -> None:
    """It is 0 by default in the modes that look pods up, and 900 s in those that watch them."""
    app, strict = make_app(kind, mode=mode), make_app(kind, mode=mode, max_outage=0)
    token = attack_env.alice.token("bob")
    for one in (app, strict):
        assert one.send_token(entry_point, token).allowed
    attack_env.cluster.fail(kind)
    clock.advance(CACHE_TTL / 3)  # less than max_staleness
    for one in (app, strict):
        assert one.send_token(entry_point, token).allowed
    clock.advance(CACHE_TTL * 2 / 3)
    assert_unavailable(strict, entry_point, token)
    if mode.pods == "watch":
        assert app.send_token(entry_point, token).allowed
        clock.advance(900)
    assert_unavailable(app, entry_point, token)
    attack_env.cluster.heal()
    for one in (app, strict):
        assert one.send_token(entry_point, token).allowed


@pytest.mark.parametrize(("kind", "mode"), modes_in_turn([*HANGING, "hang"]))
def test_many_new_callers_all_get_503_in_time(attack_env: AttackEnv, make_app: MakeApp, kind: Any, mode: Mode) -> None:
    app = make_app(kind, mode=mode)
    tokens = [attack_env.alice.token("bob") for _ in range(40)]
    attack_env.cluster.fail(kind)
    with ThreadPoolExecutor(len(tokens)) as callers:
        begun = time.monotonic()
        outcomes = list(callers.map(app.authenticate, tokens))
        assert time.monotonic() - begun < SHORT + TOLERANCE
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    attack_env.cluster.heal()
    assert all(isinstance(app.authenticate(token), PodIdentity) for token in tokens)


@pytest.mark.parametrize(("kind", "mode"), modes_in_turn(RETRIED, CALLING))
def test_a_failure_that_passes_is_retried_unnoticed(
    attack_env: AttackEnv,
    app: AttackedApp,
    clock: OffsetClock,
    stranger: EmulatedPod,
    mode: Mode,
    *,
    entry_point: str,
    kind: Any,
) -> None:
    assert app.send_token(entry_point, attack_env.token).allowed
    attack_env.cluster.fail(kind, times=ATTEMPTS - 1)
    attack_env.cluster.requests.clear()
    assert app.send_token(entry_point, stranger.token("bob")).allowed
    reviews, reads = mode.calls(ATTEMPTS, 1)
    assert attack_env.cluster.count("tokenreviews") == reviews
    assert attack_env.cluster.count("pods") == (reads if reviews else ATTEMPTS)
    assert len(clock.sleeps) == ATTEMPTS - 1
    assert all(0 <= pause <= BACKOFF * 2**number for number, pause in enumerate(clock.sleeps))


@pytest.mark.parametrize("mode", REVIEWING, ids=str)
def test_pauses_between_attempts_are_random(attack_env: AttackEnv, app: AttackedApp, clock: OffsetClock) -> None:
    attack_env.cluster.fail(503)
    for _ in range(4):
        app.send_token("wsgi", attack_env.alice.token("bob"))
    assert len(set(clock.sleeps)) == len(clock.sleeps) == 4 * (ATTEMPTS - 1)


@pytest.mark.parametrize("mode", CALLING, ids=str)
@pytest.mark.parametrize("after", [0, 60])
def test_retry_after_is_obeyed_within_the_deadline(
    attack_env: AttackEnv, app: AttackedApp, clock: OffsetClock, stranger: EmulatedPod, after: int
) -> None:
    assert app.send_token("wsgi", attack_env.token).allowed
    attack_env.cluster.fail(429, times=1, retry_after=after)
    result = app.send_token("wsgi", stranger.token("bob"))
    assert (result.status, clock.sleeps) == ((200, [0]) if after == 0 else (503, []))


def test_a_certificate_renewed_by_the_same_authority_is_accepted(
    attack_env: AttackEnv, app: AttackedApp, stranger: EmulatedPod, entry_point: str
) -> None:
    assert app.send_token(entry_point, attack_env.alice.token("bob")).allowed
    attack_env.cluster.fail("new-certificate")
    assert app.send_token(entry_point, stranger.token("bob")).allowed


@pytest.mark.parametrize("kind", ["foreign-certificate", "wrong-name"])
def test_a_wrong_certificate_is_named_in_the_log(
    attack_env: AttackEnv, app: AttackedApp, entry_point: str, kind: Any
) -> None:
    attack_env.cluster.fail(kind)
    reason = assert_unavailable(app, entry_point, attack_env.alice.token("bob"))
    assert "SSLCertVerificationError" in reason


def test_a_new_certificate_authority_is_trusted_as_soon_as_it_is_mounted(
    attack_env: AttackEnv, make_app: MakeApp, mode: Mode, entry_point: str, tmp_path: Path
) -> None:
    mounted = attack_env.cluster.mount(tmp_path, "default/bob")
    host, _, port = attack_env.cluster.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    app = make_app(None, mode=mode, load=partial(load_configuration, environ=environ, mounted=mounted))
    (mounted / "ca.crt").write_text(authority("earlier").pem)
    assert_unavailable(app, entry_point, attack_env.token)
    (mounted / "ca.crt").write_text(attack_env.cluster.ca_pem)
    assert app.send_token(entry_point, attack_env.token).allowed


@pytest.mark.parametrize(
    ("path", "permission"), [("*/tokenreviews", "create tokenreviews.authentication.k8s.io"), ("*/pods/*", "get pods")]
)
def test_a_missing_permission_that_a_mode_needs_is_retried_once_and_named_in_the_log(
    attack_env: AttackEnv,
    app: AttackedApp,
    stranger: EmulatedPod,
    mode: Mode,
    entry_point: str,
    *,
    path: str,
    permission: str,
) -> None:
    assert app.send_token(entry_point, attack_env.token).allowed
    app.settle()
    attack_env.cluster.fail(403, path=path)
    attack_env.cluster.requests.clear()
    if concerns(mode, path):
        reason = assert_unavailable(app, entry_point, stranger.token("bob"))
        assert f"forbids us to {permission} (403)" in reason
        assert len(attack_env.cluster.requests) == 2 + ("pods" in path and mode.verify == "review")
    else:
        assert app.send_token(entry_point, stranger.token("bob")).allowed
        assert path.rpartition("/")[2] not in {request.resource for request in attack_env.cluster.requests}


@pytest.mark.parametrize("path", ["/openid/v1/jwks", "/api/v1/pods"])
@pytest.mark.parametrize("mode", BY_KEYS, ids=str)
def test_without_the_keys_or_the_list_of_pods_the_api_server_is_asked_for_each_token(
    attack_env: AttackEnv, app: AttackedApp, mode: Mode, entry_point: str, path: str
) -> None:
    attack_env.cluster.fail(403, path=path)
    attack_env.cluster.requests.clear()
    assert app.send_token(entry_point, attack_env.token).allowed
    assert app.send_token(entry_point, attack_env.cluster.forge(attack_env.token)).status == 401
    asked = attack_env.cluster.count("tokenreviews")
    assert asked == (2 if "jwks" in path else 1)  # the forged one names an unknown key


def test_a_rejected_credential_of_the_app_is_reloaded(
    attack_env: AttackEnv,
    leak_detector: LeakDetector,
    make_app: MakeApp,
    mode: Mode,
    entry_point: str,
    *,
    tmp_path: Path,
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
    app = make_app(None, mode=mode, load=load)
    for secret in (good, attack_env.cluster.forge(good)):
        leak_detector.add_secret(secret)
    reason = assert_unavailable(app, entry_point, attack_env.token)
    assert "does not accept our own credential (401)" in reason
    assert len(loads) == 2 or mode != DEFAULT  # the keys and the watch ask, too
    write(good)
    assert app.send_token(entry_point, attack_env.token).allowed
    assert len(loads) == 3 or mode != DEFAULT


def test_a_role_bound_late_takes_effect_with_the_next_request(
    attack_env: AttackEnv, make_app: MakeApp, mode: Mode, entry_point: str
) -> None:
    with attack_env.cluster.isolated() as cluster:
        kubeconfig = cluster.kubeconfig_for("default/late-app")
        app = make_app(None, mode=mode, load=partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)}))
        if mode.verify == "review":
            reason = assert_unavailable(app, entry_point, attack_env.token)
            assert "create tokenreviews.authentication.k8s.io" in reason
        cluster.grant("default/late-app", verbs=["create"], resources=["tokenreviews"])
        reason = assert_unavailable(app, entry_point, attack_env.token)
        assert "get pods" in reason
        cluster.grant("default/late-app", verbs=["get"], resources=["pods"])
        assert app.send_token(entry_point, attack_env.token).allowed
