"""`import podproof`: what `dir()` and `help()` show."""

from __future__ import annotations

import importlib
import inspect
import pydoc

import pytest

import podproof


def test_dir_shows_the_public_names_alone() -> None:
    assert dir(podproof) == sorted([*podproof.__all__, "__version__"])


def test_help_shows_how_to_start_and_documents_each_public_name() -> None:
    text = pydoc.plain(pydoc.render_doc(podproof))
    for line in (
        'app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience="bob")',
        'app.add_middleware(PodAuthMiddleware, audience="bob")',
        'with TokenClient(audience="bob").session() as http:',
    ):
        assert line in text
    for name in podproof.__all__:
        assert f"class {name}(" in text or f"\n    {name}(" in text


def test_each_public_name_has_a_docstring() -> None:
    for name in podproof.__all__:
        assert inspect.getdoc(getattr(podproof, name))


@pytest.mark.parametrize(
    "name", ["client", "errors", "identity", "flask", "fastapi", "starlette", "quart", "litestar", "falcon", "django"]
)
def test_help_of_a_module_shows_its_public_names(name: str) -> None:
    module = importlib.import_module(f"podproof.{name}")
    text = pydoc.plain(pydoc.render_doc(module))
    for public in module.__all__:
        assert f"class {public}(" in text or f"    {public}" in text


@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_help_of_the_caller_works_outside_a_request(framework: str) -> None:
    caller = importlib.import_module(f"podproof.{framework}").caller
    text = pydoc.plain(pydoc.render_doc(caller))
    assert "The `PodIdentity` of the current request's caller." in text
    assert "service_account, pod, audience" in text
    assert caller.__name__ == "caller"
    assert not hasattr(caller, "__origin__")
    with pytest.raises(RuntimeError):
        _ = caller.pod
