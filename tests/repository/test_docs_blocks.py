"""README and docs: each code block is run, checked, or compared with what the code prints."""

from __future__ import annotations

import ast
import inspect
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from django.test import Client as DjangoClient
from opentelemetry import trace
from opentelemetry.util._once import Once
from starlette.testclient import TestClient
from werkzeug.wrappers import Response

from podproof import RBAC
from podproof._authorization.rules_file import read_rules
from podproof.audit import JSONFormatter
from podproof.cli import main
from podproof.cli.denials import count_decisions, format_report
from podproof.cli.proxy_configurations import PROXIES, configure_proxy
from podproof.exchange import introspection_endpoint, token_endpoint
from podproof.exchange.grants_file import read_grants
from podproof.identity import Pod, PodIdentity, ServiceAccount
from podproof.wsgi import PodAuthMiddleware
from tests.process.frameworks import django_project
from tests.support.docs_stage import ALICE, ELSEWHERE, Stage, wrapped_flask_app
from tests.support.exchange_client import SECRET, write_keys
from tests.support.framework_apps import starlette_app, wsgi_app
from tests.support.markdown import PAGES, ROOT, Block, find_blocks, read_page
from tests.support.people_apps import running_django_project
from tests.support.shell_commands import MANIFESTS, check_line

BLOCKS = [block for page in PAGES for block in find_blocks(page, read_page(page))]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


TEST_FILES = "docs/testing.md"
"""Each block of this page is a whole test file; tests/unit/testing/test_testing_page.py runs them."""


def blocks_in(language: str) -> list[Any]:
    blocks = [block for block in BLOCKS if block.language == language and not block.check and block.page != TEST_FILES]
    return [pytest.param(block, id=str(block)) for block in blocks]


def test_no_block_is_left_out() -> None:
    assert [str(block) for block in BLOCKS if not block.check and block.language not in ("python", "sh", "yaml")] == []


def test_a_fence_that_no_block_has_is_noticed() -> None:
    with pytest.raises(ValueError, match="fence"):
        find_blocks("page.md", "1. indented:\n   ```sh\n   ls\n   ```\n")


def allowed_by_rbac(stage: Stage) -> dict[str, Any]:
    stage.cluster.grant("default/alice", verbs=["get"], non_resource_urls=["/bob/whoami"])
    return {"app": wsgi_app}


def exchange_keys(stage: Stage) -> dict[str, Any]:
    return {"KEYS": write_keys(stage.directory / "keys", secrets={"1.pairwise": SECRET})}


def an_identity(_: Stage) -> dict[str, Any]:
    account = ServiceAccount(namespace="default", name="alice", uid="1")
    pod = Pod(namespace="default", name="alice-pod", uid="2", addresses=(ALICE,), node="node1")
    return {"identity": PodIdentity(service_account=account, pod=pod, audience="bob", expires_at=0.0)}


def django_settings(stage: Stage) -> dict[str, Any]:
    django_project.configure(stage.directory)
    return {"__name__": "documented"}


def mcp_server(_: Stage) -> dict[str, Any]:
    """Make the module that the page's first server is in."""
    [text] = [block.text for block in BLOCKS if block.page == "docs/mcp.md" and 'MCPServer("bob")' in block.text]
    server = ModuleType("server")
    exec(text, server.__dict__)
    sys.modules["server"] = server
    return {"__name__": "documented"}


SETUPS: Mapping[str, Callable[[Stage], dict[str, Any]]] = {
    "": lambda _: {"__name__": "documented"},
    "django": django_settings,
    "exchange": exchange_keys,
    "flask": lambda _: {"app": wrapped_flask_app()},
    "identity": an_identity,
    "people": lambda _: {"__name__": "documented", "SECRET_KEY": "signs the sessions of these tests only"},
    "mcp": mcp_server,
    "rbac": allowed_by_rbac,
    "starlette": lambda _: {"app": starlette_app()},
    "wsgi": lambda _: {"app": wsgi_app},
}


@pytest.mark.parametrize("block", blocks_in("python"))
def test_a_python_block_runs(block: Block, stage: Stage, request: pytest.FixtureRequest) -> None:
    names = SETUPS[block.setup](stage)
    app_before = names.get("app")
    text = block.text.replace("/etc/podproof/keys", str(names.get("KEYS")))
    with restored_globals():
        exec(compile(ast.parse(text), str(block), "exec"), names)
        for test in [value for name, value in names.items() if name.startswith("test_")]:
            test(*map(request.getfixturevalue, inspect.signature(test).parameters))
        if names.get("app") is not app_before:
            stage.check_app(names["app"])
    if "http://bob" in block.text and block.setup != "mcp":
        assert stage.statuses == [200]
    if block.setup == "identity":
        check_comments(block.text, names)


