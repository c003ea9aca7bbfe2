"""`Cluster`: an emulated Kubernetes API server for tests, in the process of the test."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra("podproof.testing", "testing")

import contextlib
import copy
import dataclasses
import email.utils
import json
import re
import secrets
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from podproof._authorization.owner_pattern import parse_owner
from podproof.testing._emulator import certificates, pod_defaults, request_info, role_bindings, status_errors, tokens
from podproof.testing._emulator.endpoints import Endpoints
from podproof.testing._emulator.faults import Fault, Faults
from podproof.testing._emulator.http_server import LoopbackServer, ServerRequest, ServerResponse
from podproof.testing._emulator.object_store import ObjectStore
from podproof.testing._emulator.objects import EmulatedPod, EmulatedServiceAccount
from podproof.testing._emulator.resources import RESOURCES, Resource, ResourceStorage
from podproof.testing._emulator.token_authenticator import ISSUER, TokenAuthenticator
from podproof.testing._emulator.users import UserInfo

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from types import TracebackType

    from podproof.testing._emulator.faults import ConnectionFault, ResponseFault
    from podproof.testing._emulator.request_info import RequestInfo

YEAR = 365 * 86400
NOT_STARTED = "the cluster is not started: use it in `with Cluster() as cluster:`, or call start()"
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
PARAMETERS = frozenset(
    {
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "timeoutSeconds",
        "watch",
    }
)


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request to the emulated API server, without its credential and its body.

    `user` is the username, empty if the credential was invalid.
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
    """An emulated Kubernetes cluster, whose API server listens on 127.0.0.1 while the context is open.

    `version` is the Kubernetes version that it emulates, `clock` returns its time in Unix seconds. `tls=False` serves
    plain HTTP. All clusters of a process share their signing key and certificate authority.

    `requests` lists the requests to the API server since the start, or since `isolated`.

    Raises ValueError for a malformed version.
    """

    def __init__(self, *, tls: bool = True, version: str = "1.36", clock: Callable[[], float] = time.time) -> None:
        release = re.fullmatch(r"v?(\d+)\.(\d+)(\.\d+)?", version)
        if release is None:
            raise ValueError(f'invalid version {version!r}: expected a Kubernetes version such as "1.36"')
        major, minor = int(release[1]), int(release[2])
        self._tls = tls
        self._store = ObjectStore()
        self._authenticator = TokenAuthenticator(self._store, clock, (major, minor))
        self._resources = ResourceStorage(self._store, clock, (major, minor))
        self._endpoints = Endpoints(self._store, self._authenticator, self._resources, (major, minor), lambda: self.url)
        self._faults = Faults()
        self._silence = threading.Event()
        self._mutations: dict[str, Callable[[Any], Any]] = {}
        self._admin = secrets.token_urlsafe()
        self._authenticator.static[self._admin] = UserInfo(
            "admin", "admin", (role_bindings.MASTERS, "system:authenticated")
        )
        self._server: LoopbackServer | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._grants = 0
        self.requests: list[RecordedRequest] = []
        self.issuer = ISSUER
        self.api_audiences = self._authenticator.api_audiences
        self.ca_pem = certificates.cluster_authority().pem
        for role, rule, subjects in role_bindings.default_roles((major, minor)):
            self._bind(role, rule, [role_bindings.subject(subject) for subject in subjects], None)
        for namespace in ("default", "kube-system"):
            self._ensure("namespaces", namespace)

    def start(self) -> Self:
        """Start to listen on a free port. Raises RuntimeError if the cluster was started before."""
        if self._server is not None or self._store.closed:
            raise RuntimeError("this cluster was started before: make a new Cluster()")
        self._directory = tempfile.TemporaryDirectory(prefix="podproof-cluster-")
        self._server = LoopbackServer(self._respond, self._context())
        return self

    def stop(self) -> None:
        """Close every connection, end every thread and remove every file. The cluster cannot be started again."""
        if self._server is None or self._directory is None:
            return
        self._store.close()
        self._release()
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
        """The API server's URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._running.port}"

    @property
    def kubeconfig(self) -> Path:
        """The path of a kubeconfig file of the cluster's administrator."""
        return self._write_kubeconfig("admin", self._admin)

    def kubeconfig_for(self, service_account: str) -> Path:
        """Return the path of a kubeconfig file of a service account (`namespace/name`), which needs a `grant`."""
        token = self.service_account(service_account).token(self.api_audiences, lifetime=YEAR)
        return self._write_kubeconfig(service_account.replace("/", "."), token)

    def mount(self, directory: Path | str, service_account: str) -> Path:
        """Write `token`, `ca.crt` and `namespace` of a service account (`namespace/name`) into a directory.

        The kubelet mounts these files into every pod. Return the directory.
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
        owner: str | None = None,
    ) -> EmulatedPod:
        """Return a new pod (`namespace/name`); its namespace, service account and node are made if they do not exist.

        `service_account` is a name in the pod's namespace. `addresses` are IP addresses, the primary one first, none if
        the pod has no address yet. `owner` is its controller, such as `"ReplicaSet/web-7d4b9c6f5"`, which need not
        exist.

        Raises a 409 `StatusError` if the pod exists, ValueError for a malformed argument.
        """
        if "/" in service_account:
            raise ValueError(
                f"invalid service account {service_account!r}: expected its name alone, without a namespace"
            )
        if phase not in PHASES:
            raise ValueError(f"invalid phase {phase!r}: expected one of {', '.join(PHASES)}")
        _check_no_string("addresses", addresses)
        namespace, short = _split(name)
        self.service_account(f"{namespace}/{service_account}")
        self._ensure("nodes", node)
        metadata: dict[str, Any] = {"name": short} | ({"labels": dict(labels)} if labels else {})
        if owner is not None:
            metadata["ownerReferences"] = [pod_defaults.controller_reference(parse_owner(owner))]
        spec: dict[str, Any] = {
            "containers": [{"name": "app", "image": "app"}],
            "nodeName": node,
            "serviceAccountName": service_account,
        }
        if host_network:
            spec["hostNetwork"] = True
        kind = _resource("pods")
        made = self._resources.create(kind, namespace, {"metadata": metadata, "spec": spec})
        made = self._store.replace("pods", {**made, "status": pod_defaults.reported(made["status"], phase, addresses)})
        return EmulatedPod(self._store, self._authenticator, namespace, short, made["metadata"]["uid"])

    def find_pod(self, name: str) -> EmulatedPod | None:
        """Return the pod of this name (`namespace/name`), None if there is none. Raises ValueError."""
        namespace, short = _split(name)
        live = self._store.get("pods", namespace, short)
        if live is None:
            return None
        return EmulatedPod(self._store, self._authenticator, namespace, short, live["metadata"]["uid"])

    def service_account(self, name: str) -> EmulatedServiceAccount:
        """Return a service account (`namespace/name`), a new one if it does not exist.

        Raises ValueError for a malformed name.
        """
        namespace, short = _split(name)
        self._ensure("namespaces", namespace)
        uid = self._ensure("serviceaccounts", short, namespace)["metadata"]["uid"]
        return EmulatedServiceAccount(self._store, self._authenticator, namespace, short, uid)

    def namespace(self, name: str, *, labels: Mapping[str, str]) -> None:
        """Replace the labels of a namespace, which is made if it does not exist.

        It keeps `kubernetes.io/metadata.name`, which the API server gives each namespace.
        """
        self._ensure("namespaces", name)
        self._resources.label_namespace(name, labels)

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
        """Allow a service account (`namespace/name`), a group (`system:...`) or a user to use verbs on resources.

        With a namespace this is a RoleBinding, which does not reach cluster-scoped resources such as `tokenreviews`.
        """
        for name, value in (("verbs", verbs), ("resources", resources), ("non_resource_urls", non_resource_urls)):
            _check_no_string(name, value)
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
        self._bind(f"granted-{self._grants}", rule, [role_bindings.subject(subject)], namespace)

    def forge(self, token: str) -> str:
        """Return a token with the same claims, signed with a key that the cluster does not trust."""
        return tokens.sign(tokens.parse(token).claims, tokens.foreign_key())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token with any claims, signed with the cluster's key."""
        return self._authenticator.sign(claims)

    def count(self, resource: str) -> int:
        """Return the number of `requests` for a resource, such as `"tokenreviews"` or `"pods"`."""
        return sum(request.resource == resource for request in self.requests)

    def fail(
        self,
        kind: ConnectionFault | ResponseFault | int,
        *,
        path: str = "*",
        times: int | None = None,
        retry_after: int | None = None,
        interval: float = 0.05,
    ) -> None:
        """Switch a fault on until `heal`. An integer is the HTTP status of an error response.

        `"refuse"`, `"silent"`, `"new-certificate"`, `"foreign-certificate"` and `"wrong-name"` are faults of the whole
        server. `"hang"`, `"close"`, `"reset"`, `"cut"`, `"drip-headers"`, `"drip-body"`, `"html"`, `"content-type"`,
        `"truncated"`, `"huge"` and a status are faults of responses: `path` (a shell glob) and `times` (a number of
        responses) limit them, and the last one that matches a path applies. `retry_after` (seconds) goes with a status
        or `"html"`, `interval` (seconds a byte) with `"drip-headers"` and `"drip-body"`.

        Raises ValueError for an unknown fault.
        """
        match kind:
            case "refuse" | "silent" | "new-certificate" | "foreign-certificate" | "wrong-name":
                if path != "*" or times is not None:
                    raise ValueError(f"invalid fault {kind!r} with path or times: it is a fault of the whole server")
                self._fail_connections(kind)
            case _:
                self._faults.add(Fault(kind, path, retry_after, interval), times)

    def mutate(self, resource: str, function: Callable[[Any], Any]) -> None:
        """Change every JSON response about a resource with a function until `heal`.

        The function gets a copy of the response (of each event of a watch) and returns what is sent instead: a JSON
        value, or bytes.
        """
        self._mutations[resource] = function

    def heal(self) -> None:
        """Switch every fault and mutation off."""
        self._mutations.clear()
        self._release()
        self._silence = threading.Event()
        self._running.silence = None
        self._running.context = self._context()
        self._running.listen()

    @contextlib.contextmanager
    def isolated(self) -> Iterator[Self]:
        """Undo on exit what changes while the context is open: objects, grants, faults and mutations.

        `requests` is empty at the start, and as before at the end. The URL, the administrator's kubeconfig and the keys
        stay the same, so an app keeps its connections and credentials. Contexts can be nested.

        Raises RuntimeError if the cluster is not started.
        """
        if self._server is None:
            raise RuntimeError(NOT_STARTED)
        objects, grants, requests = self._store.snapshot(), self._grants, self.requests
        self.requests = []
        try:
            yield self
        finally:
            self.requests, self._grants = requests, grants
            self._store.restore(objects)
            self._authenticator.clear_cache()
            if self._server is not None:
                self.heal()

    def disconnect(self) -> None:
        """Close every open connection, as an API server does when it stops. New connections are accepted."""
        self._running.drop()

    def compact(self) -> None:
        """Compact the changes until now: a list or a watch that continues from before gets a 410."""
        self._store.compact()

    def bookmark(self) -> None:
        """Send a bookmark to each open watch that accepts bookmarks."""
        self._store.bookmark()

    def end_watches(self) -> None:
        """End every open watch, as the API server does after its timeout."""
        self._store.interrupt()

    @property
    def _running(self) -> LoopbackServer:
        if self._server is None:
            raise RuntimeError(NOT_STARTED)
        return self._server

    def _context(self) -> ssl.SSLContext | None:
        return certificates.cluster_context() if self._tls else None

    def _release(self) -> None:
        self._faults.clear()
        self._silence.set()

    def _fail_connections(self, kind: ConnectionFault) -> None:
        server = self._running
        match kind:
            case "refuse":
                server.refuse()
            case "silent":
                server.silence = self._silence
            case _ if not self._tls:
                raise ValueError(f"invalid fault {kind!r}: it needs a cluster with TLS")
            case "new-certificate":
                server.context = certificates.cluster_authority().server_context()
            case "foreign-certificate":
                server.context = certificates.authority("kubernetes").server_context()
            case _:
                server.context = certificates.cluster_authority().server_context(("elsewhere.example",), ())
        server.drop()

    def _respond(self, request: ServerRequest) -> ServerResponse:
        info = request_info.parse_request_info(
            request.method, request.path, watch=request_info.is_flag_set(request.query, "watch")
        )
        user = self._endpoints.authenticate(request)
        self.requests.append(_record(request, info, user))
        fault = self._faults.take(request.path)
        if fault is None:
            response = self._handle(request, info, user)
        else:
            response = fault.apply(lambda: self._handle(request, info, user))
        date = email.utils.formatdate(self._authenticator.clock(), usegmt=True)
        return dataclasses.replace(response, headers={"Date": date, **response.headers})

    def _handle(self, request: ServerRequest, info: RequestInfo, user: UserInfo | None) -> ServerResponse:
        try:
            response = self._endpoints.respond(request, info, user)
        except status_errors.StatusError as failure:
            response = ServerResponse(failure.code, failure.json())
        return self._mutated(response, info.full_resource)

    def _mutated(self, response: ServerResponse, resource: str) -> ServerResponse:
        function = self._mutations.get(resource)
        if function is None:
            return response
        if response.stream is not None:
            return dataclasses.replace(response, stream=(function(copy.deepcopy(each)) for each in response.stream))
        return dataclasses.replace(response, content=function(copy.deepcopy(response.content)))

    def _ensure(self, resource: str, name: str, namespace: str = "") -> Mapping[str, Any]:
        if (found := self._store.get(resource, namespace, name)) is not None:
            return found
        return self._resources.create(_resource(resource), namespace, {"metadata": {"name": name}})

    def _bind(self, name: str, rule: Mapping[str, Any], subjects: list[dict[str, str]], namespace: str | None) -> None:
        kinds = ("clusterroles", "clusterrolebindings") if namespace is None else ("roles", "rolebindings")
        role, binding = (_resource(kind) for kind in kinds)
        named: dict[str, Any] = {"metadata": {"name": name}}
        self._resources.create(role, namespace or "", {**named, "rules": [rule]})
        reference = {"apiGroup": role_bindings.GROUP, "kind": role.kind, "name": name}
        self._resources.create(binding, namespace or "", {**named, "subjects": subjects, "roleRef": reference})

    def _write_kubeconfig(self, user: str, token: str) -> Path:
        if self._directory is None:
            raise RuntimeError(NOT_STARTED)
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


def _record(request: ServerRequest, info: RequestInfo, user: UserInfo | None) -> RecordedRequest:
    return RecordedRequest(
        request.method,
        request.path,
        {name: value for name, value in request.query.items() if name in PARAMETERS},
        "" if user is None else user.name,
        info.verb,
        info.full_resource,
        info.namespace,
        info.name,
    )


def _check_no_string(name: str, value: object) -> None:
    if isinstance(value, str):
        raise ValueError(f"invalid {name} {value!r}: expected a list of strings, such as [{value!r}]")  # noqa: TRY004


def _split(name: str) -> tuple[str, str]:
    namespace, _, rest = name.partition("/")
    if not (namespace and rest):
        raise ValueError(f'invalid name {name!r}: expected namespace/name, such as "default/alice"')
    return namespace, rest


def _resource(name: str) -> Resource:
    return next(resource for resource in RESOURCES.values() if resource.name == name)
