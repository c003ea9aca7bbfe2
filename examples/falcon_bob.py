"""Bob in Falcon: `PODPROOF_AUDIENCE=bob gunicorn examples.falcon_bob:app`."""

import falcon

from podproof.falcon import CallerMiddleware
from podproof.wsgi import PodAuthMiddleware


class Whoami:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        caller = req.context.caller
        resp.media = {"service_account": str(caller.service_account), "pod": str(caller.pod)}


class Echo:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.data, resp.content_type = req.bounded_stream.read(), req.content_type


class Healthz:
    def on_get(self, _: falcon.Request, resp: falcon.Response) -> None:
        resp.text = "ok"


bob = falcon.App(middleware=[CallerMiddleware()])
bob.add_route("/whoami", Whoami())
bob.add_route("/echo", Echo())
bob.add_route("/healthz", Healthz())
app = PodAuthMiddleware(bob, exempt=["/healthz"])
