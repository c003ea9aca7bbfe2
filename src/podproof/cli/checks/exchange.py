"""A token exchange's keys and grants, where it is configured by the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from podproof.cli.finding import Finding, fail, ok
from podproof.errors import ConfigurationError

KEYS, GRANTS_FILE = "PODPROOF_EXCHANGE_KEYS", "PODPROOF_EXCHANGE_GRANTS_FILE"


def check_exchange(variables: Mapping[str, str], root: Path) -> Iterator[Finding]:
    """Read the keys and the grants that variables name, below `root`."""
    if KEYS in variables:
        from podproof.exchange.key_directory import read_keys  # noqa: PLC0415  needs cryptography

        secret = variables.get("PODPROOF_EXCHANGE_PAIRWISE_SECRET")
        yield from _check(lambda path: read_keys(path, secret), variables[KEYS], root, "the keys in", "edit secret")
    if GRANTS_FILE in variables:
        from podproof.exchange.grants_file import read_grants  # noqa: PLC0415  needs YAML

        yield from _check(read_grants, variables[GRANTS_FILE], root, "the grants in", "edit configmap")


def _check(read: Callable[[Path], object], path: str, root: Path, what: str, fix: str) -> Iterator[Finding]:
    where = root / path.lstrip("/")
    try:
        read(where)
    except ConfigurationError as error:
        yield fail("exchange", str(error), f"kubectl {fix} NAME   (the one that is mounted there)")
    else:
        yield ok("exchange", f"{what} {where} are valid")
