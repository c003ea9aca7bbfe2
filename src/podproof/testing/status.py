"""The errors of the emulated API server, worded as the real one words them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podproof.testing.requestinfo import RequestInfo


class Failure(Exception):
    """A request that ends in a Kubernetes `Status` object."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    def json(self) -> dict[str, Any]:
        """Return the `Status` object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return status | {"code": self.code}


def bad_request(message: str) -> Failure:
    """400."""
    return Failure(400, "BadRequest", message)


def unauthorized() -> Failure:
    """401: a credential that is no good. One that is missing is `system:anonymous` instead."""
    return Failure(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, asked: RequestInfo) -> Failure:
    """403: no rule allows it."""
    if not asked.resource:
        return Failure(403, "Forbidden", f'forbidden: User "{user}" cannot {asked.verb} path "{asked.path}"', {})
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    full = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    named = f'{full} "{asked.name}"' if asked.name else full
    message = (
        f'{named} is forbidden: User "{user}" cannot {asked.verb} resource "{asked.full_resource}"'
        f' in API group "{asked.group}" {where}'
    )
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource}
    return Failure(403, "Forbidden", message, {key: value for key, value in details.items() if value})


def not_admitted(resource: str, name: str, why: str) -> Failure:
    """403: an admission plugin refuses it."""
    message = f'{resource} "{name}" is forbidden: {why}'
    return Failure(403, "Forbidden", message, {"name": name, "kind": resource})


def not_found(resource: str, name: str, group: str = "") -> Failure:
    """404: no such object."""
    full = f"{resource}.{group}" if group else resource
    details = {"name": name, "group": group, "kind": resource} if group else {"name": name, "kind": resource}
    return Failure(404, "NotFound", f'{full} "{name}" not found', details)


def unknown_resource() -> Failure:
    """404: no such resource."""
    return Failure(404, "NotFound", "the server could not find the requested resource", {})


def not_allowed() -> Failure:
    """405."""
    return Failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def conflict(kind: str, name: str, why: str) -> Failure:
    """409: the object is not the one that the request means."""
    message = f'Operation cannot be fulfilled on {kind} "{name}": {why}'
    return Failure(409, "Conflict", message, {"name": name, "kind": kind})


def already_exists(resource: str, name: str) -> Failure:
    """409: the name is taken."""
    message = f'{resource} "{name}" already exists'
    return Failure(409, "AlreadyExists", message, {"name": name, "kind": resource})


def expired(message: str) -> Failure:
    """410: the resource version is no longer remembered."""
    return Failure(410, "Expired", message)


def invalid(kind: str, group: str, field: str, message: str) -> Failure:
    """422: one field of the object breaks a rule."""
    details: dict[str, Any] = {"group": group} | ({"kind": kind} if kind else {})
    details["causes"] = [{"reason": "FieldValueInvalid", "message": message, "field": field}]
    return Failure(422, "Invalid", f'{kind}.{group} "" is invalid: {field}: {message}', details)


def too_large_version(asked: int, current: int) -> Failure:
    """504: a resource version from the future."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Failure(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
    )


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def failing(code: int) -> Failure:
    """Return a failure of any status, for an API server that is made to fail."""
    return Failure(code, _REASONS.get(code, ""), f"made to fail with {code}")
