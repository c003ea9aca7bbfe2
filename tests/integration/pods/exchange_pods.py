"""A token exchange as `podproof manifests` prints it, behind TLS, and the pods that trade there and are called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from podproof import ServiceAccount
from podproof.cli.manifests import render_manifests
from podproof.testing._emulator.certificates import authority
from tests.integration.pods.actors import CallerPod
from tests.integration.pods.kubectl import Kubectl
from tests.integration.pods.manifests import Document, Manifests

SERVICES = ("ledger", "partner", "tools")
FOLDER = "/var/run/secrets/podproof"
_TRADE, _LEDGER, _TOOLS, _AGENT, _REPLAY, _POST = (
    Path(__file__).with_name(f"inside_{name}.py").read_text()
    for name in ("trade", "ledger", "tools", "agent", "replay", "post")
)
_SERVICE = {"apiVersion": "v1", "kind": "Service"}


class Traded(NamedTuple):
    """What a pod got for its token, and the response of the service that it called with it."""

    status: int
    body: str
    token: str
    proof: str
    key: str


class ExchangePods:
    """The exchange `bridge` of two replicas, and services without any permission: two apps, and an MCP server `tools`.

    `bridge` and the services are known by these names in each pod: not every cluster has a DNS.
    """

    def __init__(self, kubectl: Kubectl, manifests: Manifests) -> None:
        self._kubectl = kubectl
        self._manifests = manifests
        self._authority = authority("bridge")
        namespace = kubectl.namespace
        self._account = ServiceAccount(namespace, "bridge")
        callers = [ServiceAccount(namespace, name) for name in ("alice", *SERVICES)]
        rendered = render_manifests("bridge", self._account, callers, exchange=True, only="server")
        self._roles = [*yaml.safe_load_all(render_manifests(None, self._account, [], exchange=True, only="rbac"))]
        known = kubectl("api-versions").split()  # Kubernetes before 1.21 has no policy/v1
        self._documents = [one for one in yaml.safe_load_all(rendered) if one["apiVersion"] in known]
        self._aliases: list[dict[str, Any]] = []

    def start(self) -> None:
        """Start all, and wait until it is ready."""
        tls = self._authority.server_pem(("bridge",)).decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bridge-tls"}, "stringData": {"pem": tls}}
        trusted = {"metadata": {"name": "bridge-ca"}, "data": {"ca.crt": self._authority.pem}}
        services = [
            {**_SERVICE, "metadata": {"name": name}, "spec": {"selector": _labels(name), "ports": [_port(80)]}}
            for name in SERVICES
        ]
        self._kubectl.apply(*self._roles, secret, {"apiVersion": "v1", "kind": "ConfigMap", **trusted}, *services)
        self._kubectl.apply(*map(self._adapted, self._documents))
        for name in ("bridge", *SERVICES):
            address = self._kubectl.get("service", name)["spec"]["clusterIP"]
            self._aliases.append({"ip": address, "hostnames": [name]})
        for name in SERVICES:
            self._kubectl.apply(self._manifests.service_account(name))
            self.new_pod(name, name, script=_TOOLS if name == "tools" else _LEDGER, AUDIENCE=name)
        self._kubectl("rollout", "status", "deployment/bridge", "--timeout", "120s")
        self._kubectl.wait_for(*SERVICES)

    def stop(self) -> None:
        for one in (*self._roles, *self._documents):
            self._kubectl("delete", one["kind"], one["metadata"]["name"], "--wait=false")

    def new_pod(self, name: str, account: str, *, script: str = "", **environ: str) -> CallerPod:
        """Create a pod with a token for the exchange, which waits for commands or runs a script."""
        pod = self._manifests.caller(name, service_account=account, script=script, hostAliases=self._aliases)
        pod["metadata"]["labels"] = _labels(name)
        spec = pod["spec"]
        [container], [volume] = spec["containers"], spec["volumes"]
        volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "bridge"
        container["volumeMounts"][0]["mountPath"] = FOLDER
        spec["volumes"].append({"name": "bridge-ca", "configMap": {"name": "bridge-ca"}})
        container["volumeMounts"].append({"name": "bridge-ca", "mountPath": "/etc/bridge"})
        container["env"] = [{"name": key, "value": value} for key, value in environ.items()]
        if script:
            container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        self._kubectl.apply(pod)
        return CallerPod(self._kubectl, name)

    def call(self, caller: CallerPod, service: str, path: str = "/whoami") -> Traded:
        """Trade a pod's token for one that is for a service, and call that with it."""
        return Traded(**json.loads(caller.run("python3", "-c", _TRADE, service, f"http://{service}{path}")))

    def replay(self, caller: CallerPod, traded: Traded, *, url: str, seconds: float) -> Mapping[str, Any]:
        """Send a token with the key that it is bound to, until it is denied, or for so many seconds."""
        given = {"url": url, "token": traded.token, "key": traded.key, "seconds": seconds}
        sent: Mapping[str, Any] = json.loads(caller.run("python3", "-c", _REPLAY, stdin=json.dumps(given)))
        return sent

    def ask_tools(self, caller: CallerPod) -> list[str]:
        """Return what a tool says, which an agent in a pod calls."""
        return caller.run("python3", "-c", _AGENT).splitlines()

    def post(self, caller: CallerPod, path: str, form: Mapping[str, str], *, own: bool = False) -> tuple[int, Any]:
        """Return the status and the JSON of the exchange's response to a form, sent with the pod's own token or not."""
        given = {"url": f"https://bridge{path}", "data": form, "authenticated": own}
        response = json.loads(caller.run("python3", "-c", _POST, stdin=json.dumps(given)))
        return response["status"], response["body"]

    def _adapted(self, document: Document) -> Document:
        """Return a document as an operator would change it: its image, TLS, and the grants."""
        if document["kind"] == "ConfigMap":
            document["data"]["grants.yaml"] = yaml.safe_dump({"grants": self._grants()})
        if document["kind"] == "Service":
            document["spec"]["ports"] = [_port(443)]
        if document["kind"] == "Deployment":
            spec = document["spec"]["template"]["spec"]
            [container], [alice] = spec["containers"], self._manifests.caller("any")["spec"]["containers"]
            container |= {name: alice[name] for name in ("image", "imagePullPolicy") if name in alice}
            container["command"][0] = "python3"
            container["args"] = ["--tls-certificate=/etc/tls/pem", "--tls-key=/etc/tls/pem", "--issuer=https://bridge"]
            container["env"] = [one for one in container["env"] if one["name"] != "PODPROOF_EXCHANGE_ISSUER"]
            container["env"] += [
                {"name": f"PODPROOF_EXCHANGE_{name}", "value": value}
                for name, value in (("DPOP", "required"), ("NONCE", "true"))
            ]
            for probe in ("readinessProbe", "livenessProbe"):
                container[probe]["httpGet"]["scheme"] = "HTTPS"
            spec["volumes"].append({"name": "tls", "secret": {"secretName": "bridge-tls", "defaultMode": 0o440}})
            container["volumeMounts"].append({"name": "tls", "mountPath": "/etc/tls", "readOnly": True})
        return document

    def _grants(self) -> Sequence[Mapping[str, Any]]:
        namespace = self._kubectl.namespace
        alice = {"allow": [f"{namespace}/alice"]}
        return [
            {"audience": "ledger", **alice, "introspect": [f"{namespace}/ledger"]},
            {"audience": "partner", **alice, "subject": "pairwise", "pod": True},
            {"audience": "tools", **alice},
        ]


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name}


def _port(port: int) -> dict[str, Any]:
    return {"name": "http", "port": port, "targetPort": 8080}
