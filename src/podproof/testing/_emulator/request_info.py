"""The verb and the resource of a request, as the API server reads them from its method and path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request's verb and target; `resource` is empty for a URL that names none."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""

    @property
    def full_resource(self) -> str:
        """The resource with its subresource, as RBAC rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def parse_request_info(method: str, path: str, *, watch: bool = False) -> RequestInfo:
    """Return the RequestInfo of a method and a path; `watch` is the query parameter of that name."""
    segments = [segment for segment in path.split("/") if segment]
    match segments:
        case ["api", version, _, *_]:
            group, rest = "", segments[2:]
        case ["apis", group, version, _, *_]:
            rest = segments[3:]
        case _:
            return RequestInfo(method.lower(), path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in {"status", "finalize"}:
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    verb = VERBS.get(method, "")
    if not name:
        verb = {"get": "watch" if watch else "list", "delete": "deletecollection"}.get(verb, verb)
    return RequestInfo(verb, path, group, version, namespace, resource, subresource, name)


def is_flag_set(query: Mapping[str, str], name: str) -> bool:
    """Return True if a query parameter is present and neither `false` nor `0`, as apimachinery reads booleans."""
    return name in query and query[name].lower() not in {"false", "0"}
