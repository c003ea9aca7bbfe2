"""An emulated Kubernetes cluster for tests, and the pytest plugin built on it.

```python
from podproof.testing import Cluster

with Cluster() as cluster:
    alice = cluster.pod("default/alice", service_account="alice")
    token = alice.token(audience="bob")
```

`as_pod(client, "default/alice")` lets a framework's test client call as a pod of it, and `as_caller("default/alice")`
gives a caller to code that a test calls itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podproof.testing._as_caller import as_caller
    from podproof.testing._as_pod import as_pod
    from podproof.testing._emulator.cluster import Cluster, RecordedRequest
    from podproof.testing._emulator.objects import EmulatedPod, EmulatedServiceAccount
    from podproof.testing._emulator.status_errors import StatusError

__all__ = ["Cluster", "EmulatedPod", "EmulatedServiceAccount", "RecordedRequest", "StatusError", "as_caller", "as_pod"]

_MODULES = {
    "Cluster": "_emulator.cluster",
    "EmulatedPod": "_emulator.objects",
    "EmulatedServiceAccount": "_emulator.objects",
    "RecordedRequest": "_emulator.cluster",
    "StatusError": "_emulator.status_errors",
    "as_caller": "_as_caller",
    "as_pod": "_as_pod",
}


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run through the plugin: cryptography waits for the first use.
    if name in _MODULES:
        return getattr(importlib.import_module(f"podproof.testing.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
