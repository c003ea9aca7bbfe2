"""`podproof inspect`: what a token says of itself. It is not verified, and never shown, nor its signature."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from podproof._token.jwt import read_claims
from podproof.cli import mounts
from podproof.cli.errors import CommandError
from podproof.cli.table import Colour, paint
from podproof.cli.times import span, stamp
from podproof.errors import MalformedToken
from podproof.identity import ServiceAccount

# What may be pasted before a token, from a request.
_SCHEME = re.compile(r"\s*(?:Authorization:\s*)?(?:Bearer\s+)?", re.IGNORECASE)


def find(file: str | None, stdin: TextIO, environ: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """Return the text of a file, of standard input ("-"), or (None) of standard input or else of the mounted tokens.

    The keys say where each comes from. Raises CommandError where there is nothing to be read.
    """
    if file is None and not stdin.isatty() and (text := stdin.read()).strip():
        return {"standard input": text}
    if file is None:
        files = mounts.token_files(root, environ)
        if not files:
            raise CommandError("no token is mounted here: name its file, or give it on standard input")
        return {str(path): _text(path) for path in files}
    if file == "-":
        return {"standard input": stdin.read()}
    try:
        read_claims(_bare(file))
    except MalformedToken:
        return {file: _text(Path(file))}
    raise CommandError("that is a token, not a file: give it on standard input, where no list of processes shows it")


def show(texts: Mapping[str, str], now: float, *, coloured: bool = False) -> str:
    """Return each token's claims in aligned lines, and below them what it is good for at `now` (Unix seconds).

    Raises CommandError for what is no token.
    """
    parts = []
    for name, text in texts.items():
        try:
            found = read_claims(_bare(text))
        except MalformedToken as problem:
            raise CommandError(f"{name}: {problem}") from None
        heading = paint(name, Colour.HEADING, coloured=coloured) + "\n" if len(texts) > 1 else ""
        parts.append(heading + _show(found, now, coloured=coloured))
    return "\n".join(parts)


def _bare(text: str) -> str:
    return _SCHEME.sub("", text, count=1).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None


def _show(found: Mapping[str, Any], now: float, *, coloured: bool) -> str:
    colour, use = _use(found, now)
    rows = [(name, _plain(value), Colour.PLAIN) for name, value in _rows(found, now) if value]
    rows.append(("good for", _plain(use), colour))
    width = max(len(name) for name, _, _ in rows)
    lines = [
        f"{paint(name.ljust(width), Colour.HEADING, coloured=coloured)}  {paint(value, colour, coloured=coloured)}"
        for name, value, colour in rows
    ]
    return "\n".join(lines) + "\n"


def _rows(found: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    yield "subject", str(found.get("sub", ""))
    for name, key in (("service account", "serviceaccount"), ("pod", "pod"), ("node", "node"), ("secret", "secret")):
        yield name, _bound(found, key)
    yield "audience", ", ".join(_audiences(found))
    yield "issuer", str(found.get("iss", ""))
    yield "credential id", f"JTI={found['jti']}" if "jti" in found else ""
    yield "issued", _date(found, "iat", now)
    yield "begins", _date(found, "nbf", now) if found.get("nbf") != found.get("iat") else ""
    yield "expires", _date(found, "exp", now) if "exp" in found else "never"
    yield "verified", "no: only the API server can tell whether it is genuine"


def _use(found: Mapping[str, Any], now: float) -> tuple[Colour, str]:
    """Return what a token can be used for, if it is genuine."""
    try:
        account = ServiceAccount.from_username(str(found.get("sub")))
    except ValueError:
        return Colour.BAD, "nothing here: it is no service account's token"
    end, begin = _number(found, "exp"), _number(found, "nbf")
    if end is not None and now >= end:
        return Colour.BAD, f"nothing any more: it expired {span(now - end)} ago"
    if begin is not None and now < begin:
        return Colour.BAD, f"nothing yet: it begins in {span(begin - now)}"
    audiences = _audiences(found)
    if not audiences or found.get("iss") in audiences:
        return (
            Colour.DOUBTFUL,
            f"calling the Kubernetes API as {account}: keep it to yourself, and get one for the audience of the app",
        )
    pod = _bound(found, "pod").partition(" ")[0]
    if not pod:
        return (
            Colour.BAD,
            "no app that asks for a pod: it is bound to none, as one from a projected volume is (unbound)",
        )
    left = f", for another {span(end - now)}" if end is not None else ""
    return Colour.GOOD, f"calling {' or '.join(audiences)} as {account}, from pod {pod} alone{left}"


def _bound(found: Mapping[str, Any], key: str) -> str:
    """Return what the claim kubernetes.io binds a token to: namespace, name and UID."""
    claim = found.get("kubernetes.io")
    thing = claim.get(key) if isinstance(claim, dict) else None
    if not isinstance(claim, dict) or not isinstance(thing, dict):
        return ""
    name = str(thing.get("name"))
    return (name if key == "node" else f"{claim.get('namespace')}/{name}") + f" (uid {thing.get('uid')})"


def _audiences(found: Mapping[str, Any]) -> list[str]:
    named = found.get("aud", [])
    return [str(one) for one in (named if isinstance(named, list) else [named])]


def _date(found: Mapping[str, Any], name: str, now: float) -> str:
    if name not in found:
        return ""
    value = _number(found, name)
    if value is None:
        return "not a time"
    return f"{stamp(value)}, " + (f"in {span(value - now)}" if value > now else f"{span(now - value)} ago")


def _number(found: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519 section 2), if it is one before the year 10000."""
    value = found.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < 253402300800 else None


def _plain(text: str) -> str:
    """Return text without what would steer a terminal: whoever made the token has written it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
