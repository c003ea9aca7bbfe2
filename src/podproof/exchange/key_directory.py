"""The keys that tokens are signed with: a directory, such as a mounted Secret, read again when it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from podproof._authorization.reloaded import Reloaded, file_version
from podproof._token.jwt import CLOCK_SKEW
from podproof.errors import ConfigurationError
from podproof.exchange.issuer_key import IssuerKey, parse_issuer_key
from podproof.exchange.profile import MAX_LIFETIME

PUBLISH_AHEAD = 600.0
"""Seconds for which a new key is published before it signs: by then the kubelets of all replicas have mounted it, which
takes them a minute or two, and services that keep the keys for `MAX_AGE` have fetched it."""

MAX_AGE = 300
"""Seconds for which the published keys may be cached."""

PUBLISHED_AFTER = MAX_LIFETIME + CLOCK_SKEW
"""Seconds for which a key whose file was removed stays published: the last token that it signed has expired by then."""

MAX_FILES = 64
MAX_FILE = 65_536
"""How many files are read, and how many bytes each may have."""

MIN_SECRET = 32
"""The least bytes of a secret for pairwise subjects."""

KEY_SUFFIX = ".pem"
SECRET_SUFFIX = ".pairwise"  # noqa: S105


class KeyFiles(NamedTuple):
    """What a directory has: keys, and secrets for pairwise subjects, each by file name, in order.

    `current` is the name of the secret that is used from now on, None if there is none.
    """

    keys: Mapping[str, IssuerKey]
    secrets: Mapping[str, bytes]
    current: str | None


@dataclass(frozen=True, slots=True)
class _PublishedKey:
    """A key, since when it is published, and when its file was removed, in monotonic seconds."""

    key: IssuerKey
    since: float
    removed: float | None = None


class KeyDirectory:
    """The keys of a directory, reloaded when it changes, as `Reloaded` does, whose arguments `more` are.

    Each file `*.pem` is a private key, P-256 or Ed25519. All are published; the last one by name signs, once it has
    been published for `publish_ahead` seconds. A process that starts with several keys cannot know how long the last
    one has been there: it signs with the one before until then. A key whose file was removed signs no more, and stays
    published until its tokens have expired. Other files are not read.

    Each file `*.pairwise` is a secret for pairwise subjects. `secret` names the one to use, needed where there are
    several. While this process runs, that secret stays the same: a directory in which it is missing or has changed is
    taken for broken, since each subject would change with it.

    Raises ConfigurationError for a directory that is invalid from the start.
    """

    def __init__(
        self,
        path: Path,
        *,
        secret: str | None = None,
        publish_ahead: float = PUBLISH_AHEAD,
        monotonic: Callable[[], float] = time.monotonic,
        **more: Any,
    ) -> None:
        self._secret = secret
        self._publish_ahead = publish_ahead
        self._monotonic = monotonic
        self._known: KeyFiles | None = None
        self._files = Reloaded(path, self._read, what="keys", version=_version, monotonic=monotonic, **more)
        self._seen = self._files.get()
        self._published = _publish((), self._seen, monotonic())

    def signing_key(self) -> IssuerKey:
        """Return the key to sign with now."""
        published, now = self._current(), self._monotonic()
        present = [one for one in published if one.removed is None]
        ready = [one for one in present if now - one.since >= self._publish_ahead]
        if ready:
            return ready[-1].key
        first = min(one.since for one in present)
        oldest = [one for one in present if one.since == first]
        return oldest[-2 if len(oldest) > 1 else -1].key

    def published_keys(self) -> Sequence[IssuerKey]:
        """Return each key whose tokens may be valid, now or soon."""
        published, now = self._current(), self._monotonic()
        return [one.key for one in published if one.removed is None or now - one.removed < PUBLISHED_AFTER]

    def nonce_secrets(self) -> Sequence[bytes]:
        """Return what nonces are made with: by the key that signs, then by the others, which may sign elsewhere."""
        signing = self.signing_key()
        others = [key for key in self.published_keys() if key.key_id != signing.key_id]
        return [key.derive_secret("DPoP nonce") for key in (signing, *others)]

    def files(self) -> KeyFiles:
        """Return what was read last."""
        return self._files.get()

    def _read(self, path: Path) -> KeyFiles:
        files, known = read_keys(path, self._secret), self._known
        if known is not None and known.current is not None:
            if files.secrets.get(known.current) != known.secrets[known.current]:
                raise ConfigurationError(
                    f"the secret {known.current} in {path} is missing or has changed, and with it each pairwise "
                    "subject: put it back, and add another one as a file of its own"
                )
            files = files._replace(current=known.current)
        self._known = files
        return files

    def _current(self) -> Sequence[_PublishedKey]:
        files = self._files.get()
        if files is not self._seen:
            self._published = _publish(self._published, files, self._monotonic())
            self._seen = files
        return self._published


def _publish(before: Sequence[_PublishedKey], files: KeyFiles, now: float) -> Sequence[_PublishedKey]:
    """Return the keys that have left a directory of late, and those that it has, in order."""
    since = {one.key.key_id: one.since for one in before if one.removed is None}
    present = {key.key_id: _PublishedKey(key, since.get(key.key_id, now)) for key in files.keys.values()}
    gone = [
        _PublishedKey(one.key, one.since, now if one.removed is None else one.removed)
        for one in before
        if one.key.key_id not in present
    ]
    return [*(one for one in gone if now - (one.removed or now) < PUBLISHED_AFTER), *present.values()]


def read_keys(path: Path, secret: str | None = None) -> KeyFiles:
    """Return what a directory has; `secret` is the name of the current secret, needed where there are several.

    Raises ConfigurationError, which names the file, and quotes nothing of it.
    """
    keys: dict[str, IssuerKey] = {}
    secrets: dict[str, bytes] = {}
    where = path
    try:
        for file in _key_files(path):
            where = path / file.name
            if file.suffix == KEY_SUFFIX:
                keys[file.name] = parse_issuer_key(_read(file))
            else:
                secrets[file.name] = _parse_secret(_read(file))
    except OSError as error:
        raise ConfigurationError(f"cannot read keys in {where}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"invalid key file {where}: {error}") from None
    if not keys:
        raise ConfigurationError(f"no keys in {path}: expected private keys in files *{KEY_SUFFIX}")
    if secret is not None and secret not in secrets:
        raise ConfigurationError(f"no secret {secret} in {path}, which pairwise_secret names")
    if secret is None and len(secrets) > 1:
        raise ConfigurationError(
            f"several secrets for pairwise subjects in {path}: name the one to use in pairwise_secret, "
            f"one of {', '.join(secrets)}"
        )
    return KeyFiles(keys, secrets, secret or next(iter(secrets), None))


def read_secrets(path: Path) -> Mapping[str, bytes]:
    """Return the secrets for pairwise subjects in a directory, by file name. Raises ConfigurationError."""
    try:
        return {one.name: _parse_secret(_read(one)) for one in _key_files(path) if one.suffix == SECRET_SUFFIX}
    except OSError as error:
        raise ConfigurationError(f"cannot read secrets in {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"invalid secrets in {path}: {error}") from None


def _key_files(path: Path) -> Iterator[Path]:
    """Yield the files that are read, by name.

    Kubernetes replaces the link `..data` when a Secret changes (pkg/volume/util/atomic_writer.go): it is followed once,
    so that all files are of one state.
    """
    data = path / "..data"
    names = sorted(one for one in (data.resolve() if data.exists() else path).iterdir())
    wanted = [one for one in names if one.suffix in (KEY_SUFFIX, SECRET_SUFFIX) and not one.name.startswith(".")]
    if len(wanted) > MAX_FILES:
        raise ValueError(f"expected at most {MAX_FILES} files")
    yield from wanted


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"expected at most {MAX_FILE} bytes")
    return content


def _parse_secret(content: bytes) -> bytes:
    secret = content.strip()
    if len(secret) < MIN_SECRET:
        raise ValueError(f"expected a random secret of at least {MIN_SECRET} bytes")
    return secret


def _version(path: Path) -> tuple[object, ...] | None:
    """Return what changes when a file is added, written or removed, or the link of a Secret replaced."""
    try:
        return tuple((file.name, file_version(file)) for file in _key_files(path))
    except (OSError, ValueError):
        return None
