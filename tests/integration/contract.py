"""The contract suite: requests to a real and an emulated API server, and what may differ between their responses."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from kubernetes import client, config

from podproof.testing import Cluster
from podproof.testing._emulator import tokens

RawResponse = dict[str, Any]
Case = Callable[["Side"], list[RawResponse]]

CASES: dict[str, Case] = {}
ADMIN = "the administrator"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LAG = 1
"""Seconds: a real API server authenticates tokens with the objects that it watches, which lags behind."""
ANOTHER_UID = "11111111-2222-4333-8444-555555555555"


@dataclass(frozen=True)
class Access:
    """Access to an API server: its URL, an administrator's session, and one without a credential."""

    url: str
    admin: requests.Session
    anyone: requests.Session


@contextlib.contextmanager
def access(kubeconfig: str | None = None) -> Iterator[Access]:
    """Open the access that a kubeconfig describes, by default the one that `KUBECONFIG` names."""
    known: Any = client.Configuration()
    load: Any = config.load_kube_config
    load(kubeconfig, client_configuration=known)
    with requests.Session() as admin, requests.Session() as anyone:
        for session in (admin, anyone):
            session.trust_env = False
            session.verify = known.ssl_ca_cert
        if known.cert_file:
            admin.cert = (known.cert_file, known.key_file)
        for setting in known.auth_settings().values():
            admin.headers[setting["key"]] = setting["value"]
        yield Access(known.host, admin, anyone)


