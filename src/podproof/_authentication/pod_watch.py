"""`PodWatch`: keeps a view of the pods current, by a list and a watch, in place of a GET for each pod.

Both as the API's concepts have them (https://kubernetes.io/docs/reference/using-api/api-concepts/): a list, then the
changes after its resource version, bookmarks between them, and a new list when that version is too old (410). Where the
API server has it, the list comes as a stream too (KEP-3157).
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from podproof._apiserver.json_list import parse_list
from podproof._apiserver.permissions import Permission
from podproof._apiserver.protocols import LineStream, StreamOpener
from podproof._apiserver.response import ConnectionFailed, LineTooLong, StreamSilent, UnexpectedStatus
from podproof._authentication.pod_view import ALL_NAMESPACES, MAX_AGE, Listener, PodView
from podproof._authentication.pods import FoundPod, PodRecord, PodStore, read_record
from podproof._cache.fork_local import ForkLocal
from podproof._telemetry import metrics
from podproof.errors import Unavailable
from podproof.identity import ServiceAccount

log = logging.getLogger("podproof")

READ_TIMEOUT = 75.0
"""Seconds of silence after which a watch is given up, and the pods are listed again: bookmarks come once a minute, but
not from an old API server while no pod changes, so only a list can tell which of both it is."""

WATCH_SECONDS = (240.0, 480.0)
"""The API server ends a watch after a random time of these, so that not all clients come back at once."""

MAX_OUTAGE = 900.0
"""Seconds for which a watched pod is accepted while the API server cannot be asked, where no option says otherwise."""

PAGE_SIZE = 500
MAX_PAGE = 64 * 1024 * 1024
"""Pods in a page of a list, as kubectl and client-go ask for, and the most bytes that one may have."""

MAX_BACKOFF = 30.0
_BACKOFF = 1.0
_RELIST_BACKOFF = 5.0
"""Seconds before what failed is tried again, at most: those before the first retry, twice as many before each further
one. A version that is too old is so for all clients at once, as after a restart of the API server: they wait longer."""

RESUMPTIONS = 2
"""How often in a row the API server may refuse to go on from a version before the pods are listed again: after etcd was
restored from a backup, our version is one that it has never had."""

STREAMED_LISTS_SINCE = (1, 27)
"""KEP-3157: an older API server may ignore the query parameters of a streamed list. A newer one without it says so."""

_NOT_STREAMED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_USUAL = ("expired", "silent")
"""Reasons that need no warning: a new list follows, which warns if it fails."""

WORK, REST = 0.0005, 0.001
"""Seconds of processor time, and of the pause after them, while the pods are listed again. Without, requests took nine
times as long meanwhile (30,000 pods), and so 1.2 to 1.4 times; with 100,000 pods on a busy machine, 1.3 times by a
streamed list and 1.8 by pages."""

_NUMBER = re.compile(r"[0-9]{1,5}")


class PodWatch:
    """Knows the live pods, by a view that a watch keeps current: a `PodStore`.

    `namespaces` are those to be watched, none for all; each has a thread and a connection of its own in each process.
    They start with `start`, or with the first `get` in a process, never before: a constructor runs before a fork.
    `label_selector` and `field_selector` limit the watch to some pods. `fallback`, `listeners`, `max_age` and
    `max_outage` are as for `PodView`. Times are in seconds.
    """

    def __init__(
        self,
        client: StreamOpener,
        *,
        namespaces: Sequence[str] = (),
        label_selector: str = "",
        field_selector: str = "",
        fallback: PodStore | None = None,
        listeners: Iterable[Listener] = (),
        max_age: float = MAX_AGE,
        max_outage: float = 0.0,
        read_timeout: float = READ_TIMEOUT,
        page_size: int = PAGE_SIZE,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        selectors = {name: text for name, text in selectors.items() if text}

        def make() -> _ProcessWatches:
            view = PodView(
                namespaces=namespaces,
                fallback=fallback,
                selective=bool(selectors),
                listeners=listeners,
                max_age=max_age,
                max_outage=max_outage,
                monotonic=monotonic,
                now=now,
            )
            return _ProcessWatches(
                view,
                [
                    PodReflector(
                        client.stream(read_timeout=read_timeout),
                        view,
                        scope,
                        selectors=selectors,
                        page_size=page_size,
                        wait=wait,
                        uniform=uniform,
                    )
                    for scope in view.scopes
                ],
            )

        self._watches = ForkLocal(make)

    def start(self) -> PodView:
        """Start this process's threads, if they have not been started yet, and return its view."""
        watches = self._watches.get()
        watches.start()
        return watches.view

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        """Return the live pod that a service account's token is bound to: `PodView.get` of this process."""
        return self.start().get(service_account, name, uid, deadline)

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> FoundPod | None:
        """Return what the view has, however old: `PodView.last_known` of this process."""
        return self.start().last_known(service_account, name, uid)

    def age(self) -> float | None:
        """Return the seconds since this process's view was last known to be current, None if it has no list yet."""
        return self._watches.get().view.age()

    def close(self) -> None:
        """End this process's threads and wait for them; the next `start` or `get` begins anew, with a list."""
        watches = self._watches.pop()
        if watches is not None:
            watches.close()


