"""A container's environment variables, as far as its pod's spec, ConfigMaps and Secrets tell."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, warn
from podproof.errors import Unavailable

_REFERENCE = re.compile(r"\$\$|\$\(([\w.-]+)\)")
_PATHS = {"configMap": "configmaps", "secret": "secrets"}
_KINDS = {"configMap": "ConfigMap", "secret": "Secret"}
# A Secret is read only for variables that a check needs.
_NEEDED = re.compile(
    r"PODPROOF_.*|UVICORN_.*|GRANIAN_.*|GUNICORN_CMD_ARGS|FORWARDED_ALLOW_IPS|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE
)

# Other parts of podproof read the first; Kubernetes sets the second for a Service whose name starts with podproof.
_NO_OPTION = re.compile(r"PODPROOF_(TOKEN_FILE|(.*_)?(SERVICE_.*|PORT(_.*)?))")


def sets_options(variables: Mapping[str, str]) -> bool:
    """Return True if a variable sets an option of the middlewares."""
    return any(name.startswith("PODPROOF_") and not _NO_OPTION.fullmatch(name) for name in variables)


def items(mapping: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list of a Kubernetes object, empty if it is missing or null."""
    found = mapping.get(key)
    return found if isinstance(found, list) else []


def expand_references(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does in `command`, `args` and `value`; unknown names stay as they are."""
    return _REFERENCE.sub(lambda match: variables.get(match[1], match[0]) if match[1] else "$", text)


class VariableReader:
    """Reads the variables of the containers of one pod.

    `findings` are those about sources that cannot be read or do not exist; `complete` is False if a source was not
    read.
    """

    def __init__(self, environment: Environment, pod: Mapping[str, Any]) -> None:
        self._environment = environment
        self._pod = pod
        self._namespace = str(pod["metadata"]["namespace"])
        self._sources: dict[tuple[str, str], Mapping[str, str] | None] = {}
        self.findings: list[Finding] = []
        self.complete = True

    def read(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Return a container's variables: first `envFrom`, then `env`, each later one replacing earlier ones."""
        variables: dict[str, str] = {}
        for entry in items(container, "envFrom"):
            prefix = entry.get("prefix") or ""
            for kind, reference in self._references(entry, "Ref"):
                source = self._source(kind, reference)
                variables |= {prefix + name: value for name, value in source.items()}
        for entry in items(container, "env"):
            if not entry.get("valueFrom"):
                variables[entry["name"]] = expand_references(entry.get("value") or "", variables)
            elif (value := self._value(entry["name"], entry["valueFrom"])) is not None:
                variables[entry["name"]] = value
        return variables

    def _references(self, entry: Mapping[str, Any], suffix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for kind in _KINDS:
            if reference := entry.get(kind + suffix):
                yield kind, reference

    def _value(self, name: str, value_from: Mapping[str, Any]) -> str | None:
        for kind, reference in self._references(value_from, "KeyRef"):
            if kind == "secret" and not _NEEDED.fullmatch(name):
                return None
            source = self._source(kind, reference)
            key = reference["key"]
            if key not in source and source and not reference.get("optional"):
                self._report_missing(f"the key {key} of the {_KINDS[kind]} {self._namespace}/{reference['name']}", kind)
            return source.get(key)
        return self._field((value_from.get("fieldRef") or {}).get("fieldPath", ""))

    def _field(self, path: str) -> str | None:
        """Return a field of the pod (the downward API)."""
        value: Any = self._pod
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else None

    def _source(self, kind: str, reference: Mapping[str, Any]) -> Mapping[str, str]:
        key = kind, str(reference["name"])
        if key not in self._sources:
            self._sources[key] = self._fetch(*key, optional=bool(reference.get("optional")))
        return self._sources[key] or {}

    def _fetch(self, kind: str, name: str, *, optional: bool) -> Mapping[str, str] | None:
        path = f"/api/v1/namespaces/{self._namespace}/{_PATHS[kind]}/{name}"
        source = f"the {_KINDS[kind]} {self._namespace}/{name}"
        try:
            response = self._environment.client.get(path, self._environment.deadline())
        except Unavailable as error:
            self.complete = False
            self.findings.append(
                warn(
                    "options",
                    f"the variables from {source} were not checked: {error.reason}",
                    "Run the doctor in the pod, where all variables are visible:\n"
                    f"kubectl exec --namespace {self._namespace} {self._pod['metadata']['name']} -- podproof doctor",
                )
            )
            return None
        if response.status == 404:
            if not optional:
                self._report_missing(source, kind)
            return None
        data: Mapping[str, str] = response.document.get("data") or {}
        if kind == "secret":
            return {key: b64decode(value).decode(errors="replace") for key, value in data.items()}
        return data

    def _report_missing(self, source: str, kind: str) -> None:
        self.findings.append(
            fail(
                "options",
                f"{source} does not exist: new pods cannot start",
                f"kubectl get {_PATHS[kind]} --namespace {self._namespace}",
            )
        )
