"""Runs inside a pod: a service that takes issued tokens alone, and asks the exchange about them for /transfers."""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from podproof.exchange.asgi import IssuedTokenMiddleware


async def whoami(request: Request) -> Response:
    user = request.user
    found = {"pod": str(user.pod), "uid": user.pod.uid, "account": str(user.service_account), "sub": user.extra["sub"]}
    return JSONResponse(found)


app = IssuedTokenMiddleware(
    Starlette(routes=[Route("/whoami", whoami), Route("/transfers", whoami)]),
    issuer="https://bridge",
    audience=os.environ["AUDIENCE"],
    ca_file="/etc/bridge/ca.crt",
    introspect=["/transfers"],
)
uvicorn.run(app, host="0.0.0.0", port=8080, proxy_headers=False)
