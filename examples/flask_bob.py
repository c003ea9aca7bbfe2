"""Bob in Flask: `PODPROOF_AUDIENCE=bob gunicorn -c python:podproof.drain.gunicorn examples.flask_bob:app`."""

from flask import Flask, Response, request

from podproof.drain import is_draining
from podproof.flask import PodAuthMiddleware, caller

app = Flask(__name__)
app.wsgi_app = PodAuthMiddleware(app.wsgi_app, exempt=["/healthz", "/readyz"])  # type: ignore[method-assign]


@app.get("/whoami")
def whoami() -> dict[str, str]:
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@app.post("/echo")
def echo() -> Response:
    return Response(request.get_data(), mimetype=request.mimetype)


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/readyz")
def readyz() -> Response:
    return Response(status=503 if is_draining() else 200)