@dataclass(frozen=True)
class Side:
    """One of the two API servers, with a namespace for one case.

    `wait` waits for seconds. `forgotten` returns the path of a resource whose first changes are compacted. `patience`
    is the timeout of a watch in seconds.
    """

    way: Access
    namespace: str
    wait: Callable[[float], None]
    forgotten: Callable[[], str]
    patience: float

    def __post_init__(self) -> None:
        made = self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        assert made["status"] == 201, made

    def ask(
        self, method: str, path: str, body: object = None, *, bearer: str | None = ADMIN, **how: Any
    ) -> RawResponse:
        """Send a request as the administrator, with a bearer token, or (None) without a credential."""
        session = self.way.admin if bearer == ADMIN else self.way.anyone
        headers = how.pop("headers", {})
        if bearer not in {None, ADMIN}:
            headers = {"Authorization": f"Bearer {bearer}"} | headers
        response = session.request(method, self.way.url + path, json=body, headers=headers, timeout=30, **how)
        kind = response.headers.get("Content-Type", "")
        if "watch=1" in path and response.status_code == 200:
            content: Any = [json.loads(line) for line in response.text.splitlines()]
        else:
            content = response.json() if "json" in kind else response.text
        return {"status": response.status_code, "type": kind, "content": content}

    def path(self, rest: str) -> str:
        """Return a path in the namespace."""
        return f"/api/v1/namespaces/{self.namespace}/{rest}"

    def account(self, name: str) -> RawResponse:
        return self.ask("POST", self.path("serviceaccounts"), {"metadata": {"name": name}})

    def pod(self, name: str, account: str, **spec: Any) -> RawResponse:
        """Make a pod that stays unscheduled, so its image is never pulled."""
        wanted = {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "schedulerName": "nobody",
            "containers": [{"name": "app", "image": "localhost/none:1"}],
        }
        metadata = {"name": name, "labels": {"app": name, "of": "contract"}}
        return self.ask("POST", self.path("pods"), {"metadata": metadata, "spec": wanted | spec})

    def report(self, pod: str, address: str) -> RawResponse:
        """Report an address and the phase Running of a pod, as a kubelet does."""
        status = {"phase": "Running", "hostIP": "192.0.2.1", "podIP": address, "podIPs": [{"ip": address}]}
        patch = json.dumps({"status": status})
        kind = {"Content-Type": "application/merge-patch+json"}
        return self.ask("PATCH", self.path(f"pods/{pod}/status"), headers=kind, data=patch)

    def request_token(self, account: str, **spec: Any) -> RawResponse:
        return self.ask("POST", self.path(f"serviceaccounts/{account}/token"), {"spec": spec})

    def token(self, account: str, *audiences: str, pod: str | None = None) -> str:
        spec: dict[str, Any] = {"audiences": list(audiences)}
        if pod is not None:
            spec["boundObjectRef"] = bound_to(pod)
        token: str = self.request_token(account, **spec)["content"]["status"]["token"]
        return token

    def alice(self, *audiences: str) -> str:
        """Make a service account and a pod named alice, and return a token of the pod, by default for bob."""
        self.account("alice")
        self.pod("alice", "alice")
        return self.token("alice", *(audiences or ("bob",)), pod="alice")

    def bob(self) -> str:
        """Make a service account named bob, and return its token for the API server."""
        self.account("bob")
        return self.token("bob")

    def review(self, token: str, *audiences: str, bearer: str | None = ADMIN) -> RawResponse:
        spec: dict[str, Any] = {"token": token}
        if audiences:
            spec["audiences"] = list(audiences)
        return self.ask("POST", REVIEWS, {"spec": spec}, bearer=bearer)

    def remove(self, path: str) -> RawResponse:
        """Delete an object in the namespace, and wait until the token authenticator sees the deletion."""
        gone = self.ask("DELETE", self.path(path))
        self.wait(LAG)
        return gone

    def grant(self, rule: Mapping[str, Any], *, scope: str = "", reviewed: Mapping[str, Any]) -> list[RawResponse]:
        """Bind a role of one rule to bob, and wait until a SubjectAccessReview of bob is allowed."""
        prefix, kind = (f"namespaces/{scope}/", "Role") if scope else ("", "ClusterRole")
        made = [
            self.ask(
                "POST", f"{RBAC}/{prefix}{kind.lower()}s", {"metadata": {"name": self.namespace}, "rules": [rule]}
            ),
            self.ask(
                "POST",
                f"{RBAC}/{prefix}{kind.lower()}bindings",
                {
                    "metadata": {"name": self.namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": self.namespace},
                    "subjects": [{"kind": "ServiceAccount", "name": "bob", "namespace": self.namespace}],
                },
            ),
        ]
        deadline = time.monotonic() + 10
        while not self.ask_about_bob(reviewed)["content"]["status"]["allowed"]:
            assert time.monotonic() < deadline, "the API server does not see the binding"
            self.wait(0.1)
        return made

    def ask_about_bob(self, attributes: Mapping[str, Any]) -> RawResponse:
        user = f"system:serviceaccount:{self.namespace}:bob"
        return self.ask("POST", f"{ACCESS}/subjectaccessreviews", {"spec": {"user": user, **attributes}})

    def ungrant(self) -> list[RawResponse]:
        """Delete the cluster-wide objects of `grant`."""
        return [
            self.ask("DELETE", f"{RBAC}/{kind}/{self.namespace}") for kind in ("clusterrolebindings", "clusterroles")
        ]


@contextlib.contextmanager
def emulated(version: str, namespace: str) -> Iterator[Side]:
    """Open the emulated side, whose clock stands still but for `wait`."""
    now = [time.time()]

    def wait(seconds: float) -> None:
        now[0] += seconds

    def forgotten() -> str:
        cluster.compact()
        return "/api/v1/pods"

    with Cluster(version=version, clock=lambda: now[0]) as cluster, access(str(cluster.kubeconfig)) as way:
        yield Side(way, namespace, wait, forgotten, patience=0.1)


def lines(outcome: object) -> list[str]:
    """Return an outcome as lines, so that a difference shows its place."""
    return json.dumps(outcome, indent=1, sort_keys=True).splitlines()


def bound_to(pod: str, **more: str) -> dict[str, str]:
    return {"kind": "Pod", "apiVersion": "v1", "name": pod, **more}


def case(function: Case) -> Case:
    CASES[function.__name__.replace("_", " ")] = function
    return function


# What may differ. Everything else is compared.
DROPPED = {
    "managedFields": "the emulated API server does not track the managers of fields",
    "secrets": "before 1.24 a controller adds a token to each service account, some time later",
}
BY_FIELD = {
    "resourceVersion": "<version>",
    "continue": "<continue>",
    "kid": "<kid>",
    "n": "<modulus>",
    "buildDate": "<build>",
    "compiler": "<build>",
    "gitCommit": "<build>",
    "gitTreeState": "<build>",
    "gitVersion": "<build>",
    "goVersion": "<build>",
    "platform": "<build>",
    "major": "<build>",
    "minor": "<build>",
    "jti": "<jti>",
    "exp": "<time>",
    "iat": "<time>",
    "nbf": "<time>",
}
BY_PATTERN = {
    re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"): "<time>",
    re.compile(r"eyJ[\w.=-]{20,}(?:\s[\w.=-]{40,})?"): "<token>",
    re.compile(r"https://[\w.:\[\]-]+(?=/openid)"): "<url>",
    re.compile(r"(?<=resource version: )\d+ \(\d+\)"): "<version> (<version>)",
    re.compile(r"(?<=current: )\d+"): "<version>",
}
UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def comparable(outcome: list[RawResponse], namespace: str) -> Any:
    """Return an outcome without what may differ. Each UID is replaced by the order of its first occurrence."""
    uids: dict[str, str] = {ANOTHER_UID: "<another uid>"}

    def of(thing: Any) -> Any:
        if isinstance(thing, dict):
            return {key: BY_FIELD.get(key) or of(thing[key]) for key in sorted(thing) if key not in DROPPED}
        if isinstance(thing, list):
            return [of(each) for each in thing]
        if not isinstance(thing, str):
            return thing
        text = thing.replace(namespace, "<namespace>")
        for pattern, name in BY_PATTERN.items():
            text = pattern.sub(name, text)
        return UID.sub(lambda match: uids.setdefault(match[0], f"<uid {len(uids)}>"), text)

    return of(outcome)


def claims(token: str) -> dict[str, Any]:
    parsed = tokens.parse(token)
    return {"header": dict(parsed.header), "claims": dict(parsed.claims)}


def unsigned(header: Mapping[str, Any], token: str, **changed: object) -> str:
    """Return a token with another header and changed claims, and the signature of the first one."""
    parsed = tokens.parse(token)
    parts = (dict(header), {**parsed.claims, **changed})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, token.rpartition(".")[2]])


