"""Alice asks Bob who she is: `BOB_URL=http://bob python examples/alice.py`."""

import os
import time

from requests import RequestException

from podproof import TokenClient

url = os.environ.get("BOB_URL") or "http://{BOB_SERVICE_HOST}:{BOB_SERVICE_PORT}".format_map(os.environ)
pause = float(os.environ.get("ALICE_PAUSE", "0"))  # seconds between two calls; none means one call

with TokenClient(audience="bob").session() as http:
    while True:
        try:
            answer = http.get(f"{url}/whoami", timeout=10)
            print(answer.status_code, answer.text.strip(), flush=True)
            if not pause:
                answer.raise_for_status()
                break
        except RequestException as error:
            if not pause:
                raise
            print(error, flush=True)
        time.sleep(pause)
