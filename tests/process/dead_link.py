"""Two streams of an API server in another network namespace, over a link that goes down. To be run in a new namespace.

It prints how each of two streams has noticed, and after how many seconds, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO, cast

from kubernetes.client import Configuration

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.permissions import Permission
from podproof._apiserver.response import ConnectionFailed
from podproof._apiserver.stream import APIStream, Keepalive
from tests.process.linked_server import OTHER_END, PORT, THEIRS, WAIT, ip

OURS, LINK = "10.231.7.1", "podproof0"
QUICK = Keepalive(idle=1, interval=1, probes=2, timeout=1.5)
PODS = Permission("list and watch", "", "pods")


def follow(stream: APIStream, path: str, begun: threading.Event) -> tuple[str, float]:
    """Read a response until it fails. Return the error, and the moment."""
    try:
        with stream.get(path, PODS) as lines:
            for _ in lines:
                begun.set()
    except ConnectionFailed as failure:
        return str(failure), time.monotonic()
    raise AssertionError("the response has come to its end")


def main() -> None:
    """Make the link, have a stream wait for an event and another one idle, and break it."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.process.linked_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        output, commands = cast("TextIO", server.stdout), cast("TextIO", server.stdin)

        def wait_for(word: str) -> None:
            if output.readline() != f"{word}\n":
                raise RuntimeError(f"the API server is not {word}")

        def go_on() -> None:
            commands.write("\n")
            commands.flush()

        wait_for("ready")
        ip("link", "add", LINK, "type", "veth", "peer", "name", OTHER_END, "netns", str(server.pid))
        ip("address", "add", f"{OURS}/24", "dev", LINK)
        ip("link", "set", LINK, "up")
        go_on()
        wait_for("serving")
        client = APIServerClient(load=configure)
        watch, idle = (client.stream(read_timeout=WAIT, keepalive=QUICK) for _ in range(2))
        with idle.get("/version", PODS) as lines:
            list(lines)
        begun = threading.Event()
        with ThreadPoolExecutor(2) as threads:
            watching = threads.submit(follow, watch, "/watch", begun)
            begun.wait(WAIT)
            go_on()
            wait_for("down")
            down = time.monotonic()
            asking = threads.submit(follow, idle, "/version", threading.Event())
            errors = {"watch": watching.result(), "request": asking.result()}
        print(json.dumps({name: (error, at - down) for name, (error, at) in errors.items()}))
        server.kill()


def configure(configuration: Configuration) -> None:
    configuration.host = f"http://{THEIRS}:{PORT}"


if __name__ == "__main__":
    main()
