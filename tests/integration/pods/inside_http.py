"""Runs inside a pod: sends the one request that standard input describes, and prints the response."""

import json
import sys
from http.client import HTTPConnection

request = json.load(sys.stdin)
source = (request["source"], 0) if request["source"] else None
connection = HTTPConnection(request["host"], request["port"], timeout=20, source_address=source)
connection.request(request["method"], request["path"], request["body"], request["headers"])
response = connection.getresponse()
headers = {name.lower(): value for name, value in response.getheaders()}
print(json.dumps({"status": response.status, "headers": headers, "body": response.read().decode()}))
