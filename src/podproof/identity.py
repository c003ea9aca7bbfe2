"""The caller's identity: a service account, a pod, and the two together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

__all__ = ["Owner", "Pod", "PodIdentity", "ServiceAccount"]

V = TypeVar("V")

# RFC 1123, as Kubernetes uses it: a namespace is one label of at most 63 characters; a service account's name may hold
# dots, and its labels are limited by the whole only.
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_USERNAME = re.compile(rf"system:serviceaccount:(?=[^:]{{1,63}}:)({_LABEL}):(?=.{{1,253}}\Z)({_NAME})")


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A Kubernetes service account; `str()` gives `namespace/name`."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def username(self) -> str:
        """The username at the API server: `system:serviceaccount:<namespace>:<name>`."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @classmethod
    def from_username(cls, username: str, uid: str = "") -> ServiceAccount:
        """Return the service account of a username `system:serviceaccount:<namespace>:<name>`.

        Raises ValueError for every other user: people, nodes, `system:anonymous`.
        """
        match = _USERNAME.fullmatch(username)
        if match is None:
            raise ValueError("not the username of a service account")
        return cls(namespace=match[1], name=match[2], uid=uid)


class _FrozenDict(dict[str, V]):
    """A dict that cannot be changed: all requests with one token share one identity.

    `types.MappingProxyType` cannot be pickled, copied deeply or encoded as JSON; a dict can be, and so can this.
    """

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a PodIdentity cannot be changed: copy its extra or labels with dict()")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, V]]]:
        # Made in one step: pickle and copy would set item by item.
        return _FrozenDict, (dict(self),)


def frozen_dict(mapping: Mapping[str, V]) -> Mapping[str, V]:
    """Return a mapping that cannot be changed, the same one if it is of this kind already."""
    return mapping if isinstance(mapping, _FrozenDict) else _FrozenDict(mapping)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a pod says of its controller; `str()` gives `Kind/name`, and `Kind.group/name` for one with an API group.

    A pod of a Deployment has a ReplicaSet, one of a CronJob a Job.
    """

    kind: str
    name: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}/{self.name}" if self.group else f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Pod:
    """A live pod; `str()` gives `namespace/name`.

    `addresses` are all of `status.podIPs` in canonical form, IPv4-mapped ones unmapped. A pod on the host network
    shares them with its node, whose addresses are `node_addresses`, all of `status.hostIPs`. `labels` are its own,
    `owner` is the controller among its owner references. Whoever may create pods in its namespace chooses both.
    """

    namespace: str
    name: str
    uid: str
    addresses: tuple[str, ...] = ()
    node: str | None = None
    host_network: bool = False
    node_addresses: tuple[str, ...] = field(default=(), repr=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    owner: Owner | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", frozen_dict(self.labels))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The caller: a service account, and the pod that its token is bound to.

    `audience` is the accepted audience that the token was issued for, `expires_at` the token's expiry in Unix seconds.
    `credential_id`, `groups` and `extra` are as in the API server's TokenReview; `credential_id` is None before
    Kubernetes 1.30. It cannot be changed, and can be compared, hashed, copied, pickled and encoded as JSON. It is also
    a Starlette user: `is_authenticated`, `display_name`, `identity`.
    """

    service_account: ServiceAccount
    pod: Pod
    audience: str
    expires_at: float
    credential_id: str | None = None
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra", frozen_dict(self.extra))

    @property
    def is_authenticated(self) -> bool:
        """Always True: the user of an anonymous request is no `PodIdentity`."""
        return True

    @property
    def display_name(self) -> str:
        """`namespace/name` of the service account."""
        return str(self.service_account)

    @property
    def identity(self) -> str:
        """The username, `system:serviceaccount:<namespace>:<name>`."""
        return self.service_account.username

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes in Starlette's `request.auth`, for its `@requires`."""
        return _scopes(self.service_account.namespace, self.service_account.name)


@lru_cache(maxsize=4096)
def _scopes(namespace: str, name: str) -> tuple[str, ...]:
    return ("authenticated", f"namespace:{namespace}", f"serviceaccount:{namespace}/{name}")
