"""The resources that the emulated API server stores: create, get, list, watch, patch and delete."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import (
    pod_defaults,
    request_info,
    role_bindings,
    selectors,
    status_errors,
    timestamps,
    watch,
)
from podproof.testing._emulator.watch import WatchScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podproof.testing._emulator.object_store import ObjectStore

WATCH_TIMEOUT = 1800
"""Seconds after which a watch that names no timeout ends (the shortest of --min-request-timeout)."""
POD_GENERATION_SINCE = (1, 33)
"""KEP-5067: from here on a pod counts the changes of its spec in `metadata.generation`."""
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
NAMESPACE_NAME_LABEL_SINCE = (1, 21)
"""KEP-2161: from here on a namespace has its name as a label."""
LISTS_VALIDATED_SINCE = (1, 33)
"""From here on a list at a version that is no number gets a 400; a watch still gets a 500."""
STREAMED_LISTS_SINCE = (1, 27)
STREAMED_LISTS_OFF = {(1, minor) for minor in (27, 28, 29, 30, 31, 33)}
"""KEP-3157: a watch can begin with the objects that there are (sendInitialEvents), except where its feature gate
WatchList is off by default."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A stored kind of object, and its API group and version."""

    name: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def type_meta(self) -> dict[str, str]:
        """The fields `kind` and `apiVersion` of its objects."""
        group_version = f"{self.group}/{self.version}" if self.group else self.version
        return {"kind": self.kind, "apiVersion": group_version}


RESOURCES = {
    (resource.group, resource.version, resource.name): resource
    for resource in (
        Resource("namespaces", "Namespace", namespaced=False),
        Resource("nodes", "Node", namespaced=False),
        Resource("pods", "Pod"),
        Resource("serviceaccounts", "ServiceAccount"),
        Resource("clusterroles", "ClusterRole", role_bindings.GROUP, namespaced=False),
        Resource("clusterrolebindings", "ClusterRoleBinding", role_bindings.GROUP, namespaced=False),
        Resource("roles", "Role", role_bindings.GROUP),
        Resource("rolebindings", "RoleBinding", role_bindings.GROUP),
    )
}


