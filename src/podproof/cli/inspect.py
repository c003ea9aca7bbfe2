"""`podproof inspect`: show the claims of a token. It is not verified; neither it nor its signature is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from podproof._token.jwt import read_claims
from podproof.cli import mounts
from podproof.cli.durations import format_duration, format_time
from podproof.cli.errors import CommandError
from podproof.cli.table import Colour, paint
from podproof.errors import MalformedToken
from podproof.identity import ServiceAccount

# A token may be pasted with its header.
_SCHEME = re.compile(r"\s*(?:[\w-]+:\s*)?(?:(?:Bearer|DPoP)\s+)?", re.IGNORECASE)


def read_tokens(file: str | None, stdin: TextIO, environ: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """Return the text of a token file, of standard input ("-"), or (None) of standard input or else the mounted tokens.

    The keys name the source of each. Raises CommandError if there is nothing to read.
    """
    if file is None and not stdin.isatty() and (text := stdin.read()).strip():
        return {"standard input": text}
    if file is None:
        files = mounts.token_files(root, environ)
        if not files:
            raise CommandError("no token is mounted here: name a token file, or pass the token on standard input")
        return {str(path): _read_text(path) for path in files}
    if file == "-":
        return {"standard input": stdin.read()}
    try:
        read_claims(_strip_scheme(file))
    except MalformedToken:
        return {file: _read_text(Path(file))}
    raise CommandError(
        "FILE is a token, not a file name: pass it on standard input, where process lists do not show it"
    )


def format_tokens(texts: Mapping[str, str], now: float, *, coloured: bool = False) -> str:
    """Return each token's claims in aligned lines, and what it can be used for at `now` (Unix seconds).

    Raises CommandError if a text is not a token.
    """
    parts = []
    for name, text in texts.items():
        try:
            found = read_claims(_strip_scheme(text))
        except MalformedToken as problem:
            raise CommandError(f"{name}: {problem}") from None
        heading = paint(name, Colour.HEADING, coloured=coloured) + "\n" if len(texts) > 1 else ""
        parts.append(heading + _format_claims(found, now, coloured=coloured))
    return "\n".join(parts)


def _strip_scheme(text: str) -> str:
    return _SCHEME.sub("", text, count=1).strip()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None


def _format_claims(found: Mapping[str, Any], now: float, *, coloured: bool) -> str:
    colour, use = _use(found, now)
    rows = [(name, _plain(value), Colour.PLAIN) for name, value in _rows(found, now) if value]
    rows.append(("usable for", _plain(use), colour))
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
    yield "not before", _date(found, "nbf", now) if found.get("nbf") != found.get("iat") else ""
    yield "expires", _date(found, "exp", now) if "exp" in found else "never"
    yield "verified", "no: only the API server can verify it"


def _use(found: Mapping[str, Any], now: float) -> tuple[Colour, str]:
    """Return what a token can be used for, if the API server accepts it."""
    try:
        account = ServiceAccount.from_username(str(found.get("sub")))
    except ValueError:
        return Colour.BAD, "nothing: it is not a service account's token"
    end, begin = _number(found, "exp"), _number(found, "nbf")
    if end is not None and now >= end:
        return Colour.BAD, f"nothing: it expired {format_duration(now - end)} ago"
    if begin is not None and now < begin:
        return Colour.BAD, f"nothing yet: it becomes valid in {format_duration(begin - now)}"
    audiences = _audiences(found)
    if not audiences or found.get("iss") in audiences:
        return (
            Colour.DOUBTFUL,
            f"the Kubernetes API as {account}: do not send it to an app, which needs a token for its own audience",
        )
    pod = _bound(found, "pod").partition(" ")[0]
    if not pod:
        return (
            Colour.BAD,
            "nothing: it is not bound to a pod (not-pod-bound), as a token from a projected volume is",
        )
    left = f", for {format_duration(end - now)}" if end is not None else ""
    return Colour.GOOD, f"calling {' or '.join(audiences)} as {account}, only from pod {pod}{left}"


def _bound(found: Mapping[str, Any], key: str) -> str:
    """Return the object that the claim kubernetes.io binds a token to: namespace, name and UID."""
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
    return f"{format_time(value)}, " + (
        f"in {format_duration(value - now)}" if value > now else f"{format_duration(now - value)} ago"
    )


def _number(found: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519 section 2) before the year 10000, else None."""
    value = found.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value < 253402300800 else None


def _plain(text: str) -> str:
    """Replace control characters: the issuer of the token chose this text."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
