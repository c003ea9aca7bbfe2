"""People as their OpenID Connect provider knows them: its key, and their tokens."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import ModuleType
from unittest import mock

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

KEY = rsa.generate_private_key(65537, 2048)
FOREIGN_KEY = rsa.generate_private_key(65537, 2048)


def provider_of(app: ModuleType) -> AbstractContextManager[object]:
    """Return what lets an app find the provider's key without asking the provider."""
    public = jwt.PyJWK.from_dict(RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "RS256")
    return mock.patch.object(app.keys, "get_signing_key", return_value=public)


def token_of(subject: str, key: rsa.RSAPrivateKey = KEY, **claims: object) -> str:
    """Return a person's token."""
    usual = {"iss": "https://accounts.example.com", "aud": "orders", "sub": subject, "exp": time.time() + 600}
    return jwt.encode(usual | claims, key, "RS256", {"kid": "1"})


def signed_in(subject: str) -> dict[str, str]:
    """Return the headers of a person's requests."""
    return {"Authorization": f"Bearer {token_of(subject)}"}
