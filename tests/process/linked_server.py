"""An API server at the other end of a link: it says when it is ready, and takes a step for each line that it reads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

THEIRS, PORT, OTHER_END = "10.231.7.2", 8080, "podproof1"
WAIT = 30.0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Handler(BaseHTTPRequestHandler):
    """Responds to /version at once, and holds every other response after its first line."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"{}\n"
        watch = self.path != "/version"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + watch))
        self.end_headers()
        self.wfile.write(body)
        if watch:
            time.sleep(WAIT)

    def log_message(self, *_: object) -> None:
        pass


def serve() -> None:
    """Be the API server at the other end of the link, once it is there, and take it down."""
    print("ready", flush=True)
    sys.stdin.readline()
    ip("address", "add", f"{THEIRS}/24", "dev", OTHER_END)
    ip("link", "set", OTHER_END, "up")
    server = ThreadingHTTPServer((THEIRS, PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("serving", flush=True)
    sys.stdin.readline()
    ip("link", "set", OTHER_END, "down")
    print("down", flush=True)
    sys.stdin.readline()  # until it is ended


if __name__ == "__main__":
    serve()