@case
def a_good_token_for_one_audience(side: Side) -> list[RawResponse]:
    return [side.review(side.alice(), "bob")]


@case
def a_good_token_for_two_audiences(side: Side) -> list[RawResponse]:
    token = side.alice("bob", "carol")
    return [side.review(token, *asked) for asked in (("bob", "carol"), ("carol", "bob"), ("bob", "dave"))]


@case
def a_token_for_another_audience(side: Side) -> list[RawResponse]:
    return [side.review(side.alice("carol"), "bob"), side.review(side.token("alice", "carol", "dave"), "bob", "x")]


@case
def a_review_that_names_no_audience(side: Side) -> list[RawResponse]:
    token = side.alice()
    return [side.review(token), side.review(side.bob()), side.review(side.token("bob"), "bob")]


@case
def a_token_after_a_blank_is_anonymous(side: Side) -> list[RawResponse]:
    token = side.alice()
    return [side.review(text, "bob") for text in (f" {token}", " ", "  ")]


@case
def a_token_before_a_blank_is_the_same_token(side: Side) -> list[RawResponse]:
    token = side.alice()
    return [side.review(f"{token}{end}", "bob") for end in (" ", " junk", "\n", "\t", "\r\n")]


@case
def a_token_with_white_space_within(side: Side) -> list[RawResponse]:
    token = side.alice()
    texts = (
        f"\t{token}",
        f"{token[:30]}\n{token[30:]}",
        f"{token[:30]}\t{token[30:]}",
        f"{token[:200]}\t{token[200:]}",
    )
    return [side.review(text, "bob") for text in texts]


@case
def a_token_with_base64_padding(side: Side) -> list[RawResponse]:
    token = side.alice()
    return [side.review(text, "bob") for text in (f"{token}=", f"{token}==", token.replace(".", "=.", 1))]


@case
def a_token_with_other_spare_bits_is_the_same_token(side: Side) -> list[RawResponse]:
    # 256 bytes of signature leave four bits of the last character unused.
    token = side.alice()
    return [side.review(token[:-1] + chr(ord(token[-1]) + 1), "bob")]


@case
def no_token(side: Side) -> list[RawResponse]:
    return [
        side.review("", "bob"),
        side.ask("POST", REVIEWS, {}),
        side.ask("POST", REVIEWS, {"spec": {"audiences": ["bob"]}}),
    ]


@case
def junk(side: Side) -> list[RawResponse]:
    token = side.alice()
    head, payload, _ = token.split(".")
    texts = ("junk", "a.b.c", "...", "tök", f"{token}.x", f"{head}.{payload}", f"{head}.{payload}.", f"x.{payload}.x")
    return [side.review(text, "bob") for text in texts]


