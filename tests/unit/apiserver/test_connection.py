"""A process's connections to the API server: configuration, credential, proxies, certificates, responses."""

from __future__ import annotations

import datetime as dt
import socket
import sys
import time as real_time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import urllib3
from kubernetes.client import Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader

from podproof._apiserver import connection
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import Endpoint, load_configuration
from podproof._apiserver.response import ConnectionFailed, parse_response
from podproof._apiserver.timely_http import TimelyIO
from podproof.errors import Unavailable
from podproof.testing import Cluster
from podproof.testing._emulator.certificates import authority
from tests.support.fake_api import Clock


def soon() -> float:
    return real_time.monotonic() + 5


def client_for(kubeconfig: Path) -> APIServerClient:
    return APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)}))


@pytest.fixture
def client(cluster: Cluster) -> Iterator[APIServerClient]:
    client = client_for(cluster.kubeconfig)
    yield client
    client.close()


def in_pod(cluster: Cluster) -> dict[str, str]:
    """Return the variables that the kubelet sets in a container."""
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


def test_kubeconfig_takes_precedence_over_the_mounted_token(cluster: Cluster, tmp_path: Path) -> None:
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    configuration = Configuration()
    load_configuration(configuration, environ=environ, mounted=tmp_path)
    assert configuration.host == cluster.url


def test_without_either_the_kubeconfig_in_the_home_directory_is_read(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(cluster.kubeconfig.read_text())
    configuration = Configuration()
    load_configuration(configuration, environ={})
    assert configuration.host == cluster.url


@pytest.mark.parametrize("content", [None, "", "just a word", "a: [", "{}", "{clusters: 7}", "\x00"])
def test_a_missing_or_invalid_configuration_fails_the_call(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(path)}))
    with pytest.raises(Unavailable, match="set KUBECONFIG"):
        client.review_token("token", ["bob"], real_time.monotonic() + 5)
    assert client.own_token() is None


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"KUBECONFIG": "/none/config"}, r"KUBECONFIG=/none/config; ConfigException\): set KUBECONFIG"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            r"/none/token and ca\.crt; ConfigException\): .*automountServiceAccount",
        ),
        ({}, r"KUBECONFIG and KUBERNETES_SERVICE_HOST, not set; ~/\.kube/config; ConfigException\): set KUBECONFIG"),
    ],
)
def test_a_missing_configuration_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], source: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=rf"^no API server configuration found \(looked for: {source}"):
        load_configuration(Configuration(), environ=environ, mounted=Path("/none"))


def test_a_server_that_is_no_http_url_is_an_invalid_configuration() -> None:
    def load(configuration: Configuration) -> None:
        configuration.host = "ftp://api.example"

    with pytest.raises(Unavailable, match=r"^invalid API server configuration \(\w+\): check the kubeconfig"):
        APIServerClient(load=load).endpoint()


def test_making_a_client_runs_nothing_and_its_first_call_runs_the_exec_plugin(cluster: Cluster, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    plugin = f"apiVersion: client.authentication.k8s.io/v1, command: touch, args: [{ran}], interactiveMode: Never"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        f"""\
clusters: [{{name: c, cluster: {{server: {cluster.url}, insecure-skip-tls-verify: true}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
users: [{{name: u, user: {{exec: {{{plugin}}}}}}}]
"""
    )
    client = client_for(kubeconfig)
    assert not ran.exists()
    client.own_token()
    assert ran.exists()
    client.close()


@pytest.mark.trap(46)
def test_in_a_pod_every_call_carries_our_mounted_token(cluster: Cluster, tmp_path: Path) -> None:
    mounted = cluster.mount(tmp_path, "default/bob")
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    client = APIServerClient(load=partial(load_configuration, environ=in_pod(cluster), mounted=mounted))
    client.review_token("token", ["bob"], real_time.monotonic() + 5)
    assert [one.user for one in cluster.requests] == ["system:serviceaccount:default:bob"]
    assert client.own_token() == (mounted / "token").read_text()
    client.close()


