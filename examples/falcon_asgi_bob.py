"""Bob in Falcon's ASGI: `PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.falcon_asgi_bob:app`."""

from falcon.asgi import App, Request, Response, WebSocket

from podproof.asgi import PodAuthMiddleware
from podproof.falcon import CallerMiddleware


class Whoami:
    async def on_get(self, req: Request, resp: Response) -> None:
        caller = req.context.caller
        resp.media = {"service_account": str(caller.service_account), "pod": str(caller.pod)}

    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        caller = req.context.caller
        await ws.accept()
        await ws.send_media({"service_account": str(caller.service_account), "pod": str(caller.pod)})
        await ws.close()


class Echo:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.data, resp.content_type = await req.stream.read(), req.content_type


class Healthz:
    async def on_get(self, _: Request, resp: Response) -> None:
        resp.text = "ok"


bob = App(middleware=[CallerMiddleware()])
bob.add_route("/whoami", Whoami())
bob.add_route("/ws", Whoami())
bob.add_route("/echo", Echo())
bob.add_route("/healthz", Healthz())
app = PodAuthMiddleware(bob, exempt=["/healthz"])
