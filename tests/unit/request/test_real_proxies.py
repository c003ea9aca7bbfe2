"""What ingress controllers, gateways and load balancers send, and where it leads. Each row names its source."""

from __future__ import annotations

from ipaddress import ip_network
from typing import NamedTuple

import pytest

from podproof._request.peer import find_peer
from podproof.errors import PeerUnknown

ALICE, MALLORY, PROXY, INGRESS, BEFORE = "10.0.0.7", "10.0.0.8", "10.9.0.1", "10.9.0.2", "203.0.113.9"
TRUSTED = [ip_network("10.9.0.0/24"), ip_network(f"{BEFORE}/32")]


class Sent(NamedTuple):
    """The headers of a request from a caller through a proxy; `{}` stands for the caller's address."""

    x_forwarded_for: tuple[str, ...] = ()
    forwarded: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def claimed(address: str) -> str:
    return f"for={address};proto=https"


# What each sends for a caller without such headers, and for Mallory, who claims to be Alice in all of them.
PROXIES: dict[str, tuple[Sent, Sent]] = {
    # The policy "append", which is the default: https://github.com/openshift/router/pull/134
    "openshift router": (
        Sent(("{}",), ("for={};host=bob.example:443;proto=https",)),
        Sent((ALICE, "{}"), (claimed(ALICE), "for={};host=bob.example:443;proto=https")),
    ),
    # Older templates write the protocol's version too, which is empty for HTTP/1.1.
    "openshift router, older": (
        Sent(("{}",), ("for={};host=bob;proto=https;proto-version=",)),
        Sent((f"{ALICE}, {{}}",), (f"{claimed(ALICE)}, for={{}};host=bob;proto=https;proto-version=",)),
    ),
    # https://pkg.go.dev/knative.dev/serving/pkg/queue#ForwardedShimHandler: Forwarded is made out of X-Forwarded-*, but
    # not where the caller has sent one; then Go's ReverseProxy appends the ingress (Kourier, Istio: an Envoy) to
    # X-Forwarded-For only.
    "knative queue-proxy": (
        Sent((f"{{}}, {INGRESS}",), ("for={};host=bob.default.example;proto=http",)),
        Sent((f"{ALICE},{{}}, {INGRESS}",), (f"for={ALICE};host=bob.default.example;proto=http, for={{}}",)),
    ),
    "knative queue-proxy, a forged Forwarded": (
        Sent((f"{{}}, {INGRESS}",), ("for={};proto=http",)),
        Sent((f"{{}}, {INGRESS}",), (claimed(ALICE),)),
    ),
    # https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-for
    "envoy, use_remote_address": (
        Sent(("{}",), (), ("{}",)),
        Sent((f"{ALICE},{{}}",), (), ("{}",)),
    ),
    # rootfs/etc/nginx/template/nginx.tmpl: X-Forwarded-For is overwritten with the address, as is X-Real-IP, and what
    # the caller sent goes to X-Original-Forwarded-For. Forwarded passes as it is.
    "ingress-nginx": (
        Sent(("{}",), (), ("{}", "")),
        Sent(("{}",), (claimed(ALICE),), ("{}", ALICE)),
    ),
    # https://doc.traefik.io/traefik/routing/entrypoints/#forwarded-headers: what comes from others is dropped
    # (pkg/middlewares/forwardedheaders: X-Forwarded-* and X-Real-Ip, but not Forwarded).
    "traefik": (Sent(("{}",), (), ("{}",)), Sent(("{}",), (claimed(ALICE),), ("{}",))),
    # https://docs.haproxy.org/3.0/configuration.html#option%20forwardfor: always a line of its own.
    "haproxy, option forwardfor": (Sent(("{}",)), Sent((ALICE, "{}"))),
    # https://docs.haproxy.org/3.0/configuration.html#option%20forwarded
    "haproxy, option forwarded": (Sent((), ("proto=http;for={}",)), Sent((), (claimed(ALICE), "proto=http;for={}"))),
    # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html: append
    "aws alb": (Sent(("{}",)), Sent((f"{ALICE}, {{}}",))),
    # The same page: routing.http.xff_client_port.enabled
    "aws alb, client port": (Sent(("{}:47110",)), Sent((f"{ALICE}, {{}}:47110",))),
    # https://cloud.google.com/load-balancing/docs/https#x-forwarded-for_header: the caller's and the load balancer's
    "gcp": (Sent((f"{{}},{BEFORE}",)), Sent((f"{ALICE},{{}},{BEFORE}",))),
    # https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works: address:port, separated by
    # commas. Front Door adds X-Azure-ClientIP and X-Azure-SocketIP (front-door-http-headers-protocol).
    "azure application gateway": (Sent(("{}:47110",)), Sent((f"{ALICE}, {{}}:47110",))),
    "azure front door": (Sent(("{}",), (), ("{}", "{}")), Sent((f"{ALICE}, {{}}",), (), (ALICE, "{}"))),
}
IPV6 = "2001:db8::7"


