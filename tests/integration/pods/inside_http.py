"""Runs inside a pod: sends the one request that standard input describes, and prints the answer."""

import json
import sys
from http.client import HTTPConnection

asked = json.load(sys.stdin)
source = (asked["source"], 0) if asked["source"] else None
connection = HTTPConnection(asked["host"], asked["port"], timeout=20, source_address=source)
connection.request(asked["method"], asked["path"], asked["body"], asked["headers"])
answer = connection.getresponse()
headers = {name.lower(): value for name, value in answer.getheaders()}
print(json.dumps({"status": answer.status, "headers": headers, "body": answer.read().decode()}))
