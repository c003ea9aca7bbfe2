"""Token exchange: pods trade their projected tokens for short-lived ones of your own system.

```python
from podproof.exchange import Grant, TokenExchange

app = TokenExchange(
    issuer="https://bridge",
    keys="/etc/podproof/keys",
    grants=[Grant(audience="ledger", allow=["default/alice"], scopes=["read"])],
    audience="bridge",
)
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podproof.exchange.app import TokenExchange
    from podproof.exchange.grants import Grant

__all__ = ["Grant", "TokenExchange"]

_MODULES = {"Grant": "grants", "TokenExchange": "app"}


def __getattr__(name: str) -> Any:
    # A service that verifies issued tokens loads nothing of what issues them.
    if name in _MODULES:
        return getattr(import_module(f"podproof.exchange.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
