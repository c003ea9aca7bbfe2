"""Pods and service accounts, as a test holds them in its hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podproof.testing import pods, status, timestamps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podproof.testing.authentication import Authentication
    from podproof.testing.store import Store


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account of the emulated cluster."""

    _store: Store = field(repr=False)
    _authentication: Authentication = field(repr=False)
    namespace: str
    name: str
    uid: str

    def token(self, audience: str | Sequence[str], lifetime: float = 3600) -> str:
        """Return a token for one audience or several that is bound to no pod, as `kubectl create token` makes it.

        `lifetime` is in seconds, and may be negative: a token that has expired.
        """
        account = self._store.require("serviceaccounts", self.namespace, self.name)
        return self._authentication.issue(account, None, audience, lifetime)

    def headers(self, audience: str | Sequence[str]) -> dict[str, str]:
        """Return the headers of a request that brings a new token."""
        return {"Authorization": f"Bearer {self.token(audience)}"}


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the emulated cluster. Once it is gone, all but its names raises a 404 `Failure`."""

    _store: Store = field(repr=False)
    _authentication: Authentication = field(repr=False)
    namespace: str
    name: str
    uid: str

    def json(self) -> Mapping[str, Any]:
        """Return the pod as the API server shows it."""
        live = self._store.require("pods", self.namespace, self.name)
        if live["metadata"]["uid"] != self.uid:
            raise status.not_found("pods", self.name)
        return live

    @property
    def service_account(self) -> str:
        """The name of the service account it runs as."""
        name: str = self.json()["spec"]["serviceAccountName"]
        return name

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its addresses."""
        return tuple(entry["ip"] for entry in self.json()["status"].get("podIPs", ()))

    @property
    def peer(self) -> tuple[str, int]:
        """Its first address and a port, as a server sees it: Starlette's `TestClient(app, client=...)`."""
        return self.addresses[0], 50000

    def token(self, audience: str | Sequence[str], lifetime: float = 3600) -> str:
        """Return a token for one audience or several that is bound to this pod, as the kubelet mounts it.

        `lifetime` is in seconds, and may be negative: a token that has expired.
        """
        live = self.json()
        account = self._store.require("serviceaccounts", self.namespace, live["spec"]["serviceAccountName"])
        return self._authentication.issue(account, live, audience, lifetime)

    def headers(self, audience: str | Sequence[str]) -> dict[str, str]:
        """Return the headers of a request that brings a new token."""
        return {"Authorization": f"Bearer {self.token(audience)}"}

    def update(
        self,
        *,
        phase: str | None = None,
        addresses: Sequence[str] | None = None,
        service_account: str | None = None,
        host_network: bool | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Change what is given, also what a real API server would not let change, and leave the rest."""
        live = self.json()
        metadata, spec, seen = dict(live["metadata"]), dict(live["spec"]), live["status"]
        if phase is not None or addresses is not None:
            seen = pods.reported(
                seen,
                seen["phase"] if phase is None else phase,
                self.addresses if addresses is None else addresses,
            )
        if service_account is not None:
            spec |= {"serviceAccountName": service_account, "serviceAccount": service_account}
        if host_network is not None:
            spec["hostNetwork"] = host_network
        if labels is not None:
            metadata["labels"] = dict(labels)
        if spec != live["spec"]:
            metadata = pods.next_generation(metadata)
        self._store.replace("pods", {**live, "metadata": metadata, "spec": spec, "status": seen})

    def delete(self, grace: int = 30) -> None:
        """Begin to terminate: to be gone in `grace` seconds.

        The pod stays until `remove`, as it does until a kubelet's last word. Its token is good for 60 s more than
        the grace period.
        """
        gone = timestamps.text(self._authentication.clock() + grace)
        self._store.replace("pods", pods.terminating(self.json(), gone, grace))

    def remove(self) -> None:
        """Be gone at once."""
        self._store.delete("pods", self.json())
