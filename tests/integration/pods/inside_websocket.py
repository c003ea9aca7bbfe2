"""Runs inside a pod: opens the WebSocket that standard input describes, and prints its first message or the denial."""

import json
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

request = json.load(sys.stdin)
try:
    with connect(
        f"ws://{request['host']}:{request['port']}{request['path']}", additional_headers=request["headers"]
    ) as socket:
        assert socket.response is not None
        response, body = socket.response, str(socket.recv())
except InvalidStatus as denial:
    response, body = denial.response, denial.response.body.decode()
headers = {name.lower(): value for name, value in response.headers.raw_items()}
print(json.dumps({"status": response.status_code, "headers": headers, "body": body}))