class _ProcessWatches:
    """One process's view, and the threads that keep it current."""

    def __init__(self, view: PodView, reflectors: Sequence[PodReflector]) -> None:
        self.view = view
        self._reflectors = reflectors
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        if self._threads:
            return
        with self._lock:
            if not self._threads:
                threads = [
                    threading.Thread(target=one.run, name=f"podproof-pods-{number}", daemon=True)
                    for number, one in enumerate(self._reflectors)
                ]
                for thread in threads:
                    thread.start()
                self._threads = threads

    def close(self) -> None:
        for reflector in self._reflectors:
            reflector.close()
        for thread in self._threads:
            if thread is not threading.current_thread():  # a listener may close the watch that has called it
                thread.join()


class MalformedEvent(Exception):
    """The API server sent something that is no event, list or Pod; `str()` says what is wrong, without its text."""


class VersionExpired(Exception):
    """The API server does not have the changes since our resource version any more (410): list again."""


class ListNotStreamed(Exception):
    """The API server does not stream lists: list page by page."""


class PodReflector:
    """Keeps one scope of a view current: a namespace, or all. `run` is for a thread of its own, `close` for any.

    `selectors` are query parameters. `stream` is used by this alone.
    """

    def __init__(
        self,
        stream: LineStream,
        view: PodView,
        scope: str,
        *,
        selectors: Mapping[str, str],
        page_size: int = PAGE_SIZE,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        uniform: Callable[[float, float], float] = random.uniform,
        thread_time: Callable[[], float] = time.thread_time,
    ) -> None:
        self._stream = stream
        self._view = view
        self._scope = scope
        self._path = f"/api/v1/namespaces/{quote(scope, safe='')}/pods" if scope else "/api/v1/pods"
        self._permission = Permission("list and watch", "", "pods", scope)
        self._where = f" in namespace {scope}" if scope else ""
        self._selectors = selectors
        self._page_size = page_size
        self._wait = wait
        self._uniform = uniform
        self._thread_time = thread_time
        self._rested_at = 0.0
        self._closing = threading.Event()
        self._version = ""  # up to which the view has all changes; none: it needs a list
        self._streamed_lists: bool | None = None  # not known yet
        self._progress = False
        self._failures = 0
        self._warned = ""

    def close(self) -> None:
        """Have `run` return, at once even if it waits for the API server or for its next attempt."""
        self._closing.set()
        self._stream.close()

    def run(self) -> None:
        """Keep the view current until `close`."""
        while not self._closing.is_set():
            self._progress = False
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  a thread that ends would leave the view as it is, for ever
                if not self._closing.is_set():
                    self._recover(error)
            else:
                self._restart("ended")

    def _follow(self) -> None:
        """List the pods if that is needed, and watch them until the API server ends the watch."""
        if self._version or self._has_streamed_lists():
            self._watch()
        else:
            self._list_pages()
            self._watch()

    def _recover(self, error: Exception) -> None:
        """Decide by an error where to go on, and wait before that."""
        retry_after = 0.0
        match error:
            case ListNotStreamed():
                self._streamed_lists = False
                metrics.pod_watch_restarts.labels("unsupported").inc()
                return
            case VersionExpired() | UnexpectedStatus(status=HTTPStatus.GONE):
                reason, self._version = "expired", ""
            case StreamSilent():
                reason, self._version = "silent", ""
            case MalformedEvent() | LineTooLong():
                reason, self._version = "malformed", ""
            case UnexpectedStatus():
                reason, retry_after = "status", error.retry_after or 0.0
                if self._failures >= RESUMPTIONS and error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    self._version = ""
            case ConnectionFailed():
                reason = "connection"
            case Unavailable():
                reason = "unavailable"
            case _:
                error = Unavailable.unexpected(error)
                reason, self._version = "error", ""
        self._restart(reason, str(error), retry_after)

    def _restart(self, reason: str, message: str = "", retry_after: float = 0.0) -> None:
        """Count an end, and wait for a random time: the longer, the more have failed without an event between them.

        A watch that has ended as it should waits only if it brought nothing: an API server that ends each at once must
        not be called in a tight loop.
        """
        metrics.pod_watch_restarts.labels(reason).inc()
        if self._progress:
            self._failures, self._warned = 0, ""
            if reason == "ended":
                return
        if message:
            self._view.fail(self._scope, message)
        if message and message != self._warned and reason not in _USUAL:
            self._warned = message
            log.warning("the view of the pods%s is not kept current just now: %s", self._where, message)
        base = _RELIST_BACKOFF if reason == "expired" else _BACKOFF
        pause = self._uniform(0, min(MAX_BACKOFF, base * 2 ** min(self._failures, 5)))
        self._failures += 1
        self._wait(self._closing, max(pause, min(retry_after, MAX_BACKOFF)))

    def _has_streamed_lists(self) -> bool:
        """Return False if the API server is too old for streamed lists, or was found to have none."""
        if self._streamed_lists is None:
            version = None
            # Without it, or the right to read it, the response to a streamed list decides.
            with suppress(UnexpectedStatus, Unavailable), self._get("/version") as lines:
                version = _parse_version(b"".join(lines))
            self._streamed_lists = version is None or version >= STREAMED_LISTS_SINCE
        return self._streamed_lists

    def _get(self, path: str, **more: Any) -> AbstractContextManager[Iterator[bytes]]:
        return self._stream.get(path, self._permission, **more)

    def _query(self, **parameters: object) -> str:
        return f"{self._path}?{urlencode({**self._selectors, **parameters})}"

    def _list_pages(self) -> None:
        """List the pods page by page, all as they were at one resource version, and put them into the view."""
        records: list[PodRecord] = []
        token: dict[str, object] = {}
        while True:
            with self._get(self._query(limit=self._page_size, **token), max_line=MAX_PAGE) as lines:
                text = b"".join(lines)
            try:
                page, metadata = parse_list(text, self._read_listed)
            except (ValueError, RecursionError):
                raise MalformedEvent("expected a list of pods") from None
            records += page
            if not metadata.get("continue"):
                break
            token = {"continue": metadata["continue"]}
        self._view.replace(self._scope, records)
        self._move(metadata)

    def _watch(self) -> None:
        """Apply events as they come: after the version that the view has, or all pods first if it has none."""
        parameters: dict[str, object] = {"watch": 1, "allowWatchBookmarks": "true"}
        parameters["timeoutSeconds"] = int(self._uniform(*WATCH_SECONDS))
        if self._version:
            parameters["resourceVersion"] = self._version
            with self._get(self._query(**parameters)) as lines:
                self._apply_all(lines)
            return
        parameters |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": ""}
        try:
            with self._get(self._query(**parameters)) as lines:
                self._collect(lines)
                self._apply_all(lines)
        except (UnexpectedStatus, StreamSilent) as error:
            if not self._version and getattr(error, "status", 400) in _NOT_STREAMED:
                raise ListNotStreamed from None
            raise

    def _collect(self, lines: Iterator[bytes]) -> None:
        """Put a streamed list into the view once it is complete: the bookmark at its end says so (KEP-3157)."""
        records: dict[tuple[str | None, str | None], PodRecord] = {}
        for line in lines:
            kind, thing = _read_event(line)
            if kind == "BOOKMARK":
                if not _is_end_of_list(thing):
                    raise ListNotStreamed  # a server that does not know the parameters goes on like this
                self._view.replace(self._scope, records.values())
                self._move(thing["metadata"])
                return
            record = self._read_listed(thing)
            if kind == "DELETED":
                records.pop((record.namespace, record.name), None)
            else:
                records[record.namespace, record.name] = record
        raise ConnectionFailed("the streamed list ended before it was complete")

    def _apply_all(self, lines: Iterator[bytes]) -> None:
        for line in lines:
            kind, thing = _read_event(line)
            if kind == "BOOKMARK":
                self._view.confirm(self._scope)
            elif kind == "DELETED":
                self._view.remove(self._scope, self._read(thing))
            else:
                self._view.put(self._scope, self._read(thing))
            self._move(thing["metadata"])

    def _read_listed(self, thing: object) -> PodRecord:
        """Return the record of a Pod of a list. Pause if that is due, but not before the first list: requests wait.

        Raises MalformedEvent.
        """
        now = self._thread_time()
        if now - self._rested_at >= WORK:
            self._rested_at = now
            if self._view.count:
                self._wait(self._closing, REST)
        return self._read(thing)

    def _read(self, thing: object) -> PodRecord:
        """Return the record of a Pod of this scope. Raises MalformedEvent."""
        if not isinstance(thing, dict):
            raise MalformedEvent("expected a Pod")
        try:
            record = self._view.share(read_record(thing))
        except Unavailable as error:
            raise MalformedEvent(str(error)) from None
        if self._scope not in (ALL_NAMESPACES, record.namespace):
            raise MalformedEvent(f"expected a Pod{self._where}")
        return record

    def _move(self, metadata: object) -> None:
        """Go on from this resource version: the view has all until there. Raises MalformedEvent."""
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not isinstance(version, str) or not version:
            raise MalformedEvent("expected a resource version")
        self._version = version
        self._progress = True