@case
def a_forged_signature(side: Side) -> list[RawResponse]:
    token = side.alice()
    forged = tokens.sign(tokens.parse(token).claims, tokens.foreign_key())
    return [side.review(forged, "bob"), side.review(f"{token[:-10]}AAAAAAAAAA", "bob")]


@case
def a_token_of_another_algorithm(side: Side) -> list[RawResponse]:
    token = side.alice()
    headers = ({"alg": "none"}, {"alg": "HS256"}, {"alg": "RS512"}, {"alg": "RS256", "kid": "other"})
    return [side.review(unsigned(header, token), "bob") for header in headers]


@case
def a_token_of_another_issuer(side: Side) -> list[RawResponse]:
    token = side.alice()
    changes = ({"iss": "https://issuer.example"}, {"iss": ["https://issuer.example"]}, {"iss": None})
    return [side.review(unsigned({"alg": "RS256"}, token, **changed), "bob") for changed in changes]


@case
def a_token_with_a_changed_claim(side: Side) -> list[RawResponse]:
    return [side.review(unsigned({"alg": "RS256"}, side.alice(), aud=["bob", "x"]), "x")]


@case
def an_unbound_token(side: Side) -> list[RawResponse]:
    side.account("alice")
    return [side.review(side.token("alice", "bob"), "bob")]


@case
def the_token_of_a_deleted_pod_is_good_for_ten_seconds_more_where_it_was_seen(side: Side) -> list[RawResponse]:
    token = side.alice("bob", "carol")
    seen = side.review(token, "bob")
    side.remove("pods/alice")
    soon = [side.review(token, "bob"), side.review(token, "carol")]
    side.wait(11)
    return [seen, *soon, side.review(token, "bob")]


@case
def the_token_of_a_pod_that_was_made_anew(side: Side) -> list[RawResponse]:
    token = side.alice()
    side.remove("pods/alice")
    side.pod("alice", "alice")
    side.wait(LAG)
    return [side.review(token, "bob"), side.review(side.token("alice", "bob", pod="alice"), "bob")]


@case
def the_token_of_a_terminating_pod(side: Side) -> list[RawResponse]:
    side.account("alice")
    side.pod("alice", "alice", nodeName="no-such-node")
    token = side.token("alice", "bob", pod="alice")
    begun = side.remove("pods/alice")
    outcome = [begun, side.ask("GET", side.path("pods/alice")), side.review(token, "bob")]
    outcome += [side.request_token("alice", audiences=["bob"], boundObjectRef=bound_to("alice"))]
    return [*outcome, side.remove("pods/alice?gracePeriodSeconds=0"), side.review(token, "carol")]


@case
def the_token_of_a_deleted_service_account(side: Side) -> list[RawResponse]:
    bound = side.alice()
    unbound = side.token("alice", "bob")
    deleted = side.remove("serviceaccounts/alice")
    outcome = [deleted, side.review(bound, "bob"), side.review(unbound, "bob")]
    side.account("alice")
    side.wait(LAG)
    return [*outcome, side.review(unbound, "bob")]


@case
def a_review_of_the_wrong_kind(side: Side) -> list[RawResponse]:
    return [side.ask("POST", REVIEWS, {"kind": "Pod", "apiVersion": "v1", "spec": {}})]


@case
def a_review_by_another_method_or_path(side: Side) -> list[RawResponse]:
    body = {"spec": {"token": "x"}}
    return [
        side.ask("GET", REVIEWS),
        side.ask("PUT", REVIEWS, body),
        side.ask("DELETE", f"{REVIEWS}/x"),
        side.ask("POST", f"/apis/authentication.k8s.io/v1/namespaces/{side.namespace}/tokenreviews", body),
        side.ask("POST", "/apis/authentication.k8s.io/v9/tokenreviews", body),
    ]


@case
def a_caller_without_a_credential_is_anonymous(side: Side) -> list[RawResponse]:
    token = side.alice()
    return [
        side.review(token, "bob", bearer=None),
        side.review(token, "bob", bearer=f" {side.bob()}"),
        side.ask("GET", side.path("pods/alice"), bearer=None),
        side.ask("GET", "/metrics", bearer=None),
        side.ask("POST", side.path("serviceaccounts/alice/token"), {}, bearer=None),
    ]


