"""`PodView`: the pods of a cluster as a watch sees them, kept in memory."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from podproof._authentication.pods import FoundPod, PodRecord, PodStore, match_pod
from podproof._telemetry import metrics
from podproof.errors import PodGone, Unavailable
from podproof.identity import ServiceAccount

log = logging.getLogger("podproof")

MAX_AGE = 180.0
"""Seconds after which a view that nothing has confirmed is not used any more. Bookmarks come about once a minute, and a
watch that is silent for longer is replaced by a new list: this is two failures of that."""

ENDED = 10_000
"""How many deleted pods are remembered by their UIDs, the last ones."""

ALL_NAMESPACES = ""

Listener = Callable[[str], None]


class PodView:
    """The pods that a watch sees, by namespace and name; one process's, which any thread may read.

    `namespaces` are those that are watched, none for all; each is listed and confirmed by itself. `fallback` reads a
    pod that the view does not have, or not with this UID, or without an address: all that may be newer than the view.
    `selective` says that the watch is of some pods only (a label or field selector): an event DELETED may then be about
    a pod that lives, and was changed.

    `listeners` are called with the UID of a pod that was deleted, replaced by one of the same name, given another
    service account, address, network, label or owner, or that has finished: in the thread of the watch, without a lock.
    What they raise is logged.

    A view that was not confirmed for `max_age` seconds is old: pods are read. Where they cannot be, those that it has
    may be accepted for `max_outage` seconds from when it was confirmed. `ended` is how many deleted pods are
    remembered.
    `monotonic` and `now` return seconds, the latter in Unix time. The constructor does no I/O.
    """

    def __init__(
        self,
        *,
        namespaces: Sequence[str] = (),
        fallback: PodStore | None = None,
        selective: bool = False,
        listeners: Iterable[Listener] = (),
        max_age: float = MAX_AGE,
        max_outage: float = 0.0,
        ended: int = ENDED,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.scopes = tuple(dict.fromkeys(namespaces)) or (ALL_NAMESPACES,)
        self._fallback = fallback
        self._selective = selective
        self._listeners = listeners
        self._max_age = max_age
        self._max_outage = max_outage
        self._max_ended = ended
        self._monotonic = monotonic
        self._now = now
        self._changed = threading.Condition()
        # Readers take no lock: each looks a namespace up, and then a name. A list puts new dictionaries in their place.
        self._pods: dict[str, dict[str, PodRecord]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._confirmed: dict[str, float] = {}
        self._count = 0
        self._failures: dict[str, str] = {}

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        """Return the live pod that a service account's token is bound to. `deadline` is in monotonic seconds.

        A pod whose end the view has seen is denied at once. One that it does not have is read by the fallback, if there
        is one, and so is each while the view is too old. Without a list yet, this waits for it until the deadline, and
        where there is a fallback for half of the time, until a list fails.

        Raises PodGone, PodFinished, ServiceAccountMismatch, or Unavailable.
        """
        scope = self._scope_of(service_account.namespace)
        if scope is not None:
            self._wait_for_list(scope, self._half_of(deadline) if self._fallback else deadline)
        found = self.last_known(service_account, name, uid)
        if found is not None and self._monotonic() <= found.fresh_until:
            return found
        if self._fallback is not None:
            return self._fallback.get(service_account, name, uid, deadline)
        if scope is not None and self._monotonic() - self._confirmed[scope] > self._max_age:
            raise Unavailable(f"the view of the pods is older than {self._max_age:g} s{self._explain(scope)}")
        if found is not None:
            return found
        raise PodGone(
            f"the watch sees no pod {service_account.namespace}/{name}, or it was recreated since the token was issued"
        )

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> FoundPod | None:
        """Return what the view has of the pod that a token is bound to, however old, None if it has nothing.

        Raises PodGone, PodFinished or ServiceAccountMismatch.
        """
        namespace = service_account.namespace
        # Before the record, which may be confirmed in between.
        confirmed = self._confirmed.get(self._scope_of(namespace) or ALL_NAMESPACES, -math.inf)
        record = self.find(namespace, name)
        if record is not None and record.uid == uid:
            pod = match_pod(record, service_account, name, uid)
            fresh_until = confirmed + self._max_age if pod.addresses else -math.inf
            return FoundPod(pod, fresh_until, confirmed + self._max_outage)
        if uid in self._ended:
            raise PodGone(f"pod {namespace}/{name} was deleted, or recreated since the token was issued")
        return None

    def find(self, namespace: str, name: str) -> PodRecord | None:
        """Return what the view has of a pod, None if it has none of that name. It may be out of date: see `age`."""
        pods = self._pods.get(namespace)
        return None if pods is None else pods.get(name)

    def age(self) -> float | None:
        """Return the seconds since the whole view was last known to be current, None before all is listed."""
        if len(self._confirmed) < len(self.scopes):
            return None
        return self._monotonic() - min(self._confirmed.values())

    @property
    def count(self) -> int:
        """How many pods the view has."""
        return self._count

    def share(self, record: PodRecord) -> PodRecord:
        """Return the view's own record if it says the same, so that a new list takes no more memory than the old one.

        Raises Unavailable for a record without a namespace, a name and a UID.
        """
        namespace, name, _ = _key(record)
        known = self.find(namespace, name)
        return known if known is not None and known == record else record

    def replace(self, scope: str, records: Iterable[PodRecord]) -> None:
        """Put a complete list of one scope in the place of what there was, in one step, and report what that changes.

        Raises Unavailable for a record without a namespace, a name and a UID.
        """
        fresh: dict[str, dict[str, PodRecord]] = {}
        for record in records:
            namespace, name, _ = _key(record)
            fresh.setdefault(namespace, {})[name] = record
        with self._changed:
            whole = scope == ALL_NAMESPACES
            before = self._pods if whole else {scope: self._pods.get(scope, {})}
            reported = [
                _key(record)[2]
                for namespace, pods in before.items()
                for name, record in pods.items()
                if self._note_change(record, fresh.get(namespace, {}).get(name))
            ]
            self._pods = fresh if whole else {**self._pods, scope: fresh.get(scope, {})}
            self._count = sum(map(len, self._pods.values()))
            self._confirm(scope)
        self._report(reported)

    def put(self, scope: str, record: PodRecord) -> None:
        """Add a pod, or put it in the place of the one of its name, and report what that changes.

        Raises Unavailable for a record without a namespace, a name and a UID.
        """
        namespace, name, _ = _key(record)
        reported = []
        with self._changed:
            pods = self._pods.setdefault(namespace, {})
            before = pods.get(name)
            pods[name] = record
            if before is None:
                self._count += 1
            elif self._note_change(before, record):
                reported.append(_key(before)[2])
            self._confirm(scope)
        self._report(reported)

    def remove(self, scope: str, record: PodRecord) -> None:
        """Remove a pod, if the view has it and not a newer one of its name; `record` is what it was at its end.

        Raises Unavailable for a record without a namespace, a name and a UID.
        """
        namespace, name, uid = _key(record)
        reported = []
        with self._changed:
            pods = self._pods.get(namespace, {})
            if name in pods and pods[name].uid == uid:
                self._note_change(pods.pop(name), None)
                self._count -= 1
                if not pods:
                    del self._pods[namespace]
                reported.append(uid)
            self._confirm(scope)
        self._report(reported)

    def confirm(self, scope: str) -> None:
        """Note that a scope is current now: the API server has said so, by a bookmark."""
        with self._changed:
            self._confirm(scope)

    def fail(self, scope: str, reason: str) -> None:
        """Note why a scope is not kept current, for the messages of `get`, until it is confirmed again."""
        with self._changed:
            self._failures[scope] = reason
            self._changed.notify_all()

    def _confirm(self, scope: str) -> None:
        now = self._monotonic()
        self._confirmed[scope] = now
        self._failures.pop(scope, None)
        metrics.pods.set(self._count)
        if len(self._confirmed) == len(self.scopes):
            metrics.pod_view_time.set(self._now() - (now - min(self._confirmed.values())))
        self._changed.notify_all()

    def _note_change(self, before: PodRecord, after: PodRecord | None) -> bool:
        """Return True if a caller that was this pod has to be looked at again. Remember a pod that was deleted."""
        if after is not None and after.uid == before.uid:
            return _identity(before) != _identity(after)
        if after is not None or not self._selective:  # one name has one pod: the one that was replaced is gone
            self._ended[_key(before)[2]] = None
            if len(self._ended) > self._max_ended:
                self._ended.popitem(last=False)
        return True

    def _report(self, uids: Iterable[str]) -> None:
        for uid in uids:
            for listener in self._listeners:
                try:
                    listener(uid)
                except Exception:
                    log.exception("a listener to changes of pods has failed")

    def _scope_of(self, namespace: str) -> str | None:
        """Return the scope that has a namespace, None if it is not watched."""
        if ALL_NAMESPACES in self.scopes:
            return ALL_NAMESPACES
        return namespace if namespace in self.scopes else None

    def _half_of(self, deadline: float) -> float:
        now = self._monotonic()
        return now + (deadline - now) / 2

    def _wait_for_list(self, scope: str, deadline: float) -> None:
        if scope in self._confirmed:
            return
        with self._changed:
            self._changed.wait_for(
                lambda: scope in self._confirmed or (self._fallback is not None and scope in self._failures),
                deadline - self._monotonic(),
            )
            if scope not in self._confirmed and self._fallback is None:
                raise Unavailable(f"the pods have not been listed yet{self._explain(scope)}")

    def _explain(self, scope: str | None) -> str:
        reason = self._failures.get(scope or ALL_NAMESPACES)
        return f": {reason}" if reason else ""


def _identity(record: PodRecord) -> tuple[object, ...]:
    """Return what a decision about a caller depends on, besides the UID."""
    return record.service_account, record.live, record.host_network, record.addresses, record.labels, record.owner


def _key(record: PodRecord) -> tuple[str, str, str]:
    """Return the namespace, the name and the UID of a pod. Raises Unavailable if it lacks one."""
    if record.namespace and record.name and record.uid:
        return record.namespace, record.name, record.uid
    raise Unavailable("the API server's Pod has no namespace, name or UID")
