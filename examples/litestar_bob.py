"""Bob in Litestar: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.litestar_bob:app`."""

from typing import Any

from litestar import Litestar, Request, Response, WebSocket, get, post, websocket

from podproof.litestar import Caller, CallerPlugin, PodAuthMiddleware


@get("/whoami")
async def whoami(caller: Caller) -> dict[str, str]:
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@post("/echo", status_code=200)
async def echo(request: Request[Any, Any, Any]) -> Response[bytes]:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@get("/healthz")
async def healthz() -> str:
    return "ok"


@websocket("/ws")
async def ws(socket: WebSocket[Any, Any, Any], caller: Caller) -> None:
    await socket.accept()
    await socket.send_json({"service_account": str(caller.service_account), "pod": str(caller.pod)})
    await socket.close()


litestar = Litestar([whoami, echo, healthz, ws], plugins=[CallerPlugin()])
app = PodAuthMiddleware(litestar, exempt=["/healthz"])
