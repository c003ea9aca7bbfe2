"""Pods as a list or a watch has them, and a stand-in for the stream that brings them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from podproof._apiserver.permissions import Permission
from podproof._apiserver.response import ConnectionFailed

VERSION_36 = b'{"major": "1", "minor": "36"}'
VERSION_20 = b'{"major": "1", "minor": "20+"}'

Lines = Iterable[bytes | Exception]


def pod_json(
    name: str = "alice-pod",
    uid: str | None = None,
    *,
    namespace: str = "default",
    account: str = "alice",
    phase: str = "Running",
    addresses: Iterable[str] = ("10.1.2.3",),
    node: str = "node1",
    host_network: bool = False,
    labels: dict[str, str] | None = None,
    owner: str | None = None,
    version: int = 0,
) -> dict[str, Any]:
    """Return a Pod (v1); its UID is `uid-of-NAME` unless another is given."""
    metadata = {"namespace": namespace, "name": name, "uid": uid or f"uid-of-{name}", "resourceVersion": str(version)}
    controller = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "controller": True}
    found = [{"ip": address} for address in addresses]
    return {
        "metadata": metadata
        | ({"labels": labels} if labels else {})
        | ({"ownerReferences": [controller]} if owner else {}),
        "spec": {"serviceAccountName": account, "nodeName": node} | ({"hostNetwork": True} if host_network else {}),
        "status": {"phase": phase, "podIPs": found, "hostIP": "10.250.0.4"},
    }


def event(kind: str, version: int = 0, name: str = "alice-pod", **changes: Any) -> bytes:
    """Return the line of an event about a pod at a resource version."""
    return json.dumps({"type": kind, "object": pod_json(name, version=version, **changes)}).encode()


def bookmark(version: object, *, ends_list: bool = False) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": version}
    if ends_list:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return json.dumps({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": metadata}}).encode()


def error_event(code: object) -> bytes:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "metadata": {}}}).encode()


def page(*pods: dict[str, Any], version: int, go_on: str = "") -> bytes:
    """Return one page of a list; `go_on` is the token for the next one."""
    metadata = {"resourceVersion": str(version)} | ({"continue": go_on} if go_on else {})
    return json.dumps({"kind": "PodList", "metadata": metadata, "items": pods}).encode()


class ScriptedStream:
    """Gives each GET its lines in turn, and raises an exception where one stands among them, or in their place.

    `/version` has responses of its own. After the last response, `at_end` is called, and the GET fails. `paths` are
    those that were asked for.
    """

    def __init__(self, *responses: Lines | Exception, version: Sequence[bytes | Exception] = (VERSION_36,)) -> None:
        self._responses = iter(responses)
        self._versions = iter([[one] for one in version])
        self.paths: list[str] = []
        self.closed = False
        self.at_end: Callable[[], object] = lambda: None

    @contextmanager
    def get(self, path: str, permission: Permission, *, max_line: int = 0) -> Iterator[Iterator[bytes]]:
        self.paths.append(path)
        response = next(self._versions if path == "/version" else self._responses, None)
        if response is None:
            self.at_end()
            raise ConnectionFailed("the stream is closed")
        if isinstance(response, Exception):
            raise response
        yield self._lines(response)

    def close(self) -> None:
        self.closed = True

    @staticmethod
    def _lines(response: Lines) -> Iterator[bytes]:
        for line in response:
            if isinstance(line, Exception):
                raise line
            yield line