def peer_of(sent: Sent, caller: str) -> str:
    x_forwarded_for, forwarded, others = ([value.replace("{}", caller) for value in values] for values in sent)
    return find_peer(PROXY, TRUSTED, x_forwarded_for=x_forwarded_for, forwarded=forwarded, others=others)


@pytest.mark.trap(54)
@pytest.mark.parametrize("proxy", PROXIES)
def test_each_proxy_leads_to_its_caller(proxy: str) -> None:
    assert peer_of(PROXIES[proxy][0], ALICE) == ALICE


@pytest.mark.trap(54)
@pytest.mark.parametrize("proxy", [proxy for proxy in PROXIES if "port" not in proxy and "gateway" not in proxy])
def test_each_proxy_leads_to_its_caller_with_an_ipv6_address(proxy: str) -> None:
    plain, _ = PROXIES[proxy]
    quoted = Sent(plain.x_forwarded_for, tuple(value.replace("{}", '"[{}]"') for value in plain.forwarded), ())
    assert peer_of(quoted, IPV6) == peer_of(plain, IPV6) == IPV6


@pytest.mark.trap(22, 54)
@pytest.mark.parametrize("proxy", PROXIES)
def test_through_no_proxy_a_claim_is_believed(proxy: str) -> None:
    try:
        assert peer_of(PROXIES[proxy][1], MALLORY) == MALLORY
    except PeerUnknown as denial:
        assert "passed on both headers" in str(denial)  # noqa: PT017  either is right, Alice's address is not


@pytest.mark.trap(54)
@pytest.mark.parametrize("empty", ["proto-version=", "host=", "by=", "x="])
@pytest.mark.parametrize("form", ["for={};{}", "{1};for={0}", "for={};proto=http;{}", "for={}; {}"])
def test_an_empty_parameter_is_skipped(form: str, empty: str) -> None:
    assert peer_of(Sent((), (form.format(ALICE, empty),)), "") == ALICE


@pytest.mark.trap(54)
@pytest.mark.parametrize(
    ("x_forwarded_for", "forwarded"),
    [
        ((ALICE,), (f"for={MALLORY}",)),
        ((MALLORY,), (f"for={ALICE}",)),
        ((ALICE,), ("for=unknown",)),
        (("junk",), (f"for={ALICE}",)),
        ((ALICE,), (f"for={PROXY}",)),
        ((ALICE,), ('for="',)),
    ],
)
def test_two_headers_that_lead_elsewhere_are_denied(
    x_forwarded_for: tuple[str, ...], forwarded: tuple[str, ...]
) -> None:
    with pytest.raises(PeerUnknown):
        peer_of(Sent(x_forwarded_for, forwarded), "")


@pytest.mark.trap(54)
def test_a_header_without_a_hop_counts_as_none() -> None:
    assert peer_of(Sent((ALICE,), ("",)), "") == peer_of(Sent((ALICE,), (" , ",)), "") == ALICE
