from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from podproof.client import TokenClient, TokenFile, TokenUnavailable
from podproof.errors import ConfigurationError
from tests.support.fake_api import NOW
from tests.unit.client.conftest import HOUR, mint

if TYPE_CHECKING:
    from tests.support.fake_api import Clock
    from tests.unit.client.conftest import Volume


@pytest.fixture
def file(volume: Volume, clock: Clock) -> TokenFile:
    return TokenFile(volume.file, audience="bob", clock=clock)


def error_of(file: TokenFile) -> str:
    with pytest.raises(TokenUnavailable) as raised:
        file.read()
    return str(raised.value)


@pytest.mark.trap(41)
def test_every_rotation_is_seen_at_once(file: TokenFile, volume: Volume) -> None:
    for _ in range(3):
        token = volume.rotate()
        assert file.read() == token


def test_whitespace_around_the_token_is_removed(file: TokenFile, volume: Volume) -> None:
    token = mint(aud=["bob"], exp=NOW + HOUR)
    volume.write(f" {token}\n")
    assert file.read() == token


@pytest.mark.trap(41)
@pytest.mark.parametrize(
    "content", ["", " \n", "half a tok", mint(aud="carol", exp=NOW + HOUR), mint(aud="bob", exp=NOW - HOUR)]
)
def test_the_last_valid_token_replaces_an_invalid_file_until_it_expires(
    content: str, file: TokenFile, volume: Volume, clock: Clock
) -> None:
    token = volume.rotate(lifetime=HOUR)
    assert file.read() == token
    volume.write(content)
    assert file.read() == token
    clock.passes(HOUR - 1)
    assert file.read() == token
    clock.passes(1)
    with pytest.raises(TokenUnavailable):
        file.read()


@pytest.mark.trap(41)
def test_the_last_valid_token_replaces_a_missing_file(file: TokenFile, volume: Volume) -> None:
    token = volume.rotate()
    assert file.read() == token
    volume.file.unlink()
    assert file.read() == token


def test_an_invalid_file_is_logged_once_until_it_is_valid_again(
    file: TokenFile, volume: Volume, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="podproof")
    first = volume.rotate()
    file.read()
    for _ in range(2):
        volume.write("")
        clock.passes(10)
        file.read()
        file.read()
        second = volume.rotate()
        file.read()
    messages = caplog.messages
    assert messages == [
        f"the token file {volume.file} is empty. The last token from it is used for another {left} s."
        for left in (3590, 3580)
    ]
    assert first not in caplog.text
    assert second not in caplog.text


@pytest.mark.trap(43)
def test_the_error_for_a_missing_file_shows_the_volume_to_add(file: TokenFile, volume: Volume) -> None:
    message = error_of(file)
    assert f"the token file {volume.file} cannot be read: No such file or directory" in message
    spec = yaml.safe_load(message[message.index("volumes:") :])
    assert spec["volumes"][0]["projected"]["sources"] == [
        {"serviceAccountToken": {"audience": "bob", "expirationSeconds": 3600, "path": "token"}}
    ]
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount == {"name": spec["volumes"][0]["name"], "mountPath": str(volume.folder), "readOnly": True}


@pytest.mark.trap(43)
def test_an_unreadable_file_is_an_error(file: TokenFile, volume: Volume) -> None:
    volume.file.mkdir()
    assert f"the token file {volume.file} cannot be read: Is a directory" in error_of(file)


@pytest.mark.trap(43)
@pytest.mark.parametrize("content", ["", "\n", "  \n\n"])
def test_an_empty_file_is_an_error(content: str, file: TokenFile, volume: Volume) -> None:
    volume.write(content)
    message = error_of(file)
    assert f"the token file {volume.file} is empty" in message
    assert "serviceAccountToken" in message


