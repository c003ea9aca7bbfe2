"""What the ticker's tests have to have besides, since a pod may call it and nobody else: a channel of a pod."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from podproof.testing import as_pod


@pytest.fixture
def channel(version: str, target: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target) as channel:
        yield as_pod(channel, "default/reporter", audience="ticker") if version == "after" else channel
