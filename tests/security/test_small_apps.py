"""The five apps of tests/apps under attack, as their few lines protect them: nothing gets in."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import grpc
import pytest
from django.core.handlers.wsgi import WSGIHandler

from podproof._authentication.authenticator import Authenticator
from podproof.testing import Cluster
from podproof.testing._emulator.tokens import parse, signing_key
from tests.apps.inventory.project import running
from tests.apps.orders.people import FOREIGN_KEY, provider_of, token_of
from tests.apps.versions import load
from tests.security import hostile_tokens, jwt_attacks
from tests.security.attacked_app import (
    ALICE,
    LOCAL,
    MALLORY,
    AttackEnv,
    Headers,
    call_asgi,
    call_wsgi,
    make_environ,
    make_scope,
)
from tests.security.grpc_attacks import DENIED, bad_credentials
from tests.security.mcp_attacks import ATTACKS, ENDS_ALICE, check, run_scene
from tests.security.reference_model import is_allowed
from tests.support.grpc_servers import bearer
from tests.support.leak_detector import LeakDetector

IDENTITY = "podproof.identity"
EACH = 40
"""One of so many is tried here: all of them are in the other tests of this folder."""

Request = tuple[Headers, str | None]
CountCases = Callable[[str, object], None]


@pytest.fixture(scope="module", autouse=True)
def options(attack_env: AttackEnv) -> Iterator[None]:
    """Let the apps find the cluster, and judge each attack by itself: no cache, and no limit of rejections."""
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("KUBECONFIG", str(attack_env.cluster.kubeconfig_for("default/bob")))
        environ.setenv("PODPROOF_CACHE_TTL", "0")
        environ.setenv("PODPROOF_REJECTION_TTL", "0")
        environ.setattr(Authenticator, "_check_rate", lambda *_: None)
        yield


def attacks(attack_env: AttackEnv, audience: str) -> list[Request]:
    """Return requests with bad credentials, from wrong addresses, and with headers that name what they are not."""
    cluster, alice, mallory = attack_env.cluster, attack_env.alice, attack_env.mallory
    good = alice.token(audience)
    claims = parse(good).claims
    tokens = [
        *hostile_tokens.other_spellings(good.encode()),
        *hostile_tokens.tokens_with_one_change(good)[::EACH],
        *(
            token.token.encode("utf-8", "replace")
            for kind in jwt_attacks.KINDS
            for token in jwt_attacks.attacks(kind)[::EACH]
        ),
        alice.token("carol").encode(),
        alice.token(audience, lifetime=-3600).encode(),
        cluster.forge(good).encode(),
        hostile_tokens.forge_under_the_known_key(good).encode(),
        cluster.service_account("default/alice").token(audience).encode(),
        cluster.sign({**claims, "iss": "https://accounts.example.com"}).encode(),
        mallory.token(audience).encode(),
    ]
    values = [b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer a b", b"\xff", b"Bearer podproof", good.encode()]
    values += [b"Bearer " + token for token in tokens]
    credential = (b"authorization", b"Bearer " + good.encode())
    username = b"system:serviceaccount:default:alice"
    names = (
        b"remote-user",
        b"x-remote-user",
        b"podproof.identity",
        b"podproof-identity",
        b"x-podproof-identity",
        b"user",
    )
    claimed = [(name, username) for name in names]
    addresses = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x_forwarded_for", b"true-client-ip", b"remote-addr")
    return [
        ([], ALICE),
        (claimed, ALICE),
        *(([(b"authorization", value)], ALICE) for value in values),
        *(([(b"authorization", value), *claimed], ALICE) for value in values[:8]),
        *(([credential], peer) for peer in (MALLORY, LOCAL, None, "", "unknown", f"{ALICE}\x00")),
        *(([credential, (name, ALICE.encode())], MALLORY) for name in addresses),
        ([credential, (b"forwarded", b"for=" + ALICE.encode())], MALLORY),
        ([credential, credential], ALICE),
        ([(b"authorization", b"Bearer x"), credential], ALICE),
        ([credential, (b"authorization", b"Basic eDp5")], ALICE),
        ([(b"proxy-authorization", credential[1]), (b"x-pod-authorization", credential[1])], ALICE),
        ([(b"cookie", b"sessionid=" + good.encode())], ALICE),
    ]


def is_pod(attack_env: AttackEnv, request: Request, audience: str) -> bool:
    """Return True if the reference model lets a request in as a pod's."""
    headers, peer = request
    values = [value for name, value in headers if name == b"authorization"]
    addresses, key = attack_env.pod_addresses, signing_key().public_key()
    return is_allowed(values, peer, addresses, key=key, audience=audience, now=time.time())


