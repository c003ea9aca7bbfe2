"""The one Django project of a test process: its settings can be made once only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import django
from django.conf import settings
from django.db import connections


def configure(folder: Path) -> None:
    """Make the project's settings, the first time."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["*"],
        AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        MIDDLEWARE=["podproof.django.CallerMiddleware"],
        SECRET_KEY="signs the sessions of these tests only",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        LOGGING_CONFIG=None,
    )
    # What was cached under the settings of another test's project, which has no database.
    with suppress(AttributeError):
        del connections["default"]
    vars(connections).pop("settings", None)
    connections._settings = None
    django.setup()
