"""`podproof inspect --reverse`: who is behind the pairwise subject of an issued token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from podproof._token.jwt import read_claims
from podproof.cli.errors import CommandError
from podproof.errors import ConfigurationError, MalformedToken
from podproof.exchange.key_directory import read_secrets
from podproof.exchange.pairwise import reverse_subject


def reverse_tokens(directory: Path, texts: Mapping[str, str]) -> str:
    """Return a line for each token, by its name: the subject, and the secret it was made by. Raises CommandError."""
    lines = []
    for name, text in texts.items():
        try:
            claims = read_claims(text.strip())
        except MalformedToken as problem:
            raise CommandError(f"{name}: {problem}") from None
        lines.append(reverse(directory, str(claims.get("sub")), str(claims.get("aud"))))
    return "".join(lines)


def reverse(directory: Path, subject: str, audience: str) -> str:
    """Return a line about a subject that an audience has seen. Raises CommandError if none of the secrets made it."""
    try:
        found = reverse_subject(read_secrets(directory), subject, audience)
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    if found is None:
        raise CommandError(f"no secret in {directory} has made this subject for the audience {audience!r:.80}")
    return f"{found.kind} {found.identifier} (by {found.secret})\n"
