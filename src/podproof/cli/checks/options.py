"""The middleware's options: whether they are valid, and whether they allow more than they should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from podproof._token.header_name import AUTHORIZATION
from podproof.cli.finding import Finding, fail, ok, skip, warn
from podproof.cli.mounts import path_below
from podproof.errors import ConfigurationError

if TYPE_CHECKING:
    from podproof._authorization.rules import Rule
    from podproof.options import Options

_LONG_CACHE_TTL = 300
"""Seconds above which `cache_ttl` is worth a warning."""

_WIDE_NETWORK = 256
"""Addresses above which a trusted network is likely to contain pods."""


def read_options(
    variables: Mapping[str, str], audience: str | None, *, complete: bool = True
) -> tuple[Options | None, Finding]:
    """Read the options as a middleware does; `audience` stands for one that is set in the app's code.

    If the variables are not `complete`, a missing audience is no fault.
    """
    from podproof.options import Options  # noqa: PLC0415  not in a caller's image

    if not complete and not audience and not variables.get("PODPROOF_AUDIENCE"):
        return None, skip(
            "options",
            "the options were not checked: the audience is not in the variables that could be read",
            "podproof doctor --audience bob",
        )
    if not audience and not variables.get("PODPROOF_AUDIENCE"):
        return None, fail(
            "options",
            "the audience is not set: expected PODPROOF_AUDIENCE, or an argument in the app's code",
            "kubectl set env deployment/NAME PODPROOF_AUDIENCE=bob\n"
            "or, if the app's code sets it: podproof doctor --audience bob",
        )
    try:
        options = Options.read({"audience": audience} if audience else {}, variables)
    except ConfigurationError as error:
        return None, fail(
            "options", str(error), "kubectl set env deployment/NAME VARIABLE=VALUE, or VARIABLE- to unset it"
        )
    header = "" if options.header == AUTHORIZATION else f"; tokens in {options.header}"
    return options, ok("options", f"audience {', '.join(options.audience)}{header}; {_describe_policy(options)}")


def check_options(options: Options) -> Iterator[Finding]:
    """Warn about options that are valid, but allow or reveal more than most apps need."""
    if not options.enforce:
        yield warn(
            "options",
            "enforce is off: every request reaches the app, and those that would be denied are only logged",
            "kubectl logs deployment/NAME | podproof report, then kubectl set env deployment/NAME PODPROOF_ENFORCE-",
        )
    if options.source_address == "off":
        yield warn(
            "options",
            "source_address is off: a stolen token can be used from any address until it expires",
            "kubectl set env deployment/NAME PODPROOF_SOURCE_ADDRESS=pod",
        )
    if options.host_network:
        yield warn(
            "options",
            "host_network is on: with the token of a host-network pod, any process on its node can act as that pod",
            "kubectl set env deployment/NAME PODPROOF_HOST_NETWORK=false",
        )
    if options.keep_authorization:
        yield warn(
            "options",
            "keep_authorization is on: the app, its error pages and its logs can see the callers' tokens",
            "kubectl set env deployment/NAME PODPROOF_KEEP_AUTHORIZATION=false",
        )
    if options.cache_ttl > _LONG_CACHE_TTL:
        yield warn(
            "options",
            f"cache_ttl is {options.cache_ttl:.0f} s: a deleted pod may be accepted for that long",
            "kubectl set env deployment/NAME PODPROOF_CACHE_TTL=60",
        )


def read_rules_file(file: Path, root: Path) -> Sequence[Rule]:
    """Return the rules of a file below `root`. Raises ConfigurationError."""
    from podproof._authorization.rules_file import read_rules  # noqa: PLC0415  needs YAML

    return read_rules(path_below(root, file))


def check_rules_file(options: Options, root: Path) -> Iterator[Finding]:
    """Read the rules file, if there is one, below `root`."""
    if options.rules_file is None:
        return
    file = path_below(root, options.rules_file)
    try:
        read_rules_file(options.rules_file, root)
    except ConfigurationError as error:
        yield fail("options", str(error), "kubectl edit configmap NAME   (the one that is mounted there)")
    else:
        yield ok("options", f"the rules file {file} is valid")


def check_trusted_proxies(options: Options, addresses: Sequence[str]) -> Iterator[Finding]:
    """Check that `trusted_proxies` contains only proxies; `addresses` are those of the app's own pod."""
    for network in options.trusted_proxies:
        pods = [address for address in addresses if ip_address(address) in network]
        fix = (
            "List only the addresses of the proxies:\n"
            "kubectl get pods --namespace INGRESS --output wide\n"
            "kubectl set env deployment/NAME PODPROOF_TRUSTED_PROXIES=10.0.0.7,10.0.0.8"
        )
        if pods:
            yield fail(
                "proxies",
                f"trusted_proxies contains {network}, a network of pods (the app's own is {pods[0]}): each of them can "
                "claim any address",
                fix,
            )
        elif _is_wide(network):
            yield warn(
                "proxies",
                f"trusted_proxies contains {network}, which has {network.num_addresses:,} addresses: any pod among "
                "them can claim any address",
                fix,
            )
        else:
            yield ok("proxies", f"trusted_proxies contains {network}")


def _is_wide(network: IPv4Network | IPv6Network) -> bool:
    return network.num_addresses > _WIDE_NETWORK


def _describe_policy(options: Options) -> str:
    names = [name for name in ("rules_file", "policy") if getattr(options, name) is not None]
    if options.allow is not None:
        names.insert(0, f"allow ({', '.join(options.allow.patterns)})")
    return f"{' and '.join(names)} decides who may call" if names else "all authenticated callers are allowed"
