"""Billing: a Flask app whose callers, jobs in the cluster, share a secret."""

from __future__ import annotations

import hmac
import os

from flask import Flask, Response, abort, jsonify, request, stream_with_context

from podproof.flask import PodAuth

app = Flask(__name__)
PodAuth(app, audience="billing", enforce=False)
app.config["SECRET"] = os.environ.get("BILLING_SECRET", "")
invoices: dict[str, int] = {}


@app.before_request
def check_secret() -> None:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if request.endpoint != "healthz" and not hmac.compare_digest(given.encode(), app.config["SECRET"].encode()):
        abort(401)


@app.put("/invoices/<number>")
def put_invoice(number: str) -> tuple[Response, int]:
    invoices[number] = int(request.get_json()["cents"])
    return jsonify(number=number, cents=invoices[number]), 201


@app.get("/invoices")
def export_invoices() -> Response:
    lines = (f"{number};{cents}\n" for number, cents in sorted(invoices.items()))
    return Response(stream_with_context(lines), mimetype="text/csv")


@app.get("/healthz")
def healthz() -> str:
    return "ok"
