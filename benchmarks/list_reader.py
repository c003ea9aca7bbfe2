"""Reads the lists of the pod server in a process of its own and discards them: what they cost beside the app's part."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from benchmarks.helper_process import commands, respond
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._apiserver.permissions import Permission
from podproof._authentication.pod_watch import MAX_PAGE, PAGE_SIZE, READ_TIMEOUT

STREAMED = "/api/v1/pods?watch=1&sendInitialEvents=true"
PERMISSION = Permission("list", "", "pods")


def main(kubeconfig: str, pods: str) -> None:
    """Read a list for each command: streamed if it is true, else in pages."""
    respond()
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": kubeconfig}))
    for streamed in commands():
        with closing(client.stream(read_timeout=READ_TIMEOUT)) as stream:
            if streamed:
                with stream.get(STREAMED, PERMISSION) as lines:
                    next(line for line in lines if b"initial-events-end" in line[-200:])
            else:
                for start in range(0, int(pods), PAGE_SIZE):
                    path = f"/api/v1/pods?limit={PAGE_SIZE}&continue={start}"
                    with stream.get(path, PERMISSION, max_line=MAX_PAGE) as lines:
                        list(lines)
        respond()
