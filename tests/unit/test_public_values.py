"""Each public value can be pickled, copied and compared, and each but the errors encoded as JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from flask import Flask, jsonify
from starlette.testclient import TestClient

from podproof import Owner, Pod, PodIdentity, Rule, ServiceAccount
from podproof.errors import ConfigurationError, HostNotAllowed, PodAuthError, TokenUnavailable, Unavailable

IDENTITY = PodIdentity(
    service_account=ServiceAccount("default", "alice", "account-uid"),
    pod=Pod(
        "default",
        "alice-pod",
        "pod-uid",
        ("10.1.2.3", "fd00::3"),
        node="node1",
        labels={"app": "alice"},
        owner=Owner("ReplicaSet", "alice-1", "apps"),
    ),
    audience="bob",
    expires_at=1_800_000_000.0,
    credential_id="JTI=1",
    groups=("system:serviceaccounts",),
    extra={"authentication.kubernetes.io/pod-name": ("alice-pod",)},
)
IDENTITY_JSON = {
    "service_account": {"namespace": "default", "name": "alice", "uid": "account-uid"},
    "pod": {
        "namespace": "default",
        "name": "alice-pod",
        "uid": "pod-uid",
        "addresses": ["10.1.2.3", "fd00::3"],
        "node": "node1",
        "host_network": False,
        "node_addresses": [],
        "labels": {"app": "alice"},
        "owner": {"kind": "ReplicaSet", "name": "alice-1", "group": "apps"},
    },
    "audience": "bob",
    "expires_at": 1_800_000_000.0,
    "credential_id": "JTI=1",
    "groups": ["system:serviceaccounts"],
    "extra": {"authentication.kubernetes.io/pod-name": ["alice-pod"]},
}
RULE = Rule(
    "/invoices/*",
    methods=["GET"],
    allow=["batch/*"],
    labels={"team": "x"},
    owner="Job/report-*",
    namespace_labels={"env": "prod"},
)
RULE_JSON = {
    "path": "/invoices/*",
    "methods": ["GET"],
    "allow": ["batch/*"],
    "labels": {"team": "x"},
    "owner": "Job/report-*",
    "namespace_labels": {"env": "prod"},
}
VALUES: list[tuple[Any, object]] = [
    (IDENTITY, IDENTITY_JSON),
    (IDENTITY.pod, IDENTITY_JSON["pod"]),
    (Owner("Job", "report-1", "batch"), {"kind": "Job", "name": "report-1", "group": "batch"}),
    (IDENTITY.service_account, IDENTITY_JSON["service_account"]),
    (RULE, RULE_JSON),
]
COPIES: list[Callable[[Any], Any]] = [
    *(lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol)) for protocol in range(6)),
    copy.copy,
    copy.deepcopy,
    dataclasses.replace,
]


def encode_with_flask(value: object) -> object:
    with Flask(__name__).app_context():
        return jsonify(value).json


def encode_with_fastapi(value: object) -> object:
    return jsonable_encoder(value)


def return_from_endpoint(value: object) -> object:
    app = FastAPI()
    app.add_api_route("/", lambda: value, response_model=None)
    return TestClient(app).get("/").json()


def return_from_typed_endpoint(value: object) -> object:
    app = FastAPI()
    app.add_api_route("/", lambda: value, response_model=type(value))
    return TestClient(app).get("/").json()


def encode_with_dataclasses(value: Any) -> object:
    return json.loads(json.dumps(dataclasses.asdict(value)))


@pytest.mark.parametrize("value", [value for value, _ in VALUES], ids=lambda value: type(value).__name__)
def test_a_copy_of_a_value_is_equal_to_it(value: object) -> None:
    for make_copy in COPIES if not isinstance(value, Rule) else COPIES[:-1]:
        copied = make_copy(value)
        assert copied == value
        assert hash(copied) == hash(value)
        assert repr(copied) == repr(value)


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[type(value).__name__ for value, _ in VALUES])
@pytest.mark.parametrize(
    "encode",
    [encode_with_dataclasses, encode_with_flask, encode_with_fastapi, return_from_endpoint, return_from_typed_endpoint],
)
def test_a_value_is_encoded_as_json(encode: Callable[[Any], object], value: object, expected: object) -> None:
    assert encode(value) == expected


CHANGES: list[Callable[[Any], object]] = [
    lambda extra: extra.update(x=("y",)),
    lambda extra: extra.clear(),
    lambda extra: extra.pop("authentication.kubernetes.io/pod-name"),
    lambda extra: extra.popitem(),
    lambda extra: extra.setdefault("x", ("y",)),
    lambda extra: extra.__setitem__("x", ("y",)),
    lambda extra: extra.__delitem__("authentication.kubernetes.io/pod-name"),
    lambda extra: extra.__ior__({"x": ("y",)}),
]


@pytest.mark.parametrize("identity", [IDENTITY, *(make_copy(IDENTITY) for make_copy in COPIES)])
def test_the_extra_and_the_labels_of_an_identity_cannot_be_changed(identity: PodIdentity) -> None:
    for change in CHANGES:
        with pytest.raises(TypeError, match="a PodIdentity cannot be changed"):
            change(identity.extra)
        with pytest.raises(TypeError, match="a PodIdentity cannot be changed"):
            change(identity.pod.labels)
    assert identity.extra == {"authentication.kubernetes.io/pod-name": ("alice-pod",)}
    assert dict(identity.extra) | {"x": ("y",)} != identity.extra


def test_an_identity_keeps_a_copy_of_its_extra() -> None:
    extra = {"x": ("y",)}
    identity = dataclasses.replace(IDENTITY, extra=extra)
    extra.clear()
    assert identity.extra == {"x": ("y",)}
    assert identity != IDENTITY


def subclasses(error: type[PodAuthError]) -> list[type[PodAuthError]]:
    return [error, *(one for child in error.__subclasses__() for one in subclasses(child))]


@pytest.mark.parametrize("kind", subclasses(PodAuthError), ids=lambda kind: kind.__name__)
def test_a_copy_of_an_error_has_all_that_is_attached(kind: type[PodAuthError]) -> None:
    error = kind("the reason").with_identity(IDENTITY, "10.1.2.4")
    error.retry_after = 7
    for make_copy in COPIES[:-1]:
        copied = make_copy(error)
        assert type(copied) is kind
        assert (str(copied), copied.reason, copied.retry_after) == ("the reason", "the reason", 7)
        assert (copied.identity, copied.peer) == (IDENTITY, "10.1.2.4")
        assert (copied.service_account, copied.pod) == ("default/alice", "default/alice-pod")


def test_a_copy_of_an_unexpected_error_is_equal() -> None:
    with pytest.raises(KeyError) as raised:
        _ = dict[str, str]()["x"]
    error = Unavailable.unexpected(raised.value)
    assert pickle.loads(pickle.dumps(error)).reason == error.reason


@pytest.mark.parametrize(
    "error",
    [ConfigurationError("invalid timeout"), TokenUnavailable("the problem", "the fix"), HostNotAllowed("not sent")],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_of_an_error_of_the_caller_says_the_same(error: Exception) -> None:
    for make_copy in COPIES[:-1]:
        copied = make_copy(error)
        assert type(copied) is type(error)
        assert (str(copied), copied.args) == (str(error), error.args)
