"""The fields of a pod that the API server defaults, and those that a kubelet reports."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podproof.identity import Owner

_CONTAINER = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
_SPEC: dict[str, Any] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "default",
    "securityContext": {},
    "schedulerName": "default-scheduler",
    "tolerations": [
        {
            "key": f"node.kubernetes.io/{trouble}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for trouble in ("not-ready", "unreachable")
    ],
    "priority": 0,
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
}


def defaulted(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new pod with the fields that the API server and its admission plugins add."""
    spec = {**_SPEC, **pod.get("spec", {})}
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec["containers"] = [{**_CONTAINER, **container} for container in spec.get("containers", ())]
    return {**pod, "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}}


def controller_reference(owner: Owner) -> dict[str, object]:
    """Return the owner reference by which a pod names its controller."""
    return {
        "apiVersion": f"{owner.group}/v1" if owner.group else "v1",
        "kind": owner.kind,
        "name": owner.name,
        "uid": str(uuid.uuid4()),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def reported(before: Mapping[str, Any], phase: str, addresses: Sequence[str]) -> dict[str, Any]:
    """Return a pod's status with a phase and addresses, which may be none yet."""
    status = {key: value for key, value in before.items() if key not in {"podIP", "podIPs", "hostIP"}}
    status["phase"] = phase
    if addresses:
        status |= {
            "hostIP": "127.0.0.1",
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
        }
    return status


def terminating(pod: Mapping[str, Any], deletion: str, grace: int) -> dict[str, Any]:
    """Return a terminating pod: `deletion` is the RFC 3339 time of its end, `grace` its grace period in seconds."""
    metadata = pod["metadata"] | {"deletionTimestamp": deletion, "deletionGracePeriodSeconds": grace}
    if "deletionTimestamp" not in pod["metadata"]:
        metadata = next_generation(metadata)
    return {**pod, "metadata": metadata}


def next_generation(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata after a change of the spec: a generation, if there is one, goes up by one."""
    counted = {"generation": metadata["generation"] + 1} if "generation" in metadata else {}
    return {**metadata, **counted}


def grace_period(pod: Mapping[str, Any], asked: int | None) -> int:
    """Return a pod's grace period in seconds: 0 if it is not scheduled or has finished."""
    if not pod["spec"].get("nodeName") or pod["status"]["phase"] in {"Succeeded", "Failed"}:
        return 0
    period: int = pod["spec"]["terminationGracePeriodSeconds"] if asked is None else asked
    return period
