"""Faults, seeded one at a time where all else is well: the doctor must name each, and say what mends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from podproof.cli.doctor import report
from podproof.cli.finding import Level
from podproof.testing import Cluster
from tests.support.doctor_env import ALICE, BOB, MOUNTED, TOKENS, Scene, alice_in_her_pod, bob_in_his_pod, from_outside

WARN, FAIL = Level.WARN, Level.FAIL


class Fault(NamedTuple):
    """How to bring it about, and what must be said of it: how bad it is, in which words, and what mends it."""

    seed: Callable[[Scene], object]
    level: Level
    seen: str
    mend: str


def env(**variables: str) -> Callable[[Scene], None]:
    return lambda scene: scene.environ.update(variables)


def unset(name: str) -> Callable[[Scene], object]:
    return lambda scene: scene.environ.pop(name)


def serve(*command: str, **variables: str) -> Callable[[Scene], None]:
    def seed(scene: Scene) -> None:
        scene.environ.update(variables)
        scene.run(*command)

    return seed


def token_file(text: str) -> Callable[[Scene], object]:
    return lambda scene: scene.write(f"{MOUNTED}/token", text)


def unmount(name: str) -> Callable[[Scene], object]:
    return lambda scene: (scene.root / MOUNTED / name).unlink()


def own_token(**claims: Any) -> Callable[[Scene], object]:
    """Have our own token, of these claims beside its own: None takes one away."""

    def seed(scene: Scene) -> None:
        base = {
            "iss": scene.cluster.issuer,
            "aud": list(scene.cluster.api_audiences),
            "nbf": 0,
            "exp": time.time() + 3600,
        }
        account = scene.cluster.service_account("default/bob")
        private = {"namespace": "default", "serviceaccount": {"name": "bob", "uid": account.uid}}
        every = base | {"sub": "system:serviceaccount:default:bob", "kubernetes.io": private} | claims
        token = scene.cluster.sign({name: value for name, value in every.items() if value is not None})
        scene.write(f"{MOUNTED}/token", token)

    return seed


def cluster(kind: Any, **more: Any) -> Callable[[Scene], None]:
    def seed(scene: Scene) -> None:
        scene.timeout = 0.5
        scene.cluster.fail(kind, **more)

    return seed


def answer(resource: str, **status: Any) -> Callable[[Scene], object]:
    return lambda scene: scene.cluster.mutate(resource, lambda document: {**document, **status})


def everywhere(function: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Scene], object]:
    """Change what the API server says at URLs that name no resource: its version, issuer and keys."""
    return lambda scene: scene.cluster.mutate("", lambda document: {**document, **function(document)})


def later(seconds: float) -> Callable[[Scene], None]:
    def seed(scene: Scene) -> None:
        scene.now = lambda: time.time() + seconds

    return seed


def revoke(*resources: str) -> Callable[[Scene], object]:
    return lambda scene: [scene.granted.pop(resource) for resource in resources]


def change(**attributes: Any) -> Callable[[Scene], None]:
    def seed(scene: Scene) -> None:
        for name, value in attributes.items():
            setattr(scene, name, value)

    return seed


def both(*seeds: Callable[[Scene], object]) -> Callable[[Scene], object]:
    return lambda scene: [seed(scene) for seed in seeds]


def service_account_made_anew(scene: Scene) -> None:
    account = scene.cluster.service_account("default/bob")
    private = {"namespace": "default", "serviceaccount": {"name": "bob", "uid": "another"}}
    assert account.uid != "another"
    own_token(**{"kubernetes.io": private})(scene)


def vouch_for_all(scene: Scene) -> None:
    status = {"authenticated": True, "user": {"username": "system:serviceaccount:default:bob"}}
    scene.cluster.mutate("tokenreviews", lambda review: {**review, "status": status})


RBAC = "podproof manifests --only rbac --server default/bob | kubectl apply -f -"
SET = "kubectl set env deployment/NAME "

IN_BOBS_POD = {
    "no audience": Fault(unset("PODPROOF_AUDIENCE"), FAIL, "no audience was given", SET + "PODPROOF_AUDIENCE=bob"),
    "an option is misspelt": Fault(env(PODPROOF_ALOW="a/b"), FAIL, "did you mean PODPROOF_ALLOW?", "VARIABLE-"),
    "an option is impossible": Fault(env(PODPROOF_ALLOW="alice"), FAIL, "expected a list of", SET),
    "a file of rules is broken": Fault(
        both(env(PODPROOF_RULES_FILE="/rules.yaml"), lambda scene: scene.write("rules.yaml", "rules: [{pat: /}]")),
        FAIL,
        "rules.yaml",
        "kubectl edit configmap",
    ),
    "addresses are not compared": Fault(
        env(PODPROOF_SOURCE_ADDRESS="off"), WARN, "can use it from anywhere", SET + "PODPROOF_SOURCE_ADDRESS=pod"
    ),
    "the host network is accepted": Fault(
        env(PODPROOF_HOST_NETWORK="true"), WARN, "any process on a node", SET + "PODPROOF_HOST_NETWORK=false"
    ),
    "the app sees tokens": Fault(
        env(PODPROOF_KEEP_AUTHORIZATION="1"), WARN, "see the callers' tokens", "PODPROOF_KEEP_AUTHORIZATION=false"
    ),
    "callers are remembered too long": Fault(
        env(PODPROOF_CACHE_TTL="3600"), WARN, "deleted may be known for that long", SET + "PODPROOF_CACHE_TTL=60"
    ),
    "everybody is a trusted proxy": Fault(
        env(PODPROOF_TRUSTED_PROXIES="0.0.0.0/0"), FAIL, "everybody may name any address", SET
    ),
    "the pods are trusted proxies": Fault(
        env(PODPROOF_TRUSTED_PROXIES="10.1.0.0/16"), FAIL, "the app's own pod has 10.1.0.5", "kubectl get pods"
    ),
    "many are trusted proxies": Fault(
        env(PODPROOF_TRUSTED_PROXIES="10.8.0.0/20"), WARN, "which is 4,096 addresses", "kubectl get pods"
    ),
    "uvicorn believes headers": Fault(
        serve("uvicorn", "--host", "0.0.0.0", "bob:app"),
        WARN,
        "uvicorn believes X-Forwarded-For from 127.0.0.1 and ::1",
        "uvicorn --no-proxy-headers",
    ),
    "uvicorn believes everybody": Fault(
        serve("uvicorn", "--host=::", "bob:app", UVICORN_FORWARDED_ALLOW_IPS="*"),
        FAIL,
        "from everybody",
        "uvicorn --no-proxy-headers",
    ),
    "gunicorn's uvicorn worker believes headers": Fault(
        serve("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "bob:app"),
        WARN,
        "gunicorn's uvicorn worker believes",
        SET + "FORWARDED_ALLOW_IPS=",
    ),
    "gunicorn reads the PROXY protocol": Fault(
        serve("gunicorn", "bob:app", GUNICORN_CMD_ARGS="--bind=0.0.0.0:80 --proxy-protocol"),
        FAIL,
        "PROXY protocol",
        "Leave out --proxy-protocol",
    ),
    "the server is on a Unix socket": Fault(
        serve("gunicorn", "--bind", "unix:/run/bob.sock", "bob:app"),
        FAIL,
        "Unix socket, where callers have no address",
        "gunicorn --bind 0.0.0.0:8080",
    ),
    "uvicorn is on a Unix socket": Fault(
        serve("uvicorn", "--no-proxy-headers", "--uds=/run/bob.sock", "bob:app"), FAIL, "Unix socket", "--host 0.0.0.0"
    ),
    "the server is on the loopback": Fault(
        serve("granian", "--interface", "asgi", "bob:app"), FAIL, "127.0.0.1 alone", "granian --host 0.0.0.0"
    ),
    "hypercorn is on the loopback": Fault(
        serve("hypercorn", "-b", "localhost:8000", "bob:app"), FAIL, "localhost:8000 alone", "hypercorn --bind 0.0.0.0"
    ),
    "no token of our own is mounted": Fault(
        unmount("token"), FAIL, "there is no", "automountServiceAccountToken: true"
    ),
    "our own token cannot be read": Fault(
        both(unmount("token"), lambda scene: scene.write(f"{MOUNTED}/token/token", "")),
        FAIL,
        "cannot be read: Is a directory",
        "fsGroup",
    ),
    "our own token is empty": Fault(token_file(""), FAIL, "is empty", "kubectl rollout restart"),
    "our own token is none": Fault(token_file("token"), FAIL, "not hold a JSON Web Token", "kubectl rollout restart"),
    "our own token has expired": Fault(
        own_token(exp=time.time() - 7200), FAIL, "default/bob's token for the API server expired 2 h", "kubelet's log"
    ),
    "our own token is good for ever": Fault(own_token(exp=10e9), WARN, "good for years", "kubectl get secrets"),
    "the certificate authority is not mounted": Fault(unmount("ca.crt"), FAIL, "ca.crt", "kube-root-ca.crt"),
    "the certificate authority is empty": Fault(
        lambda scene: scene.write(f"{MOUNTED}/ca.crt", ""), FAIL, "ca.crt", "kube-root-ca.crt"
    ),
    "nothing listens": Fault(cluster("refuse"), FAIL, "ConnectionRefusedError", "kubectl get endpoints kubernetes"),
    "nothing answers": Fault(cluster("silent"), FAIL, "Timeout", "NetworkPolicy"),
    "the certificate is another authority's": Fault(
        cluster("foreign-certificate"), FAIL, "unable to get local issuer certificate", "the present ca.crt"
    ),
    "the certificate is for another name": Fault(
        cluster("wrong-name"), FAIL, "certificate is not valid for '127.0.0.1'", "a name in its certificate"
    ),
    "a proxy answers in its place": Fault(cluster("html"), FAIL, "status 503", "kubectl get --raw /version"),
    "our service account was made anew": Fault(
        service_account_made_anew, FAIL, "does not accept our own credential (401)", "made anew"
    ),
    "the API server is old": Fault(
        everywhere(lambda _: {"gitVersion": "v1.18.3"}),
        WARN,
        "Kubernetes v1.18.3; podproof is tried on 1.20",
        "version",
    ),
    "the clock is ahead": Fault(later(600), FAIL, "ahead of the API server's: good tokens are refused", "set-ntp"),
    "the clock is a little behind": Fault(later(-30), WARN, "s behind the API server's", "set-ntp"),
    "tokens may not be reviewed": Fault(
        revoke("tokenreviews"), FAIL, "default/bob may not create tokenreviews.authentication.k8s.io", RBAC
    ),
    "pods may not be read": Fault(revoke("pods"), FAIL, "default/bob may not get pods", RBAC),
    "nothing is permitted": Fault(revoke("pods", "tokenreviews"), FAIL, "k8s.io, nor get pods", RBAC),
    "a RoleBinding stands for a ClusterRoleBinding": Fault(
        change(namespace="default"), FAIL, "but in default: a RoleBinding does not do", RBAC
    ),
    "RBAC decides, and may not be asked": Fault(
        env(PODPROOF_POLICY="rbac"),
        FAIL,
        "may not create subjectaccessreviews.authorization.k8s.io",
        "podproof manifests --only rbac --server default/bob --policy rbac",
    ),
    "permissions may not be asked for": Fault(
        cluster(403, path="*selfsubjectaccessreviews"),
        WARN,
        "could not be asked for",
        "kubectl auth can-i --list --as system:serviceaccount:default:bob",
    ),
    "the keys cannot be read": Fault(
        cluster(403, path="/openid/v1/jwks"),
        WARN,
        "forbids us to get /openid/v1/jwks",
        "service-account-issuer-discovery",
    ),
    "there are no keys": Fault(everywhere(lambda _: {"keys": []}), WARN, "shows no keys", "kubectl get --raw"),
    "another cluster's issuer": Fault(
        env(PODPROOF_ISSUERS="https://elsewhere"), FAIL, "each is refused", SET + "PODPROOF_ISSUERS=https://kubernetes."
    ),
    "the audience is the API server's": Fault(
        env(PODPROOF_AUDIENCE="https://kubernetes.default.svc.cluster.local"),
        FAIL,
        "which is the API server's own",
        SET + "PODPROOF_AUDIENCE=bob",
    ),
    "the audience is the issuer": Fault(
        both(env(PODPROOF_AUDIENCE="https://issuer"), everywhere(lambda _: {"issuer": "https://issuer"})),
        FAIL,
        "the audience https://issuer is the issuer",
        SET + "PODPROOF_AUDIENCE=bob",
    ),
    "the API server knows no audiences": Fault(vouch_for_all, FAIL, "vouches for a token", "KEP-1205"),
    "who is allowed is not there": Fault(
        both(env(PODPROOF_ALLOW="default/alise,default/*"), lambda scene: scene.granted.update(serviceaccounts="get")),
        WARN,
        "allow has default/alise, and there is no such service account",
        "kubectl get serviceaccounts",
    ),
}


def alices_token(scene: Scene, audience: str = "bob", **more: Any) -> str:
    return scene.cluster.pod("default/other", service_account="alice", **more).token(audience)


def project(audience: str, token: Callable[[Scene], str]) -> Callable[[Scene], object]:
    return lambda scene: scene.project(audience, token(scene))


def of_secret(scene: Scene) -> str:
    return scene.cluster.service_account("default/alice").token("bob")


def by_sub_path(scene: Scene) -> None:
    link = scene.root / TOKENS / "bob" / "token"
    text = link.read_text()
    link.unlink()
    link.write_text(text)


IN_ALICES_POD = {
    "no token for the audience": Fault(
        change(audience="carol"), FAIL, "carol/token cannot be read: No such file", "audience: carol"
    ),
    "no token at all": Fault(
        both(change(side="caller"), lambda scene: (scene.root / TOKENS / "bob/token").unlink()),
        FAIL,
        "token cannot be read: No such file",
        "serviceAccountToken:",
    ),
    "the token is for another": Fault(
        project("bob", lambda scene: alices_token(scene, "carol")), FAIL, "for carol, not for bob", "audience: bob"
    ),
    "the token has expired": Fault(
        later(7200), FAIL, "holds a token that expired", "does not refresh the token of a pod"
    ),
    "the token is none": Fault(
        project("bob", lambda _: "x"), FAIL, "not hold a JSON Web Token", "serviceAccountToken:"
    ),
    "the token is empty": Fault(project("bob", lambda _: ""), FAIL, "is empty", "serviceAccountToken:"),
    "the token is bound to no pod": Fault(project("bob", of_secret), FAIL, "(unbound)", "--only caller"),
    "the token is another pod's": Fault(project("bob", alices_token), WARN, "bound to pod other", "its own token"),
    "the pod is on the host network": Fault(env(HOSTNAME="node1"), WARN, "on the host network", "hostNetwork: false"),
    "the token is mounted by subPath": Fault(by_sub_path, WARN, "by subPath, or copied", "no subPath"),
    "the token is not renewed": Fault(later(3500), WARN, "should have renewed it", "is it being deleted?"),
    "the named file is not there": Fault(
        env(PODPROOF_TOKEN_FILE="/nowhere/token"), FAIL, "/nowhere/token cannot be read", "mountPath:"
    ),
}


def insecure(scene: Scene) -> None:
    file = scene.cluster.kubeconfig
    text = file.read_text()
    before, _, rest = text.partition('"certificate-authority": "')
    changed = before + '"insecure-skip-tls-verify": true' + rest.partition('"')[2]
    copied = scene.root / "kubeconfig"
    copied.write_text(changed)
    scene.write(str(copied).lstrip("/"), changed)
    scene.environ["KUBECONFIG"] = str(copied)


def as_carol(scene: Scene) -> None:
    file = scene.cluster.kubeconfig_for("default/carol")
    scene.write(str(file).lstrip("/"), "")
    scene.environ["KUBECONFIG"] = str(file)
    scene.cluster.grant("default/carol", verbs=["list"], resources=["pods"])


def containers(pod: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"containers": [{**pod["containers"][0], **changes}]}


def env_of_bob(name: str, value: str) -> dict[str, Any]:
    return containers(BOB, env=[*BOB["containers"][0]["env"], {"name": name, "value": value}])


def sidecar(name: str) -> dict[str, Any]:
    return {"containers": [*deepcopy(BOB["containers"]), {"name": name}]}


SUB_PATH = {"name": "token", "mountPath": "/t", "subPath": "token"}
ALICES = change(acting="default/alice", side="caller")

FROM_OUTSIDE = {
    "the kubeconfig is not there": Fault(
        env(KUBECONFIG="/nowhere"), FAIL, "/nowhere, which is not there", "KUBECONFIG="
    ),
    "the certificate is not checked": Fault(insecure, FAIL, "is not checked", "insecure-skip-tls-verify"),
    "there is no such service account": Fault(
        change(acting="default/bobb"), FAIL, "there is no service account default/bobb", "kubectl create serviceaccount"
    ),
    "we may not act as another": Fault(
        as_carol, FAIL, "may not impersonate serviceaccounts in default", "kubectl exec"
    ),
    "pods may not be read": Fault(revoke("pods"), FAIL, "default/bob may not get pods", RBAC),
    "the audience is missing": Fault(
        change(spec=containers(BOB, env=[])),
        FAIL,
        "default/bob-1: no audience was given",
        SET + "PODPROOF_AUDIENCE=bob",
    ),
    "uvicorn believes headers": Fault(
        change(spec=containers(BOB, args=["bob:app"])), WARN, "default/bob-1: uvicorn believes", "--no-proxy-headers"
    ),
    "the pods are trusted proxies": Fault(
        change(spec=env_of_bob("PODPROOF_TRUSTED_PROXIES", "10.1.0.0/24")),
        FAIL,
        "the app's own pod has 10.1.0.5",
        SET,
    ),
    "no credential is mounted": Fault(
        change(spec=containers(BOB, volumeMounts=[])),
        FAIL,
        "mounts a token for the API",
        "automountServiceAccountToken",
    ),
    "a mesh is in between": Fault(change(spec=sidecar("istio-proxy")), WARN, "the sidecar istio-proxy", "annotations:"),
    "no volume has a token": Fault(
        both(ALICES, change(spec={"volumes": []})), FAIL, "no volume projects a token", "--only caller"
    ),
    "no volume has the audience's token": Fault(
        both(ALICES, change(audience="carol")), FAIL, "for the audience carol; there is one for bob", "--audience carol"
    ),
    "the volume is mounted nowhere": Fault(
        both(ALICES, change(spec=containers(ALICE, volumeMounts=[]))), FAIL, "no container mounts", "mountPath:"
    ),
    "the volume is mounted by subPath": Fault(
        both(ALICES, change(spec=containers(ALICE, volumeMounts=[SUB_PATH]))),
        FAIL,
        "never renewed",
        "mountPath: /var/run/secrets/podproof/bob",
    ),
    "the caller is on the host network": Fault(
        both(ALICES, change(spec={"hostNetwork": True})), WARN, "on the host network", "hostNetwork: false"
    ),
}


def check(scene: Scene, fault: Fault) -> None:
    fault.seed(scene)
    findings = scene.findings()
    wrong = [finding for finding in findings if finding.level is not Level.OK]
    named = [finding for finding in wrong if fault.seen in finding.seen and fault.mend in finding.mend]
    assert named, report(findings)
    assert wrong == named, "something else is said to be wrong, too"
    assert named[0].level is fault.level
    assert "eyJ" not in report(findings)


@pytest.mark.parametrize("name", IN_BOBS_POD)
def test_in_a_servers_pod_it_names(name: str, cluster: Cluster, tmp_path: Path) -> None:
    check(bob_in_his_pod(cluster, tmp_path), IN_BOBS_POD[name])


@pytest.mark.parametrize("name", IN_ALICES_POD)
def test_in_a_callers_pod_it_names(name: str, cluster: Cluster, tmp_path: Path) -> None:
    check(alice_in_her_pod(cluster, tmp_path), IN_ALICES_POD[name])


@pytest.mark.parametrize("name", FROM_OUTSIDE)
def test_from_outside_it_names(name: str, cluster: Cluster, tmp_path: Path) -> None:
    check(from_outside(cluster, tmp_path), FROM_OUTSIDE[name])


@pytest.mark.parametrize("make", [bob_in_his_pod, alice_in_her_pod, from_outside])
def test_all_is_well_where_nothing_is_wrong(
    make: Callable[[Cluster, Path], Scene], cluster: Cluster, tmp_path: Path
) -> None:
    findings = make(cluster, tmp_path).findings()
    assert {finding.level for finding in findings} == {Level.OK}, report(findings)
