"""What the doctor says of an app that verifies tokens by signing keys, or watches pods."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from podproof._apiserver.client import APIServerClient
from podproof._token.jwt import decode_segment, split_token
from podproof.cli.checks.app_metrics import check_app_metrics
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, Level
from podproof.cli.report import format_findings
from podproof.errors import Unavailable
from podproof.options import Options
from podproof.testing import Cluster
from tests.support.doctor_env import CREDENTIAL_DIRECTORY, DoctorEnv, in_server_pod, outside_cluster
from tests.support.signed_tokens import jwk_of, jwks

GRANT = "podproof manifests --only rbac --server default/bob --verify keys | kubectl apply -f -"


@pytest.fixture
def keys_env(cluster: Cluster, tmp_path: Path) -> DoctorEnv:
    """Return the pod of an app that verifies tokens by keys, with all permissions."""
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["PODPROOF_VERIFY"] = "keys"
    cluster.grant("default/bob", verbs=["list", "watch"], resources=["pods"])
    return doctor_env


def found(doctor_env: DoctorEnv, *subjects: str) -> list[tuple[Level, str]]:
    return [(one.level, one.message) for one in doctor_env.findings() if one.subject in subjects]


def only_problem(doctor_env: DoctorEnv) -> Finding:
    findings = doctor_env.findings()
    problems = [finding for finding in findings if finding.level > Level.OK]
    assert len(problems) == 1, format_findings(findings)
    return problems[0]


def own_key_id(doctor_env: DoctorEnv) -> str:
    header, _, _ = split_token((doctor_env.root / CREDENTIAL_DIRECTORY / "token").read_text())
    key_id: str = json.loads(decode_segment(header))["kid"]
    return key_id


def test_the_keys_are_named_with_their_source_issuer_and_algorithms(keys_env: DoctorEnv) -> None:
    assert found(keys_env, "keys") == [
        (
            Level.OK,
            "the API server has 1 key for tokens of https://kubernetes.default.svc.cluster.local: "
            f"{own_key_id(keys_env)} (RS256)",
        ),
        (Level.OK, "the key of our own token is among them; a token that names another key is reviewed"),
    ]


def test_the_permissions_are_those_of_the_keys_the_watch_and_what_they_leave_open(keys_env: DoctorEnv) -> None:
    assert found(keys_env, "permissions") == [
        (Level.OK, f"default/bob may {permission}")
        for permission in (
            "get /openid/v1/jwks",
            "list pods",
            "watch pods",
            "create tokenreviews.authentication.k8s.io",
            "get pods",
        )
    ]


def test_without_reviews_tokens_with_an_unknown_key_are_said_to_get_503(keys_env: DoctorEnv) -> None:
    keys_env.permissions = {}
    problem = only_problem(keys_env)
    assert problem.level is Level.WARN
    assert problem.message.startswith("default/bob may not create tokenreviews.authentication.k8s.io, nor get pods: ")
    assert "503" in problem.message
    assert problem.fix == GRANT


@pytest.mark.parametrize(
    ("published", "message"),
    [
        (jwks(jwk_of("ES256")), ", which is not among them: such a token is reviewed by the API server, not rejected"),
        (jwks(), "the API server has no signing keys: each token is reviewed by the API server"),
        (
            {},
            "the signing keys of the API server cannot be read: this is not a JWK Set with up to 100 keys; each token",
        ),
        (Unavailable("status 500"), "the signing keys of the API server cannot be read: status 500; each token is re"),
    ],
)
def test_what_the_keys_say_nothing_about_is_reviewed_which_is_a_warning(
    keys_env: DoctorEnv, monkeypatch: pytest.MonkeyPatch, published: object, message: str
) -> None:
    publish(monkeypatch, published)
    problem = only_problem(keys_env)
    assert (problem.level, problem.subject) == (Level.WARN, "keys")
    assert message in problem.message
    assert "kubectl" in problem.fix


def test_keys_that_cannot_be_read_are_one_warning(keys_env: DoctorEnv) -> None:
    keys_env.cluster.fail(500, path="/openid/*")
    assert (
        "the signing keys of the API server cannot be read: API server request failed" in only_problem(keys_env).message
    )


def test_a_key_that_is_not_used_is_a_warning_with_its_reason(
    keys_env: DoctorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, jwks(jwk_of("RS256", kid=own_key_id(keys_env)), {"kty": "oct"}))
    assert "(key 2 of 2: it has no kid, which tokens would name it by)" in only_problem(keys_env).message


def test_a_legacy_token_of_our_own_says_nothing_about_those_of_callers(
    keys_env: DoctorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller manager signs it, perhaps with a key of its own."""
    legacy = {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:bob"}
    monkeypatch.setattr(APIServerClient, "own_token", lambda _: keys_env.cluster.sign(legacy))
    publish(monkeypatch, jwks(jwk_of("ES256")))
    assert len(found(keys_env, "keys")) == 1


def publish(monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
    """Have the API server publish these keys, or fail."""

    def signing_keys(*_: object) -> Any:
        if isinstance(keys, Exception):
            raise keys
        return keys

    monkeypatch.setattr(APIServerClient, "signing_keys", signing_keys)


def test_keys_in_a_file_are_read_in_the_pod_and_not_from_outside(keys_env: DoctorEnv, tmp_path: Path) -> None:
    issuer = "https://kubernetes.default.svc.cluster.local"
    keys_env.variables |= {"PODPROOF_JWKS": "/keys/jwks.json", "PODPROOF_ISSUERS": issuer}
    problem = only_problem(keys_env)
    assert f"{tmp_path / 'keys/jwks.json'} cannot be read: the file cannot be read: No such file" in problem.message
    assert "PODPROOF_JWKS" in problem.fix
    keys_env.write("keys/jwks.json", json.dumps(jwks(jwk_of("ES256"))))
    assert (Level.OK, f"{tmp_path / 'keys/jwks.json'} has 1 key for tokens of {issuer}: ES256 (ES256)") in found(
        keys_env, "keys"
    )


def by_keys_from_outside(doctor_env: DoctorEnv, **variables: str) -> None:
    container = {
        "name": "app",
        "command": ["gunicorn", "bob:app"],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumeMounts": [{"name": "api", "mountPath": f"/{CREDENTIAL_DIRECTORY}"}],
    }
    doctor_env.spec = {"containers": [container]}


def test_from_outside_the_keys_and_the_watch_are_those_of_the_impersonated_app(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.grant("default/bob", verbs=["list", "watch"], resources=["pods"])
    doctor_env = outside_cluster(cluster, tmp_path)
    by_keys_from_outside(doctor_env, PODPROOF_AUDIENCE="bob", PODPROOF_VERIFY="keys")
    assert {finding.level for finding in doctor_env.findings()} == {Level.OK, Level.SKIP}
    assert [message[:24] for _, message in found(doctor_env, "keys", "watch")] == [
        "the API server has 1 key",
        "2 pods: each process wat",
    ]


def test_from_outside_a_file_of_keys_is_skipped(cluster: Cluster, tmp_path: Path) -> None:
    cluster.grant("default/bob", verbs=["list", "watch"], resources=["pods"])
    doctor_env = outside_cluster(cluster, tmp_path)
    issuer = "https://kubernetes.default.svc.cluster.local"
    by_keys_from_outside(
        doctor_env,
        PODPROOF_AUDIENCE="bob",
        PODPROOF_VERIFY="keys",
        PODPROOF_JWKS="/keys/jwks.json",
        PODPROOF_ISSUERS=issuer,
    )
    assert found(doctor_env, "keys") == [
        (Level.SKIP, "the signing keys are in /keys/jwks.json, a file in the app's pod, which was not read")
    ]


# The watch


def test_the_pods_that_are_watched_are_counted(keys_env: DoctorEnv) -> None:
    for number in range(3):
        keys_env.cluster.pod(f"shop/pod-{number}")
    keys_env.cluster.pod("default/pod")
    assert found(keys_env, "watch") == [
        (Level.OK, "4 pods: each process watches them, and keeps up to 1 MB of them in memory")
    ]
    keys_env.variables["PODPROOF_WATCH_NAMESPACES"] = "shop,empty"
    assert found(keys_env, "watch") == [
        (Level.OK, "3 pods in shop, empty: each process watches them, and keeps up to 1 MB of them in memory")
    ]


def test_the_pods_that_selectors_choose_are_counted_page_by_page(
    keys_env: DoctorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podproof._authentication.pod_watch.PAGE_SIZE", 2)
    for number in range(6):
        keys_env.cluster.pod(f"shop/pod-{number}", labels={"app": "shop"}, phase="Running" if number else "Pending")
    keys_env.cluster.pod("shop/other")
    keys_env.variables |= {
        "PODPROOF_WATCH_NAMESPACES": "shop",
        "PODPROOF_WATCH_LABELS": "app in (shop)",
        "PODPROOF_WATCH_FIELDS": "status.phase=Running",
    }
    assert found(keys_env, "watch") == [
        (
            Level.OK,
            "5 pods in shop that the selectors choose: each process watches them, and keeps up to 1 MB of them in "
            "memory; a caller in any other pod is looked up with a GET",
        )
    ]


def test_a_field_that_the_api_server_does_not_select_by_is_a_failure(keys_env: DoctorEnv) -> None:
    keys_env.variables["PODPROOF_WATCH_FIELDS"] = "spec.priority=1"
    problem = only_problem(keys_env)
    assert (problem.level, problem.message) == (Level.FAIL, "the pods cannot be watched: status 400")
    assert problem.fix == ("kubectl get --raw '/api/v1/pods?fieldSelector=spec.priority%3D1&watch=1&timeoutSeconds=5'")


def test_many_pods_are_a_warning_with_the_remedies(keys_env: DoctorEnv) -> None:
    keys_env.cluster.pod("default/pod")
    keys_env.cluster.mutate(
        "pods",
        lambda page: (
            page | {"metadata": page["metadata"] | {"remainingItemCount": 99_999}} if "items" in page else page
        ),
    )
    problem = only_problem(keys_env)
    assert problem.message == (
        "100,000 pods: each process watches them, and keeps up to 70 MB of them in memory; the API server sends each "
        "change of a pod to each process"
    )
    assert "PODPROOF_WATCH_NAMESPACES=" in problem.fix
    assert "PODPROOF_PODS=lookup" in problem.fix


@pytest.mark.parametrize("page", [{}, {"items": [], "metadata": {}}, {"items": 7, "metadata": {}}, [], b"{"])
def test_a_list_that_is_none_is_a_failure(keys_env: DoctorEnv, page: object) -> None:
    keys_env.cluster.mutate("pods", lambda _: page)
    problem = only_problem(keys_env)
    assert (problem.level, problem.subject) == (Level.FAIL, "watch")
    assert problem.message == "the pods cannot be watched: the response is not a list of pods"


def test_a_watch_that_fails_is_a_failure(keys_env: DoctorEnv) -> None:
    keys_env.variables["PODPROOF_WATCH_NAMESPACES"] = "shop"
    keys_env.cluster.fail(500, path="*/pods")
    problem = only_problem(keys_env)
    assert (problem.level, problem.message) == (Level.FAIL, "the pods in namespace shop cannot be watched: status 500")
    assert problem.fix == "kubectl get --raw '/api/v1/namespaces/shop/pods?watch=1&timeoutSeconds=5'"


def test_a_watch_that_is_not_permitted_is_a_failure_beside_its_permission(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["PODPROOF_PODS"] = "watch"
    assert [message for level, message in found(doctor_env, "permissions", "watch") if level is Level.FAIL] == [
        "default/bob may not list pods, nor watch pods",
        "the pods cannot be watched: the API server forbids us to list and watch pods (403): this app's service "
        "account needs a ClusterRole with it, bound by a ClusterRoleBinding",
    ]


def test_reviews_and_lookups_need_no_keys_and_no_watch(cluster: Cluster, tmp_path: Path) -> None:
    assert found(in_server_pod(cluster, tmp_path), "watch", "view", "mode") == []


# The choice of verify="auto"


def test_auto_is_said_to_review_until_the_permissions_allow_the_keys(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["PODPROOF_VERIFY"] = "auto"
    assert {finding.level for finding in doctor_env.findings()} == {Level.OK}
    assert found(doctor_env, "mode", "watch") == [
        (
            Level.OK,
            "auto: tokens are verified by TokenReviews, since default/bob may not list pods, nor watch pods; to have "
            f"the signing keys used: {GRANT}",
        )
    ]
    cluster.grant("default/bob", verbs=["list", "watch"], resources=["pods"])
    assert [message[:40] for _, message in found(doctor_env, "mode", "watch")] == [
        "auto: tokens are verified by the signing",
        "0 pods: each process watches them, and k",
    ]


def test_auto_with_lookups_needs_no_watch(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables |= {"PODPROOF_VERIFY": "auto", "PODPROOF_PODS": "lookup"}
    assert found(doctor_env, "mode", "watch") == [(Level.OK, "auto: tokens are verified by the signing keys")]


def test_how_auto_decides_is_not_checked_where_the_api_server_does_not_say(cluster: Cluster, tmp_path: Path) -> None:
    doctor_env = in_server_pod(cluster, tmp_path)
    doctor_env.variables["PODPROOF_VERIFY"] = "auto"
    cluster.fail(500, path="*/selfsubjectaccessreviews")
    assert only_problem(doctor_env).message.startswith("not checked: API server request failed")
    assert found(doctor_env, "mode", "watch") == []


# The app's metrics

NOW = 1_800_000_000.0
FRESH = """\
# HELP podproof_pods Pods in the view that a watch keeps current.
podproof_pods 1234.0
podproof_pod_view_timestamp_seconds 1.79999999e+09
podproof_signing_keys 2.0
podproof_key_set_timestamp_seconds 1.7999998e+09
podproof_key_set_failure_timestamp_seconds 0.0
podproof_key_set_lookups_total{result="hit"} 77.0
python_info{version="3.13"} 1.0
"""


def check_metrics(text: str, status: int = 200) -> list[tuple[Level, str]]:
    """Return what is found of an app with these metrics."""

    class App(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **_: object) -> requests.Response:  # type: ignore[override]
            response = requests.Response()
            response.status_code, response.raw = status, io.BytesIO(text.encode())
            return response

    with requests.Session() as session:
        session.mount("http://", App())
        environment = Environment(refuse, {}, metrics_url="http://localhost:8080/metrics", now=lambda: NOW)
        options = Options(audience=("bob",), verify="keys")
        return [(one.level, one.message) for one in check_app_metrics(environment, options, session)]


def refuse(_: str | None) -> APIServerClient:
    raise AssertionError("the API server is not called")


def with_samples(**samples: float) -> str:
    """Return the fresh metrics with other values."""
    return FRESH + "".join(f"podproof_{name} {value}\n" for name, value in samples.items())


def test_the_age_of_the_apps_view_and_of_its_keys_is_in_its_metrics() -> None:
    assert check_metrics(FRESH) == [
        (Level.OK, "the app's view of 1,234 pods was current 10 s ago"),
        (Level.OK, "the app fetched its 2 signing keys 3 min 20 s ago"),
    ]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (
            {"pod_view_timestamp_seconds": NOW - 121},
            "the app's view of 1,234 pods was current 2 min 1 s ago: pods are looked up; if that fails, callers are "
            "lost 15 min after that time (max_outage)",
        ),
        (
            {"key_set_failure_timestamp_seconds": NOW - 7},
            "the app could not fetch its signing keys 7 s ago: it uses those of 3 min 20 s ago",
        ),
        (
            {"key_set_failure_timestamp_seconds": NOW - 7, "key_set_timestamp_seconds": 0},
            "the app could not fetch its signing keys 7 s ago: it has none, and each token is reviewed",
        ),
        (
            {'key_set_lookups_total{result="miss"}': 5000},
            "5,000 tokens named a key that was not among them: each was reviewed by the API server",
        ),
    ],
)
def test_an_old_view_keys_that_cannot_be_fetched_and_unknown_keys_are_warnings(
    samples: dict[str, float], expected: str
) -> None:
    assert [message for level, message in check_metrics(with_samples(**samples)) if level is Level.WARN] == [expected]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ({"pod_view_timestamp_seconds": 0}, "the app has no view of the pods yet: it begins one with the first token"),
        (
            {"key_set_failure_timestamp_seconds": NOW - 3600},
            "the app fetched its 2 signing keys 3 min 20 s ago; it could not 1 h ago",
        ),
    ],
)
def test_an_app_without_callers_and_a_failure_that_is_over_are_ok(samples: dict[str, float], expected: str) -> None:
    assert (Level.OK, expected) in check_metrics(with_samples(**samples))


def test_keys_that_were_never_fetched_are_not_mentioned() -> None:
    assert len(check_metrics(with_samples(key_set_timestamp_seconds=0))) == 1


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("", 404, "the app's metrics cannot be read: HTTPError"),
        ("python_info 1.0", 200, "http://localhost:8080/metrics has no metrics of podproof"),
    ],
)
def test_metrics_that_cannot_be_read_are_a_warning(text: str, status: int, message: str) -> None:
    assert check_metrics(text, status) == [(Level.WARN, message)]


def test_without_their_url_the_doctor_says_where_the_age_of_the_view_is(keys_env: DoctorEnv) -> None:
    ((level, message),) = found(keys_env, "view")
    assert level is Level.SKIP
    assert "its metrics" in message
