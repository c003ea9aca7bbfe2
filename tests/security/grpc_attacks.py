"""Metadata of gRPC that no server must accept."""

from __future__ import annotations

from collections.abc import Mapping

from podproof.testing import Cluster, EmulatedPod
from podproof.testing._emulator.tokens import parse
from tests.support.grpc_servers import Metadata, bearer

LOCAL, ELSEWHERE = "127.0.0.1", "127.0.0.9"


def bad_credentials(cluster: Cluster, alice: EmulatedPod, audience: str) -> Mapping[str, Metadata]:
    """Return metadata that must not be accepted from a pod at 127.0.0.1, by what is wrong with it."""
    good = alice.token(audience)
    elsewhere = cluster.pod("default/elsewhere", service_account="elsewhere", addresses=[ELSEWHERE])
    gone = cluster.pod("default/gone", service_account="gone", addresses=[LOCAL])
    of_the_gone = gone.token(audience)
    gone.remove()
    finished = cluster.pod("default/finished", service_account="finished", addresses=[LOCAL])
    of_the_finished = finished.token(audience)
    finished.update(phase="Failed")
    forwarded = [("x-forwarded-for", ELSEWHERE), ("forwarded", f"for={ELSEWHERE}"), ("x-real-ip", ELSEWHERE)]
    return {
        "none": [],
        "empty": [("authorization", "")],
        "no token": [("authorization", "Bearer ")],
        "another scheme": [("authorization", f"Basic {good}")],
        "no scheme": [("authorization", good)],
        "two blanks": [("authorization", f"Bearer  {good}")],
        "junk behind it": bearer(f"{good} junk"),
        "a list": [("authorization", f"Bearer {good}, Bearer {good}")],
        "twice": [*bearer(good), *bearer(good)],
        "a bad one and a good one": [*bearer("x.y.z"), *bearer(good)],
        "a good one and a bad one": [*bearer(good), *bearer("x.y.z")],
        "binary": [("authorization-bin", f"Bearer {good}".encode())],
        "another name": [("x-authorization", f"Bearer {good}"), ("proxy-authorization", f"Bearer {good}")],
        "not a JWT": bearer("x.y.z"),
        "padded": bearer(f"{good}="),
        "forged": bearer(cluster.forge(good)),
        "of another audience": bearer(alice.token("carol")),
        "expired": bearer(alice.token(audience, lifetime=-3600)),
        "not of a pod": bearer(cluster.service_account("default/alice").token(audience)),
        "of another issuer": bearer(cluster.sign({**parse(good).claims, "iss": "https://elsewhere.example"})),
        "of a pod that is gone": bearer(of_the_gone),
        "of a pod that has finished": bearer(of_the_finished),
        "stolen": bearer(elsewhere.token(audience)),
        "stolen, and said to be from there": [*bearer(elsewhere.token(audience)), *forwarded],
        "long": bearer("a" * 9000),
        "longer than gRPC takes": bearer("a" * 40_000),
        "among many": [*[("x-other", str(number)) for number in range(100)], *bearer("x.y.z")],
    }


DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
