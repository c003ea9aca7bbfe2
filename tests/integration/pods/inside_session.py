"""Runs inside a pod: opens a session of an MCP server, or sends a request in one, and prints the response.

Arguments: the URL, and the session or nothing.
"""

import json
import sys

from podproof import TokenClient

url, session = sys.argv[1:]
about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list" if session else "initialize", "params": about}
headers = {"Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-11-25"}
with TokenClient("bob").session() as http:
    response = http.post(
        url, json=body, headers=headers | ({"Mcp-Session-Id": session} if session else {}), timeout=20, stream=True
    )
print(json.dumps({"status": response.status_code, "session": response.headers.get("Mcp-Session-Id")}))
