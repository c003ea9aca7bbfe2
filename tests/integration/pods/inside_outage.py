"""A pod's script: sends tokens at the times that a plan has for them, and prints which responses each one got.

The plan is a file that this waits for, and reads again while it calls, since no command reaches a pod while the API
server is away. It has `urls`; `tokens` by name, each from a time to another in Unix seconds; and the `end`.
"""

import http.client
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PLAN = Path("/dev/shm/plan.json")


def plan() -> dict[str, Any]:
    while not PLAN.exists():
        time.sleep(0.1)
    found: dict[str, Any] = json.loads(PLAN.read_text())
    return found


def send(url: str, token: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {token}", "Connection": "close"})
        response = connection.getresponse()
        response.read()
        return str(response.status)
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def call(url: str, kind: str) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    while (now := time.time()) < (current := plan())["end"]:
        for name, (begin, end, token) in current["tokens"].items():
            if name.startswith(kind) and begin <= now < end:
                outcomes[f"{name} {send(url, token)}"] += 1
        time.sleep(0.1)
    return outcomes


urls, kinds = plan()["urls"], ["known"] * 4 + ["unknown", "forged"]
with ThreadPoolExecutor(len(urls) * len(kinds)) as threads:
    calls = {url: [threads.submit(call, url, kind) for kind in kinds] for url in urls}
print(json.dumps({url: sum((one.result() for one in calls[url]), Counter()) for url in calls}))
