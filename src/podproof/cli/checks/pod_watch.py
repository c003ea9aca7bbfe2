"""The watch of the pods: whether they can be listed and watched, and whether there are many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from podproof._apiserver.permissions import Permission
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.errors import Unavailable

if TYPE_CHECKING:
    from podproof.options import Options

_MANY_PODS = 20_000
"""Pods above which the watch of each process is worth a warning."""

_POD_SIZE = 700
"""Bytes that the view of one process takes for each pod, at most."""


def check_pod_watch(environment: Environment, options: Options) -> Iterator[Finding]:
    """List pods and begin a watch, in each namespace that is watched, and count the pods."""
    from podproof._apiserver.response import ConnectionFailed  # noqa: PLC0415  not in a caller's image

    count, selectors = 0, _selectors(options)
    for namespace in options.watch_namespaces or ("",):
        where = f" in namespace {namespace}" if namespace else ""
        try:
            count += _list_and_watch(environment, namespace, selectors)
        except (Unavailable, ConnectionFailed) as error:
            yield fail(
                "watch",
                f"the pods{where} cannot be watched: {error.reason if isinstance(error, Unavailable) else error}",
                f"kubectl get --raw '{_path(namespace)}?{urlencode(selectors | {'watch': 1, 'timeoutSeconds': 5})}'",
            )
            return
    where = f" in {', '.join(options.watch_namespaces)}" if options.watch_namespaces else ""
    chosen = " that the selectors choose" if selectors else ""
    pods = f"{count:,} pod{'s' * (count != 1)}{where}{chosen}"
    view = f"{pods}: each process watches them, and keeps {_size(count)} of them in memory"
    if selectors:
        view += "; a caller in any other pod is looked up with a GET"
    if count > _MANY_PODS:
        yield warn(
            "watch",
            f"{view}; the API server sends each change of a pod to each process",
            "kubectl set env deployment/NAME PODPROOF_WATCH_NAMESPACES=default,shop   (those that callers are in)\n"
            "or: kubectl set env deployment/NAME PODPROOF_WATCH_LABELS=app.kubernetes.io/part-of=shop\n"
            "or, for few callers: kubectl set env deployment/NAME PODPROOF_PODS=lookup",
        )
    else:
        yield ok("watch", view)


def _selectors(options: Options) -> dict[str, object]:
    """Return the query parameters of the selectors."""
    given = {"labelSelector": options.watch_labels, "fieldSelector": options.watch_fields}
    return {name: text for name, text in given.items() if text}


def _list_and_watch(environment: Environment, namespace: str, selectors: Mapping[str, object]) -> int:
    """Return how many pods there are, once a watch of them has begun.

    With a selector, the API server does not say how many are left after a page: all pages are read.

    Raises Unavailable or ConnectionFailed.
    """
    from podproof._authentication.pod_watch import MAX_PAGE, PAGE_SIZE  # noqa: PLC0415  not in a caller's image

    path = _path(namespace)
    permission = Permission("list and watch", "", "pods", namespace)
    stream = environment.app_client.stream(
        connect_timeout=environment.timeout, response_timeout=environment.timeout, read_timeout=environment.timeout
    )
    try:
        count, token = 0, ""
        while True:
            query = urlencode({**selectors, "limit": PAGE_SIZE if selectors else 1, "continue": token})
            with stream.get(f"{path}?{query}", permission, max_line=MAX_PAGE) as lines:
                version, found, token = _read_page(b"".join(lines))
            count += found
            if not selectors or not token:
                break
        query = urlencode({**selectors, "watch": 1, "timeoutSeconds": 1, "resourceVersion": version})
        with stream.get(f"{path}?{query}", permission):
            return count
    finally:
        stream.close()


def _read_page(text: bytes) -> tuple[str, int, str]:
    """Return the resource version of a list, how many objects there are on this page and after it, and its token.

    Raises Unavailable for anything else.
    """
    try:
        page = json.loads(text)
        metadata = page["metadata"]
        count = len(page["items"]) + int(metadata.get("remainingItemCount", 0))
        return str(metadata["resourceVersion"]), count, str(metadata.get("continue", ""))
    except (ValueError, LookupError, TypeError):
        raise Unavailable("the response is not a list of pods") from None


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods" if namespace else "/api/v1/pods"


def _size(pods: int) -> str:
    return f"up to {max(1, round(pods * _POD_SIZE / 1e6))} MB"
