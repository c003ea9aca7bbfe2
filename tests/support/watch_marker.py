"""A pod that is changed to see how far a watch has come: it has seen all that was changed before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from podproof._authentication.pods import PodStore
from podproof.identity import ServiceAccount
from podproof.testing import EmulatedPod
from tests.support.server_process import TIMEOUT_SECONDS

_numbers = count()


class WatchMarker:
    """The marker of one watch, whose `changes` are called with each change of a pod."""

    def __init__(self, pod: EmulatedPod, changes: list[Callable[[str], None]]) -> None:
        self._pod = pod
        self._changed = threading.Event()
        changes.append(lambda _: self._changed.set())

    def settle(self, pods: PodStore, monotonic: Callable[[], float]) -> None:
        """Wait until the watch has seen all changes of pods that were made before."""
        pod, labels = self._pod, {"change": str(next(_numbers))}
        which = (ServiceAccount(pod.namespace, pod.service_account), pod.name, pod.uid)
        pods.get(*which, monotonic() + TIMEOUT_SECONDS)  # waits for the list
        pod.update(labels=labels)
        while (found := pods.last_known(*which)) is None or found.pod.labels != labels:
            assert self._changed.wait(TIMEOUT_SECONDS)
            self._changed.clear()
