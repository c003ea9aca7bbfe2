"""An emulated cluster for server processes: what the app default/bob runs with, and tokens of the pods that call it."""

from __future__ import annotations

from dataclasses import dataclass, field

from podproof.testing import Cluster


@dataclass
class ClusterEnv:
    """A cluster in which default/bob may review tokens and read pods, and the tokens of its pods by name.

    `tokens["alice"]` is accepted by default/bob; "alice for carol" is for another audience, "alice expired" is over.
    """

    cluster: Cluster
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        self.cluster.grant("default/bob", verbs=["get", "list", "watch"], resources=["pods"])

    def add_pod(self, name: str, address: str) -> None:
        """Add the pod default/NAME-pod of the service account default/NAME, and its tokens."""
        pod = self.cluster.pod(f"default/{name}-pod", service_account=name, addresses=[address])
        self.tokens[name] = pod.token("bob")
        self.tokens[f"{name} for carol"] = pod.token("carol")
        self.tokens[f"{name} expired"] = pod.token("bob", lifetime=-3600)

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables of an app that runs as default/bob."""
        return {"PODPROOF_AUDIENCE": "bob", "KUBECONFIG": str(self.cluster.kubeconfig_for("default/bob"))}