@contextmanager
def restored_globals() -> Iterator[None]:
    """Undo what a block does to the loggers, and to OpenTelemetry's provider, which can be set once a process."""
    provider, once = trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    loggers = [logging.getLogger(), logging.getLogger("podproof.audit")]
    before = [(logger, [*logger.handlers], logger.level) for logger in loggers]
    yield
    sys.modules.pop("server", None)
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = provider, once


def check_comments(text: str, names: dict[str, Any]) -> None:
    """Compare a line's value with the comment behind it, a call with keyword arguments; "…" stands for any value."""
    commented = [line.split("  # ") for line in text.splitlines() if "  # " in line]
    assert commented
    for code, comment in commented:
        value = eval(code, names)
        expression = ast.parse(comment.partition(";")[0], mode="eval").body
        assert isinstance(expression, ast.Call)
        assert ast.unparse(expression.func) == type(value).__name__
        for keyword in expression.keywords:
            assert ast.literal_eval(keyword.value) in (getattr(value, str(keyword.arg)), "…")


def test_a_preflight_request_is_answered_by_the_cors_middleware_around_podproof(stage: Stage) -> None:
    [block] = [block for block in BLOCKS if "CORSMiddleware" in block.text]
    names: dict[str, Any] = {}
    exec(block.text, names)
    origin = {"Origin": "https://shop.example"}
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "Authorization"}
    client = TestClient(names["app"], client=stage.alice.peer)
    assert client.options("/whoami", headers=origin | preflight).status_code == 200
    denied = client.get("/whoami", headers=origin)
    assert (denied.status_code, "access-control-allow-origin" in denied.headers) == (401, True)


@pytest.mark.parametrize("block", blocks_in("sh"))
def test_the_commands_of_a_shell_block_exist(block: Block) -> None:
    for line in block.text.splitlines():
        check_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "make no-such-target",
        "pip install podproof[no-such-extra]",
        "podproof no-such-command",
        "podproof demo | kubectl exec deployment/carol -- podproof doctor",
        "kubectl drain node1",
        "PODPROOF_NO_SUCH_OPTION=1 podproof demo",
        "ls",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises((AssertionError, SystemExit, subprocess.CalledProcessError)):
        check_line(line)


