"""Bob in Bottle: `PODPROOF_AUDIENCE=bob gunicorn examples.bottle_bob:app`."""

from bottle import Bottle, request, response

from podproof.wsgi import IDENTITY, PodAuthMiddleware

bottle = Bottle()


@bottle.get("/whoami")
def whoami() -> dict[str, str]:
    caller = request.environ[IDENTITY]
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@bottle.post("/echo")
def echo() -> bytes:
    response.content_type = request.content_type
    body: bytes = request.body.read()
    return body


@bottle.get("/healthz")
def healthz() -> str:
    return "ok"


app = PodAuthMiddleware(bottle, exempt=["/healthz"])
