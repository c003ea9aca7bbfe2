"""An emulated Kubernetes cluster for tests, and the pytest plugin built on it.

```python
from podproof.testing import Cluster

with Cluster() as cluster:
    alice = cluster.pod("default/alice", service_account="alice")
    token = alice.token(audience="bob")
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podproof.testing._emulator.cluster import Cluster, RecordedRequest
    from podproof.testing._emulator.objects import EmulatedPod, EmulatedServiceAccount
    from podproof.testing._emulator.status_errors import StatusError

__all__ = ["Cluster", "EmulatedPod", "EmulatedServiceAccount", "RecordedRequest", "StatusError"]

_MODULES = {
    "Cluster": "cluster",
    "EmulatedPod": "objects",
    "EmulatedServiceAccount": "objects",
    "RecordedRequest": "cluster",
    "StatusError": "status_errors",
}


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run through the plugin: cryptography waits for the first use.
    if name in _MODULES:
        return getattr(importlib.import_module(f"podproof.testing._emulator.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
