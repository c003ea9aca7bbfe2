"""Who may be let in, told a second time: naively, from the rules alone, and without a line of what it judges."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

TOKEN_CHARACTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/"
NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SKEW = 60


def token_in(headers: Sequence[bytes]) -> bytes | None:
    """Return the token of a request's Authorization headers, where they are exactly one `Bearer` and one token."""
    if len(headers) != 1:
        return None
    words = headers[0].split(b" ")
    if len(words) != 2 or words[0].lower() != b"bearer":
        return None
    token = words[1]
    if len(token) == 0 or len(token) > 8192:
        return None
    for character in token:
        if character not in TOKEN_CHARACTERS:
            return None
    return token


def document(data: bytes) -> object:
    """Return what JSON says, where it is JSON; of a member that is there twice, what every reader makes of it."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class Bound(NamedTuple):
    """Which pod a token is bound to, and the service account it speaks for."""

    namespace: str
    account: str
    pod: str
    pod_uid: str


def claims_of(token: bytes, key: RSAPublicKey) -> Mapping[str, Any] | None:
    """Return the claims of a token that this very key has signed, and that is spelled as its issuer spells it."""
    parts = token.split(b".")
    if len(parts) != 3:
        return None
    try:
        raw = [base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts]
    except ValueError:
        return None
    for part, data in zip(parts, raw, strict=True):
        if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
            return None
    try:
        header, claims = json.loads(raw[0].decode()), json.loads(raw[1].decode())
        if header["alg"] != "RS256":
            return None
        key.verify(raw[2], parts[0] + b"." + parts[1], PKCS1v15(), SHA256())
    except (ValueError, TypeError, KeyError, RecursionError, InvalidSignature):
        return None
    return claims if isinstance(claims, dict) else None


def binding(claims: Mapping[str, Any], audience: str, now: float) -> Bound | None:
    """Return what genuine claims say, where they are for this audience and this time, and name a pod."""
    try:
        audiences = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        if not isinstance(audiences, list) or audience not in audiences:
            return None
        if not claims["nbf"] - SKEW <= now <= claims["exp"] + SKEW:
            return None
        kubernetes = claims["kubernetes.io"]
        system, kind, namespace, account = claims["sub"].split(":")
        if (system, kind) != ("system", "serviceaccount"):
            return None
        return Bound(namespace, account, kubernetes["pod"]["name"], kubernetes["pod"]["uid"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def is_welcome(
    headers: Sequence[bytes],
    peer: str | None,
    homes: Mapping[Bound, str],
    *,
    key: RSAPublicKey,
    audience: str,
    now: float,
) -> bool:
    """Tell whether these Authorization headers, from that address, are those of a pod that is at home there."""
    token = token_in(headers)
    claims = None if token is None else claims_of(token, key)
    bound = None if claims is None else binding(claims, audience, now)
    return any(bound == pod and is_same_address(address, peer) for pod, address in homes.items())


def voucher(review: object, audience: str) -> Bound | None:
    """Return whom a TokenReview vouches for, where all that matters is exactly as it must be."""
    try:
        status = review["status"]  # type: ignore[index]  # whatever it is not comes out as an error
        user = status["user"]
        extra = user["extra"]
        [pod] = extra["authentication.kubernetes.io/pod-name"]
        [pod_uid] = extra["authentication.kubernetes.io/pod-uid"]
        system, kind, namespace, account = user["username"].split(":")
        good = [
            isinstance(review, dict),
            review["kind"] == "TokenReview",  # type: ignore[index]
            status["authenticated"] is True,
            isinstance(status["audiences"], list),
            audience in status["audiences"],
            all(isinstance(one, str) for one in status["audiences"]),
            isinstance(user["uid"], str) and user["uid"] != "",
            (system, kind) == ("system", "serviceaccount"),
            is_label(namespace) and len(namespace) <= 63,
            is_name(account),
            isinstance(extra["authentication.kubernetes.io/pod-name"], list) and is_name(pod),
            isinstance(extra["authentication.kubernetes.io/pod-uid"], list) and isinstance(pod_uid, str),
            pod_uid != "",
        ]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None
    return Bound(namespace, account, pod, pod_uid) if all(good) else None


def is_home(pod: object, bound: Bound, peer: str) -> bool:
    """Tell whether a Pod is the live one that a token is bound to, and has the address that the request comes from."""
    try:
        metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]  # type: ignore[index]
        listed = status.get("podIPs")
        addresses = [status.get("podIP")]
        if isinstance(listed, list):
            addresses += [entry["ip"] for entry in listed if isinstance(entry, dict) and "ip" in entry]
        return all(
            [
                isinstance(pod, dict),
                pod["kind"] == "Pod",  # type: ignore[index]
                metadata["namespace"] == bound.namespace,
                metadata["name"] == bound.pod,
                metadata["uid"] == bound.pod_uid,
                spec["serviceAccountName"] == bound.account,
                spec.get("hostNetwork") is None or spec["hostNetwork"] is False,
                status["phase"] in ["Pending", "Running"],
                any(is_same_address(address, peer) for address in addresses),
            ]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def is_same_address(one: object, other: object) -> bool:
    """Tell whether two texts are the same IP address; IPv4 may be written as IPv6 has it."""
    first, second = plain_address(one), plain_address(other)
    return first is not None and first == second


def plain_address(text: object) -> IPv4Address | IPv6Address | None:
    """Return an address without the spellings that mean nothing, None for what is no address."""
    if not isinstance(text, str):
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if int(address) >> 32 == 0xFFFF:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address if address.is_link_local else IPv6Address(int(address))


def is_label(text: object) -> bool:
    """Tell whether a text is a DNS label, but for its length."""
    if not isinstance(text, str) or text == "":
        return False
    return all(one in NAME_CHARACTERS + "-" for one in text) and text[0] != "-" and text[-1] != "-"


def is_name(text: object) -> bool:
    """Tell whether a text is a DNS name as Kubernetes has it."""
    return isinstance(text, str) and len(text) <= 253 and all(is_label(label) for label in text.split("."))
