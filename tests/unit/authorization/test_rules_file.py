from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from podproof._authorization.reloaded import CHECK_INTERVAL
from podproof._authorization.rules import Rules
from podproof._authorization.rules_file import RulesFile, read_rules
from podproof.errors import ConfigurationError, NotAllowed
from podproof.identity import Owner, Pod, PodIdentity, ServiceAccount
from tests.support.fake_api import Clock
from tests.support.middleware_client import MiddlewareClient

ALICE = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "uid"), "bob", 0)

FOR_ALICE = """\
rules:
  - path: /invoices/*
    methods: [GET, POST]
    allow: [default/alice, "*/auditor"]
  - {path: /closed, allow: []}
"""
FOR_BATCH = "rules: [{path: /invoices/*, allow: [batch/*]}]\n"


class Mount:
    """A mounted ConfigMap: its file is a link through the link ..data, which the kubelet replaces on a change."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._versions = 0
        self.file = directory / "rules.yaml"
        self.file.symlink_to("..data/rules.yaml")

    def publish(self, text: str | bytes) -> None:
        self._versions += 1
        version = self._directory / f"..version{self._versions}"
        version.mkdir()
        (version / "rules.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        new = self._directory / "..data_tmp"
        new.symlink_to(version.name)
        new.replace(self._directory / "..data")


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    mount = Mount(tmp_path)
    mount.publish(FOR_ALICE)
    return mount


@pytest.fixture
def rules(mount: Mount, time: Clock) -> RulesFile:
    return RulesFile(mount.file, monotonic=time, start=lambda work: work())


def allows(rules: RulesFile) -> bool:
    try:
        return rules.check(ALICE, "GET", "/invoices/1") is None
    except NotAllowed:
        return False


def test_the_rules_of_a_file_decide(rules: RulesFile) -> None:
    assert allows(rules)
    for method, path in (("PUT", "/invoices/1"), ("GET", "/closed"), ("GET", "/")):
        with pytest.raises(NotAllowed):
            rules.check(ALICE, method, path)


def test_a_file_that_changes_is_reloaded(rules: RulesFile, mount: Mount, time: Clock) -> None:
    mount.publish(FOR_BATCH)
    assert allows(rules)
    time.passes(CHECK_INTERVAL)
    assert not allows(rules)


def test_a_file_that_is_written_in_place_is_reloaded(tmp_path: Path, time: Clock) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(FOR_ALICE)
    rules = RulesFile(file, monotonic=time, start=lambda work: work())
    file.write_text(FOR_BATCH)
    time.passes(CHECK_INTERVAL)
    assert not allows(rules)


def test_a_file_is_checked_once_a_second_and_read_once_a_change(mount: Mount, time: Clock) -> None:
    reloads: list[Callable[[], None]] = []
    rules = RulesFile(mount.file, monotonic=time, start=reloads.append)
    for _ in range(3):
        mount.publish(FOR_BATCH)
        assert allows(rules)
    time.passes(CHECK_INTERVAL)
    for _ in range(3):
        assert allows(rules)  # not reloaded yet
    assert len(reloads) == 1
    reloads[0]()
    assert not allows(rules)


def test_between_two_checks_the_file_is_not_touched(mount: Mount, time: Clock) -> None:
    looks: list[Path] = []
    rules = RulesFile(mount.file, monotonic=time, version=looks.append)
    looks.clear()
    time.passes(CHECK_INTERVAL)
    for _ in range(3):
        rules.check(ALICE, "GET", "/invoices/1")
    assert len(looks) == 1


def test_of_two_reloads_the_one_of_the_later_change_counts(mount: Mount, time: Clock) -> None:
    reloads: list[Callable[[], None]] = []
    rules = RulesFile(mount.file, monotonic=time, start=reloads.append)
    for text in (FOR_BATCH, FOR_ALICE):
        mount.publish(text)
        time.passes(CHECK_INTERVAL)
        rules.check(ALICE, "GET", "/invoices/1")
    first, second = reloads
    second()
    mount.publish(FOR_BATCH)
    first()
    assert allows(rules)


@pytest.mark.parametrize("broken", ["rules: [", "rules: []x", b"\xff", "rules: [{path: /}]"])
def test_an_invalid_file_keeps_the_previous_rules_and_is_logged_once(
    rules: RulesFile, mount: Mount, time: Clock, caplog: pytest.LogCaptureFixture, broken: str | bytes
) -> None:
    mount.publish(broken)
    for _ in range(3):
        time.passes(CHECK_INTERVAL)
        assert allows(rules)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages[0].startswith("rules not reloaded, the previous ones stay in force: ")
    mount.publish(FOR_BATCH)
    time.passes(CHECK_INTERVAL)
    assert not allows(rules)


def test_a_file_that_is_missing_for_a_while_keeps_the_previous_rules(
    rules: RulesFile, mount: Mount, time: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mount.file.unlink()
    for _ in range(3):
        time.passes(CHECK_INTERVAL)
        assert allows(rules)
    assert len(caplog.records) == 1
    assert f"cannot read rules file {mount.file}: No such file or directory" in caplog.text
    mount.file.symlink_to("..data/rules.yaml")
    mount.publish(FOR_BATCH)
    time.passes(CHECK_INTERVAL)
    assert not allows(rules)


def test_by_default_a_thread_reloads_the_file(mount: Mount, time: Clock) -> None:
    rules = RulesFile(mount.file, monotonic=time)
    mount.publish(FOR_BATCH)
    time.passes(CHECK_INTERVAL)
    allows(rules)
    for thread in threading.enumerate():
        if thread.name == "podproof-reload":
            thread.join(10)
    assert not allows(rules)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with rules, got an empty file"),
        ("# nothing\n", "expected a mapping with rules, got an empty file"),
        ("rules", "line 1: expected a mapping with rules"),
        ("- a", "line 1: expected a mapping with rules"),
        ("{}", "line 1: missing key 'rules'"),
        ("rules: []\nmore: 1", "line 2: unknown key 'more', expected rules"),
        ("rules: []\nrules: []", "line 2: duplicate key 'rules'"),
        ("rules:\n", "line 1: invalid rules: expected a list"),
        ("rules:\n- /a", "line 2: expected a mapping with path, allow, methods"),
        ("rules:\n- path: /a", "line 2: missing key 'allow'"),
        ("rules:\n- allow: [a/b]", "line 2: missing key 'path'"),
        ("rules:\n- path: /a\n  alow: [a/b]", "line 3: unknown key 'alow', expected path, allow, methods"),
        ("rules:\n- path: /a\n  path: /b\n  allow: [a/b]", "line 3: duplicate key 'path'"),
        ("rules:\n- path: /a\n  allow: a/b", "line 3: invalid allow: expected a list"),
        ("rules:\n- path: /a\n  allow:\n  - alice", "line 2: invalid pattern 'alice': expected the form"),
        (
            "rules:\n- path: /a\n  allow:\n  - 1",
            "line 4: invalid allow: expected a string; numbers, booleans and null need",
        ),
        ("rules:\n- path: [/a]\n  allow: [a/b]", "line 2: invalid path: expected a string"),
        ("rules:\n- path: a\n  allow: [a/b]", "line 2: invalid path 'a': expected a plain path"),
        ("rules:\n- path: /a\n  methods: []\n  allow: [a/b]", "line 2: invalid methods .*: expected HTTP methods"),
        ("rules:\n- path: /a\n  methods: GET\n  allow: [a/b]", "line 3: invalid methods: expected a list"),
        ("rules:\n- path: /a\n  allow: [a/b]\n  labels: [team]", "line 4: invalid labels: expected a mapping"),
        ("rules:\n- path: /a\n  allow: [a/b]\n  labels:\n    team: true", "line 5: invalid labels: expected a string"),
        ("rules:\n- path: /a\n  allow: [a/b]\n  labels:\n    1: a", "line 5: invalid labels: expected a string"),
        ("rules:\n- path: /a\n  allow: [a/b]\n  labels:\n    x: a\n    x: b", "line 6: duplicate key 'x'"),
        (
            "rules:\n- path: /a\n  allow: [a/b]\n  labels: {x: a b}",
            "line 2: invalid labels 'x': 'a b': expected a label",
        ),
        ("rules:\n- path: /a\n  allow: [a/b]\n  owner: web", "line 2: invalid owner 'web': expected the form"),
        ("rules:\n- path: /a\n  allow: [a/b]\n  owner: [Job/a]", "line 4: invalid owner: expected a string"),
        ("rules:\n- {path: /a, allow: [*/*]}", r'no YAML, line 2: .*; a value that begins with "\*" needs quotes'),
        ("rules:\n- {path: /a", "no YAML, line 2: "),
        ("a: 1\n---\nb: 1", "no YAML, line 2: "),
        ("rules: \x00", "no YAML, it has bytes or characters that text cannot have"),
        (b"rules: \xff", "no YAML, it has bytes or characters that text cannot have"),
        ("? [a]\n: b", "line 1: unknown key .*, expected rules"),
    ],
)
def test_an_invalid_file_is_an_error_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_rules(file)
    assert str(file) in str(raised.value)


def test_rules_of_a_file_may_be_by_labels_and_owner(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{path: /, allow: [default/*], labels: {team: payments}, owner: StatefulSet/db}]")
    database = replace(ALICE.pod, labels={"team": "payments"}, owner=Owner("StatefulSet", "db", "apps"))
    rules = Rules(read_rules(file))
    assert rules.check(replace(ALICE, pod=database), "GET", "/") is None
    for pod in (replace(database, labels={}), replace(database, owner=None)):
        with pytest.raises(NotAllowed):
            rules.check(replace(ALICE, pod=pod), "GET", "/")


def test_an_invalid_file_stops_the_start(make_client: Callable[..., MiddlewareClient], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^cannot read rules file .*: No such file"):
        make_client(rules_file=tmp_path / "rules.yaml")
    with pytest.raises(ConfigurationError, match=r"^cannot read rules file .*: Is a directory"):
        make_client(rules_file=os.fspath(tmp_path))


def test_a_middleware_applies_its_rules_file(make_client: Callable[..., MiddlewareClient], mount: Mount) -> None:
    app = make_client(rules_file=mount.file)
    assert app("/invoices/1").status == 200
    assert app("/invoices/1", method="DELETE").status == 403
