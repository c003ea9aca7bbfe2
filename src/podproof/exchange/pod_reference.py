"""Which pod a token was issued to, as the token says it: in a claim, or sealed where its audience is not to know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from podproof._authentication.token_review import NODE_NAME, NODE_UID
from podproof.exchange.pairwise import PairwiseSubjects
from podproof.exchange.profile import POD_CLAIM
from podproof.identity import PodIdentity, ServiceAccount


class PodReference(NamedTuple):
    """The pod that a token was issued to, and its service account."""

    service_account: ServiceAccount
    name: str
    uid: str


def pod_claim(identity: PodIdentity) -> Mapping[str, Any]:
    """Return the claim in the form of Kubernetes' own (pkg/serviceaccount/claims.go)."""
    account, pod = identity.service_account, identity.pod
    claim: dict[str, Any] = {
        "namespace": account.namespace,
        "pod": {"name": pod.name, "uid": pod.uid},
        "serviceaccount": {"name": account.name, "uid": account.uid},
    }
    names, uids = identity.extra.get(NODE_NAME), identity.extra.get(NODE_UID)
    if names and uids:
        claim["node"] = {"name": names[0], "uid": uids[0]}
    return claim


def sealed_pod(identity: PodIdentity, pairwise: PairwiseSubjects) -> str:
    """Return a token's ID that shows the pod to those alone who have the secret of pairwise subjects."""
    account, pod = identity.service_account, identity.pod
    return pairwise.seal(json.dumps([account.namespace, account.name, account.uid, pod.name, pod.uid]).encode())


def read_pod(claims: Mapping[str, Any], pairwise: PairwiseSubjects) -> PodReference | None:
    """Return the pod of a token that we have issued, None if its secret is gone."""
    if POD_CLAIM in claims:
        claim = claims[POD_CLAIM]
        account, pod = claim["serviceaccount"], claim["pod"]
        parts = [claim["namespace"], account["name"], account["uid"], pod["name"], pod["uid"]]
    elif (sealed := pairwise.unseal(claims["jti"])) is not None:
        parts = json.loads(sealed)
    else:
        return None
    return PodReference(ServiceAccount(*parts[:3]), parts[3], parts[4])
