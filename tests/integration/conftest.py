"""The real cluster that `KUBECONFIG` names."""

from __future__ import annotations

import os
import re
import secrets
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.integration.contract import Access, access

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDS_CLUSTER = (
    "The integration tests need a Kubernetes cluster and the right to make namespaces in it: set KUBECONFIG."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record", action="store_true", help="keep what the real API server answers to the contract suite"
    )


@pytest.fixture(scope="session")
def real() -> Iterator[Access]:
    """Return access to the real API server."""
    if not os.environ.get("KUBECONFIG"):
        pytest.fail(NEEDS_CLUSTER)
    with access() as found:
        try:
            found.admin.get(f"{found.url}/readyz", timeout=10).raise_for_status()
        except requests.RequestException as error:
            pytest.fail(f"{NEEDS_CLUSTER} {found.url} does not answer: {error}")
        yield found


@pytest.fixture(scope="session")
def version(real: Access) -> str:
    """Return the real API server's version as `major.minor`."""
    git_version = real.admin.get(f"{real.url}/version", timeout=10).json()["gitVersion"]
    found = re.match(r"v([1-9]\d*\.\d+)", git_version)
    # Debian's package is v1.20.2, built without a version: it reports v0.0.0-master.
    return found[1] if found else os.environ.get("CLUSTER_VERSION", "1.20")


@pytest.fixture(scope="session")
def namespace(real: Access) -> Iterator[str]:
    """Return a namespace made for this session, with its default service account."""
    name = f"podproof-{secrets.token_hex(3)}"
    made = real.admin.post(f"{real.url}/api/v1/namespaces", json={"metadata": {"name": name}}, timeout=10)
    assert made.status_code == 201, f"{NEEDS_CLUSTER} {made.text}"
    deadline = time.monotonic() + 30
    account = f"{real.url}/api/v1/namespaces/{name}/serviceaccounts/default"
    while real.admin.get(account, timeout=10).status_code != 200:
        assert time.monotonic() < deadline, "the cluster's controller created no default service account"
        time.sleep(0.1)
    yield name
    real.admin.delete(f"{real.url}/api/v1/namespaces/{name}", timeout=10)
