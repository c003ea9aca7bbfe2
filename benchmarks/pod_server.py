"""A stand-in for an API server with very many pods, over TLS, in a process of its own.

It makes each pod's JSON anew for each list and event, so that it has none of them in memory. It is not the emulated
cluster, which keeps every object and every change: it has just what a middleware in the mode keys and watch asks for.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks import AUDIENCE
from benchmarks.helper_process import commands, respond
from podproof.testing._emulator.certificates import cluster_authority
from tests.support.signed_tokens import jwk_of, jwks, signed_token

ISSUER = "https://kubernetes.default.svc.cluster.local"
TOKENS = 10
"""Of the caller, which is pod 0."""

NAMESPACES, NODES, ACCOUNTS = 100, 1000, 7
HOME = "127.0.0.1"
"""The address of pod 0, which never changes."""


def pod_name(number: int) -> str:
    """Return a pod's name, as a Deployment's pods have them."""
    return f"frontend-{number:06}-7d4b9c6f5-x2x9k"


def pod_uid(number: int) -> str:
    """Return a pod's UID."""
    return f"{number:08x}-6c1b-4c1e-9d2f-3a5b8c7d9e0f"


def event_about(uid: str) -> int:
    """Return the first event about the pod that has this UID."""
    return int(uid[:8], 16) - 1


