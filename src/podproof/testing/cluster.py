"""`Cluster`: an emulated Kubernetes API server in the process, to run apps and tests on."""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from podproof.testing import certificates, rbac, requestinfo, status, timestamps, tokens
from podproof.testing.api import API
from podproof.testing.authentication import ISSUER, Authentication
from podproof.testing.server import Answer, Call, Server, json_answer
from podproof.testing.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the emulated API server was asked: never with its credential."""

    method: str
    path: str
    user: str
    verb: str
    resource: str
    namespace: str
    name: str


def _split(name: str) -> tuple[str, str]:
    namespace, slash, rest = name.partition("/")
    if not (namespace and slash and rest):
        raise ValueError(f"{name!r} is not namespace/name")
    return namespace, rest


class Cluster:
    """An emulated Kubernetes cluster: its API server listens on 127.0.0.1 while the context is open.

    `version` is the Kubernetes version it answers as, `clock` the time it lives in (Unix seconds).
    `tls=False` serves plain HTTP.
    """

    def __init__(
        self, *, tls: bool = True, version: str = "1.36", clock: Callable[[], float] = time.time
    ) -> None:
        major, minor = (int(part) for part in version.removeprefix("v").split(".")[:2])
        self._tls = tls
        self._clock = clock
        self._store = Store()
        self._authentication = Authentication(self._store, clock, (major, minor))
        self._grants = list(rbac.DEFAULTS)
        self._api = API(self._store, self._authentication, self._grants, clock, (major, minor))
        self._admin = secrets.token_urlsafe()
        self._authentication.static[self._admin] = rbac.User(
            "admin", "admin", (rbac.MASTERS, "system:authenticated")
        )
        self._server: Server | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self.requests: list[Request] = []
        self.issuer = ISSUER
        self.api_audiences = self._authentication.api_audiences
        self.ca_pem = certificates.cluster_authority().pem

    def start(self) -> Self:
        """Start to listen, on a port of its own."""
        self._directory = tempfile.TemporaryDirectory(prefix="podproof-cluster-")
        self._server = Server(self._respond, certificates.cluster_context() if self._tls else None)
        return self

    def stop(self) -> None:
        """Close every connection, end every thread, remove every file."""
        if self._server is not None and self._directory is not None:
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
        if self._server is None:
            raise RuntimeError("the cluster is not started")
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._server.port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig file of the cluster's administrator."""
        return self._write_kubeconfig("admin", self._admin)

    def kubeconfig_for(self, service_account: str) -> Path:
        """Return a kubeconfig file of a service account (`namespace/name`), which may do what was granted to it."""
        token = self.service_account(service_account).token(audience=self.issuer, lifetime=365 * 86400)
        return self._write_kubeconfig(service_account.replace("/", "."), token)

    def mount(self, directory: Path | str, service_account: str) -> Path:
        """Write `token`, `ca.crt` and `namespace` into a directory, as the kubelet mounts them for a pod's API calls."""
        account = self.service_account(service_account)
        where = Path(directory)
        where.mkdir(parents=True, exist_ok=True)
        (where / "token").write_text(account.token(audience=self.issuer))
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
        """Make a pod (`namespace/name`) and whatever it needs: its namespace, service account and node."""
        namespace, short = _split(name)
        self.service_account(f"{namespace}/{service_account}")
        self._ensure("nodes", "", node)
        metadata: dict[str, Any] = {"name": short, "namespace": namespace}
        if labels:
            metadata["labels"] = dict(labels)
        spec: dict[str, Any] = {
            "containers": [{"name": "app", "image": "app"}],
            "terminationGracePeriodSeconds": 30,
            "nodeName": node,
            "serviceAccountName": service_account,
            "serviceAccount": service_account,
        }
        if host_network:
            spec["hostNetwork"] = True
        body = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}
        made = self._store.create("pods", body | {"status": pod_status(phase, addresses)}, self._now())
        return Pod(self, namespace, short, made["metadata"]["uid"])

    def service_account(self, name: str) -> ServiceAccount:
        """Return a service account (`namespace/name`), made if there is none."""
        namespace, short = _split(name)
        self._ensure("namespaces", "", namespace)
        found = self._ensure("serviceaccounts", namespace, short)
        return ServiceAccount(self, namespace, short, found["metadata"]["uid"])

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
        """Allow a service account (`namespace/name`), or a user or group by its full name, to do something.

        With a namespace this is a RoleBinding, which reaches nothing that lies outside of namespaces.
        """
        if "/" in subject:
            subject = "system:serviceaccount:{}:{}".format(*_split(subject))
        rule = rbac.Grant(
            subject,
            frozenset(verbs),
            frozenset(resources),
            frozenset(api_groups),
            frozenset(non_resource_urls),
            namespace,
        )
        self._grants.append(rule)

    def forge(self, token: str) -> str:
        """Return a token of the same claims, signed by a key that is not the cluster's."""
        return tokens.sign(tokens.parse(token).claims, tokens.foreign_key())

    def count(self, resource: str) -> int:
        """Return how many requests there were for a resource."""
        return sum(request.resource == resource for request in self.requests)

    def _respond(self, call: Call) -> Answer:
        asked = requestinfo.parse(call.method, call.path, watch=call.query.get("watch") in {"1", "true"})
        name = ""
        try:
            user = self._api.user(call)
            name = user.name
            return self._api.respond(call, asked, user)
        except status.Failure as failure:
            return json_answer(failure.code, failure.json())
        finally:
            self.requests.append(
                Request(call.method, call.path, name, asked.verb, asked.resource, asked.namespace, asked.name)
            )

    def _now(self) -> str:
        return timestamps.text(self._clock())

    def _ensure(self, resource: str, namespace: str, name: str) -> Mapping[str, Any]:
        if (found := self._store.get(resource, namespace, name)) is not None:
            return found
        kind = {"namespaces": "Namespace", "serviceaccounts": "ServiceAccount", "nodes": "Node"}[resource]
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        return self._store.create(
            resource, {"kind": kind, "apiVersion": "v1", "metadata": metadata}, self._now()
        )

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


