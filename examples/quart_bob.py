"""Bob in Quart: `PODPROOF_AUDIENCE=bob hypercorn examples.quart_bob:app`."""

from quart import Quart, Response, request, websocket

from podproof.quart import PodAuthMiddleware, caller

app = Quart(__name__)
app.asgi_app = PodAuthMiddleware(app.asgi_app, exempt=["/healthz"])  # type: ignore[method-assign, assignment]


@app.get("/whoami")
async def whoami() -> dict[str, str]:
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@app.post("/echo")
async def echo() -> Response:
    return Response(await request.get_data(), mimetype=request.mimetype)


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.websocket("/ws")
async def ws() -> None:
    await websocket.send_json({"service_account": str(caller.service_account), "pod": str(caller.pod)})
    await websocket.close(1000)