@pytest.mark.trap(43)
@pytest.mark.parametrize(
    "content",
    [
        b"secret",
        b"s.e.cret",
        b"\xff\xfe",
        mint(aud="bob", exp=NOW + HOUR).encode() * 2,
        mint(aud="bob", exp=NOW + HOUR).encode() + b"\nX-Injected: secret",
        "sécret".encode(),
    ],
)
def test_the_error_for_a_file_without_a_token_does_not_show_its_content(
    content: bytes, file: TokenFile, volume: Volume
) -> None:
    volume.write(content)
    message = error_of(file)
    assert f"the token file {volume.file} does not hold a JSON Web Token" in message
    assert "cret" not in message


@pytest.mark.parametrize(
    ("aud", "shown"), [("carol", "carol"), (["carol", "dave"], "carol, dave"), (["bob2"], "bob2"), (None, "None")]
)
def test_the_error_for_another_audience_names_both(aud: object, shown: str, file: TokenFile, volume: Volume) -> None:
    volume.write(mint(aud=aud, exp=NOW + HOUR))
    message = error_of(file)
    assert f"the token file {volume.file} holds a token for {shown}, not for bob" in message
    assert "audience: bob" in message


@pytest.mark.parametrize("aud", ["bob", ["bob"], ["carol", "bob"]])
def test_one_of_the_audiences_is_enough(aud: object, file: TokenFile, volume: Volume) -> None:
    token = mint(aud=aud, exp=NOW + HOUR)
    volume.write(token)
    assert file.read() == token


def test_without_an_audience_any_token_is_accepted(volume: Volume, clock: Clock) -> None:
    token = volume.rotate(audience="carol")
    assert TokenFile(volume.file, clock=clock).read() == token


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": None}])
def test_a_token_without_an_expiry_is_an_error(claims: dict[str, object], file: TokenFile, volume: Volume) -> None:
    volume.write(mint(aud="bob", **claims))
    assert "holds a token without an expiry" in error_of(file)


@pytest.mark.trap(45)
def test_the_error_for_an_expired_token_gives_the_reason(file: TokenFile, volume: Volume) -> None:
    volume.rotate(lifetime=-61)
    message = error_of(file)
    assert f"the token file {volume.file} holds a token that expired 61 s ago" in message
    assert "does not refresh the token of a pod that is being deleted (kubernetes#116481)" in message
    assert "serviceAccountToken" not in message


@pytest.mark.trap(48)
def test_a_token_is_used_up_to_a_minute_after_its_expiry(file: TokenFile, volume: Volume) -> None:
    token = volume.rotate(lifetime=-60)
    assert file.read() == token


def test_a_given_path_is_the_token_file(volume: Volume, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    token = volume.rotate()
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", os.devnull)
    assert TokenClient("bob", path=str(volume.file), clock=clock).token() == token


@pytest.mark.parametrize("audience", [None, "bob"])
def test_podproof_token_file_is_the_token_file_without_a_path(
    audience: str | None, volume: Volume, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = volume.rotate()
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(volume.file))
    assert TokenClient(audience, clock=clock).token() == token


@pytest.mark.parametrize("environment", [None, ""])
@pytest.mark.parametrize(
    ("audience", "path"),
    [
        (None, Path("/var/run/secrets/podproof/token")),
        ("bob", Path("/var/run/secrets/podproof/bob/token")),
        ("bob.default.svc", Path("/var/run/secrets/podproof/bob.default.svc/token")),
    ],
)
def test_the_default_token_file_is_where_the_volume_is_mounted(
    audience: str | None, path: Path, environment: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment is not None:
        monkeypatch.setenv("PODPROOF_TOKEN_FILE", environment)
    assert repr(TokenClient(audience)) == f"TokenClient(TokenFile({str(path)!r}, audience={audience!r}))"


@pytest.mark.parametrize("audience", ["", ".", "..", "../../kubernetes.io/serviceaccount", "https://bob"])
def test_an_audience_that_cannot_name_a_folder_needs_a_path(audience: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TokenClient(audience)
    assert repr(audience) in str(raised.value)
    assert "path=" in str(raised.value)
    TokenClient(audience, path=tmp_path / "token")
