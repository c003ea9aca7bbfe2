"""The middleware's options: that they are possible, and keep out whom they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from podproof._authorization.rules_file import read_rules
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.cli.mounts import below
from podproof.errors import ConfigurationError
from podproof.options import Options

_LONG = 300
"""Seconds for which a caller may be remembered before that is worth a word."""


def read(environ: Mapping[str, str], audience: str | None) -> tuple[Options | None, Finding]:
    """Read the options as a middleware does, and tell how that went; `audience` stands for one that the code gives."""
    try:
        options = Options.read({"audience": audience} if audience else {}, environ)
    except ConfigurationError as error:
        if "no audience was given" in str(error):
            return None, fail(
                "options",
                str(error),
                "kubectl set env deployment/NAME PODPROOF_AUDIENCE=bob\n"
                "or, where the app's code names it: podproof doctor --audience bob",
            )
        return None, fail(
            "options", str(error), "kubectl set env deployment/NAME VARIABLE=VALUE, or VARIABLE- to unset"
        )
    return options, ok("options", f"audience {', '.join(options.audience)}; {_who(options)}")


def check(options: Options) -> Iterator[Finding]:
    """Look for options that are possible and let in, or show, more than they need."""
    if options.source_address == "off":
        yield warn(
            "options",
            "source_address is off: whoever gets hold of a caller's token can use it from anywhere until it expires",
            "kubectl set env deployment/NAME PODPROOF_SOURCE_ADDRESS=pod",
        )
    if options.host_network:
        yield warn(
            "options",
            "host_network is on: any process on a node can pass for a host-network pod there, if it gets its token",
            "kubectl set env deployment/NAME PODPROOF_HOST_NETWORK=false",
        )
    if options.keep_authorization:
        yield warn(
            "options",
            "keep_authorization is on: the app, its error pages and its logs see the callers' tokens",
            "kubectl set env deployment/NAME PODPROOF_KEEP_AUTHORIZATION=false",
        )
    if options.cache_ttl > _LONG:
        yield warn(
            "options",
            f"cache_ttl is {options.cache_ttl:.0f} s: a pod that is deleted may be known for that long",
            "kubectl set env deployment/NAME PODPROOF_CACHE_TTL=60",
        )


def check_rules(options: Options, root: Path) -> Iterator[Finding]:
    """Read the file of rules, if there is one, below `root`."""
    if options.rules_file is None:
        return
    file = below(root, options.rules_file)
    try:
        read_rules(file)
    except ConfigurationError as error:
        yield fail("options", str(error), "kubectl edit configmap NAME   (the one that is mounted there)")
    else:
        yield ok("options", f"the rules in {file} can be read")


def check_proxies(options: Options, addresses: Sequence[str]) -> Iterator[Finding]:
    """Look for trusted proxies that take in more than proxies; `addresses` are those of the app's own pods."""
    for network in options.trusted_proxies:
        pods = [address for address in addresses if ip_address(address) in network]
        mend = (
            "Name the proxies' own addresses alone:\n"
            "kubectl get pods --namespace INGRESS --output wide\n"
            "kubectl set env deployment/NAME PODPROOF_TRUSTED_PROXIES=10.0.0.7,10.0.0.8"
        )
        if network.prefixlen == 0:
            yield fail("proxies", f"trusted_proxies has {network}: everybody may name any address as his own", mend)
        elif pods:
            yield fail(
                "proxies",
                f"trusted_proxies has {network}, and the app's own pod has {pods[0]}: other pods in that network may "
                "name any address as their own",
                mend,
            )
        elif _is_wide(network):
            yield warn(
                "proxies",
                f"trusted_proxies has {network}, which is {network.num_addresses:,} addresses: any pod among them may "
                "name any address as its own",
                mend,
            )
        else:
            yield ok("proxies", f"trusted_proxies has {network}")


def _is_wide(network: IPv4Network | IPv6Network) -> bool:
    return network.num_addresses > 256


def _who(options: Options) -> str:
    deciding = [name for name in ("rules_file", "policy") if getattr(options, name) is not None]
    if options.allow is not None:
        deciding.insert(0, f"allow ({', '.join(options.allow.patterns)})")
    return f"{' and '.join(deciding)} decides who may call" if deciding else "whoever is known may call"
