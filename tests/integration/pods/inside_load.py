"""Runs inside a pod: sends requests to the URLs that standard input names, until a file exists.

Some threads open a connection for each request, others keep theirs. Prints for each URL how many requests had which
result: a status, or an error.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from requests import RequestException

from podproof import TokenClient

request = json.load(sys.stdin)
stop, end = Path(request["stop"]), time.monotonic() + request["seconds"]


def call(url: str, kind: str, connection: str) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    with TokenClient("bob").session() as http:
        http.headers["Connection"] = connection
        while not stop.exists() and time.monotonic() < end:
            try:
                outcomes[str(http.get(url, timeout=10).status_code)] += 1
            except RequestException as error:
                outcomes[f"{type(cause(error)).__name__} on a {kind} connection"] += 1
            time.sleep(request["pause"])
    return outcomes


def cause(error: BaseException) -> BaseException:
    return cause(error.__context__) if error.__context__ else error


callers = [("new", "close")] * 8 + [("kept", "keep-alive")] * 3
with ThreadPoolExecutor(len(callers) * len(request["urls"])) as threads:
    calls = {url: [threads.submit(call, url, *caller) for caller in callers] for url in request["urls"]}
print(json.dumps({url: sum((one.result() for one in calls[url]), Counter()) for url in calls}))
