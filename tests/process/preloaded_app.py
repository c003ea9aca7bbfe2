"""An app with open connections to the API server when a server that preloads it forks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from podproof._apiserver.client import APIServerClient
from podproof._request.setup import build_authenticator
from podproof.options import Options
from podproof.wsgi import IDENTITY, PodAuthMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

client = APIServerClient()
authenticator = build_authenticator(Options.read({}, os.environ), client)


def review_invalid_token(number: int) -> None:
    client.review_token(f"junk{number}", ["bob"], time.monotonic() + 60)


with ThreadPoolExecutor(8) as threads:
    list(threads.map(review_invalid_token, range(32)))


def report_caller(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ[IDENTITY].pod} in {os.getpid()}".encode()]


app = PodAuthMiddleware(report_caller, authenticator=authenticator)
