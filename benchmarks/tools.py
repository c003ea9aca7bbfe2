"""Server CPU per tool call of a cached caller, beside the same MCP server without authentication."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.clusters import emulated_cluster
from benchmarks.load import LoadRequest
from benchmarks.report import Amount, Measurement
from benchmarks.serving import H11, measure

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hello", "arguments": {}}}
BARE, OURS = "with_mcp:bare", "with_mcp:podproof"


def rows() -> Iterator[Measurement]:
    """Measure tool calls."""
    with emulated_cluster(1) as cluster:
        headers = {
            "Authorization": f"Bearer {cluster.tokens[0]}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        request = LoadRequest("POST", "/mcp", headers, json.dumps(CALL).encode())
        repeats = measure({BARE: 4, OURS: 4}, H11, {"KUBECONFIG": cluster.kubeconfig}, request)
    ratio = repeats.ratio(OURS, BARE)
    yield Measurement(
        "server CPU per tool call of a cached caller: MCP SDK, stateless, on uvicorn",
        Amount(repeats.median(OURS), "s"),
        "the same server without authentication",
        Amount(repeats.median(BARE), "s"),
        ratio,
        "≤ 1.10x",
        met=ratio <= 1.10,
    )
