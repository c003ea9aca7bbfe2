"""Bob in Flask, with an extension for a blueprint in the place of the middleware: other views of the app are open.

`PODPROOF_AUDIENCE=bob gunicorn examples.flask_blueprint_bob:app`
"""

from flask import Blueprint, Flask, Response, request

from podproof.flask import PodAuth, caller

pods = Blueprint("pods", __name__)
PodAuth(pods)


@pods.get("/whoami")
def whoami() -> dict[str, str]:
    return {"service_account": str(caller.service_account), "pod": str(caller.pod)}


@pods.post("/echo")
def echo() -> Response:
    return Response(request.get_data(), mimetype=request.mimetype)


app = Flask(__name__)
app.add_url_rule("/healthz", view_func=lambda: "ok")
app.register_blueprint(pods)
