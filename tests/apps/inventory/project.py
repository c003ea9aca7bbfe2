"""The inventory's project, with its settings in the place of those of the tests' one project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management import call_command
from django.test import override_settings

from tests.apps.versions import load
from tests.process.frameworks import django_project


@contextmanager
def running(version: str, folder: Path, **others: object) -> Iterator[None]:
    """Run a version of the project with a database of its own."""
    django_project.configure(folder)
    settings = {name: value for name, value in vars(load("inventory", version, "settings")).items() if name.isupper()}
    del settings["DATABASES"]  # cannot be changed any more
    settings["PASSWORD_HASHERS"] = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others are slow
    with override_settings(**settings | others):
        load("inventory", version, "urls")
        call_command("migrate", verbosity=0)
        yield
