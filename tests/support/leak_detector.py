"""Search everything that a test logs, prints or raises, at every level and in every logger, for pieces of tokens."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

PIECE_LENGTH = 20
"""This many consecutive characters of a token count as a leak."""

_RUN = re.compile(rf"[\w+/.~-]{{{PIECE_LENGTH},}}", re.ASCII)
"""Characters of tokens, as many as there are in a row: every piece is in one."""

_FORMATTER = logging.Formatter("%(name)s %(message)s")


class TokenLeaked(AssertionError):
    """Output contains a piece of a token."""


class LeakDetector:
    """Collects secrets and output, and fails if a piece of one is found in the other."""

    def __init__(self) -> None:
        self._output: list[str] = []
        self._pieces: set[str] = set()
        self.decisions: list[tuple[str, str]] = []

    def add_secret(self, secret: str | bytes) -> None:
        """Add a secret; of a header's value, the parts that a token could be made of."""
        text = secret.decode("latin-1") if isinstance(secret, bytes) else secret
        for part in _RUN.findall(text):
            # Every quotation of twice PIECE_LENGTH characters contains one of these.
            starts = range(0, len(part) - PIECE_LENGTH + 1, PIECE_LENGTH)
            self._pieces.update(part[start : start + PIECE_LENGTH] for start in starts)
            # The beginning of each JWT segment, wherever the segment begins.
            self._pieces.update(segment[:PIECE_LENGTH] for segment in part.split(".") if len(segment) >= PIECE_LENGTH)

    def add_output(self, text: str) -> None:
        self._output.append(text)

    def add_record(self, record: logging.LogRecord) -> None:
        """Add a log record to the output; of a decision, keep the code and the reason."""
        if hasattr(record, "decision"):
            self.decisions.append((vars(record)["code"], vars(record)["reason"]))
        self.add_output(format_record(record))

    def add_error(self, error: BaseException) -> None:
        """Add an error to the output, as it is printed with its causes, and with the attributes of each."""
        self.add_output("".join(traceback.format_exception(error)))
        one: BaseException | None = error
        while one is not None:
            self.add_output(f"{one!r} {one.args!r} {vars(one)!r}")
            one = one.__cause__ or one.__context__

    def assert_no_leak(self) -> None:
        """Search the output collected since the last call.

        Raises TokenLeaked.
        """
        output, self._output = self._output, []
        for text in output:
            windows = {
                run[start : start + PIECE_LENGTH]
                for run in _RUN.findall(text)
                for start in range(len(run) - PIECE_LENGTH + 1)
            }
            if found := windows & self._pieces:
                raise TokenLeaked(f"{found} found in: {text[:2000]}")

    def clear(self) -> None:
        """Drop all secrets and output."""
        self._output.clear()
        self.decisions.clear()
        self._pieces.clear()


def format_record(record: logging.LogRecord) -> str:
    """Return a record's line with its traceback; of podproof's records every attribute, as a formatter may write them.

    gunicorn passes all headers of a request to the formatter of its access log.
    """
    from_podproof = record.name.partition(".")[0] == "podproof"
    return _FORMATTER.format(record) + (f" {vars(record)!r}" if from_podproof else "")


@contextmanager
def capture_all_records(receive: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Pass each log record to `receive`, regardless of levels, handlers and propagation."""
    call_handlers = logging.Logger.callHandlers

    def receive_and_handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        receive(record)
        if record.levelno >= logger.getEffectiveLevel():
            call_handlers(logger, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "isEnabledFor", lambda *_: True)
        patch.setattr(logging.Logger, "callHandlers", receive_and_handle)
        yield
