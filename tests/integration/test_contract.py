"""The responses of a real API server and of an emulated one of its version must agree."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.contract import CASES, Access, Side, comparable, emulated, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED = Path(__file__).parents[1] / "unit" / "testing" / "recorded"
GROUP = "contract.podproof.example"
NUMBERS = itertools.count()


@pytest.fixture
def case_namespace(namespace: str) -> str:
    return f"{namespace}-{next(NUMBERS)}"


@pytest.fixture
def real_side(real: Access, case_namespace: str) -> Iterator[Side]:
    crd = f"{real.url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    plural = case_namespace.replace("-", "")

    def forgotten() -> str:
        # A new resource has no changes from before.
        real.admin.post(crd, json=new_resource(plural), timeout=10).raise_for_status()
        path = f"/apis/{GROUP}/v1/{plural}"
        deadline = time.monotonic() + 30
        while real.admin.get(real.url + path, timeout=10).status_code != 200:
            assert time.monotonic() < deadline, "the new resource is not served"
            time.sleep(0.1)
        return path

    yield Side(real, case_namespace, time.sleep, forgotten, patience=1)
    real.admin.delete(f"{crd}/{plural}.{GROUP}", timeout=10)
    real.admin.delete(f"{real.url}/api/v1/namespaces/{case_namespace}", timeout=10)


@pytest.fixture
def emulated_side(version: str, case_namespace: str) -> Iterator[Side]:
    with emulated(version, case_namespace) as side:
        yield side


def new_resource(plural: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{plural}.{GROUP}"},
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": "Probe"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }


@pytest.fixture(scope="session")
def recorded(request: pytest.FixtureRequest, version: str) -> Iterator[dict[str, Any]]:
    """Return a dict for the responses of the real API server; `--record` stores them for the unit tests."""
    outcomes: dict[str, Any] = {}
    yield outcomes
    if request.config.getoption("--record"):
        text = ",\n".join(f"{json.dumps(case)}: {json.dumps(outcome)}" for case, outcome in sorted(outcomes.items()))
        (RECORDED / f"{version}.json").write_text(f"{{\n{text}\n}}\n")


@pytest.mark.parametrize("case", CASES)
def test_the_emulated_api_server_agrees_with_the_real_one(
    case: str, real_side: Side, emulated_side: Side, recorded: dict[str, Any]
) -> None:
    real, emulated_outcome = (comparable(CASES[case](side), side.namespace) for side in (real_side, emulated_side))
    recorded[case] = real
    assert lines(emulated_outcome) == lines(real)
