"""Keys from a mounted Secret: published before they sign, and for as long as their tokens live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from prometheus_client import REGISTRY

from podproof._authentication.jwk import parse_jwk
from podproof._authorization.reloaded import CHECK_INTERVAL
from podproof.errors import ConfigurationError
from podproof.exchange.key_directory import MAX_FILE, MAX_FILES, PUBLISH_AHEAD, PUBLISHED_AFTER, KeyDirectory
from tests.support.exchange_client import SECRET, pem
from tests.support.fake_api import Clock
from tests.support.mounted_directory import MountedDirectory
from tests.support.signed_tokens import make_key, public_jwk

A, B, C = ({f"{name}.pem": pem(make_key("ES256", name))} for name in "abc")
ED25519 = {"e.pem": pem(make_key("EdDSA"))}


@pytest.fixture
def mount(tmp_path: Path) -> MountedDirectory:
    return MountedDirectory(tmp_path / "keys")


class Keys:
    """A directory of keys, by the names of its keys."""

    def __init__(self, mount: MountedDirectory, time: Clock, files: Mapping[str, bytes], **more: Any) -> None:
        self._mount, self._time = mount, time
        mount.publish(files)
        self.directory = KeyDirectory(mount.path, monotonic=time, start=lambda work: work(), **more)

    def publish(self, files: Mapping[str, bytes]) -> None:
        self._mount.publish(files)
        self._time.passes(CHECK_INTERVAL)
        self.directory.published_keys()

    @property
    def signing(self) -> str:
        return _name(self.directory.signing_key().jwk)

    @property
    def published(self) -> str:
        return "".join(sorted(_name(key.jwk) for key in self.directory.published_keys()))


def _name(jwk: Mapping[str, str]) -> str:
    return next(name for name in "abc" if public_jwk(make_key("ES256", name))["x"] == jwk["x"])


@pytest.fixture
def make(mount: MountedDirectory, time: Clock) -> Callable[..., Keys]:
    return lambda files, **more: Keys(mount, time, files, **more)


def test_a_new_key_is_published_before_it_signs(make: Callable[..., Keys], time: Clock) -> None:
    keys = make(A)
    assert (keys.signing, keys.published) == ("a", "a")
    time.passes(PUBLISH_AHEAD)
    keys.publish(A | B)
    assert (keys.signing, keys.published) == ("a", "ab")
    time.passes(PUBLISH_AHEAD - 1)
    assert keys.signing == "a"
    time.passes(1)
    assert keys.signing == "b"


def test_a_removed_key_signs_no_more_and_is_published_while_its_tokens_live(
    make: Callable[..., Keys], time: Clock
) -> None:
    keys = make(A | B)
    time.passes(PUBLISH_AHEAD)
    keys.publish(B)
    assert (keys.signing, keys.published) == ("b", "ab")
    time.passes(PUBLISHED_AFTER - 1)
    assert keys.published == "ab"
    keys.publish(B | C)
    assert keys.published == "bc"


def test_a_key_that_came_back_is_a_new_one(make: Callable[..., Keys], time: Clock) -> None:
    keys = make(A | B)
    time.passes(PUBLISH_AHEAD)
    keys.publish(A)
    assert (keys.signing, keys.published) == ("a", "ab")
    keys.publish(A | B)
    assert (keys.signing, keys.published) == ("a", "ab")
    time.passes(PUBLISH_AHEAD)
    assert keys.signing == "b"


def test_a_process_that_starts_with_several_keys_takes_the_last_one_for_new(
    make: Callable[..., Keys], time: Clock
) -> None:
    keys = make(A | B | C)
    assert (keys.signing, keys.published) == ("b", "abc")
    time.passes(PUBLISH_AHEAD)
    assert keys.signing == "c"


def test_a_key_that_is_replaced_by_another_does_not_sign_any_more(make: Callable[..., Keys]) -> None:
    keys = make(A)
    keys.publish(B)
    assert (keys.signing, keys.published) == ("b", "ab")


def test_a_plain_directory_is_read_too(tmp_path: Path, time: Clock) -> None:
    (tmp_path / "a.pem").write_bytes(A["a.pem"])
    (tmp_path / "README").write_text("no key")
    (tmp_path / ".hidden.pem").write_text("no key")
    directory = KeyDirectory(tmp_path, monotonic=time)
    assert [_name(key.jwk) for key in directory.published_keys()] == ["a"]


@pytest.mark.parametrize(("files", "algorithm"), [(A, "ES256"), (ED25519, "EdDSA")])
def test_a_published_key_is_a_jwk_that_verifies(
    make: Callable[..., Keys], files: Mapping[str, bytes], algorithm: str
) -> None:
    key = make(files).directory.signing_key()
    assert key.algorithm == algorithm
    assert "d" not in key.jwk
    parsed = parse_jwk(key.jwk)
    assert (parsed.key_id, parsed.algorithms) == (key.key_id, (algorithm,))


ENCRYPTED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
)
BROKEN: dict[str, tuple[Mapping[str, bytes], str]] = {
    "no key": ({}, "no keys in"),
    "no PEM": ({"x.pem": b"secret-key"}, "x.pem: expected a private key in PEM"),
    "a truncated key": ({"x.pem": A["a.pem"][:-60]}, "x.pem: expected a private key in PEM"),
    "an encrypted key": ({"x.pem": ENCRYPTED}, "x.pem: expected a private key in PEM, without a password"),
    "an RSA key": ({"x.pem": pem(make_key("RS256"))}, "x.pem: expected a P-256 or an Ed25519 key"),
    "a P-384 key": ({"x.pem": pem(make_key("ES384"))}, "x.pem: expected a P-256 or an Ed25519 key"),
    "a huge file": ({"x.pem": b"x" * (MAX_FILE + 1)}, f"x.pem: expected at most {MAX_FILE} bytes"),
    "a short secret": (A | {"x.pairwise": b"short"}, "x.pairwise: expected a random secret of at least 32 bytes"),
    "many files": ({f"{number}.pem": b"" for number in range(MAX_FILES + 1)}, f"at most {MAX_FILES} files"),
    "several secrets": (A | {"1.pairwise": SECRET, "2.pairwise": SECRET}, "name the one to use in pairwise_secret"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_stops_the_start_and_keeps_the_old_keys_later(
    make: Callable[..., Keys], case: str, caplog: pytest.LogCaptureFixture
) -> None:
    files, message = BROKEN[case]
    with pytest.raises(ConfigurationError) as raised:
        make(files)
    assert message in str(raised.value)
    before = REGISTRY.get_sample_value("podproof_reload_failures_total", {"what": "keys"}) or 0
    keys = make(A)
    keys.publish(files)
    assert (keys.signing, keys.published) == ("a", "a")
    assert f"keys not reloaded, the previous ones stay in force: {raised.value}" in caplog.text
    assert "secret-key" not in caplog.text
    assert REGISTRY.get_sample_value("podproof_reload_failures_total", {"what": "keys"}) == before + 1
    keys.publish(B)
    assert keys.signing == "b"


def test_a_directory_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read keys in .*absent: No such file"):
        KeyDirectory(tmp_path / "absent")


@pytest.mark.parametrize("secrets", [{}, {"1.pairwise": SECRET + b"x"}, {"2.pairwise": SECRET}])
def test_a_secret_that_is_missing_or_has_changed_is_not_taken_over(
    make: Callable[..., Keys], secrets: Mapping[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    keys = make(A | {"1.pairwise": SECRET}, secret="1.pairwise")
    keys.publish({**B, **secrets})
    assert keys.signing == "a"
    assert "1.pairwise" in caplog.text


def test_keys_rotate_beside_the_secret_and_a_second_one(make: Callable[..., Keys]) -> None:
    keys = make(A | {"2.pairwise": SECRET})
    keys.publish({**B, "2.pairwise": SECRET})
    assert (keys.signing, keys.directory.files().current) == ("b", "2.pairwise")


def test_one_secret_of_several_has_to_be_named(make: Callable[..., Keys]) -> None:
    both = A | {"1.pairwise": SECRET, "2.pairwise": SECRET + b"2"}
    assert make(both, secret="2.pairwise").directory.files().current == "2.pairwise"
    with pytest.raises(ConfigurationError, match=r"no secret 3\.pairwise"):
        make(both, secret="3.pairwise")


def test_a_secret_that_is_added_later_is_found(make: Callable[..., Keys]) -> None:
    keys = make(A)
    assert keys.directory.files().current is None
    keys.publish(A | {"1.pairwise": SECRET})
    assert keys.directory.files().current == "1.pairwise"
    assert SECRET.decode() not in repr(keys.directory.files().keys)
