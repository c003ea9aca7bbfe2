"""One fault at a time in an environment that is otherwise right: the doctor reports it with a fix, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from podproof.cli.finding import Level
from podproof.cli.report import format_findings
from podproof.testing import Cluster
from tests.support.doctor_env import (
    ALICE_SPEC,
    BOB_SPEC,
    CREDENTIAL_DIRECTORY,
    TOKEN_DIRECTORY,
    DoctorEnv,
    in_caller_pod,
    in_server_pod,
    outside_cluster,
)

WARN, FAIL = Level.WARN, Level.FAIL


class FaultCase(NamedTuple):
    """How to cause a fault, and the expected finding: its level, and parts of its message and its fix."""

    cause: Callable[[DoctorEnv], object]
    level: Level
    message: str
    fix: str


def set_variables(**variables: str) -> Callable[[DoctorEnv], None]:
    return lambda doctor_env: doctor_env.variables.update(variables)


def unset_variable(name: str) -> Callable[[DoctorEnv], object]:
    return lambda doctor_env: doctor_env.variables.pop(name)


def run_server(*command: str, **variables: str) -> Callable[[DoctorEnv], None]:
    def cause(doctor_env: DoctorEnv) -> None:
        doctor_env.variables.update(variables)
        doctor_env.start_process(*command)

    return cause


def write_credential(text: str) -> Callable[[DoctorEnv], object]:
    return lambda doctor_env: doctor_env.write(f"{CREDENTIAL_DIRECTORY}/token", text)


def remove_credential_file(name: str) -> Callable[[DoctorEnv], object]:
    return lambda doctor_env: (doctor_env.root / CREDENTIAL_DIRECTORY / name).unlink()


def sign_credential(**claims: Any) -> Callable[[DoctorEnv], object]:
    """Replace our own credential by a token with changed claims; None removes a claim."""

    def cause(doctor_env: DoctorEnv) -> None:
        base = {
            "iss": doctor_env.cluster.issuer,
            "aud": list(doctor_env.cluster.api_audiences),
            "nbf": 0,
            "exp": time.time() + 3600,
        }
        account = doctor_env.cluster.service_account("default/bob")
        private = {"namespace": "default", "serviceaccount": {"name": "bob", "uid": account.uid}}
        every = base | {"sub": "system:serviceaccount:default:bob", "kubernetes.io": private} | claims
        token = doctor_env.cluster.sign({name: value for name, value in every.items() if value is not None})
        doctor_env.write(f"{CREDENTIAL_DIRECTORY}/token", token)

    return cause


def break_api_server(kind: Any, **more: Any) -> Callable[[DoctorEnv], None]:
    def cause(doctor_env: DoctorEnv) -> None:
        doctor_env.timeout = 0.5
        doctor_env.cluster.fail(kind, **more)

    return cause


def change_documents(function: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[DoctorEnv], object]:
    """Change the API server's responses at URLs without a resource: its version, issuer and keys."""
    return lambda doctor_env: doctor_env.cluster.mutate("", lambda document: {**document, **function(document)})


def advance_clock(seconds: float) -> Callable[[DoctorEnv], None]:
    def cause(doctor_env: DoctorEnv) -> None:
        doctor_env.now = lambda: time.time() + seconds

    return cause


def revoke_permission(*resources: str) -> Callable[[DoctorEnv], object]:
    return lambda doctor_env: [doctor_env.permissions.pop(resource) for resource in resources]


def set_attributes(**attributes: Any) -> Callable[[DoctorEnv], None]:
    def cause(doctor_env: DoctorEnv) -> None:
        for name, value in attributes.items():
            setattr(doctor_env, name, value)

    return cause


def all_of(*causes: Callable[[DoctorEnv], object]) -> Callable[[DoctorEnv], object]:
    return lambda doctor_env: [cause(doctor_env) for cause in causes]


def recreate_service_account(doctor_env: DoctorEnv) -> None:
    account = doctor_env.cluster.service_account("default/bob")
    private = {"namespace": "default", "serviceaccount": {"name": "bob", "uid": "another"}}
    assert account.uid != "another"
    sign_credential(**{"kubernetes.io": private})(doctor_env)


