"""`Cluster`: an emulated Kubernetes API server in the process, to run apps and tests on."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra("podproof.testing", "testing")

import copy
import dataclasses
import email.utils
import json
import secrets
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from podproof.testing import certificates, pods, rbac, requestinfo, status, tokens
from podproof.testing.api import API
from podproof.testing.authentication import ISSUER, Authentication
from podproof.testing.faults import Fault, Faults
from podproof.testing.objects import Pod, ServiceAccount
from podproof.testing.resources import RESOURCES, Resource, Resources
from podproof.testing.server import Answer, Call, Server
from podproof.testing.store import Store

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from podproof.testing.faults import AnswerFault, ConnectionFault
    from podproof.testing.requestinfo import RequestInfo

YEAR = 365 * 86400
PARAMETERS = frozenset(
    {
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "watch",
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the emulated API server was asked: never with its credential or its body.

    `user` is empty for a credential that is no good.
    """

    method: str
    path: str
    query: Mapping[str, str]
    user: str
    verb: str
    resource: str
    namespace: str
    name: str


class Cluster:
    """An emulated Kubernetes cluster: its API server listens on 127.0.0.1 while the context is open.

    `version` is the Kubernetes version it answers as, `clock` the time it lives in (Unix seconds).
    `tls=False` serves plain HTTP. The clusters of one process share their keys, which take long to make.
    """

    def __init__(self, *, tls: bool = True, version: str = "1.36", clock: Callable[[], float] = time.time) -> None:
        major, minor = (int(part) for part in version.removeprefix("v").split(".")[:2])
        self._tls = tls
        self._store = Store()
        self._authentication = Authentication(self._store, clock, (major, minor))
        self._resources = Resources(self._store, clock)
        self._api = API(self._store, self._authentication, self._resources, (major, minor), lambda: self.url)
        self._faults = Faults()
        self._deaf = threading.Event()
        self._mutations: dict[str, Callable[[Any], Any]] = {}
        self._admin = secrets.token_urlsafe()
        self._authentication.static[self._admin] = rbac.User("admin", "admin", (rbac.MASTERS, "system:authenticated"))
        self._server: Server | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._grants = 0
        self.requests: list[Request] = []
        self.issuer = ISSUER
        self.api_audiences = self._authentication.api_audiences
        self.ca_pem = certificates.cluster_authority().pem
        for role, rule, subjects in rbac.DEFAULTS:
            self._bind(role, rule, [rbac.subject(subject) for subject in subjects], None)
        for namespace in ("default", "kube-system"):
            self._ensure("namespaces", namespace)

    def start(self) -> Self:
        """Start to listen, on a port of its own. Raises RuntimeError when it was started before."""
        if self._server is not None or self._store.closed:
            raise RuntimeError("a cluster is started once")
        self._directory = tempfile.TemporaryDirectory(prefix="podproof-cluster-")
        self._server = Server(self._respond, self._context())
        return self

    def stop(self) -> None:
        """Close every connection, end every thread, remove every file; it does not start again."""
        if self._server is None or self._directory is None:
            return
        self._store.close()
        self._let_go()
        self._server.stop()
        self._directory.cleanup()
        self._server = self._directory = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._running.port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig file of the cluster's administrator."""
        return self._write_kubeconfig("admin", self._admin)

    def kubeconfig_for(self, service_account: str) -> Path:
        """Return a kubeconfig file of a service account (`namespace/name`), which may do what was granted to it."""
        token = self.service_account(service_account).token(self.api_audiences, lifetime=YEAR)
        return self._write_kubeconfig(service_account.replace("/", "."), token)

    def mount(self, directory: Path | str, service_account: str) -> Path:
        """Write `token`, `ca.crt` and `namespace` into a directory, as the kubelet mounts them into every pod.

        The service account is given as `namespace/name`.
        """
        account = self.service_account(service_account)
        where = Path(directory)
        where.mkdir(parents=True, exist_ok=True)
        (where / "token").write_text(account.token(self.api_audiences))
        (where / "ca.crt").write_text(self.ca_pem)
        (where / "namespace").write_text(account.namespace)
        return where

    def pod(
        self,
        name: str,
        *,
        service_account: str = "default",
        addresses: Sequence[str] = ("127.0.0.1",),
        node: str = "node1",
        phase: str = "Running",
        host_network: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> Pod:
        """Make a pod (`namespace/name`) and whatever it needs: its namespace, service account and node.

        Raises a 409 `Failure` when there is a pod of this name.
        """
        namespace, short = _split(name)
        self.service_account(f"{namespace}/{service_account}")
        self._ensure("nodes", node)
        metadata: dict[str, Any] = {"name": short} | ({"labels": dict(labels)} if labels else {})
        spec: dict[str, Any] = {
            "containers": [{"name": "app", "image": "app"}],
            "nodeName": node,
            "serviceAccountName": service_account,
        }
        if host_network:
            spec["hostNetwork"] = True
        kind = _resource("pods")
        made = self._resources.create(kind, namespace, {"metadata": metadata, "spec": spec})
        made = self._store.replace("pods", {**made, "status": pods.reported(made["status"], phase, addresses)})
        return Pod(self._store, self._authentication, namespace, short, made["metadata"]["uid"])

    def service_account(self, name: str) -> ServiceAccount:
        """Return a service account (`namespace/name`), made if there is none."""
        namespace, short = _split(name)
        self._ensure("namespaces", namespace)
        uid = self._ensure("serviceaccounts", short, namespace)["metadata"]["uid"]
        return ServiceAccount(self._store, self._authentication, namespace, short, uid)

    def grant(
        self,
        subject: str,
        *,
        verbs: Collection[str],
        resources: Collection[str] = (),
        api_groups: Collection[str] = ("*",),
        non_resource_urls: Collection[str] = (),
        namespace: str | None = None,
    ) -> None:
        """Allow a service account (`namespace/name`), or a group (`system:...`) or user, to do something.

        With a namespace this is a RoleBinding, which reaches nothing that lies outside of namespaces.
        """
        self._grants += 1
        rule: dict[str, Any] = {"verbs": list(verbs)}
        if resources:
            rule |= {"apiGroups": list(api_groups), "resources": list(resources)}
        if non_resource_urls:
            rule["nonResourceURLs"] = list(non_resource_urls)
        if "/" in subject:
            self.service_account(subject)
        if namespace is not None:
            self._ensure("namespaces", namespace)
        self._bind(f"granted-{self._grants}", rule, [rbac.subject(subject)], namespace)

    def forge(self, token: str) -> str:
        """Return a token of the same claims, signed by a key that is not the cluster's."""
        return tokens.sign(tokens.parse(token).claims, tokens.foreign_key())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token of any claims, signed by the cluster's key."""
        return self._authentication.sign(claims)

    def count(self, resource: str) -> int:
        """Return how many requests there were for a resource."""
        return sum(request.resource == resource for request in self.requests)

    def fail(
        self,
        kind: ConnectionFault | AnswerFault | int,
        *,
        path: str = "*",
        times: int | None = None,
        retry_after: int | None = None,
        interval: float = 0.05,
    ) -> None:
        """Switch a fault on, until `heal`; see `faults` for what there is. An integer is an HTTP status.

        `path` is a shell glob and `times` a number of answers; both are for faults of answers alone, and of several
        faults that fit a path the last one counts. `retry_after` (seconds) goes with a status or `"html"`,
        `interval` (seconds a byte) with `"drip-headers"` and `"drip-body"`.
        """
        match kind:
            case "refuse" | "deaf" | "new-certificate" | "foreign-certificate" | "wrong-name":
                if path != "*" or times is not None:
                    raise ValueError(f"{kind!r} befalls the whole server: it takes no path and no times")
                self._fail_connections(kind)
            case _:
                self._faults.add(Fault(kind, path, retry_after, interval), times)

    def mutate(self, resource: str, function: Callable[[Any], Any]) -> None:
        """Pass every JSON answer about a resource through a function, until `heal`.

        It is given a copy of the answer (of a watch, each event), and what it returns is sent: anything that JSON can
        say, or bytes as they are.
        """
        self._mutations[resource] = function

    def heal(self) -> None:
        """Switch every fault and mutation off."""
        self._mutations.clear()
        self._let_go()
        self._deaf = threading.Event()
        self._running.deaf = None
        self._running.context = self._context()
        self._running.listen()

    def disconnect(self) -> None:
        """Close every connection there is, as an API server does that goes down; new ones are welcome."""
        self._running.drop()

    def forget(self) -> None:
        """Forget the changes until now: a watch from before is told 410 Gone, as is a list that goes on from there."""
        self._store.forget()

    def bookmark(self) -> None:
        """Send a bookmark to each open watch that asked for them."""
        self._store.bookmark()

    def end_watches(self) -> None:
        """End every open watch, as the API server does when its time is up."""
        self._store.interrupt()

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("the cluster is not started")
        return self._server

    def _context(self) -> ssl.SSLContext | None:
        return certificates.cluster_context() if self._tls else None

    def _let_go(self) -> None:
        self._faults.clear()
        self._deaf.set()

    def _fail_connections(self, kind: ConnectionFault) -> None:
        server = self._running
        match kind:
            case "refuse":
                server.refuse()
            case "deaf":
                server.deaf = self._deaf
            case _ if not self._tls:
                raise ValueError(f"{kind!r} needs TLS")
            case "new-certificate":
                server.context = certificates.cluster_authority().server_context()
            case "foreign-certificate":
                server.context = certificates.authority("kubernetes").server_context()
            case _:
                server.context = certificates.cluster_authority().server_context(("elsewhere.example",), ())
        server.drop()

    def _respond(self, call: Call) -> Answer:
        asked = requestinfo.parse(call.method, call.path, watch=requestinfo.flag(call.query, "watch"))
        user = self._api.user(call)
        self.requests.append(_request(call, asked, user))
        fault = self._faults.take(call.path)
        if fault is None:
            answer = self._answer(call, asked, user)
        else:
            answer = fault.spoil(lambda: self._answer(call, asked, user))
        date = email.utils.formatdate(self._authentication.clock(), usegmt=True)
        return dataclasses.replace(answer, headers={"Date": date, **answer.headers})

    def _answer(self, call: Call, asked: RequestInfo, user: rbac.User | None) -> Answer:
        try:
            answer = self._api.respond(call, asked, user)
        except status.Failure as failure:
            answer = Answer(failure.code, failure.json())
        return self._mutated(answer, asked.full_resource)

    def _mutated(self, answer: Answer, resource: str) -> Answer:
        function = self._mutations.get(resource)
        if function is None:
            return answer
        if answer.stream is not None:
            return dataclasses.replace(answer, stream=(function(copy.deepcopy(each)) for each in answer.stream))
        return dataclasses.replace(answer, content=function(copy.deepcopy(answer.content)))

    def _ensure(self, resource: str, name: str, namespace: str = "") -> Mapping[str, Any]:
        if (found := self._store.get(resource, namespace, name)) is not None:
            return found
        return self._resources.create(_resource(resource), namespace, {"metadata": {"name": name}})

    def _bind(self, name: str, rule: Mapping[str, Any], subjects: list[dict[str, str]], namespace: str | None) -> None:
        kinds = ("clusterroles", "clusterrolebindings") if namespace is None else ("roles", "rolebindings")
        role, binding = (_resource(kind) for kind in kinds)
        named: dict[str, Any] = {"metadata": {"name": name}}
        self._resources.create(role, namespace or "", {**named, "rules": [rule]})
        reference = {"apiGroup": rbac.GROUP, "kind": role.kind, "name": name}
        self._resources.create(binding, namespace or "", {**named, "subjects": subjects, "roleRef": reference})

    def _write_kubeconfig(self, user: str, token: str) -> Path:
        if self._directory is None:
            raise RuntimeError("the cluster is not started")
        path = Path(self._directory.name, f"{user}.kubeconfig")
        server: dict[str, str] = {"server": self.url}
        if self._tls:
            authority = Path(self._directory.name, "ca.crt")
            authority.write_text(self.ca_pem)
            server["certificate-authority"] = str(authority)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "emulated", "cluster": server}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "emulated", "context": {"cluster": "emulated", "user": user}}],
            "current-context": "emulated",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))  # JSON is YAML
        return path


def _request(call: Call, asked: RequestInfo, user: rbac.User | None) -> Request:
    return Request(
        call.method,
        call.path,
        {name: value for name, value in call.query.items() if name in PARAMETERS},
        "" if user is None else user.name,
        asked.verb,
        asked.full_resource,
        asked.namespace,
        asked.name,
    )


def _split(name: str) -> tuple[str, str]:
    namespace, _, rest = name.partition("/")
    if not (namespace and rest):
        raise ValueError(f"{name!r} is not namespace/name")
    return namespace, rest


def _resource(name: str) -> Resource:
    return next(resource for resource in RESOURCES.values() if resource.name == name)
