"""README and docs: each table is held against the code, each link leads somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from podproof import errors
from podproof._telemetry import metrics
from podproof.audit import FIELDS
from podproof.options import markdown_table
from tests.support.docs_stage import Stage
from tests.support.framework_apps import APPS, django_project
from tests.support.markdown import PAGES, ROOT, code_in, find_anchors, find_links, find_table, read_page

PACKAGE = ROOT / "src" / "podproof"


def test_readme_is_a_reference_of_at_most_150_lines() -> None:
    assert len(read_page("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_prose_has_lines_of_at_most_120_characters(page: str) -> None:
    prose = re.sub(r"^```(text|json)\n.*?^```$", "", read_page(page), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_readme_has_the_options_as_they_are_declared() -> None:
    table = read_page("README.md").partition("<!-- options -->\n")[2].partition("<!-- /options -->")[0]
    assert table == markdown_table()


def test_each_module_stands_once_in_the_architecture() -> None:
    rows = find_table(read_page("docs/architecture.md"), "module", "what it holds")
    documented = [name for module, _ in rows for name in code_in(module)]
    modules = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if has_code(path)]
    assert sorted(documented) == sorted(modules)


def has_code(path: Path) -> bool:
    """Return True unless a file is nothing but a docstring, as a room's `__init__.py` is."""
    return len(ast.parse(path.read_text()).body) > 1


def test_each_place_in_the_architecture_is_a_file_with_that_name_in_it() -> None:
    for question, place in find_table(read_page("docs/architecture.md"), "question", "place"):
        *names, file = code_in(place)
        assert all(re.search(rf"(class|def) {name}\b", (PACKAGE / file).read_text()) for name in names), question


def test_each_code_is_documented_with_its_status() -> None:
    rows = find_table(read_page("docs/observability.md"), "code", "status", "meaning")
    documented = [(code.strip("`"), int(status)) for code, status, _ in rows]
    assert sorted(documented) == sorted((error.code, error.status) for error in raised_errors(errors.PodAuthError))


def raised_errors(error: type[errors.PodAuthError]) -> Iterator[type[errors.PodAuthError]]:
    """Return the errors that are raised: those that others derive from, except Unavailable, are families."""
    derived = [one for one in error.__subclasses__() if one.__module__ == errors.__name__]
    if not derived or error is errors.Unavailable:
        yield error
    for one in derived:
        yield from raised_errors(one)


def test_the_changelog_maps_codes_to_those_that_there_are() -> None:
    codes = {error.code for error in raised_errors(errors.PodAuthError)}
    rows = [row for row in find_table(read_page("CHANGELOG.md"), "old", "new") if row[0].startswith("code ")]
    assert {code for _, new in rows for code in code_in(new)} <= codes
    assert {code for old, _ in rows for code in code_in(old)} & codes == set()


def test_each_key_of_the_decision_log_is_documented() -> None:
    rows = find_table(read_page("docs/observability.md"), "key", "value")
    assert sorted(name for keys, _ in rows for name in code_in(keys)) == sorted(FIELDS)


def test_each_metric_is_documented_with_its_labels() -> None:
    rows = find_table(read_page("docs/observability.md"), "metric", "labels", "meaning")
    documented = {(metric.strip("`").removesuffix("_total"), tuple(code_in(labels))) for metric, labels, _ in rows}
    declared = [value for value in vars(metrics).values() if hasattr(value, "describe") and not value._labelvalues]
    assert documented == {(metric._name, metric._labelnames) for metric in declared}


def framework_rows() -> list[Any]:
    return [
        pytest.param(row[0], row[1], id=f"{page}: {row[0]}")
        for page in ("README.md", "docs/frameworks.md")
        for row in find_table(read_page(page), "framework", "around the app", "the caller")
    ]


@pytest.mark.parametrize(("framework", "code"), framework_rows())
def test_the_line_around_an_app_works_for_each_framework(framework: str, code: str, stage: Stage) -> None:
    # Not Django's own functions of these names: they load the settings' apps, once a process.
    names: dict[str, Any] = {"get_wsgi_application": WSGIHandler, "get_asgi_application": ASGIHandler}
    if not framework.startswith("Django"):
        names["app"] = APPS[framework]()
    [line] = code_in(code)
    for module in re.findall(r"podproof\.\w+", line):
        exec(f"import {module}", names)
    with django_project():
        exec(line, names)
        stage.check_app(names.get("application") or names["app"])


def links() -> list[Any]:
    return [pytest.param(page, link, id=f"{page}: {link}") for page in PAGES for link in find_links(read_page(page))]


@pytest.mark.parametrize(("page", "link"), links())
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    assert not anchor or anchor in find_anchors(target.read_text())
