"""Owners of pods as rules name them: `Deployment/web`, `Job/report-*`, `Rollout.argoproj.io/web`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate

from podproof.identity import Owner, Pod

_GROUPS = {
    "CronJob": "batch",
    "DaemonSet": "apps",
    "Deployment": "apps",
    "Job": "batch",
    "Node": "",
    "ReplicaSet": "apps",
    "ReplicationController": "",
    "StatefulSet": "apps",
}
"""API groups of Kubernetes' own kinds that pods have, for owners that are named without one."""

_OWNER = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?:\.([a-z0-9]+(?:[.-][a-z0-9]+)*))?/([^/]+)")

TEMPLATE_HASH = "pod-template-hash"
_SCHEDULED = re.compile(r"(.+)-[0-9]{8,10}", re.DOTALL)


class OwnerPattern:
    """An owner of pods: `Kind/name`, `Kind.group/name` for kinds that are not Kubernetes' own; the name is a glob.

    Raises ValueError for any other form.
    """

    def __init__(self, text: str) -> None:
        self._owner = parse_owner(text)
        self._name = re.compile(translate(self._owner.name))

    def matches(self, pod: Pod) -> bool:
        """Return True if a pod's controller, or what that belongs to by its name, is such an owner."""
        return any(
            (owner.kind, owner.group) == (self._owner.kind, self._owner.group) and self._name.match(owner.name)
            for owner in owners_of(pod)
        )


def parse_owner(text: str) -> Owner:
    """Return the owner of a text such as `Deployment/web` or `Rollout.argoproj.io/web`. Raises ValueError."""
    match = _OWNER.fullmatch(text)
    if match is None or (match[2] is None and match[1] not in _GROUPS):
        raise ValueError(
            f'invalid owner {text!r:.200}: expected the form "Deployment/web", and with its API group one of a kind '
            'that is not Kubernetes\' own, such as "Rollout.argoproj.io/web"'
        )
    return Owner(match[1], match[3], _GROUPS[match[1]] if match[2] is None else match[2])


def owners_of(pod: Pod) -> Iterator[Owner]:
    """Yield a pod's controller, and the Deployment or CronJob that this belongs to.

    A pod names a ReplicaSet or a Job alone. What made that is taken from its name, as Kubernetes' own controllers give
    it: a Deployment's ReplicaSet is called <deployment>-<hash>, with the hash in the label pod-template-hash, a
    CronJob's Job <cronjob>-<scheduled time> (pkg/controller/deployment/sync.go, pkg/controller/cronjob/utils.go).
    """
    owner = pod.owner
    if owner is None:
        return
    yield owner
    if (owner.kind, owner.group) == ("ReplicaSet", "apps"):
        deployment = owner.name.removesuffix(f"-{pod.labels.get(TEMPLATE_HASH, '')}")
        if deployment not in ("", owner.name, owner.name.removesuffix("-")):
            yield Owner("Deployment", deployment, "apps")
    elif (owner.kind, owner.group) == ("Job", "batch") and (match := _SCHEDULED.fullmatch(owner.name)):
        yield Owner("CronJob", match[1], "batch")
