"""Bob in Starlette: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.starlette_bob:app`."""

from starlette import applications, requests, responses, routing, websockets

from podproof.drain import is_draining, uvicorn
from podproof.starlette import PodAuthMiddleware, caller


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
readyz = routing.Route("/readyz", lambda _: responses.Response(status_code=503 if is_draining() else 200))
others = [routing.Route("/echo", echo, methods=["POST"]), routing.WebSocketRoute("/ws", ws)]
app = applications.Starlette(routes=[whoami, healthz, readyz, *others])
app.add_middleware(PodAuthMiddleware, exempt=["/healthz", "/readyz"])
app.add_middleware(uvicorn.DrainMiddleware)  # the last one added is the outermost
