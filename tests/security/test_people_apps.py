"""The two apps of docs/people-and-pods.md under attack: no bad pod token becomes anonymous, no person becomes a pod."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from django.test import Client
from starlette.testclient import TestClient

from podproof.testing._emulator.tokens import parse
from tests.security.attacked_app import ALICE, AttackEnv
from tests.support.people_apps import SUPERUSER, make_fastapi_app, oidc_token, running_django_project

Headers = Sequence[tuple[str, str]]
OPTIONS: dict[str, dict[str, object]] = {
    "pass": {"other_credentials": "pass"},
    "header": {"header": "X-Pod-Authorization", "optional": True},
}
ALICE_ON_PAGE = "default/alice"


@dataclass(frozen=True)
class AttackedApp:
    """An app of people and pods. `send` takes headers, a cookie and a path, and returns a status and a text."""

    framework: str
    mode: str
    send: Callable[[Headers, str, str], tuple[int, str]]
    cookie: str

    def get(self, headers: Headers = (), *, cookie: bool = False, path: str = "/whoami") -> tuple[int, str]:
        return self.send(headers, self.cookie if cookie else "", path)

    def of_pod(self, value: str) -> tuple[str, str]:
        """Return the header in which this app looks for a pod's token."""
        return ("Authorization" if self.mode == "pass" else "X-Pod-Authorization"), value


def run_fastapi(mode: str) -> Iterator[AttackedApp]:
    client = TestClient(
        make_fastapi_app(", ".join(f"{name}={value!r}" for name, value in OPTIONS[mode].items())),
        client=(ALICE, 4711),
        follow_redirects=False,
    )

    def send(headers: Headers, cookie: str, path: str) -> tuple[int, str]:
        client.cookies.clear()
        response = client.get(path, headers=[*headers, *([("Cookie", cookie)] if cookie else [])])
        return response.status_code, response.text

    signed_in = client.post("/login", headers={"Authorization": f"Bearer {oidc_token('ann')}"})
    assert signed_in.status_code == 200
    yield AttackedApp("fastapi", mode, send, signed_in.headers["set-cookie"].partition(";")[0])


def run_django(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedApp]:
    def send(headers: Headers, cookie: str, path: str) -> tuple[int, str]:
        sent: dict[str, str] = {}
        for name, value in headers:  # as WSGI servers join them
            name = name.replace("_", "-").title()  # noqa: PLW2901  as WSGI servers read it
            sent[name] = f"{sent[name]},{value}" if name in sent else value
        response = Client(REMOTE_ADDR=ALICE).get(path, headers=sent | ({"Cookie": cookie} if cookie else {}))
        return response.status_code, response.content.decode()

    with running_django_project(tmp_path_factory.mktemp("people"), {"audience": "bob", **OPTIONS[mode]}):
        client = Client(REMOTE_ADDR=ALICE)
        assert client.post("/admin/login/", SUPERUSER).status_code == 302
        yield AttackedApp("django", mode, send, f"sessionid={client.cookies['sessionid'].value}")


@pytest.fixture(scope="module", params=[f"{name} {mode}" for name in ("fastapi", "django") for mode in OPTIONS])
def app(
    request: pytest.FixtureRequest, attack_env: AttackEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedApp]:
    framework, _, mode = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("KUBECONFIG", str(attack_env.cluster.kubeconfig_for("default/bob")))
        yield from run_fastapi(mode) if framework == "fastapi" else run_django(mode, tmp_path_factory)


def bad_credentials(attack_env: AttackEnv) -> dict[str, list[str]]:
    """Return what a thief or a broken pod sends, by what is bad about it: the values of the pod's header."""
    cluster, good = attack_env.cluster, attack_env.token
    claims = parse(good).claims
    tokens = {
        "expired": cluster.sign({**claims, "exp": int(time.time()) - 600}),
        "for another audience": attack_env.alice.token("carol"),
        "of another pod": attack_env.mallory.token("bob"),
        "forged": cluster.forge(good),
        "changed": good[:-4] + "AAAA",
        "cut off": good.rpartition(".")[0],
        "with a slash behind its issuer": cluster.sign({**claims, "iss": claims["iss"] + "/"}),
        "with its issuer in another case": cluster.sign({**claims, "iss": claims["iss"].upper()}),
        "bound to no pod": cluster.sign({**claims, "kubernetes.io": {"namespace": "default"}}),
    }
    values = {name: [f"Bearer {token}"] for name, token in tokens.items()}
    return values | {
        "in another scheme": [f"Token {good}"],
        "behind a password": [f"Basic YTpi, Bearer {good}"],
        "without a scheme": [good],
        "nothing": ["Bearer "],
        "twice": [f"Bearer {good}"] * 2,
        "beside a bad one": [f"Bearer {good}", "Bearer x"],
    }


BAD = [
    *("expired", "for another audience", "of another pod", "forged", "changed", "cut off"),
    *("with a slash behind its issuer", "with its issuer in another case", "bound to no pod", "in another scheme"),
    *("behind a password", "without a scheme", "nothing", "twice", "beside a bad one"),
]


