"""Bob in FastAPI: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.fastapi_bob:app`."""

from fastapi import FastAPI, Request, Response, WebSocket

from podproof.fastapi import Caller, PodAuthMiddleware

app = FastAPI()
app.add_middleware(PodAuthMiddleware, exempt=["/healthz"])


@app.get("/whoami")
async def whoami(caller: Caller) -> dict[str, str]:
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@app.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.websocket("/ws")
async def ws(websocket: WebSocket, caller: Caller) -> None:
    await websocket.accept()
    await websocket.send_json({"service_account": str(caller.service_account), "pod": str(caller.pod)})
    await websocket.close()
