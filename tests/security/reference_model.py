"""A second, naive implementation of the rules, which shares no code with podproof: which request may be allowed."""

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


def parse_token(headers: Sequence[bytes]) -> bytes | None:
    """Return the token of a request's Authorization headers; None unless they are exactly `Bearer` and one token."""
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


def parse_json(data: bytes) -> object:
    """Return the value of a JSON document, None for anything else; of duplicated members the last one counts."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class BoundPod(NamedTuple):
    """The pod that a token is bound to, and its service account."""

    namespace: str
    account: str
    pod: str
    pod_uid: str


def verify_claims(token: bytes, key: RSAPublicKey) -> Mapping[str, Any] | None:
    """Return the claims of a token that is signed with this key and has its issuer's spelling; None for any other."""
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


def parse_bound_pod(claims: Mapping[str, Any], audience: str, now: float) -> BoundPod | None:
    """Return the pod that verified claims name; None if they are for another audience or time, or name no pod."""
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
        return BoundPod(namespace, account, kubernetes["pod"]["name"], kubernetes["pod"]["uid"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def is_allowed(
    headers: Sequence[bytes],
    peer: str | None,
    pod_addresses: Mapping[BoundPod, str],
    *,
    key: RSAPublicKey,
    audience: str,
    now: float,
) -> bool:
    """Return True if these Authorization headers hold the token of a pod that has the address of the peer."""
    token = parse_token(headers)
    claims = None if token is None else verify_claims(token, key)
    bound = None if claims is None else parse_bound_pod(claims, audience, now)
    return any(bound == pod and is_same_address(address, peer) for pod, address in pod_addresses.items())


def parse_reviewed_pod(review: object, audience: str) -> BoundPod | None:
    """Return the pod that a TokenReview has authenticated; None unless all that matters is as specified."""
    try:
        status = review["status"]  # type: ignore[index]  # another type raises
        user = status["user"]
        extra = user["extra"]
        [pod] = extra["authentication.kubernetes.io/pod-name"]
        [pod_uid] = extra["authentication.kubernetes.io/pod-uid"]
        system, kind, namespace, account = user["username"].split(":")
        conditions = [
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
    return BoundPod(namespace, account, pod, pod_uid) if all(conditions) else None


def is_pod_at(pod: object, bound: BoundPod, peer: str) -> bool:
    """Return True if a Pod is the live one that the token is bound to, and has the address of the peer."""
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
    """Return True if two texts are the same IP address; IPv4 addresses may be IPv4-mapped IPv6 ones."""
    first, second = canonical_address(one), canonical_address(other)
    return first is not None and first == second


def canonical_address(text: object) -> IPv4Address | IPv6Address | None:
    """Return an address in one form for all of its spellings, None for text that is no address."""
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
    """Return True if a text is a DNS label of any length."""
    if not isinstance(text, str) or text == "":
        return False
    return all(one in NAME_CHARACTERS + "-" for one in text) and text[0] != "-" and text[-1] != "-"


def is_name(text: object) -> bool:
    """Return True if a text is a DNS-1123 subdomain, as Kubernetes' names are."""
    return isinstance(text, str) and len(text) <= 253 and all(is_label(label) for label in text.split("."))