def people(app: AttackedApp) -> list[tuple[Headers, bool]]:
    """Return the credentials of people that may be beside a pod's: their headers, and whether there is a cookie."""
    found: list[tuple[Headers, bool]] = [([], False), ([], True)]
    if app.mode == "header":
        oidc = [("Authorization", f"Bearer {oidc_token('ben')}")]
        found += [(oidc, False), (oidc, True), ([("Authorization", "Basic YW5uOm9mIGFubg==")], True)]
    return found


@pytest.mark.parametrize("what", BAD)
def test_a_bad_credential_of_a_pod_is_denied_whoever_s_is_beside_it(
    what: str, app: AttackedApp, attack_env: AttackEnv
) -> None:
    assert app.get([app.of_pod(f"Bearer {attack_env.token}")]) == (200, ALICE_ON_PAGE)
    bad = [app.of_pod(value) for value in bad_credentials(attack_env)[what]]
    for headers, cookie in people(app):
        status, _ = app.get([*bad, *headers], cookie=cookie)
        assert status in {400, 401, 403}


def test_no_bad_credential_is_left_out(attack_env: AttackEnv) -> None:
    assert sorted(bad_credentials(attack_env)) == sorted(BAD)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_pod_is_that_pod_whoever_s_credential_is_beside_its_own(
    scheme: str, app: AttackedApp, attack_env: AttackEnv
) -> None:
    pod = app.of_pod(f"{scheme} {attack_env.token}")
    for headers, cookie in people(app):
        assert app.get([pod, *headers], cookie=cookie) == (200, ALICE_ON_PAGE)
        assert app.get([pod, *headers], cookie=cookie, path="/stock") == (200, "for pods alone")


def test_people_are_people(app: AttackedApp) -> None:
    assert app.get(cookie=True) == (200, "ann")
    name = "ben" if app.framework == "fastapi" else "oidc:ben"
    assert app.get([("Authorization", f"Bearer {oidc_token('ben')}")]) == (200, name)
    assert app.get()[0] == (401 if app.framework == "fastapi" else 302)
    for headers in ([("Authorization", f"Bearer {oidc_token('ben', exp=1)}")], [("Authorization", "Bearer x")]):
        assert app.get(headers)[0] == 401


@pytest.mark.parametrize("subject", ["default/alice", "system:serviceaccount:default:alice", "ann"])
def test_a_person_with_a_pod_s_name_and_claims_is_no_pod(subject: str, app: AttackedApp, attack_env: AttackEnv) -> None:
    claims = parse(attack_env.token).claims
    token = oidc_token(subject, **{"kubernetes.io": claims["kubernetes.io"], "groups": ["system:serviceaccounts"]})
    headers = [("Authorization", f"Bearer {token}")]
    reviews = attack_env.cluster.count("tokenreviews")
    status, name = app.get(headers)
    assert (status, name) == (200, subject if app.framework == "fastapi" else f"oidc:{subject}")
    assert app.get(headers, path="/stock")[0] == 401
    assert app.get(headers, cookie=True, path="/stock")[0] == 401
    assert attack_env.cluster.count("tokenreviews") == reviews


@pytest.mark.parametrize("app", ["fastapi header", "django header"], indirect=True)
def test_a_credential_in_the_other_header_is_none_of_this_one(app: AttackedApp, attack_env: AttackEnv) -> None:
    good, person = f"Bearer {attack_env.token}", f"Bearer {oidc_token('ben')}"
    assert app.get([("Authorization", good)])[0] == 401  # for the app, which knows no such issuer
    assert app.get([("Authorization", good)], path="/stock")[0] == 401
    assert app.get([app.of_pod(person)])[0] == 401
    assert app.get([app.of_pod(person), ("Authorization", good)])[0] == 401
    assert app.get([app.of_pod(person), ("Authorization", person)], cookie=True)[0] == 401
    assert app.get([app.of_pod(good), ("Authorization", good)]) == (200, ALICE_ON_PAGE)
    assert app.get([("X_Pod_Authorization", good), app.of_pod(good)])[0] == 400
    assert app.get([("X_Pod_Authorization", "Bearer x")], cookie=True)[0] in {400, 401}


@pytest.mark.parametrize("app", ["django pass", "django header"], indirect=True)
def test_a_pod_is_never_in_the_admin(app: AttackedApp, attack_env: AttackEnv) -> None:
    assert app.get(cookie=True, path="/admin/")[0] == 200
    pod = app.of_pod(f"Bearer {attack_env.token}")
    for cookie in (False, True):
        status, text = app.get([pod], cookie=cookie, path="/admin/")
        assert (status, text) == (302, "")
        assert app.get([app.of_pod(f"Bearer {attack_env.token}x")], cookie=cookie, path="/admin/")[0] == 401
    assert app.get(cookie=True, path="/admin/")[0] == 200
