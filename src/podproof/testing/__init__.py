"""An emulated Kubernetes cluster, and the pytest plugin built on it.

```python
from podproof.testing import Cluster

with Cluster() as cluster:
    alice = cluster.pod("default/alice", service_account="alice")
    token = alice.token(audience="bob")
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podproof.testing.cluster import Cluster

__all__ = ["Cluster"]


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run through the plugin: cryptography waits for the first use.
    if name == "Cluster":
        from podproof.testing.cluster import Cluster  # noqa: PLC0415

        return Cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
