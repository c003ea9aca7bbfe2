"""Runs inside a pod: asks the URLs that standard input names again and again, until a file is there.

Each URL has callers that open a connection for each request, and callers that keep theirs. Prints for each URL how many
requests came to what: a status, or an error.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from requests import RequestException

from podproof import TokenClient

asked = json.load(sys.stdin)
stop, end = Path(asked["stop"]), time.monotonic() + asked["seconds"]


def call(url: str, kind: str, connection: str) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    with TokenClient("bob").session() as http:
        http.headers["Connection"] = connection
        while not stop.exists() and time.monotonic() < end:
            try:
                outcomes[str(http.get(url, timeout=10).status_code)] += 1
            except RequestException as error:
                outcomes[f"{type(cause(error)).__name__} on a {kind} connection"] += 1
            time.sleep(asked["pause"])
    return outcomes


def cause(error: BaseException) -> BaseException:
    return cause(error.__context__) if error.__context__ else error


callers = [("new", "close")] * 8 + [("kept", "keep-alive")] * 3
with ThreadPoolExecutor(len(callers) * len(asked["urls"])) as threads:
    calls = {url: [threads.submit(call, url, *caller) for caller in callers] for url in asked["urls"]}
print(json.dumps({url: sum((one.result() for one in calls[url]), Counter()) for url in calls}))