def _read_event(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the type and the object of an event (a WatchEvent of the API), an ERROR as an exception.

    Raises VersionExpired, MalformedEvent, or UnexpectedStatus for an error that is not about our version.
    """
    event = _parse_object(line)
    kind, thing = event.get("type"), event.get("object")
    if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR") or not isinstance(thing, dict):
        raise MalformedEvent("expected an event of a known type")
    if kind == "ERROR":
        code = thing.get("code")
        if code == HTTPStatus.GONE:
            raise VersionExpired("the API server has compacted the changes since our resource version")
        raise UnexpectedStatus(code if isinstance(code, int) else 500, None)
    if not isinstance(thing.get("metadata"), dict):
        raise MalformedEvent("expected an object with metadata")
    return kind, thing


def _is_end_of_list(bookmark: Mapping[str, Any]) -> bool:
    annotations = bookmark["metadata"].get("annotations")
    return isinstance(annotations, dict) and annotations.get("k8s.io/initial-events-end") == "true"


def _parse_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedEvent("expected a JSON object")
    return value


def _parse_version(text: bytes) -> tuple[int, int] | None:
    """Return the major and minor version of `/version`, None if it has none: some add a sign to it ("27+")."""
    with suppress(MalformedEvent):
        document = _parse_object(text)
        numbers = [_NUMBER.match(str(document.get(name))) for name in ("major", "minor")]
        if all(numbers):
            major, minor = (int(number[0]) for number in numbers if number)
            return major, minor
    return None
