"""The exec plugin of a kubeconfig's user (client.authentication.k8s.io), which prints the credential."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from podproof.cli.finding import Finding, fail

_TOKEN = re.compile(r"[\w-]{16,}\.[\w-]{16,}(\.[\w-]*)?")


def check_exec_plugin(plugin: Mapping[str, Any], directory: Path, seconds: float) -> Finding | None:
    """Run an exec plugin, for up to `seconds`, and return a finding if it does not print a credential.

    The client of the API server waits for a plugin without limit, and calls the API server anonymously if it fails.
    """
    command = [str(plugin.get("command")), *(plugin.get("args") or ())]
    name = f"the exec plugin {command[0]}"
    version = str(plugin.get("apiVersion"))
    variables = {entry["name"]: entry["value"] for entry in plugin.get("env") or ()}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": sys.stdin.isatty()}}
    try:
        done = subprocess.run(  # noqa: S603  the user's own kubeconfig names it
            command,
            env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            cwd=directory,
            stdin=None if sys.stdin.isatty() else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        hint = plugin.get("installHint") or f"Install {command[0]}, or use another kubeconfig:\nexport KUBECONFIG=FILE"
        return fail("credential", f"{name} cannot be started: {error.strerror}", str(hint).strip())
    except subprocess.TimeoutExpired:
        return fail(
            "credential",
            f"{name} printed no credential within {seconds:g} s",
            f"Run it to see what it waits for:\n{' '.join(command)}",
        )
    if done.returncode:
        said = _last_line(done.stderr)
        return fail(
            "credential",
            f"{name} failed with exit status {done.returncode}{said and f': {said}'}",
            f"Run it, or log in again:\n{' '.join(command)}",
        )
    if not _has_credential(done.stdout):
        return fail(
            "credential",
            f"{name} printed no ExecCredential with a token or a certificate in its status",
            f"Run it to see what it prints, which may be secret:\n{' '.join(command)}",
        )
    return None


def _last_line(text: str) -> str:
    """Return the last line of an error text, without anything that looks like a token."""
    line = "".join(text.strip().splitlines()[-1:])
    return _TOKEN.sub("TOKEN", "".join(character for character in line if character.isprintable()))[:200]


def _has_credential(text: str) -> bool:
    try:
        status = json.loads(text)["status"]
        return bool(status.get("token") or status.get("clientCertificateData"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