def pod_status(phase: str, addresses: Sequence[str]) -> dict[str, Any]:
    known: dict[str, Any] = {"phase": phase}
    if addresses:
        known |= {
            "hostIP": "127.0.0.1",
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
        }
    return known


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account of the emulated cluster."""

    _cluster: Cluster
    namespace: str
    name: str
    uid: str

    def token(self, audience: str | Sequence[str], lifetime: float = 3600) -> str:
        """Return a token bound to no pod, as `kubectl create token` makes it. `lifetime` in seconds, may be past."""
        return _mint(self._cluster, self.namespace, self.name, None, audience, lifetime)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the emulated cluster."""

    _cluster: Cluster
    namespace: str
    name: str
    uid: str

    def json(self) -> Mapping[str, Any]:
        """Return the pod object as the API server shows it."""
        return self._cluster._store.require("pods", self.namespace, self.name)  # noqa: SLF001

    @property
    def service_account(self) -> str:
        """The name of the service account it runs as."""
        name: str = self.json()["spec"]["serviceAccountName"]
        return name

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its addresses."""
        return tuple(entry["ip"] for entry in self.json()["status"].get("podIPs", ()))

    def token(self, audience: str | Sequence[str], lifetime: float = 3600) -> str:
        """Return a token bound to this pod, as the kubelet mounts it. `lifetime` in seconds, may be past."""
        return _mint(self._cluster, self.namespace, self.service_account, self.json(), audience, lifetime)

    def headers(self, audience: str | Sequence[str]) -> dict[str, str]:
        """Return the headers of a request from this pod."""
        return {"Authorization": f"Bearer {self.token(audience)}"}

    def update(
        self,
        *,
        phase: str | None = None,
        addresses: Sequence[str] | None = None,
        service_account: str | None = None,
        host_network: bool | None = None,
    ) -> None:
        """Change what is given, and leave the rest."""
        live = self.json()
        spec, seen = dict(live["spec"]), dict(live["status"])
        if addresses is not None:
            seen = pod_status(seen["phase"], addresses)
        if phase is not None:
            seen["phase"] = phase
        if service_account is not None:
            spec |= {"serviceAccountName": service_account, "serviceAccount": service_account}
        if host_network is not None:
            spec["hostNetwork"] = host_network
        self._cluster._store.replace("pods", {**live, "spec": spec, "status": seen})  # noqa: SLF001

    def delete(self, grace: int = 30) -> None:
        """Begin to terminate: the pod stays, to be gone after `grace` seconds; `remove` makes an end."""
        live = self.json()
        gone = timestamps.text(self._cluster._clock() + grace)  # noqa: SLF001
        ending = {"deletionTimestamp": gone, "deletionGracePeriodSeconds": grace}
        self._cluster._store.replace("pods", {**live, "metadata": live["metadata"] | ending})  # noqa: SLF001

    def remove(self) -> None:
        """Be gone at once."""
        self._cluster._store.delete("pods", self.namespace, self.name, self.uid)  # noqa: SLF001


def _mint(
    cluster: Cluster,
    namespace: str,
    account: str,
    pod: Mapping[str, Any] | None,
    audience: str | Sequence[str],
    lifetime: float,
) -> str:
    audiences = [audience] if isinstance(audience, str) else list(audience)
    authentication = cluster._authentication  # noqa: SLF001
    live = cluster._store.require("serviceaccounts", namespace, account)  # noqa: SLF001
    return authentication.sign(authentication.claims(live, pod, audiences, lifetime))