def authenticate_all_tokens(doctor_env: DoctorEnv) -> None:
    status = {"authenticated": True, "user": {"username": "system:serviceaccount:default:bob"}}
    doctor_env.cluster.mutate("tokenreviews", lambda review: {**review, "status": status})


RBAC = "podproof manifests --only rbac --server default/bob | kubectl apply -f -"
SET = "kubectl set env deployment/NAME "

IN_SERVER_POD = {
    "no audience": FaultCase(
        unset_variable("PODPROOF_AUDIENCE"), FAIL, "the audience is not set", SET + "PODPROOF_AUDIENCE=bob"
    ),
    "a misspelt option": FaultCase(
        set_variables(PODPROOF_ALOW="a/b"), FAIL, "did you mean 'PODPROOF_ALLOW'?", "VARIABLE-"
    ),
    "an invalid option": FaultCase(set_variables(PODPROOF_ALLOW="alice"), FAIL, "expected a list of", SET),
    "a file of rules is broken": FaultCase(
        all_of(
            set_variables(PODPROOF_RULES_FILE="/rules.yaml"),
            lambda doctor_env: doctor_env.write("rules.yaml", "rules: [{pat: /}]"),
        ),
        FAIL,
        "rules.yaml",
        "kubectl edit configmap",
    ),
    "enforce is off": FaultCase(
        set_variables(PODPROOF_ENFORCE="false"), WARN, "every request reaches the app", "podproof report"
    ),
    "source_address is off": FaultCase(
        set_variables(PODPROOF_SOURCE_ADDRESS="off"),
        WARN,
        "can be used from any address",
        SET + "PODPROOF_SOURCE_ADDRESS=pod",
    ),
    "host_network is on": FaultCase(
        set_variables(PODPROOF_HOST_NETWORK="true"),
        WARN,
        "any process on its node",
        SET + "PODPROOF_HOST_NETWORK=false",
    ),
    "keep_authorization is on": FaultCase(
        set_variables(PODPROOF_KEEP_AUTHORIZATION="1"),
        WARN,
        "see the callers' tokens",
        "PODPROOF_KEEP_AUTHORIZATION=false",
    ),
    "a long cache_ttl": FaultCase(
        set_variables(PODPROOF_CACHE_TTL="3600"),
        WARN,
        "deleted pod may be accepted for that long",
        SET + "PODPROOF_CACHE_TTL=60",
    ),
    "all addresses are trusted proxies": FaultCase(
        set_variables(PODPROOF_TRUSTED_PROXIES="0.0.0.0/0"), FAIL, "every caller could choose its own address", SET
    ),
    "the pods are trusted proxies": FaultCase(
        set_variables(PODPROOF_TRUSTED_PROXIES="10.1.0.0/16"), FAIL, "the app's own is 10.1.0.5", "kubectl get pods"
    ),
    "many are trusted proxies": FaultCase(
        set_variables(PODPROOF_TRUSTED_PROXIES="10.8.0.0/20"), WARN, "which has 4,096 addresses", "kubectl get pods"
    ),
    "uvicorn trusts forwarded headers": FaultCase(
        run_server("uvicorn", "--host", "0.0.0.0", "bob:app"),
        WARN,
        "uvicorn trusts X-Forwarded-For from 127.0.0.1 and ::1",
        "uvicorn --no-proxy-headers",
    ),
    "uvicorn trusts forwarded headers from any client": FaultCase(
        run_server("uvicorn", "--host=::", "bob:app", UVICORN_FORWARDED_ALLOW_IPS="*"),
        FAIL,
        "from any client",
        "uvicorn --no-proxy-headers",
    ),
    "gunicorn's uvicorn worker trusts headers": FaultCase(
        run_server("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "bob:app"),
        WARN,
        "gunicorn's uvicorn worker trusts",
        SET + "FORWARDED_ALLOW_IPS=",
    ),
    "gunicorn reads the PROXY protocol": FaultCase(
        run_server("gunicorn", "bob:app", GUNICORN_CMD_ARGS="--bind=0.0.0.0:80 --proxy-protocol"),
        FAIL,
        "PROXY protocol",
        "Remove --proxy-protocol",
    ),
    "the server is on a Unix socket": FaultCase(
        run_server("gunicorn", "--bind", "unix:/run/bob.sock", "bob:app"),
        FAIL,
        "Unix socket, where callers have no address",
        "gunicorn --bind 0.0.0.0:8080",
    ),
    "uvicorn is on a Unix socket": FaultCase(
        run_server("uvicorn", "--no-proxy-headers", "--uds=/run/bob.sock", "bob:app"),
        FAIL,
        "Unix socket",
        "--host 0.0.0.0",
    ),
    "the server is on the loopback": FaultCase(
        run_server("granian", "--interface", "asgi", "bob:app"), FAIL, "127.0.0.1 only", "granian --host 0.0.0.0"
    ),
    "hypercorn is on the loopback": FaultCase(
        run_server("hypercorn", "-b", "localhost:8000", "bob:app"),
        FAIL,
        "localhost:8000 only",
        "hypercorn --bind 0.0.0.0",
    ),
    "no token of our own is mounted": FaultCase(
        remove_credential_file("token"), FAIL, "does not exist", "automountServiceAccountToken: true"
    ),
    "our own token cannot be read": FaultCase(
        all_of(
            remove_credential_file("token"),
            lambda doctor_env: doctor_env.write(f"{CREDENTIAL_DIRECTORY}/token/token", ""),
        ),
        FAIL,
        "cannot be read: Is a directory",
        "fsGroup",
    ),
    "our own token is empty": FaultCase(write_credential(""), FAIL, "is empty", "kubectl rollout restart"),
    "our own token is not a JWT": FaultCase(
        write_credential("token"), FAIL, "not hold a JSON Web Token", "kubectl rollout restart"
    ),
    "our own token has expired": FaultCase(
        sign_credential(exp=time.time() - 7200),
        FAIL,
        "default/bob's token for the API server expired 2 h",
        "kubelet's log",
    ),
    "our own token is valid for years": FaultCase(
        sign_credential(exp=10e9), WARN, "valid for years", "kubectl get secrets"
    ),
    "the certificate authority is not mounted": FaultCase(
        remove_credential_file("ca.crt"), FAIL, "ca.crt", "kube-root-ca.crt"
    ),
    "the certificate authority is empty": FaultCase(
        lambda doctor_env: doctor_env.write(f"{CREDENTIAL_DIRECTORY}/ca.crt", ""), FAIL, "ca.crt", "kube-root-ca.crt"
    ),
    "the API server refuses connections": FaultCase(
        break_api_server("refuse"), FAIL, "ConnectionRefusedError", "kubectl get endpoints kubernetes"
    ),
    "the API server does not respond": FaultCase(break_api_server("silent"), FAIL, "Timeout", "NetworkPolicy"),
    "the certificate is another authority's": FaultCase(
        break_api_server("foreign-certificate"), FAIL, "unable to get local issuer certificate", "the current ca.crt"
    ),
    "the certificate is for another name": FaultCase(
        break_api_server("wrong-name"), FAIL, "certificate is not valid for '127.0.0.1'", "a name in its certificate"
    ),
    "a proxy responds instead of the API server": FaultCase(
        break_api_server("html"), FAIL, "status 503", "kubectl get --raw /version"
    ),
    "our service account was recreated": FaultCase(
        recreate_service_account, FAIL, "does not accept our own credential (401)", "recreated"
    ),
    "the API server is old": FaultCase(
        change_documents(lambda _: {"gitVersion": "v1.18.3"}),
        WARN,
        "Kubernetes v1.18.3; podproof is tested on 1.20",
        "version",
    ),
    "the clock is ahead": FaultCase(
        advance_clock(600), FAIL, "ahead of the API server's: valid tokens are rejected", "set-ntp"
    ),
    "the clock is a little behind": FaultCase(advance_clock(-30), WARN, "s behind the API server's", "set-ntp"),
    "creating TokenReviews is not permitted": FaultCase(
        revoke_permission("tokenreviews"), FAIL, "default/bob may not create tokenreviews.authentication.k8s.io", RBAC
    ),
    "reading pods is not permitted": FaultCase(revoke_permission("pods"), FAIL, "default/bob may not get pods", RBAC),
    "all permissions are missing": FaultCase(
        revoke_permission("pods", "tokenreviews"), FAIL, "k8s.io, nor get pods", RBAC
    ),
    "a RoleBinding instead of a ClusterRoleBinding": FaultCase(
        set_attributes(namespace="default"), FAIL, "except in default: a RoleBinding is not enough", RBAC
    ),
    "policy is rbac without permission for SubjectAccessReviews": FaultCase(
        set_variables(PODPROOF_POLICY="rbac"),
        FAIL,
        "may not create subjectaccessreviews.authorization.k8s.io",
        "podproof manifests --only rbac --server default/bob --policy rbac",
    ),
    "permissions cannot be checked": FaultCase(
        break_api_server(403, path="*selfsubjectaccessreviews"),
        WARN,
        "not checked",
        "kubectl auth can-i --list --as system:serviceaccount:default:bob",
    ),
    "the keys cannot be read": FaultCase(
        break_api_server(403, path="/openid/v1/jwks"),
        WARN,
        "forbids us to get /openid/v1/jwks",
        "service-account-issuer-discovery",
    ),
    "the JWKS is empty": FaultCase(
        change_documents(lambda _: {"keys": []}), WARN, "publishes no keys", "kubectl get --raw"
    ),
    "issuers names another cluster's issuer": FaultCase(
        set_variables(PODPROOF_ISSUERS="https://elsewhere"),
        FAIL,
        "all are rejected (wrong-issuer)",
        SET + "PODPROOF_ISSUERS=https://kubernetes.",
    ),
    "the audience is the API server's": FaultCase(
        set_variables(PODPROOF_AUDIENCE="https://kubernetes.default.svc.cluster.local"),
        FAIL,
        "is the API server's own",
        SET + "PODPROOF_AUDIENCE=bob",
    ),
    "the audience is the issuer": FaultCase(
        all_of(
            set_variables(PODPROOF_AUDIENCE="https://issuer"), change_documents(lambda _: {"issuer": "https://issuer"})
        ),
        FAIL,
        "the audience https://issuer is the API server's own",
        SET + "PODPROOF_AUDIENCE=bob",
    ),
    "the API server ignores audiences": FaultCase(
        authenticate_all_tokens, FAIL, "authenticated a token for another audience", "KEP-1205"
    ),
    "an allowed service account does not exist": FaultCase(
        all_of(
            set_variables(PODPROOF_ALLOW="default/alise,default/*"),
            lambda doctor_env: doctor_env.permissions.update(serviceaccounts="get"),
        ),
        WARN,
        "allow contains default/alise, but this service account does not exist",
        "kubectl get serviceaccounts",
    ),
}


def token_of_another_pod(doctor_env: DoctorEnv, audience: str = "bob", **more: Any) -> str:
    return doctor_env.cluster.pod("default/other", service_account="alice", **more).token(audience)


def mount_token(audience: str, token: Callable[[DoctorEnv], str]) -> Callable[[DoctorEnv], object]:
    return lambda doctor_env: doctor_env.mount_token(audience, token(doctor_env))


def token_from_a_secret(doctor_env: DoctorEnv) -> str:
    return doctor_env.cluster.service_account("default/alice").token("bob")


def copy_token_file(doctor_env: DoctorEnv) -> None:
    link = doctor_env.root / TOKEN_DIRECTORY / "bob" / "token"
    text = link.read_text()
    link.unlink()
    link.write_text(text)


IN_CALLER_POD = {
    "no token for the audience": FaultCase(
        set_attributes(audience="carol"), FAIL, "carol/token cannot be read: No such file", "audience: carol"
    ),
    "no token at all": FaultCase(
        all_of(
            set_attributes(side="caller"), lambda doctor_env: (doctor_env.root / TOKEN_DIRECTORY / "bob/token").unlink()
        ),
        FAIL,
        "token cannot be read: No such file",
        "serviceAccountToken:",
    ),
    "the token is for another audience": FaultCase(
        mount_token("bob", lambda doctor_env: token_of_another_pod(doctor_env, "carol")),
        FAIL,
        "for carol, not for bob",
        "audience: bob",
    ),
    "the token has expired": FaultCase(
        advance_clock(7200), FAIL, "holds a token that expired", "does not refresh the token of a pod"
    ),
    "the token is not a JWT": FaultCase(
        mount_token("bob", lambda _: "x"), FAIL, "not hold a JSON Web Token", "serviceAccountToken:"
    ),
    "the token is empty": FaultCase(mount_token("bob", lambda _: ""), FAIL, "is empty", "serviceAccountToken:"),
    "the token is not bound to a pod": FaultCase(
        mount_token("bob", token_from_a_secret), FAIL, "(not-pod-bound)", "--only caller"
    ),
    "the token is bound to another pod": FaultCase(
        mount_token("bob", token_of_another_pod), WARN, "bound to pod other", "a token in each pod"
    ),
    "the pod is on the host network": FaultCase(
        set_variables(HOSTNAME="node1"), WARN, "on the host network", "hostNetwork: false"
    ),
    "the token is mounted by subPath": FaultCase(copy_token_file, WARN, "with subPath, or copied", "without subPath"),
    "the token is not renewed": FaultCase(advance_clock(3500), WARN, "should have renewed it", "being deleted"),
    "PODPROOF_TOKEN_FILE does not exist": FaultCase(
        set_variables(PODPROOF_TOKEN_FILE="/nowhere/token"), FAIL, "/nowhere/token cannot be read", "mountPath:"
    ),
}


def skip_certificate_verification(doctor_env: DoctorEnv) -> None:
    file = doctor_env.cluster.kubeconfig
    text = file.read_text()
    before, _, rest = text.partition('"certificate-authority": "')
    changed = before + '"insecure-skip-tls-verify": true' + rest.partition('"')[2]
    copied = doctor_env.root / "kubeconfig"
    copied.write_text(changed)
    doctor_env.variables["KUBECONFIG"] = str(copied)


def use_carols_kubeconfig(doctor_env: DoctorEnv) -> None:
    file = doctor_env.cluster.kubeconfig_for("default/carol")
    doctor_env.variables["KUBECONFIG"] = str(file)
    doctor_env.cluster.grant("default/carol", verbs=["list"], resources=["pods"])


def change_container(pod: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"containers": [{**pod["containers"][0], **changes}]}


def add_variable(name: str, value: str) -> dict[str, Any]:
    return change_container(BOB_SPEC, env=[*BOB_SPEC["containers"][0]["env"], {"name": name, "value": value}])


def add_sidecar(name: str) -> dict[str, Any]:
    return {"containers": [*deepcopy(BOB_SPEC["containers"]), {"name": name}]}


SUB_PATH = {"name": "token", "mountPath": "/t", "subPath": "token"}
EXAMINE_ALICE = set_attributes(acting_as="default/alice", side="caller")

OUTSIDE_CLUSTER = {
    "the kubeconfig does not exist": FaultCase(
        set_variables(KUBECONFIG="/nowhere"), FAIL, "/nowhere, which does not exist", "--kubeconfig FILE"
    ),
    "the certificate is not verified": FaultCase(
        skip_certificate_verification, FAIL, "is not verified", "insecure-skip-tls-verify"
    ),
    "the service account does not exist": FaultCase(
        set_attributes(acting_as="default/bobb"),
        FAIL,
        "the service account default/bobb does not exist",
        "kubectl create serviceaccount",
    ),
    "impersonation is not permitted": FaultCase(
        use_carols_kubeconfig, FAIL, "may not impersonate serviceaccounts in namespace default", "kubectl exec"
    ),
    "reading pods is not permitted": FaultCase(revoke_permission("pods"), FAIL, "default/bob may not get pods", RBAC),
    "the audience is missing": FaultCase(
        set_attributes(spec=change_container(BOB_SPEC, env=[])),
        FAIL,
        "default/bob-1: the audience is not set",
        SET + "PODPROOF_AUDIENCE=bob",
    ),
    "uvicorn trusts forwarded headers": FaultCase(
        set_attributes(spec=change_container(BOB_SPEC, args=["bob:app"])),
        WARN,
        "default/bob-1: uvicorn trusts",
        "--no-proxy-headers",
    ),
    "the pods are trusted proxies": FaultCase(
        set_attributes(spec=add_variable("PODPROOF_TRUSTED_PROXIES", "10.1.0.0/24")),
        FAIL,
        "the app's own is 10.1.0.5",
        SET,
    ),
    "no credential is mounted": FaultCase(
        set_attributes(spec=change_container(BOB_SPEC, volumeMounts=[])),
        FAIL,
        "mounts a token for the API",
        "automountServiceAccountToken",
    ),
    "a service mesh sidecar": FaultCase(
        set_attributes(spec=add_sidecar("istio-proxy")), WARN, "the sidecar istio-proxy", "annotations:"
    ),
    "no volume has a token": FaultCase(
        all_of(EXAMINE_ALICE, set_attributes(spec={"volumes": []})), FAIL, "no volume projects a token", "--only caller"
    ),
    "no volume has the audience's token": FaultCase(
        all_of(EXAMINE_ALICE, set_attributes(audience="carol")),
        FAIL,
        "for the audience carol; there is one for bob",
        "--audience carol",
    ),
    "the volume is mounted nowhere": FaultCase(
        all_of(EXAMINE_ALICE, set_attributes(spec=change_container(ALICE_SPEC, volumeMounts=[]))),
        FAIL,
        "no container mounts",
        "mountPath:",
    ),
    "the volume is mounted by subPath": FaultCase(
        all_of(EXAMINE_ALICE, set_attributes(spec=change_container(ALICE_SPEC, volumeMounts=[SUB_PATH]))),
        FAIL,
        "never renewed",
        "mountPath: /var/run/secrets/podproof/bob",
    ),
    "the caller is on the host network": FaultCase(
        all_of(EXAMINE_ALICE, set_attributes(spec={"hostNetwork": True})),
        WARN,
        "on the host network",
        "hostNetwork: false",
    ),
}


def assert_fault_is_reported(doctor_env: DoctorEnv, fault: FaultCase) -> None:
    fault.cause(doctor_env)
    findings = doctor_env.findings()
    wrong = [finding for finding in findings if finding.level is not Level.OK]
    named = [finding for finding in wrong if fault.message in finding.message and fault.fix in finding.fix]
    assert named, format_findings(findings)
    assert wrong == named, "something else is reported, too"
    assert named[0].level is fault.level
    assert "eyJ" not in format_findings(findings)


@pytest.mark.parametrize("name", IN_SERVER_POD)
def test_the_doctor_in_a_servers_pod_reports(name: str, cluster: Cluster, tmp_path: Path) -> None:
    assert_fault_is_reported(in_server_pod(cluster, tmp_path), IN_SERVER_POD[name])


@pytest.mark.parametrize("name", IN_CALLER_POD)
def test_the_doctor_in_a_callers_pod_reports(name: str, cluster: Cluster, tmp_path: Path) -> None:
    assert_fault_is_reported(in_caller_pod(cluster, tmp_path), IN_CALLER_POD[name])


@pytest.mark.parametrize("name", OUTSIDE_CLUSTER)
def test_the_doctor_outside_the_cluster_reports(name: str, cluster: Cluster, tmp_path: Path) -> None:
    assert_fault_is_reported(outside_cluster(cluster, tmp_path), OUTSIDE_CLUSTER[name])


@pytest.mark.parametrize("make_env", [in_server_pod, in_caller_pod, outside_cluster])
def test_an_environment_without_faults_is_ok(
    make_env: Callable[[Cluster, Path], DoctorEnv], cluster: Cluster, tmp_path: Path
) -> None:
    findings = make_env(cluster, tmp_path).findings()
    assert {finding.level for finding in findings} == {Level.OK}, format_findings(findings)