def test_our_own_credential_is_cached_for_a_second(cluster: Cluster, time: Clock) -> None:
    asked: list[object] = []

    def load(configuration: Configuration) -> None:
        load_configuration(configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        configuration.refresh_api_key_hook = asked.append  # type: ignore[assignment]  # it has no type of its own

    client = APIServerClient(load=load, monotonic=time)
    for seconds, times in ((0, 1), (0.9, 1), (0.1, 2), (0.9, 2)):
        time.passes(seconds)
        client.get("/version", time() + 5)
        assert len(asked) == times
    client.close()


def test_a_variable_that_is_removed_meanwhile_leaves_our_credential_as_it_is(cluster: Cluster) -> None:
    removed = ["a_proxy"]

    def load(configuration: Configuration) -> None:
        def read_environment(_: object) -> None:
            if removed:
                raise KeyError(removed.pop())

        load_configuration(configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        configuration.refresh_api_key_hook = read_environment  # type: ignore[assignment]  # it has no type of its own

    client = APIServerClient(load=load)
    assert client.own_token()
    assert not removed
    client.close()


@pytest.fixture
def rotating(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[APIServerClient, Path]]:
    """Give a client that reads its mounted token at each call, and the token's path."""
    mounted = cluster.mount(tmp_path, "default/bob")

    def load(configuration: Configuration) -> None:
        paths = str(mounted / "token"), str(mounted / "ca.crt")
        loader = InClusterConfigLoader(*paths, environ=in_pod(cluster))  # type: ignore[no-untyped-call]  # the client's own
        loader._token_refresh_period = dt.timedelta(0)
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]  # the client's own

    client = APIServerClient(load=load)
    yield client, mounted / "token"
    client.close()


@pytest.mark.trap(41)
@pytest.mark.parametrize("content", [None, "", "\n", "  "])
def test_our_token_is_reloaded_and_kept_while_its_file_is_empty_or_missing(
    rotating: tuple[APIServerClient, Path], content: str | None
) -> None:
    client, path = rotating
    first = client.own_token()
    assert first == path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert client.own_token() == first
    path.write_text("second\n")
    assert client.own_token() == "second"


def test_without_a_bearer_token_there_is_no_own_token(cluster: Cluster) -> None:
    def load(configuration: Configuration) -> None:
        configuration.host = cluster.url
        configuration.ssl_ca_cert = None
        configuration.verify_ssl = False

    client = APIServerClient(load=load)
    assert client.own_token() is None


def test_an_api_server_may_be_below_a_path(cluster: Cluster) -> None:
    def load(configuration: Configuration) -> None:
        load_configuration(configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        configuration.host += "/k8s/clusters/c-1"

    client = APIServerClient(load=load)
    with pytest.raises(Unavailable, match="404"):
        client.get("/version", real_time.monotonic() + 5)
    assert cluster.requests[-1].path == "/k8s/clusters/c-1/version"
    client.close()


def test_an_api_server_may_be_behind_an_http_proxy() -> None:
    with Cluster(tls=False) as cluster:  # reads absolute-form targets, as a proxy does

        def load(configuration: Configuration) -> None:
            configuration.host, configuration.proxy = "http://api.example:6443", cluster.url

        client = APIServerClient(load=load)
        assert client.get("/version", real_time.monotonic() + 5).document["major"] == "1"
        client.close()


def test_the_endpoint_says_whether_its_certificate_is_verified(cluster: Cluster, client: APIServerClient) -> None:
    assert client.endpoint() == Endpoint(cluster.url, verified=True, proxy=None)
    with Cluster(tls=False) as plain:
        assert client_for(plain.kubeconfig).endpoint() == Endpoint(plain.url, verified=False, proxy=None)


def test_the_endpoint_shows_a_proxy_without_its_password(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert client_for(cluster.kubeconfig).endpoint().proxy == "proxy.example:3128"


def client_behind(proxy: str) -> APIServerClient:
    def load(configuration: Configuration) -> None:
        configuration.host, configuration.proxy = "https://api.example:6443", proxy

    return APIServerClient(load=load)


class SOCKSProxyManager(urllib3.PoolManager):
    """As urllib3's, which needs PySocks: pools of its own make the connections through the proxy."""

    pool_classes_by_scheme = {"https": urllib3.HTTPSConnectionPool}  # noqa: RUF012  as there

    def __init__(self, proxy_url: str, **options: object) -> None:
        super().__init__()
        self.pool_classes_by_scheme = type(self).pool_classes_by_scheme


@pytest.mark.parametrize("pysocks", [False, True])
def test_a_socks_proxy_is_unsupported_and_never_bypassed(monkeypatch: pytest.MonkeyPatch, pysocks: bool) -> None:
    module = ModuleType("urllib3.contrib.socks")
    if pysocks:
        vars(module)["SOCKSProxyManager"] = SOCKSProxyManager
        monkeypatch.setattr(
            urllib3, "ProxyManager", SOCKSProxyManager
        )  # the kubernetes package before 37 knows no other
    monkeypatch.setitem(sys.modules, "urllib3.contrib.socks", module)
    with pytest.raises(Unavailable) as raised:
        client_behind("socks5://user:secret@proxy.example:1080").endpoint()
    assert raised.value.reason == "unsupported API server proxy (socks5): expected http or https"


def test_a_socks_proxy_for_other_hosts_does_not_matter(cluster: Cluster) -> None:
    def load(configuration: Configuration) -> None:
        load_configuration(configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        configuration.proxy, configuration.no_proxy = "socks5://proxy.example:1080", "127.0.0.1"

    client = APIServerClient(load=load)
    assert client.get("/version", soon()).status == 200
    client.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [("foreign-certificate", "unable to get local issuer certificate"), ("wrong-name", "not valid for '127.0.0.1'")],
)
def test_a_rejected_certificate_is_explained(cluster: Cluster, client: APIServerClient, fault: str, words: str) -> None:
    cluster.fail(fault)  # type: ignore[arg-type]  # a literal, by way of the table
    with pytest.raises(Unavailable, match=words):
        client.get("/version", soon())


def test_a_replaced_certificate_authority_is_reloaded(cluster: Cluster, tmp_path: Path) -> None:
    mounted = cluster.mount(tmp_path, "default/bob")
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    client = APIServerClient(
        load=partial(load_configuration, environ=in_pod(cluster), mounted=mounted), sleep=lambda _: None
    )
    (mounted / "ca.crt").write_text(authority("of before").pem)
    with pytest.raises(Unavailable, match="SSLCertVerificationError"):
        client.review_token("token", ["bob"], real_time.monotonic() + 5)
    (mounted / "ca.crt").write_text(cluster.ca_pem)
    assert client.review_token("token", ["bob"], real_time.monotonic() + 5)
    client.close()


@pytest.mark.trap(47)
def test_after_the_timeout_bytes_that_have_arrived_are_not_read() -> None:
    here, there = socket.socketpair()
    with here, there, here.makefile("rb", buffering=0) as response:
        there.send(b"HTTP/1.1 200 OK")
        here.settimeout(0)
        with pytest.raises(TimeoutError):
            TimelyIO(response, here).readinto(bytearray(100))


@pytest.mark.trap(47)
def test_a_read_waits_no_longer_than_the_timeout_of_the_whole_response() -> None:
    here, there = socket.socketpair()
    with here, there, here.makefile("rb", buffering=0) as response:
        here.settimeout(0.01)
        timely = TimelyIO(response, here)
        here.settimeout(5)
        begun = real_time.monotonic()
        with pytest.raises(TimeoutError):
            timely.readinto(bytearray(100))
        assert real_time.monotonic() - begun < 4


IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.mark.parametrize("environ", [{}, IN_A_POD | {"KUBECONFIG": "/kubeconfig"}])
def test_the_mounted_token_is_read_only_where_it_is_the_credential(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    assert connection.read_mounted_token(IN_A_POD, tmp_path) == "a.b.c"
    assert connection.read_mounted_token(environ, tmp_path) is None


def test_a_mounted_token_that_is_missing_or_not_ascii_is_none(tmp_path: Path) -> None:
    assert connection.read_mounted_token(IN_A_POD, tmp_path) is None
    (tmp_path / "token").write_text("\u20ac", encoding="utf-8")
    assert connection.read_mounted_token(IN_A_POD, tmp_path) is None


@pytest.mark.parametrize("date", ["", "some time today", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_response_without_a_valid_date_has_no_clock(date: str) -> None:
    response = urllib3.HTTPResponse(headers={"Content-Type": "application/json", "Date": date}, status=200)
    assert parse_response(response, b"{}").clock() is None


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/jwk-set+json"])
def test_json_is_recognized_by_its_media_type(kind: str) -> None:
    response = urllib3.HTTPResponse(headers={"Content-Type": kind}, status=200)
    assert parse_response(response, b'{"a": 1}').document == {"a": 1}


@pytest.mark.parametrize("kind", ["", "text/html", "text/plain", "application/jsonp", "application/json, text/html"])
def test_json_of_another_media_type_is_unusable(kind: str) -> None:
    response = urllib3.HTTPResponse(headers={"Content-Type": kind}, status=200)
    with pytest.raises(ConnectionFailed, match="status 200 without a JSON object"):
        parse_response(response, b'{"a": 1}')


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "\u0663", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_is_read_only_as_whole_seconds(text: str) -> None:
    response = urllib3.HTTPResponse(headers={"Retry-After": text}, status=503)
    assert parse_response(response, b"{}").retry_after is None