@case
def a_caller_with_a_bad_credential(side: Side) -> list[RawResponse]:
    token = side.alice()
    return [side.review(token, "bob", bearer=bad) for bad in ("junk", token)]


@case
def a_caller_without_permission(side: Side) -> list[RawResponse]:
    token, bob = side.alice(), side.bob()
    return [
        side.review(token, "bob", bearer=bob),
        side.ask("GET", side.path("pods/alice"), bearer=bob),
        side.ask("GET", side.path("pods"), bearer=bob),
        side.ask("GET", "/api/v1/pods", bearer=bob),
        side.ask("GET", "/api/v1/pods?watch=1", bearer=bob),
        side.ask("GET", "/metrics", bearer=bob),
        side.ask("POST", f"{ACCESS}/subjectaccessreviews", {"spec": {"user": "x"}}, bearer=bob),
    ]


@case
def a_pod(side: Side) -> list[RawResponse]:
    side.account("alice")
    made = side.pod("alice", "alice")
    return [
        made,
        side.report("alice", "203.0.113.7"),
        side.ask("GET", side.path("pods/alice")),
        side.ask("GET", side.path("pods/nobody")),
        side.ask("GET", "/api/v1/namespaces/no-such-namespace/pods/alice"),
    ]


@case
def things_that_cannot_be_made(side: Side) -> list[RawResponse]:
    side.account("alice")
    side.pod("alice", "alice")
    metadata = {"metadata": {"name": "alice"}}
    return [
        side.pod("alice", "alice"),
        side.pod("other", "nobody"),
        side.account("alice"),
        side.ask("POST", "/api/v1/namespaces/no-such-namespace/serviceaccounts", metadata),
        side.ask("POST", "/api/v1/namespaces", {"metadata": {"name": side.namespace}}),
    ]


@case
def paths_that_lead_nowhere(side: Side) -> list[RawResponse]:
    return [
        side.ask("GET", "/api/v1/nothings"),
        side.ask("GET", side.path("nothings")),
        side.ask("GET", side.path("nodes")),
        side.ask("POST", "/api/v1/pods", {}),
        side.ask("PUT", side.path("pods"), {}),
        side.ask("GET", side.path("serviceaccounts/alice/nothing")),
        side.ask("GET", "/apis/nothing"),
    ]


def _three_pods(side: Side) -> None:
    side.account("alice")
    for name in ("a", "b"):
        side.pod(name, "alice")
    side.pod("c", "alice", nodeName=side.namespace)
    side.report("b", "203.0.113.8")


def _remove_scheduled(side: Side) -> None:
    side.ask("DELETE", side.path("pods/c?gracePeriodSeconds=0"))


@case
def a_list_of_pods(side: Side) -> list[RawResponse]:
    _three_pods(side)
    fields = ("metadata.name=b", "status.podIP=203.0.113.8", "status.phase!=Running", f"spec.nodeName={side.namespace}")
    queries = ["", *(f"?fieldSelector={selector}" for selector in fields)]
    outcome = [side.ask("GET", side.path(f"pods{query}")) for query in queries]
    everywhere = side.ask("GET", f"/api/v1/pods?fieldSelector=spec.nodeName={side.namespace}")
    _remove_scheduled(side)
    return [*outcome, everywhere]


@case
def a_list_by_labels(side: Side) -> list[RawResponse]:
    _three_pods(side)
    _remove_scheduled(side)
    selectors = ("app=a", "app==a", "app!=a", "app in (a,x)", "app notin (a)", "app", "!app", "of=contract,app=b")
    return [side.ask("GET", side.path("pods"), params={"labelSelector": selector}) for selector in selectors]


@case
def a_list_by_a_selector_that_cannot_be_read(side: Side) -> list[RawResponse]:
    return [side.ask("GET", side.path(f"pods?fieldSelector={selector}")) for selector in ("foo=bar", "foo")]


@case
def a_list_in_pages(side: Side) -> list[RawResponse]:
    _three_pods(side)
    _remove_scheduled(side)
    first = side.ask("GET", side.path("pods?limit=1"))
    go_on = first["content"]["metadata"]["continue"]
    return [first, side.ask("GET", side.path(f"pods?limit=1&continue={go_on}"))]


