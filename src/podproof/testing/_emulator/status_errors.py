"""The errors of the emulated API server, in the words of the real one."""

from __future__ import annotations

from typing import Any


class StatusError(Exception):
    """An error response of the API server: a Kubernetes `Status` object with an HTTP status of 400 or more."""

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


def bad_request(message: str) -> StatusError:
    """Return a 400: the request cannot be read."""
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    """Return a 401: the credential is invalid. Without a credential a request is anonymous instead."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def not_admitted(resource: str, name: str, why: str) -> StatusError:
    """Return a 403: an admission plugin rejects the object."""
    message = f'{resource} "{name}" is forbidden: {why}'
    return StatusError(403, "Forbidden", message, {"name": name, "kind": resource})


def not_found(resource: str, name: str, group: str = "") -> StatusError:
    """Return a 404: no object has this name."""
    full = f"{resource}.{group}" if group else resource
    details = {"name": name, "group": group, "kind": resource} if group else {"name": name, "kind": resource}
    return StatusError(404, "NotFound", f'{full} "{name}" not found', details)


def unknown_resource() -> StatusError:
    """Return a 404: the path names no resource."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def not_allowed() -> StatusError:
    """Return a 405: the resource does not support the method."""
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def conflict(kind: str, name: str, why: str) -> StatusError:
    """Return a 409: the object has another UID than the request names."""
    message = f'Operation cannot be fulfilled on {kind} "{name}": {why}'
    return StatusError(409, "Conflict", message, {"name": name, "kind": kind})


def already_exists(resource: str, name: str) -> StatusError:
    """Return a 409: an object of this name exists."""
    message = f'{resource} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, {"name": name, "kind": resource})


def expired(message: str) -> StatusError:
    """Return a 410: the resource version has been compacted."""
    return StatusError(410, "Expired", message)


def invalid(kind: str, group: str, field: str, message: str, reason: str = "FieldValueInvalid") -> StatusError:
    """Return a 422: a field of the object is invalid."""
    details: dict[str, Any] = {"group": group} | ({"kind": kind} if kind else {})
    details["causes"] = [{"reason": reason, "message": message, "field": field}]
    return StatusError(422, "Invalid", f'{kind}.{group} "" is invalid: {field}: {message}', details)


def forbidden_list_option(field: str, message: str) -> StatusError:
    """Return a 422: a list or a watch must not have this query parameter."""
    return invalid("ListOptions", "meta.k8s.io", field, f"Forbidden: {message}", "FieldValueForbidden")


def too_large_version(info: int, current: int) -> StatusError:
    """Return a 504: the resource version is higher than the current one."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {info}, current: {current}",
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


def failing(code: int) -> StatusError:
    """Return an error of any HTTP status, for `Cluster.fail`."""
    return StatusError(code, _REASONS.get(code, ""), f"failed by Cluster.fail({code})")
