"""The apps of docs/people-and-pods.md, with an OpenID Connect provider whose keys are here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import override_settings
from django.urls import clear_url_caches
from jwt.algorithms import RSAAlgorithm

from tests.process.frameworks import django_project
from tests.support.markdown import find_blocks, read_page

PAGE = "docs/people-and-pods.md"
OIDC_ISSUER = "https://accounts.example.com"
OIDC_KEY = rsa.generate_private_key(65537, 2048)
SUPERUSER = {"username": "ann", "password": "of ann"}


def block_with(text: str) -> str:
    """Return the code block of the page that holds a text."""
    [block] = [block.text for block in find_blocks(PAGE, read_page(PAGE)) if text in block.text]
    return block


def oidc_token(subject: str, **claims: object) -> str:
    """Return a person's token."""
    usual = {"iss": OIDC_ISSUER, "aud": "bob", "sub": subject, "exp": time.time() + 3600}
    return jwt.encode(usual | claims, OIDC_KEY, "RS256", {"kid": "1"})


def make_fastapi_app(options: str) -> Any:
    """Return the page's FastAPI app with other options of podproof, as text."""
    text = block_with("FastAPI(")
    assert 'other_credentials="pass"' in text
    names = {"__name__": "documented", "SECRET_KEY": "signs the sessions of these tests only"}
    exec(text.replace('other_credentials="pass"', options), names)
    _know_the_provider(names["keys"])
    return names["app"]


@contextmanager
def running_django_project(folder: Path, options: Mapping[str, object] | None = None) -> Iterator[None]:
    """Run the page's Django project, with its superuser; with other options of podproof, if they are given."""
    django_project.configure(folder)
    settings: dict[str, Any] = {}
    exec(block_with("INSTALLED_APPS"), settings)
    others = {
        "PODPROOF": settings["PODPROOF"] if options is None else options,
        "ROOT_URLCONF": "shop.urls",
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],  # the others are slow
        "AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend"],
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
    }
    package, urls = ModuleType("shop"), ModuleType("shop.urls")
    package.urls = urls  # type: ignore[attr-defined]
    own = {name: value for name, value in settings.items() if name.isupper()}
    with override_settings(**own | others), mock.patch.dict(sys.modules, {"shop": package, "shop.urls": urls}):
        exec(block_with("urlpatterns"), vars(urls))
        _know_the_provider(vars(urls)["keys"])
        clear_url_caches()
        call_command("migrate", verbosity=0)
        get_user_model().objects.create_superuser(**SUPERUSER)
        try:
            yield
        finally:
            get_user_model().objects.all().delete()
            clear_url_caches()


def _know_the_provider(keys: Any) -> None:
    """Let an app find the provider's key without asking the provider."""
    public = jwt.PyJWK.from_dict(RSAAlgorithm.to_jwk(OIDC_KEY.public_key(), as_dict=True), "RS256")
    keys.get_signing_key = lambda _: public