@case
def a_list_at_a_version_that_cannot_be(side: Side) -> list[RawResponse]:
    return [side.ask("GET", side.path(f"pods?resourceVersion={version}")) for version in ("999999999", "junk")]


@case
def a_watch_begins_with_what_there_is(side: Side) -> list[RawResponse]:
    _three_pods(side)
    _remove_scheduled(side)
    outcome = [
        side.ask("GET", side.path(f"pods?watch=1&timeoutSeconds={side.patience}{more}"))
        for more in ("", "&resourceVersion=0")
    ]
    for response in outcome:  # in no order that one could rely on
        response["content"].sort(key=lambda event: event["object"]["metadata"]["name"])
    return outcome


@case
def a_watch_tells_what_happened(side: Side) -> list[RawResponse]:
    side.account("alice")
    before = side.ask("GET", side.path("pods"))["content"]["metadata"]["resourceVersion"]
    side.pod("alice", "alice")
    side.report("alice", "203.0.113.7")
    side.ask("DELETE", side.path("pods/alice"))
    query = f"pods?watch=1&timeoutSeconds={side.patience}&resourceVersion={before}"
    fields = ("status.podIP=203.0.113.7", "status.phase=Pending", "metadata.name=nobody")
    selectors = ["", *(f"&fieldSelector={field}" for field in fields), "&labelSelector=app=alice"]
    return [side.ask("GET", side.path(query + selector)) for selector in selectors]


@case
def a_watch_from_a_version_that_is_forgotten(side: Side) -> list[RawResponse]:
    return [side.ask("GET", f"{side.forgotten()}?watch=1&timeoutSeconds=5&resourceVersion=1")]


@case
def a_watch_that_cannot_be(side: Side) -> list[RawResponse]:
    return [
        side.ask("GET", side.path(f"pods?watch=1&{query}")) for query in ("resourceVersion=junk", "fieldSelector=foo=x")
    ]


@case
def a_token_request_bound_to_a_pod(side: Side) -> list[RawResponse]:
    side.account("alice")
    uid = side.pod("alice", "alice")["content"]["metadata"]["uid"]
    bound = side.request_token("alice", audiences=["bob"], boundObjectRef=bound_to("alice", uid=uid))
    by_name = side.request_token(
        "alice", audiences=["bob", "x"], expirationSeconds=600, boundObjectRef=bound_to("alice")
    )
    return [bound, by_name, *(claims(response["content"]["status"]["token"]) for response in (bound, by_name))]


@case
def a_token_request_bound_to_nothing(side: Side) -> list[RawResponse]:
    side.account("alice")
    outcome = [side.request_token("alice", audiences=["bob"]), side.request_token("alice")]
    outcome += [side.ask("POST", side.path("serviceaccounts/alice/token"), {})]
    return [*outcome, claims(outcome[0]["content"]["status"]["token"])]


@case
def a_token_request_for_what_is_not_there(side: Side) -> list[RawResponse]:
    side.account("alice")
    side.account("bob")
    side.pod("alice", "alice")
    wanted = {"audiences": ["bob"]}
    return [
        side.request_token("nobody", **wanted),
        side.request_token("alice", **wanted, boundObjectRef=bound_to("nobody")),
        side.request_token("alice", **wanted, boundObjectRef=bound_to("alice", uid=ANOTHER_UID)),
        side.request_token("bob", **wanted, boundObjectRef=bound_to("alice")),
    ]


@case
def a_token_request_with_a_bad_lifetime(side: Side) -> list[RawResponse]:
    side.account("alice")
    return [side.request_token("alice", audiences=["bob"], expirationSeconds=seconds) for seconds in (5, 599, 1 << 33)]


@case
def a_token_request_of_the_wrong_kind(side: Side) -> list[RawResponse]:
    side.account("alice")
    path = side.path("serviceaccounts/alice/token")
    return [side.ask("POST", path, {"kind": "Pod", "apiVersion": "v1"}), side.ask("GET", path)]


_MAY_REVIEW = {"resourceAttributes": {"verb": "create", "group": "authentication.k8s.io", "resource": "tokenreviews"}}