class ResourceStorage:
    """The operations on stored resources. Methods raise `StatusError` for what the API server refuses."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float], version: tuple[int, int]) -> None:
        self._store = store
        self._clock = clock
        self._version = version

    def create(self, resource: Resource, namespace: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add an object with the defaults of the API server and its controllers, and return it."""
        metadata = dict(wanted.get("metadata", {}))
        if resource.namespaced:
            metadata["namespace"] = namespace
            self._store.require("namespaces", "", namespace)
        made = {**wanted, **resource.type_meta, "metadata": metadata}
        if resource.name == "pods":
            if self._version >= POD_GENERATION_SINCE:
                metadata["generation"] = 1
            made = pod_defaults.defaulted(made)
            self._admit(made)
        if resource.name == "namespaces":
            made |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            if self._version >= NAMESPACE_NAME_LABEL_SINCE:
                metadata["labels"] = {**metadata.get("labels", {}), NAMESPACE_NAME_LABEL: metadata["name"]}
        now = timestamps.text(self._clock())
        created = self._store.create(resource.name, made, now)
        if resource.name == "namespaces":
            account = {"kind": "ServiceAccount", "apiVersion": "v1"}
            place = {"name": "default", "namespace": metadata["name"]}
            self._store.create("serviceaccounts", {**account, "metadata": place}, now)
        return created

    def _admit(self, pod: Mapping[str, Any]) -> None:
        namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        if self._store.get("serviceaccounts", namespace, account) is None:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise status_errors.not_admitted("pods", pod["metadata"]["name"], why)

    def label_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Replace a namespace's labels, but for the one that the API server gives it."""
        live = self._store.require("namespaces", "", name)
        own = {NAMESPACE_NAME_LABEL: name} if self._version >= NAMESPACE_NAME_LABEL_SINCE else {}
        self._store.replace("namespaces", {**live, "metadata": {**live["metadata"], "labels": {**labels, **own}}})

    def patch_status(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Merge a patch into a pod's status, as a kubelet reports it (RFC 7386), and return the pod."""
        live = self._store.require("pods", namespace, name)
        return self._store.replace("pods", {**live, "status": {**live["status"], **patch["status"]}})

    def delete(self, resource: Resource, namespace: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Delete an object by `DeleteOptions` and return the response. A scheduled pod begins to terminate."""
        live = self._store.require(resource.name, namespace, name, resource.group)
        uid = live["metadata"]["uid"]
        if (wanted := options.get("preconditions", {}).get("uid", uid)) != uid:
            why = (
                f"the UID in the precondition ({wanted}) does not match the UID in record ({uid})."
                " The object might have been deleted and then recreated"
            )
            raise status_errors.conflict(resource.kind, name, why)
        match resource.name:
            case "pods":
                return dict(self._delete_pod(live, options.get("gracePeriodSeconds")))
            case "namespaces":
                return dict(self._delete_namespace(live))
            case "serviceaccounts":
                self._store.delete(resource.name, live)
                return dict(live)
        self._store.delete(resource.name, live)
        details = {"name": name, "group": resource.group, "kind": resource.name, "uid": uid}
        known = {key: value for key, value in details.items() if value}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": known}

    def _delete_pod(self, live: Mapping[str, Any], asked: int | None) -> Mapping[str, Any]:
        grace = pod_defaults.grace_period(live, asked)
        ending: Mapping[str, Any] = pod_defaults.terminating(live, timestamps.text(self._clock() + grace), grace)
        ending = self._store.replace("pods", ending)
        return ending if grace else self._store.delete("pods", ending)

    def _delete_namespace(self, live: Mapping[str, Any]) -> Mapping[str, Any]:
        name = live["metadata"]["name"]
        for resource in RESOURCES.values():
            if resource.namespaced:
                for thing in self._store.all(resource.name, name)[0]:
                    self._store.delete(resource.name, thing)
        gone = {"deletionTimestamp": timestamps.text(self._clock())}
        ended = self._store.delete("namespaces", {**live, "metadata": {**live["metadata"], **gone}})
        return {**ended, "status": {"phase": "Terminating"}}

    def list(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the list that the query selects, or one page of it (`limit`, `continue`)."""
        chosen = self._selector(resource, query)
        found, version = self._store.all(resource.name, namespace)
        try:
            asked = _version(query)
        except status_errors.StatusError as failure:
            if self._version < LISTS_VALIDATED_SINCE:
                raise
            raise status_errors.bad_request(f"invalid resource version: {failure}") from failure
        if asked > version:
            raise status_errors.too_large_version(asked, version)
        if query.get("resourceVersionMatch") == "Exact":
            self._since(asked, "The resourceVersion for the provided list is too old.")
        items = [thing for thing in found if chosen(thing)]
        start, version = self._continued(query.get("continue"), version)
        page = items[start:][: int(query.get("limit", "0")) or None]
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if (left := len(items) - start - len(page)) > 0:
            metadata["continue"] = _continue_token(version, start + len(page))
            if not query.get("labelSelector") and not query.get("fieldSelector"):  # else it is unknown (ListMeta)
                metadata["remainingItemCount"] = left
        bare = [{key: thing[key] for key in thing if key not in resource.type_meta} for thing in page]
        return {**resource.type_meta, "kind": f"{resource.kind}List", "metadata": metadata, "items": bare}

    def _continued(self, token: str | None, version: int) -> tuple[int, int]:
        if not token:
            return 0, version
        try:
            version, start = json.loads(base64.urlsafe_b64decode(token))
        except (ValueError, TypeError, binascii.Error) as error:
            raise status_errors.bad_request("invalid continue token") from error
        self._since(version, "The provided continue parameter is too old to display a consistent list result.")
        return start, version

    def _since(self, version: int, message: str) -> None:
        try:
            self._store.check_version(version)
        except status_errors.StatusError as failure:
            raise status_errors.expired(message) from failure

    def watch(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Return the events of a watch; see `watch.events`."""
        scope = WatchScope(resource.name, resource.type_meta, namespace, self._selector(resource, query))
        timeout = float(query.get("timeoutSeconds") or WATCH_TIMEOUT)
        bookmarks = request_info.is_flag_set(query, "allowWatchBookmarks")
        initial = self._initial_events(query)
        return watch.events(self._store, scope, _version(query), timeout, bookmarks=bookmarks, initial_events=initial)

    def _initial_events(self, query: Mapping[str, str]) -> bool | None:
        """Return the parameter sendInitialEvents, None without it, or from a server that does not know it."""
        known = self._version >= STREAMED_LISTS_SINCE and "sendInitialEvents" in query
        match = query.get("resourceVersionMatch")
        if match and not known:
            unless = " unless sendInitialEvents is provided" if self._version >= STREAMED_LISTS_SINCE else ""
            raise status_errors.forbidden_list_option(
                "resourceVersionMatch", f"resourceVersionMatch is forbidden for watch{unless}"
            )
        if not known:
            return None
        if match != "NotOlderThan":
            why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise status_errors.forbidden_list_option("resourceVersionMatch", why)
        if self._version in STREAMED_LISTS_OFF:
            why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise status_errors.forbidden_list_option("sendInitialEvents", why)
        return request_info.is_flag_set(query, "sendInitialEvents")

    def _selector(self, resource: Resource, query: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        return selectors.selector(labels, fields, resource.name, self._version)


def _version(query: Mapping[str, str]) -> int:
    asked = query.get("resourceVersion") or "0"
    if not asked.isdecimal():
        syntax = f'strconv.ParseUint: parsing "{asked}": invalid syntax'
        raise status_errors.StatusError(500, "", f'resourceVersion: Invalid value: "{asked}": {syntax}')
    return int(asked)


def _continue_token(version: int, start: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, start]).encode()).decode()
