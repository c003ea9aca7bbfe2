"""`as_pod`: a framework's test client as a pod of the one emulated cluster of a test process."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import count
from typing import Any, TypeVar

from podproof._request.credential import CredentialHeader
from podproof.identity import PodIdentity
from podproof.testing._app_options import find_options
from podproof.testing._emulator.cluster import Cluster
from podproof.testing._emulator.objects import EmulatedPod
from podproof.testing._forced_callers import force_caller, identity_of

Client = TypeVar("Client")
Headers = Mapping[str, str]

_LOCAL = "127.0.0.1"
_PORT = 50000
_numbers = count(1)


@cache
def shared_cluster() -> Cluster:
    """Return the cluster, started at the first call; it is stopped when the process ends, if it is not before."""
    cluster = Cluster().start()
    atexit.register(cluster.stop)
    return cluster


def stop_shared_cluster() -> None:
    """Stop the cluster; a later use starts another one."""
    shared_cluster().stop()
    shared_cluster.cache_clear()


def cluster_around_us() -> Cluster:
    """Return the shared cluster, which `KUBECONFIG` names from now on, if it names no other file of it."""
    cluster = shared_cluster()
    kubeconfig = cluster.kubeconfig
    if os.path.dirname(os.environ.get("KUBECONFIG", "")) != str(kubeconfig.parent):  # noqa: PTH120  it may be no path
        os.environ["KUBECONFIG"] = str(kubeconfig)
        for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
            os.environ.pop(name, None)
    return cluster


def as_pod(
    client: Client,
    pod: str | EmulatedPod | PodIdentity,
    *,
    audience: str | Sequence[str] | None = None,
    header: str | None = None,
    cluster: Cluster | None = None,
    force: bool = False,
) -> Client:
    """Let a test client call as a pod from now on, from its address and with its token, and return the client.

    `client` is Starlette's and FastAPI's `TestClient`, Flask's and Werkzeug's, Django's `Client` and `AsyncClient`,
    REST framework's `APIClient`, one of httpx or httpx2 with an `ASGITransport` or `WSGITransport`, or a channel of
    `grpc` or `grpc.aio`: of the first kind, a new channel around it is returned. `pod` is a pod of the cluster, or
    `namespace/name`: the pod of this name, which is made, with a service account of its name, if there is none. A
    channel calls from 127.0.0.1, which has to be an address of the pod. A request that has such a header of its own
    keeps it.

    The token is for the audiences, and in the headers, that are found in the app, in Django's settings or in the
    environment; `audience` and `header` are for an app where they are not, and for a channel. `cluster` is the emulated
    cluster that the app uses, by default the one of `podproof_cluster`, which is started if it was not.

    With `force`, nothing is checked: whatever part of podproof gets the request allows it, whatever its rules are, and
    needs neither a cluster nor an audience. `pod` may be a `PodIdentity` too, with all that the app
    wants to see. Only `podproof.require` still denies, since it is in the app's own code.

    Raises ValueError if no audience is found, or the pod cannot call like that; TypeError for another client.
    """
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(client).__mro__}
    known = next((name for name in _CLIENTS if name in kinds), None)
    if known is None:
        raise TypeError(f"{type(client).__name__} is no test client of a known framework")
    app_of, turn_into = _CLIENTS[known]
    found = find_options(app_of(client))
    calls_from = _LOCAL if known == "grpc.Channel" else None
    if force:
        token, address = force_caller(identity_of(pod)), _LOCAL
    elif isinstance(pod, PodIdentity):
        raise ValueError("the cluster has no such pod: name one, or use force=True")
    else:
        caller = pod if isinstance(pod, EmulatedPod) else _find_pod(cluster or cluster_around_us(), pod, calls_from)
        if calls_from is not None and calls_from not in caller.addresses:
            raise ValueError(f"the pod is not at {calls_from}, where a channel calls from: give it that address")
        if not (audience or found.audiences):
            raise ValueError('the app\'s audience was not found: name it, as audience="bob"')
        token, address = caller.token(audience or found.audiences), caller.addresses[0]
    headers = dict.fromkeys([header] if header else found.headers, f"Bearer {token}")
    turned: Client | None = turn_into(client, headers, address)
    return client if turned is None else turned


def _find_pod(cluster: Cluster, name: str, address: str | None) -> EmulatedPod:
    found = cluster.find_pod(name)
    if found is not None:
        return found
    number = next(_numbers)
    own = address or f"10.244.{number // 250 % 250}.{number % 250 + 1}"
    return cluster.pod(name, service_account=name.partition("/")[2], addresses=[own])


def _turn_httpx(client: Any, headers: Headers, address: str) -> None:
    transport = client._transport  # noqa: SLF001  it has the address, and no public name
    if hasattr(transport, "remote_addr"):
        transport.remote_addr = address
    elif hasattr(transport, "client"):
        transport.client = (address, _PORT)
    else:
        raise TypeError("this client calls over the network: give it an ASGITransport or WSGITransport")
    client.headers.update(headers)


def _turn_werkzeug(client: Any, headers: Headers, address: str) -> None:
    environ = {**_in_environ(headers), "REMOTE_ADDR": address}
    if hasattr(client, "environ_base"):  # Flask's
        client.environ_base.update(environ)
        return
    inner = client.application
    client.application = lambda given, start_response: inner(environ | given, start_response)


def _turn_django(client: Any, headers: Headers, address: str) -> None:
    client.defaults |= {**_in_environ(headers), "REMOTE_ADDR": address}


def _turn_async_django(client: Any, headers: Headers, address: str) -> None:
    inner = client.request
    client.defaults |= headers
    client.request = lambda **request: inner(client=[address, _PORT], **request)


def _turn_channel(channel: Any, headers: Headers, _: str) -> Any:
    return import_module("podproof.testing._channels").turn_channel(channel, headers)  # needs grpcio


def _in_environ(headers: Headers) -> dict[str, str]:
    return {CredentialHeader(name).key: value for name, value in headers.items()}


def _transport_app(client: Any) -> object:
    return getattr(client._transport, "app", None)  # noqa: SLF001  as above


_CLIENTS: dict[str, tuple[Any, Any]] = {
    "django.AsyncRequestFactory": (lambda client: getattr(client, "handler", None), _turn_async_django),
    "django.RequestFactory": (lambda client: getattr(client, "handler", None), _turn_django),
    "grpc.Channel": (lambda _: None, _turn_channel),
    "httpx.BaseClient": (_transport_app, _turn_httpx),
    "httpx2.BaseClient": (_transport_app, _turn_httpx),
    "werkzeug.Client": (lambda client: client.application, _turn_werkzeug),
}
"""By a class of the client, the more specific first: where its app is found, and what makes it call as a pod."""
