"""Alice calls Bob, who responds with her identity: `BOB_URL=http://bob python examples/alice.py`."""

import os
import time

from requests import RequestException

from podproof import TokenClient

url = os.environ.get("BOB_URL") or "http://{BOB_SERVICE_HOST}:{BOB_SERVICE_PORT}".format_map(os.environ)
pause = float(os.environ.get("ALICE_PAUSE", "0"))  # seconds between calls; 0: call once

with TokenClient(audience="bob").session() as http:
    while True:
        try:
            response = http.get(f"{url}/whoami", timeout=10)
            print(response.status_code, response.text.strip(), flush=True)
            if not pause:
                response.raise_for_status()
                break
        except RequestException as error:
            if not pause:
                raise
            print(error, flush=True)
        time.sleep(pause)
