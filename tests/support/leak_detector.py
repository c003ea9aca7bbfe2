"""Everything that is said in a test, by whichever logger at whichever level, searched for tokens."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

LENGTH = 20
"""So many characters in a row of a token are too many."""

_FORMATTER = logging.Formatter("%(name)s %(message)s")


class Leak(AssertionError):
    """Something that was said holds a piece of a token."""


class Ears:
    """Hears what is said, knows the secrets, and finds the ones in the other."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._pieces: set[str] = set()
        self.decisions: list[tuple[str, str]] = []

    def keep(self, secret: str | bytes) -> None:
        """Take a secret; of a header's value, the parts that a token could be made of."""
        text = secret.decode("latin-1") if isinstance(secret, bytes) else secret
        for part in re.findall(rf"[\w+/.~-]{{{LENGTH},}}", text, re.ASCII):
            # Whatever quotes twice LENGTH characters of it quotes one of these.
            self._pieces.update(part[start : start + LENGTH] for start in range(0, len(part) - LENGTH + 1, LENGTH))
            # Its segments each by themselves, however they begin.
            self._pieces.update(segment[:LENGTH] for segment in part.split(".") if len(segment) >= LENGTH)

    def hear(self, text: str) -> None:
        self._heard.append(text)

    def hear_record(self, record: logging.LogRecord) -> None:
        """Hear a record; of a decision, note the code and the reason."""
        if hasattr(record, "decision"):
            self.decisions.append((vars(record)["code"], vars(record)["reason"]))
        self.hear(text_of(record))

    def hear_error(self, error: BaseException) -> None:
        """Hear an error as it is printed, with all that led to it, and its attributes."""
        self.hear("".join(traceback.format_exception(error)))
        one: BaseException | None = error
        while one is not None:
            self.hear(f"{one!r} {one.args!r} {vars(one)!r}")
            one = one.__cause__ or one.__context__

    def check(self) -> None:
        """Forget what was heard, unless a secret is in it.

        Raises Leak.
        """
        heard, self._heard = self._heard, []
        for text in heard:
            windows = {text[start : start + LENGTH] for start in range(len(text) - LENGTH + 1)}
            if found := windows & self._pieces:
                raise Leak(f"{found} stands in: {text[:2000]}")

    def forget(self) -> None:
        """Forget the secrets and what was heard."""
        self._heard.clear()
        self.decisions.clear()
        self._pieces.clear()


def text_of(record: logging.LogRecord) -> str:
    """Return a record's line with its traceback, and of our own each attribute, as a formatter may write them.

    gunicorn hands all of a request's headers to the formatter of its access log.
    """
    ours = record.name.partition(".")[0] == "podproof"
    return _FORMATTER.format(record) + (f" {vars(record)!r}" if ours else "")


@contextmanager
def every_record(hear: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Hand over each log record, whatever levels are set, handlers there are, and loggers do not propagate."""
    pass_on = logging.Logger.callHandlers

    def overhear(logger: logging.Logger, record: logging.LogRecord) -> None:
        hear(record)
        if record.levelno >= logger.getEffectiveLevel():
            pass_on(logger, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "isEnabledFor", lambda *_: True)
        patch.setattr(logging.Logger, "callHandlers", overhear)
        yield
