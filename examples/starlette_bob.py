"""Bob in Starlette: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.starlette_bob:app`."""

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from podproof.asgi import PodAuthMiddleware


def caller(connection: HTTPConnection) -> dict[str, str]:
    return {"service_account": str(connection.user.service_account), "pod": str(connection.user.pod)}


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(caller(websocket))
    await websocket.close()


whoami = Route("/whoami", lambda request: JSONResponse(caller(request)))
healthz = Route("/healthz", lambda _: PlainTextResponse("ok"))
app = Starlette(routes=[whoami, healthz, Route("/echo", echo, methods=["POST"]), WebSocketRoute("/ws", ws)])
app.add_middleware(PodAuthMiddleware, exempt=["/healthz"])
