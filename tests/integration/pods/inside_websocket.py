"""Runs inside a pod: opens the WebSocket that standard input describes, and prints its first message or the refusal."""

import json
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

asked = json.load(sys.stdin)
try:
    with connect(f"ws://{asked['host']}:{asked['port']}{asked['path']}", additional_headers=asked["headers"]) as socket:
        assert socket.response is not None
        answer, body = socket.response, str(socket.recv())
except InvalidStatus as refusal:
    answer, body = refusal.response, refusal.response.body.decode()
headers = {name.lower(): value for name, value in answer.headers.raw_items()}
print(json.dumps({"status": answer.status_code, "headers": headers, "body": body}))