@pytest.fixture
def watch(leak_detector: LeakDetector) -> Callable[[Request], None]:
    """Return what makes the credentials of a request secrets, which are logged nowhere."""

    def watch(request: Request) -> None:
        for name, value in request[0]:
            if name == b"authorization":
                leak_detector.add_secret(value)

    return watch


@pytest.fixture
def orders() -> Iterator[ModuleType]:
    module = load("orders", "after")
    with provider_of(module):
        yield module


def test_nobody_gets_into_the_orders(
    attack_env: AttackEnv, orders: ModuleType, watch: Callable[[Request], None], record_property: CountCases
) -> None:
    def get(request: Request, path: str = "/orders") -> tuple[int, str | None]:
        watch(request)
        scope = make_scope(*request, path)
        status, _, _ = call_asgi(attack_env.runner, orders.app, scope)
        return status, scope.get(IDENTITY) and str(scope[IDENTITY].pod)

    def of(token: str) -> Request:
        return [(b"authorization", f"Bearer {token}".encode())], ALICE

    assert get(of(attack_env.alice.token("orders"))) == (200, "default/alice-pod")
    assert get(of(token_of("ann"))) == (200, None)
    cases = attacks(attack_env, "orders")
    for case in cases:
        status, pod = get(case)
        assert (status == 200) == (pod is not None), case
        assert pod is None or is_pod(attack_env, case, "orders"), case
        assert status in (200, 400, 401, 403), case
    claims = parse(attack_env.alice.token("orders")).claims
    people = [
        {"sub": claims["sub"], "kubernetes.io": claims["kubernetes.io"]},
        {"sub": "default/alice", "aud": ["orders"]},
    ]
    for person in people:
        assert get(of(token_of(**{"subject": "ann", **person})))[1] is None
    assert get(of(token_of("ann", FOREIGN_KEY))) == (401, None)
    assert get(of(token_of("ann", iss=attack_env.cluster.issuer))) == (401, None)
    for path in ("/healthz/../orders", "//orders", "/orders/", "/ORDERS", "/%6frders"):
        assert get(([], ALICE), path)[0] != 200
    record_property("cases", len(cases) + 9)


@pytest.fixture
def inventory(tmp_path: Any) -> Iterator[WSGIHandler]:
    with running("after", tmp_path):
        yield WSGIHandler()


def test_nobody_gets_into_the_inventory(
    attack_env: AttackEnv, inventory: WSGIHandler, watch: Callable[[Request], None], record_property: CountCases
) -> None:
    def get(request: Request, path: str) -> tuple[int, str | None]:
        watch(request)
        environ = make_environ(*request, path)
        status, _, _ = call_wsgi(inventory, environ)
        return status, environ.get(IDENTITY) and str(environ[IDENTITY].pod)

    alice: Request = [(b"authorization", f"Bearer {attack_env.alice.token('inventory')}".encode())], ALICE
    assert get(alice, "/api/groups/") == get(alice, "/") == (200, "default/alice-pod")
    assert get(alice, "/admin/")[0] == get(alice, "/admin/auth/user/")[0] == 302  # to the login
    assert get(alice, "/admin/login/")[0] == 200
    basic = b"Basic " + b64encode(b"system:serviceaccount:default:alice:x")
    cases = [*attacks(attack_env, "inventory"), ([(b"authorization", basic)], ALICE)]
    for case in cases:
        status, pod = get(case, "/api/groups/")
        assert (status == 200) == (pod is not None), case
        assert pod is None or is_pod(attack_env, case, "inventory"), case
        assert get(case, "/admin/auth/user/")[0] != 200
    record_property("cases", 2 * len(cases))