@case
def a_review_of_ones_own_access(side: Side) -> list[RawResponse]:
    bob = side.bob()
    path = f"{ACCESS}/selfsubjectaccessreviews"
    before = [side.ask("POST", path, {"spec": _MAY_REVIEW}, bearer=bearer) for bearer in (ADMIN, bob, None)]
    rule = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    made = side.grant(rule, reviewed=_MAY_REVIEW)
    after = side.ask("POST", path, {"spec": _MAY_REVIEW}, bearer=bob)
    reviewed = side.review(bob, bearer=bob)
    return [*before, *made, after, reviewed, *side.ungrant()]


@case
def an_access_review_that_does_not_say_of_what(side: Side) -> list[RawResponse]:
    both: dict[str, Any] = {"resourceAttributes": {}, "nonResourceAttributes": {}}
    outcome = [side.ask("POST", f"{ACCESS}/selfsubjectaccessreviews", {"spec": spec}) for spec in ({}, both)]
    nobody = {"nonResourceAttributes": {"verb": "get", "path": "/"}}
    return [*outcome, side.ask("POST", f"{ACCESS}/subjectaccessreviews", {"spec": nobody})]


@case
def a_review_of_anothers_access_to_a_url(side: Side) -> list[RawResponse]:
    side.account("bob")
    path = f"{ACCESS}/subjectaccessreviews"
    rule = {"nonResourceURLs": [f"/{side.namespace}/*"], "verbs": ["get"]}
    get = {"nonResourceAttributes": {"verb": "get", "path": f"/{side.namespace}/1"}}
    post = {"nonResourceAttributes": {"verb": "post", "path": f"/{side.namespace}/1"}}
    elsewhere = {"nonResourceAttributes": {"verb": "get", "path": "/elsewhere"}}
    side.grant(rule, reviewed=get)
    outcome = [side.ask_about_bob(asked) for asked in (get, post, elsewhere)]
    groups = ({"groups": ["system:masters"], "user": "x"}, {"groups": ["x"], "uid": "y", "extra": {"k": ["v"]}})
    outcome += [side.ask("POST", path, {"spec": {**post, **group}}) for group in groups]
    version = {"nonResourceAttributes": {"verb": "get", "path": "/version"}, "groups": ["system:unauthenticated"]}
    outcome.append(side.ask("POST", path, {"spec": version}))
    side.ungrant()
    return outcome


@case
def a_role_in_a_namespace(side: Side) -> list[RawResponse]:
    """A RoleBinding grants pods in its namespace but no TokenReviews, which are cluster-scoped."""
    token, bob = side.alice(), side.bob()
    rule = {
        "apiGroups": ["", "authentication.k8s.io"],
        "resources": ["pods", "tokenreviews"],
        "verbs": ["get", "create"],
    }
    get = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": side.namespace}}
    made = side.grant(rule, scope=side.namespace, reviewed=get)
    return [
        *made,
        side.ask_about_bob(get),
        side.ask("GET", side.path("pods/alice"), bearer=bob),
        side.ask("GET", "/api/v1/namespaces/default/pods/alice", bearer=bob),
        side.ask("GET", side.path("pods"), bearer=bob),
        side.review(token, "bob", bearer=bob),
    ]


@case
def a_caller_that_acts_as_another(side: Side) -> list[RawResponse]:
    bob = side.bob()
    side.account("carol")
    names = (f"system:serviceaccount:{side.namespace}:carol", "dave")
    path = side.path("pods")

    def as_each(bearer: str) -> list[RawResponse]:
        return [side.ask("GET", path, bearer=bearer, headers={"Impersonate-User": name}) for name in names]

    return as_each(bob) + as_each(ADMIN)


@case
def what_everyone_may_read(side: Side) -> list[RawResponse]:
    return [side.ask("GET", path, bearer=None) for path in ("/version", "/livez", "/readyz", "/healthz")]


@case
def what_service_accounts_may_read(side: Side) -> list[RawResponse]:
    bob = side.bob()
    paths = ("/openid/v1/jwks", "/.well-known/openid-configuration")
    return [side.ask("GET", path, bearer=bearer) for path in paths for bearer in (bob, None)]


@case
def deletions(side: Side) -> list[RawResponse]:
    side.account("alice")
    side.pod("alice", "alice")
    path = side.path("pods/alice")
    return [
        side.ask("DELETE", path, {"preconditions": {"uid": ANOTHER_UID}}),
        side.ask("DELETE", path),
        side.ask("DELETE", path),
        side.ask("GET", path),
    ]
