from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.exchange_client import SECRET, ExchangeClient, write_keys
from tests.support.fake_api import AuthenticatorFactory, Clock

MakeExchange = Callable[..., ExchangeClient]


@pytest.fixture
def make_exchange(make_authenticator: AuthenticatorFactory, tmp_path: Path, time: Clock) -> MakeExchange:
    """Return what makes an exchange: with these options of a middleware, and arguments of its own."""

    def make(options: dict[str, object] | None = None, **given: Any) -> ExchangeClient:
        keys = given.pop("keys", None) or write_keys(tmp_path / "keys", secrets={"1.pairwise": SECRET})
        return ExchangeClient(make_authenticator(**options or {}), keys, time, **given)

    return make


@pytest.fixture
def exchange(make_exchange: MakeExchange) -> ExchangeClient:
    return make_exchange()