def _pod_template() -> str:
    """Return the JSON of a Pod as `kubectl get -o json` has those of a Deployment, with places for what differs."""
    probe = {"failureThreshold": 3, "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}}
    resources = {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "512Mi"}}
    times = "2026-11-24T08:00:00Z"
    volume = {
        "name": "kube-api-access-x2x9k",
        "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {}}]},
    }
    mount = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": volume["name"], "readOnly": True}
    containers = [
        {
            "name": name,
            "image": f"registry.example/{name}@sha256:{'0' * 64}",
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": f"SETTING_{one}", "value": f"value-{one}"} for one in range(10)],
            "livenessProbe": probe,
            "readinessProbe": probe,
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "resources": resources,
            "terminationMessagePath": "/dev/termination-log",
            "volumeMounts": [mount],
        }
        for name in ("frontend", "sidecar")
    ]
    statuses = [
        {
            "containerID": f"containerd://{'a' * 64}",
            "image": one["image"],
            "imageID": one["image"],
            "lastState": {},
            "name": one["name"],
            "ready": True,
            "restartCount": 0,
            "started": True,
            "state": {"running": {"startedAt": times}},
        }
        for one in containers
    ]
    conditions = [
        {"lastProbeTime": None, "lastTransitionTime": times, "status": "True", "type": one}
        for one in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    fields: Any = {f"f:{one}": {".": {}, "f:name": {}, "f:value": {}} for one in ("metadata", "spec", "status", "env")}
    labels = {
        "app.kubernetes.io/name": "frontend",
        "app.kubernetes.io/part-of": "shop",
        "pod-template-hash": "7d4b9c6f5",
    }
    document = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "%(name)s",
            "namespace": "%(namespace)s",
            "uid": "%(uid)s",
            "resourceVersion": "%(version)s",
            "creationTimestamp": times,
            "generateName": "frontend-7d4b9c6f5-",
            "labels": labels,
            "annotations": {f"example.com/checksum-{one}": "0" * 64 for one in range(3)},
            "managedFields": [
                {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields, "manager": one, "time": times}
                for one in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "containers": containers,
            "nodeName": "%(node)s",
            "serviceAccountName": "%(account)s",
            "dnsPolicy": "ClusterFirst",
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "tolerations": [{"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
            "volumes": [volume],
        },
        "status": {
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": statuses,
            "hostIP": "%(host)s",
            "hostIPs": [{"ip": "%(host)s"}],
            "podIP": "%(address)s",
            "podIPs": [{"ip": "%(address)s"}],
            "qosClass": "Burstable",
            "startTime": times,
        },
    }
    return json.dumps(document, separators=(",", ":"))


class Pods:
    """The pods 0 to `count` - 1. Event E, from 0 on, gives another pod than pod 0 an address that it never had."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.first_version = count + 1
        self.events = 0
        self.changed = threading.Condition()
        self.expired = 0
        self._template = _pod_template()

    @property
    def version(self) -> int:
        """The resource version of a list now."""
        return self.first_version + self.events

    def changed_by(self, event: int) -> int:
        """Return the number of the pod that an event is about."""
        return 1 + event % (self.count - 1)

    def json(self, number: int, events: int) -> str:
        """Return a pod as it is after so many events."""
        changes = 0 if number == 0 else (events + self.count - 1 - number) // (self.count - 1)
        return self._template % {
            "name": pod_name(number),
            "namespace": f"namespace-{number % NAMESPACES}",
            "uid": pod_uid(number),
            "version": number + 1 if not changes else self.first_version + number + (changes - 1) * (self.count - 1),
            "node": f"ip-10-0-{number % NODES}.eu-central-1.compute.internal",
            "account": f"account-{number % ACCOUNTS}",
            "host": f"10.250.{number % NODES >> 8}.{number % NODES & 255}",
            "address": f"{10 + changes}.{number >> 16}.{number >> 8 & 255}.{number & 255}" if number else HOME,
        }

    def page(self, start: int, limit: int) -> Iterator[str]:
        """Yield the JSON of one page of a list."""
        end, events = min(start + limit, self.count), self.events
        metadata = {"resourceVersion": str(self.version)} | ({"continue": str(end)} if end < self.count else {})
        yield f'{{"kind":"PodList","apiVersion":"v1","metadata":{json.dumps(metadata)},"items":['
        for number in range(start, end):
            yield ("," if number > start else "") + self.json(number, events)
        yield "]}\n"

    def list_events(self) -> Iterator[str]:
        """Yield the lines of a streamed list (KEP-3157)."""
        events = self.events
        for number in range(self.count):
            yield f'{{"type":"ADDED","object":{self.json(number, events)}}}\n'
        yield _bookmark(self.first_version + events, annotations={"k8s.io/initial-events-end": "true"})

    def changes(self, version: int) -> Iterator[str]:
        """Yield the lines of a watch as the events happen; a 410 ends it when the versions until now are expired."""
        sent, expired = version - self.first_version, self.expired
        while True:
            with self.changed:
                if self.events == sent and self.expired == expired:
                    self.changed.wait(30)
                events = self.events
            if self.expired > expired:
                yield '{"type":"ERROR","object":{"kind":"Status","code":410,"metadata":{}}}\n'
                return
            for event in range(sent, events):
                yield f'{{"type":"MODIFIED","object":{self.json(self.changed_by(event), event + 1)}}}\n'
            if sent == events:
                yield _bookmark(self.version)
            sent = events

    def expire(self) -> None:
        """Have every watch end with a 410, so that its client lists again."""
        with self.changed:
            self.expired += 1
            self.changed.notify_all()

    def happen(self, seconds: float, rate: float) -> tuple[int, int, float]:
        """Change `rate` pods a second. Return the first event, the one after the last, and the begin (monotonic).

        Event E is due (E - first) / rate seconds after the begin.
        """
        first, begin = self.events, time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            with self.changed:
                self.events = first + int(passed * rate) + 1
                self.changed.notify_all()
            time.sleep(1 / rate)
        return first, self.events, begin


def _bookmark(version: int, **metadata: object) -> str:
    thing = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(version), **metadata}}
    return json.dumps({"type": "BOOKMARK", "object": thing}) + "\n"


class Handler(BaseHTTPRequestHandler):
    """Responds as an API server does to the requests that podproof makes."""

    protocol_version = "HTTP/1.1"
    pods: Pods
    version: tuple[str, str]

    def do_POST(self) -> None:
        """Allow everything."""
        self.rfile.read(int(self.headers["Content-Length"]))
        kind = {"kind": "SelfSubjectAccessReview", "status": {"allowed": True}}
        self._send([json.dumps(kind)], 201)

    def do_GET(self) -> None:
        """Return the version, the signing keys, a pod, a list or a watch."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if url.path == "/version":
            self._send([json.dumps(dict(zip(("major", "minor"), self.version, strict=True)))])
        elif url.path == "/openid/v1/jwks":
            self._send([json.dumps(jwks(jwk_of("RS256")))])
        elif url.path != "/api/v1/pods":
            number = int(url.path.rpartition("/")[2].split("-")[1])
            self._send([self.pods.json(number, self.pods.events)])
        elif "watch" not in query:
            self._send(self.pods.page(int(query.get("continue", 0)), int(query["limit"])))
        elif "sendInitialEvents" in query:
            self._send(self.pods.list_events(), more=self.pods.changes(self.pods.version))
        else:
            self._send(self.pods.changes(int(query["resourceVersion"])))

    def _send(self, pieces: Any, status: int = 200, more: Any = ()) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for source in (pieces, more):
                for piece in source:
                    data = piece.encode()
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """Does a connection's TLS handshake in the connection's thread."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(("127.0.0.1", 0), Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        with self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


def token(number: int) -> str:
    """Return a token of pod 0."""
    now = int(time.time())
    private = {
        "namespace": "namespace-0",
        "node": {"name": "node", "uid": "node-uid"},
        "pod": {"name": pod_name(0), "uid": pod_uid(0)},
        "serviceaccount": {"name": "account-0", "uid": "account-uid"},
    }
    claims = {
        "aud": [AUDIENCE],
        "exp": now + 3600 + number,
        "iat": now,
        "iss": ISSUER,
        "jti": f"{number:08x}-6c1b-4c1e-9d2f-000000000000",
        "kubernetes.io": private,
        "nbf": now,
        "sub": "system:serviceaccount:namespace-0:account-0",
    }
    return signed_token("RS256", claims=claims)


def main(count: str, version: str) -> None:
    """Serve so many pods. A command is "expire", or the seconds and the rate of events."""
    pods = Handler.pods = Pods(int(count))
    major, _, minor = version.partition(".")
    Handler.version = (major, minor)
    with TemporaryDirectory() as directory:
        authority = Path(directory, "ca.crt")
        authority.write_text(cluster_authority().pem)
        server = Server(cluster_authority().server_context())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig = Path(directory, "kubeconfig")
        cluster = {"server": f"https://127.0.0.1:{server.server_port}", "certificate-authority": str(authority)}
        content = {
            "clusters": [{"name": "pods", "cluster": cluster}],
            "users": [{"name": "bob", "user": {"token": "bob"}}],
            "contexts": [{"name": "pods", "context": {"cluster": "pods", "user": "bob"}}],
            "current-context": "pods",
        }
        kubeconfig.write_text(json.dumps(content))
        tokens = [token(number) for number in range(TOKENS)]
        respond({"kubeconfig": str(kubeconfig), "tokens": tokens, "bytes": len(pods.json(0, 0))})
        for command in commands():
            if command == "expire":
                pods.expire()
                respond()
            else:
                respond(pods.happen(*command))
