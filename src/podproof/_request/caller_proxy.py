"""`CallerProxy`: the `caller` of Flask and Quart, which stands for the identity of the current request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsIndex

from werkzeug.local import LocalProxy

from podproof.identity import PodIdentity

_DOC = f"""The `PodIdentity` of the current request's caller. An anonymous request is denied with 401.

Its attributes are {", ".join(PodIdentity.__dataclass_fields__)}.
"""


class CallerProxy(LocalProxy[PodIdentity]):
    """A `LocalProxy` that has a name and a docstring outside a request too, and can be encoded as JSON and pickled."""

    __name__ = "caller"
    # A dataclass to `dataclasses.asdict` and `jsonify`, which look at the class.
    __dataclass_fields__ = PodIdentity.__dataclass_fields__

    def __init__(self, get_identity: Callable[[], PodIdentity]) -> None:
        super().__init__(get_identity)
        object.__setattr__(self, "__doc__", _DOC)  # help() shows no docstring that is the class's too

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # help() and inspect look for such names outside a request too
            raise AttributeError(name)
        return getattr(self._get_current_object(), name)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return self._get_current_object().__reduce_ex__(protocol)
