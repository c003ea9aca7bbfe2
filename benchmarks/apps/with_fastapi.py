"""A FastAPI app with a TokenReview written by hand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import PlainTextResponse
from kubernetes.client import AuthenticationV1Api, V1TokenReview, V1TokenReviewSpec
from kubernetes.config import load_kube_config

from benchmarks import AUDIENCE


def token_review() -> FastAPI:
    """Return the app, with a dependency that creates a TokenReview for each request, in a thread."""
    load_kube_config()  # type: ignore[no-untyped-call]
    api: Any = AuthenticationV1Api()

    def user(authorization: Annotated[str, Header()]) -> str:
        spec = V1TokenReviewSpec(token=authorization.removeprefix("Bearer "), audiences=[AUDIENCE])
        status = api.create_token_review(V1TokenReview(spec=spec)).status
        if not status.authenticated or AUDIENCE not in status.audiences:
            raise HTTPException(401)
        return str(status.user.username)

    app = FastAPI()

    @app.get("/", dependencies=[Depends(user)])
    async def hello() -> PlainTextResponse:
        return PlainTextResponse("hello")

    return app
