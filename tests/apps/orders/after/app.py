"""Orders: a FastAPI app for people, who sign in with OpenID Connect."""

from __future__ import annotations

from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OpenIdConnect
from pydantic import BaseModel

import podproof.fastapi

ISSUER = "https://accounts.example.com"

app = FastAPI()
app.add_middleware(podproof.fastapi.PodAuthMiddleware, audience="orders", other_credentials="pass")
keys = jwt.PyJWKClient(f"{ISSUER}/jwks")
oidc = OpenIdConnect(openIdConnectUrl=f"{ISSUER}/.well-known/openid-configuration", auto_error=False)


class Order(BaseModel):
    item: str
    placed_by: str = ""


orders: list[Order] = []


def signed_in(authorization: Annotated[str | None, Depends(oidc)]) -> str:
    if pod := podproof.current_caller():
        return pod.identity
    token = (authorization or "").removeprefix("Bearer ")
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, ["RS256"], audience="orders", issuer=ISSUER)
    except jwt.PyJWTError:
        raise HTTPException(401) from None
    return str(claims["sub"])


User = Annotated[str, Depends(signed_in)]


@app.get("/orders")
def list_orders(user: User) -> list[Order]:
    return [order for order in orders if order.placed_by == user]


@app.post("/orders", status_code=201)
def place_order(order: Order, user: User) -> Order:
    orders.append(Order(item=order.item, placed_by=user))
    return orders[-1]


@app.get("/healthz")
def healthz() -> str:
    return "ok"
