"""The pods and service accounts of an emulated cluster, for tests to use and to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import pod_defaults, status_errors, timestamps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podproof.testing._emulator.object_store import ObjectStore
    from podproof.testing._emulator.token_authenticator import TokenAuthenticator


@dataclass(frozen=True, slots=True)
class EmulatedServiceAccount:
    """A service account of an emulated cluster."""

    _store: ObjectStore = field(repr=False)
    _authenticator: TokenAuthenticator = field(repr=False)
    namespace: str
    name: str
    uid: str

    def token(self, audience: str | Sequence[str], lifetime: float = 3600) -> str:
        """Return a new token for one audience or several, bound to no pod, like `kubectl create token`.

        `lifetime` is in seconds; a negative one makes a token that has expired.
        """
        account = self._store.require("serviceaccounts", self.namespace, self.name)
        return self._authenticator.issue(account, None, audience, lifetime)

    def headers(self, audience: str | Sequence[str]) -> dict[str, str]:
        """Return `{"Authorization": "Bearer ..."}` with a new token for an audience."""
        return {"Authorization": f"Bearer {self.token(audience)}"}


@dataclass(frozen=True, slots=True)
class EmulatedPod:
    """A pod of an emulated cluster. After its removal all but its names and UID raise a 404 `StatusError`."""

    _store: ObjectStore = field(repr=False)
    _authenticator: TokenAuthenticator = field(repr=False)
    namespace: str
    name: str
    uid: str

    def json(self) -> Mapping[str, Any]:
        """Return the Pod object of the API server."""
        live = self._store.require("pods", self.namespace, self.name)
        if live["metadata"]["uid"] != self.uid:
            raise status_errors.not_found("pods", self.name)
        return live

    @property
    def service_account(self) -> str:
        """The name of its service account."""
        name: str = self.json()["spec"]["serviceAccountName"]
        return name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its IP addresses, the primary one first."""
        return tuple(entry["ip"] for entry in self.json()["status"].get("podIPs", ()))

    @property
    def peer(self) -> tuple[str, int]:
        """Its primary address and a port, for `starlette.testclient.TestClient(app, client=pod.peer)`."""
        return self.addresses[0], 50000

    def token(self, audience: str | Sequence[str], lifetime: float = 3600) -> str:
        """Return a new token for one audience or several, bound to this pod, like the one that the kubelet mounts.

        `lifetime` is in seconds; a negative one makes a token that has expired.
        """
        live = self.json()
        account = self._store.require("serviceaccounts", self.namespace, live["spec"]["serviceAccountName"])
        return self._authenticator.issue(account, live, audience, lifetime)

    def headers(self, audience: str | Sequence[str]) -> dict[str, str]:
        """Return `{"Authorization": "Bearer ..."}` with a new token for an audience."""
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
        """Change the given fields, also those that a real API server treats as immutable."""
        live = self.json()
        metadata, spec, seen = dict(live["metadata"]), dict(live["spec"]), live["status"]
        if phase is not None or addresses is not None:
            seen = pod_defaults.reported(
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
            metadata = pod_defaults.next_generation(metadata)
        self._store.replace("pods", {**live, "metadata": metadata, "spec": spec, "status": seen})

    def delete(self, grace: int = 30) -> None:
        """Begin to terminate, with a grace period in seconds.

        The pod exists until `remove`. Its token is authenticated until 60 s after the grace period.
        """
        deletion = timestamps.text(self._authenticator.clock() + grace)
        self._store.replace("pods", pod_defaults.terminating(self.json(), deletion, grace))

    def remove(self) -> None:
        """Remove the pod at once."""
        self._store.delete("pods", self.json())