@pytest.mark.parametrize("block", blocks_in("yaml"))
def test_a_yaml_block_is_read_by_the_code_or_is_a_part_of_the_manifests(
    block: Block, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *more = yaml.safe_load_all(block.text)
    [rule, *_] = first.get("rules", [{}])
    if "grants" in first:
        (tmp_path / "grants.yaml").write_text(block.text)
        assert read_grants(tmp_path / "grants.yaml")
    elif "path" in rule:
        check_rules(block.text, tmp_path)
    elif first.get("kind") == "ConfigMap":
        check_rules(first["data"]["rules.yaml"], tmp_path)
    elif "nonResourceURLs" in rule:
        check_grant(first, *more, stage=stage)
    elif "apiGroups" in rule:
        assert (
            main(["manifests", "--only", "rbac", "--server", "default/bob", "--policy", "rbac", "--namespace-labels"])
            == 0
        )
        assert contains(list(yaml.safe_load_all(capsys.readouterr().out)), first)
    elif "annotations" in first:
        doctor = "".join(path.read_text() for path in (ROOT / "src" / "podproof" / "cli").rglob("*.py"))
        assert all(f'{key}: "{value}"' in doctor for key, value in first["annotations"].items())
    else:
        assert contains(MANIFESTS, first)


def check_rules(text: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    read_rules(file)


def check_grant(role: Mapping[str, Any], binding: Mapping[str, Any], *, stage: Stage) -> None:
    """Check that a ClusterRole and its binding allow Alice to read invoices and nothing else."""
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (role["kind"], role["metadata"]["name"])
    [rule], [subject] = role["rules"], binding["subjects"]
    account = f"{subject['namespace']}/{subject['name']}"
    stage.cluster.grant(account, verbs=rule["verbs"], non_resource_urls=rule["nonResourceURLs"])
    app = PodAuthMiddleware(wsgi_app, audience="bob", policy=RBAC(prefix="/bob"))
    assert stage.get(app, "/invoices/7") == (200, "default/alice")
    assert stage.get(app, "/invoices/7", method="POST")[0] == 403
    assert stage.get(app, "/payments")[0] == 403


def contains(whole: Any, part: Any) -> bool:
    """Return True if a part of a YAML document stands anywhere in it, lists in any order."""
    if matches(whole, part):
        return True
    inner = whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ()
    return any(contains(one, part) for one in inner)


def matches(whole: Any, part: Any) -> bool:
    """Return True if a part of a YAML document is the beginning of this one."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and matches(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(matches(one, item) for one in whole) for item in part)
    return bool(whole == part)


def test_a_part_of_a_document_is_found_and_what_is_no_part_is_not() -> None:
    assert contains({"a": [{"b": 1, "c": [2, 3]}]}, {"c": [3]})
    assert not contains({"a": [{"b": 1, "c": [2, 3]}]}, {"c": [4]})
    assert not contains({"a": 1}, {"b": 1})


@pytest.mark.parametrize("block", [pytest.param(block, id=str(block)) for block in BLOCKS if block.check])
def test_an_output_is_what_the_code_prints(block: Block, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    CHECKS[block.check](block.text.rstrip("\n"), stage, caplog)


def check_django_project(_: str, stage: Stage, __: pytest.LogCaptureFixture) -> None:
    with running_django_project(stage.directory):
        headers = {"X-Pod-Authorization": stage.alice.headers("bob")["Authorization"]}
        response = DjangoClient(REMOTE_ADDR=ALICE).get("/whoami", headers=headers)
        assert (response.status_code, response.content) == (200, b"default/alice")


def check_demo(text: str, _: Stage, __: pytest.LogCaptureFixture) -> None:
    with redirect_stdout(io.StringIO()) as out:
        assert main(["demo"]) == 0
    assert out.getvalue().startswith(f"{text}\n\n")


def check_denied_record(text: str, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    assert text == deny_a_request(stage, caplog).getMessage()


def check_json_record(text: str, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    shown, printed = json.loads(text), json.loads(JSONFormatter().format(deny_a_request(stage, caplog)))
    assert [*shown] == [*printed]
    assert [key for key in shown if key != "time" and shown[key] not in (printed[key], "…")] == []


def deny_a_request(stage: Stage, caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    headers = stage.alice.headers("bob") | {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
    with caplog.at_level(logging.WARNING, "podproof.audit"):
        assert stage.get(wrapped_flask_app(), address=ELSEWHERE, headers=headers)[0] == 403
    [record] = [record for record in caplog.records if record.name == "podproof.audit"]
    return record


def check_diagram(text: str, _: Stage, __: pytest.LogCaptureFixture) -> None:
    files = re.findall(r"[\w/]+\.py", text)
    assert files
    assert [file for file in files if next((ROOT / "src" / "podproof").rglob(file), None) is None] == []


def check_report(text: str, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    app = PodAuthMiddleware(Response("ok"), audience="bob", enforce=False)
    with caplog.at_level(logging.INFO, "podproof.audit"):
        for path in ("/orders", "/orders", "/health"):
            stage.get(app, path, headers={})
        stage.get(app, "/orders", address=ELSEWHERE)
        stage.get(app, "/orders", headers=stage.alice.headers("carol"))
        stage.get(app, "/orders")
    lines = [JSONFormatter().format(record) for record in caplog.records if record.name == "podproof.audit"]
    assert format_report(count_decisions(lines)) == f"{text}\n"


def check_sequence(text: str, _: Stage, __: pytest.LogCaptureFixture) -> None:
    routes = {token_endpoint.PATH, introspection_endpoint.PATH, "/jwks.json"}
    assert {*re.findall(r"(?:GET|POST) (\S+)", text)} == routes
    participants = re.findall(r"participant (\w+) as", text)
    assert {*re.findall(r"^ +(\w+)--?>>(\w+):", text, re.MULTILINE)} <= {
        (a, b) for a in participants for b in participants
    }


def check_configuration(proxy: str, text: str, _: Stage, __: pytest.LogCaptureFixture) -> None:
    """Compare a proxy's configuration with the one that tests/security/test_forward_auth.py runs."""
    assert f"{text}\n" == configure_proxy(proxy).text


CHECKS: Mapping[str, Callable[[str, Stage, pytest.LogCaptureFixture], None]] = {
    **{proxy: partial(check_configuration, proxy) for proxy in PROXIES},
    "demo": check_demo,
    "denied_record": check_denied_record,
    "diagram": check_diagram,
    "django_project": check_django_project,
    "json_record": check_json_record,
    "report": check_report,
    "sequence": check_sequence,
}
