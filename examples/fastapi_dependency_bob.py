"""Bob in FastAPI, with a dependency in the place of the middleware: routes that do not have it are open.

`PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.fastapi_dependency_bob:app`
"""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket

from podproof import PodIdentity
from podproof.fastapi import PodAuth

auth = PodAuth()
Caller = Annotated[PodIdentity, Depends(auth)]
pods = APIRouter(dependencies=[Depends(auth)])


@pods.get("/whoami")
async def whoami(caller: Caller) -> dict[str, str]:
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@pods.post("/echo")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@pods.websocket("/ws")
async def ws(websocket: WebSocket, caller: Caller) -> None:
    await websocket.accept()
    await websocket.send_json({"service_account": str(caller.service_account), "pod": str(caller.pod)})
    await websocket.close()


app = FastAPI()
app.add_api_route("/healthz", lambda: "ok")
app.include_router(pods)