def test_billing_reports_each_attack_and_goes_on_as_before(
    attack_env: AttackEnv,
    leak_detector: LeakDetector,
    watch: Callable[[Request], None],
    record_property: CountCases,
) -> None:
    before, after = (load("billing", version).app for version in ("before", "after"))
    for app in (before, after):
        app.config["SECRET"] = "of the jobs"

    def get(app: Any, request: Request) -> tuple[Any, str | None]:
        watch(request)
        environ = make_environ(*request, "/invoices")
        status, _, body = call_wsgi(app, environ)
        return (status, body), environ.get(IDENTITY) and str(environ[IDENTITY].pod)

    job: Request = [(b"authorization", b"Bearer of the jobs")], MALLORY
    cases = [*attacks(attack_env, "billing"), job]
    for case in cases:
        leak_detector.decisions.clear()
        response, pod = get(after, case)
        assert response == get(before, case)[0], case
        [(code, _)] = leak_detector.decisions
        assert (code == "authenticated") == (pod is not None), case
        assert pod is None or is_pod(attack_env, case, "billing"), case
    assert get(after, job)[0] == (200, b"")
    record_property("cases", len(cases))


def test_nobody_gets_into_the_ticker(leak_detector: LeakDetector, record_property: CountCases) -> None:
    with Cluster() as cluster, pytest.MonkeyPatch.context() as environ:
        environ.setenv("KUBECONFIG", str(cluster.kubeconfig))
        alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[LOCAL])
        module = load("ticker", "after")
        server, port = module.make_server(f"{LOCAL}:0")
        server.start()
        with grpc.insecure_channel(f"{LOCAL}:{port}") as channel:
            report: Any = channel.unary_unary("/ticker.Ticker/Report")
            report_all: Any = channel.stream_unary("/ticker.Ticker/ReportAll")
            history: Any = channel.unary_stream("/ticker.Ticker/History")
            follow: Any = channel.stream_stream("/ticker.Ticker/Follow")
            not_exempt: Any = channel.unary_unary("/grpc.health.v1.Health/../../ticker.Ticker/Report")
            calls: list[Callable[..., object]] = [
                lambda **given: report(b"tea 1", **given),
                lambda **given: report_all(iter([b"tea 1"]), **given),
                lambda **given: [*history(b"tea", **given)],
                lambda **given: [*follow(iter([b"tea"]), **given)],
                lambda **given: not_exempt(b"tea 1", **given),
            ]
            credentials = bad_credentials(cluster, alice, "ticker")
            for name, metadata in credentials.items():
                for _, value in metadata:
                    leak_detector.add_secret(value)
                for call in calls:
                    with pytest.raises(grpc.RpcError) as denied:
                        call(metadata=metadata, timeout=10)
                    assert denied.value.code().name in DENIED | {"RESOURCE_EXHAUSTED"}, name
            assert module.prices == {}
            assert report(b"tea 1", metadata=bearer(alice.token("ticker")), timeout=10) == b"1"
            assert [*module.prices] == ["tea"]
        server.stop(None).wait()
    record_property("cases", len(credentials) * len(calls))


def test_nobody_gets_into_the_notes_of_another_session(cluster: Cluster, record_property: CountCases) -> None:
    async def attack(names: Sequence[str]) -> None:
        app = load("notes", "after").app
        async with run_scene(cluster, app, "notes") as scene:
            for name in names:
                await check(name, scene)
            if names[0] not in ENDS_ALICE:
                denied = await scene.alice.call("clear_notes", scene.session)
                assert b"The caller is not allowed here." in denied.body

    asyncio.run(attack([name for name in ATTACKS if name not in ENDS_ALICE]))
    for name in sorted(ENDS_ALICE):
        asyncio.run(attack([name]))
    record_property("cases", len(ATTACKS))
