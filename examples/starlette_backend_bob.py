"""Bob in Starlette, with a backend for its own AuthenticationMiddleware.

`PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.starlette_backend_bob:app`
"""

from starlette import applications, requests, responses, routing, websockets
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware

from podproof.starlette import PodAuthBackend, caller, on_error


def describe(connection: requests.HTTPConnection) -> dict[str, str]:
    return {"service_account": str(caller(connection).service_account), "pod": str(caller(connection).pod)}


async def echo(request: requests.Request) -> responses.Response:
    return responses.Response(await request.body(), media_type=request.headers.get("content-type"))


async def ws(websocket: websockets.WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(describe(websocket))
    await websocket.close()


whoami = routing.Route("/whoami", lambda request: responses.JSONResponse(describe(request)))
healthz = routing.Route("/healthz", lambda _: responses.PlainTextResponse("ok"))
others = [routing.Route("/echo", echo, methods=["POST"]), routing.WebSocketRoute("/ws", ws)]
auth = Middleware(AuthenticationMiddleware, backend=PodAuthBackend(exempt=["/healthz"]), on_error=on_error)
app = applications.Starlette(routes=[whoami, healthz, *others], middleware=[auth])
