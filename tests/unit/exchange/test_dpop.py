"""DPoP proofs (RFC 9449 section 4.3): each check, by proofs that fail it alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from podproof._token.jwt import decode_segment
from podproof._token.token_hash import token_hash
from podproof.errors import InvalidProof, NonceNeeded, Overloaded
from podproof.exchange.dpop import MAX_ID, MAX_PROOF, WINDOW, DPoPVerifier
from podproof.exchange.nonces import LIFETIME, Nonces
from podproof.exchange.replay_memory import ReplayMemory
from podproof.exchange.target_uri import MAX_URI, normal_uri
from tests.support.dpop_proofs import URI, key_thumbprint, make_proof
from tests.support.fake_api import NOW, segment
from tests.support.signed_tokens import make_key, public_jwk

TOKEN = "an.access.token"
WITH_TOKEN = {"ath": token_hash(TOKEN)}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def verify(*proofs: str, uri: str = URI, token: str | None = TOKEN, **more: Any) -> str:
    verifier = more.pop("verifier", None) or DPoPVerifier(now=lambda: NOW)
    return verifier.verify(proofs, method="GET", uris=[uri], access_token=token, **more)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_proof_shows_the_thumbprint_of_the_key_that_it_is_made_with(algorithm: str) -> None:
    proof = make_proof(WITH_TOKEN, algorithm=algorithm)
    assert verify(proof, key=key_thumbprint(algorithm)) == key_thumbprint(algorithm)


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    # RFC 9449 section 6.1: the key of the proof in its section 4.1, and the thumbprint that its token has.
    jwk = {
        "kty": "EC",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        "crv": "P-256",
    }
    proof = (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscE"
        "JoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
        ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia"
        "WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
    )
    assert json.loads(decode_segment(proof.split(".", maxsplit=1)[0]))["jwk"] == jwk
    verifier = DPoPVerifier(now=lambda: 1562262616)
    uris = ["https://server.example.com/token"]
    assert verifier.verify([proof], method="POST", uris=uris) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_a_proof_of_pyjwt_is_accepted() -> None:
    key = make_key("ES256", "alice")
    claims = {"jti": "1", "htm": "GET", "htu": URI, "iat": int(NOW), **WITH_TOKEN}
    headers = {"typ": "dpop+jwt", "jwk": public_jwk(key)}
    assert verify(jwt.encode(claims, key, algorithm="ES256", headers=headers))


INVALID: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "without typ": ({}, {"typ": None}),
    "typ of another kind": ({}, {"typ": "JWT"}),
    "typ in another case": ({}, {"typ": "DPOP+JWT"}),
    "typ that is no text": ({}, {"typ": ["dpop+jwt"]}),
    "without alg": ({}, {"alg": None}),
    "alg none": ({}, {"alg": "none"}),
    "alg HS256": ({}, {"alg": "HS256"}),
    "alg of another key": ({}, {"alg": "EdDSA"}),
    "alg that is no text": ({}, {"alg": 256}),
    "without jwk": ({}, {"jwk": None}),
    "jwk that is no object": ({}, {"jwk": "alice"}),
    "jwk that is empty": ({}, {"jwk": {}}),
    "jwk of another key": ({}, {"jwk": public_jwk(make_key("ES256", "mallory"))}),
    "jwk of another type": ({}, {"jwk": public_jwk(make_key("RS256", "mallory"))}),
    "jwk of another curve": ({}, {"jwk": public_jwk(make_key("ES384", "mallory"))}),
    "jwk that is private": ({}, {"jwk": {**public_jwk(make_key("ES256", "alice")), "d": "AA"}}),
    "jwk that is symmetric": ({}, {"jwk": {"kty": "oct", "k": "AA"}}),
    "jwk beside the curve": ({}, {"jwk": {**public_jwk(make_key("ES256", "alice")), "x": "AA"}}),
    "jwk with a list": ({}, {"jwk": {**public_jwk(make_key("ES256", "alice")), "kty": ["EC"]}}),
    "jwk for encryption": ({}, {"jwk": public_jwk(make_key("ES256", "alice"), use="enc")}),
    "crit": ({}, {"crit": ["exp"]}),
    "b64": ({}, {"b64": False}),
    "without jti": ({"jti": None}, {}),
    "jti that is empty": ({"jti": ""}, {}),
    "jti that is no text": ({"jti": 7}, {}),
    "jti that is too long": ({"jti": "a" * (MAX_ID + 1)}, {}),
    "without htm": ({"htm": None}, {}),
    "another method": ({"htm": "POST"}, {}),
    "the method in another case": ({"htm": "get"}, {}),
    "without htu": ({"htu": None}, {}),
    "htu of another path": ({"htu": URI + "0"}, {}),
    "htu of the root": ({"htu": "https://ledger.example"}, {}),
    "htu with one slash more": ({"htu": URI + "/"}, {}),
    "htu of another host": ({"htu": "https://ledger.example.evil/accounts/7"}, {}),
    "htu of another scheme": ({"htu": "http://ledger.example/accounts/7"}, {}),
    "htu of another port": ({"htu": "https://ledger.example:8443/accounts/7"}, {}),
    "htu with a user": ({"htu": "https://ledger.example@evil/accounts/7"}, {}),
    "htu with an escaped slash": ({"htu": "https://ledger.example/accounts%2F7"}, {}),
    "htu with dots": ({"htu": "https://ledger.example/x/../accounts/7"}, {}),
    "htu that is too long": ({"htu": URI + "?" + "a" * MAX_URI}, {}),
    "htu that is no URI": ({"htu": "https://[/accounts/7"}, {}),
    "htu that is no text": ({"htu": [URI]}, {}),
    "without iat": ({"iat": None}, {}),
    "iat that is no number": ({"iat": str(int(NOW))}, {}),
    "iat that is true": ({"iat": True}, {}),
    "issued too long ago": ({"iat": NOW - WINDOW - 1}, {}),
    "issued in the future": ({"iat": NOW + WINDOW + 1}, {}),
    "without ath": ({"ath": None}, {}),
    "ath of another token": ({"ath": token_hash("another.access.token")}, {}),
    "ath of the token itself": ({"ath": TOKEN}, {}),
    "ath with a surrogate": ({"ath": "\ud800"}, {}),
    "ath that is no text": ({"ath": 0}, {}),
}


@pytest.mark.parametrize("kind", INVALID)
def test_a_proof_with_one_thing_wrong_is_denied(kind: str) -> None:
    claims, header = INVALID[kind]
    with pytest.raises(InvalidProof):
        verify(make_proof({**WITH_TOKEN, **claims}, header), key=key_thumbprint())


@pytest.mark.parametrize("count", [0, 2])
def test_a_request_has_exactly_one_proof(count: int) -> None:
    with pytest.raises(InvalidProof, match=f"{count} DPoP headers"):
        verify(*[make_proof({**WITH_TOKEN, "jti": str(number)}) for number in range(count)])


def test_the_proof_of_another_key_than_the_tokens_is_denied() -> None:
    with pytest.raises(InvalidProof, match="another key"):
        verify(make_proof(WITH_TOKEN, name="mallory"), key=key_thumbprint(name="alice"))


def test_a_proof_that_is_not_signed_with_its_key_is_denied() -> None:
    signed, _, _ = make_proof(WITH_TOKEN).rpartition(".")
    for signature in (b"", bytes(64), b"\xff" * 64, bytes(63) + b"\x01"):
        with pytest.raises(InvalidProof):
            verify(f"{signed}.{segment(signature)}")


@pytest.mark.parametrize("proof", ["", ".", "..", "a.b.c", make_proof() + ".", make_proof() + ","], ids=range(6))
def test_what_is_no_jws_is_denied(proof: str) -> None:
    with pytest.raises(InvalidProof, match="malformed"):
        verify(proof)


def test_a_proof_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(InvalidProof, match="longer"):
        verify(make_proof({**WITH_TOKEN, "more": "a" * MAX_PROOF}))


def test_a_proof_is_accepted_once() -> None:
    verifier, proof = DPoPVerifier(now=lambda: NOW), make_proof(WITH_TOKEN)
    assert verify(proof, verifier=verifier)
    for _ in range(100):
        with pytest.raises(InvalidProof, match="used before"):
            verify(proof, verifier=verifier)


def test_a_second_signature_of_the_same_proof_is_a_replay() -> None:
    """Anybody can make one from the first: (r, n - s) verifies where (r, s) does."""
    verifier, proof = DPoPVerifier(now=lambda: NOW), make_proof(WITH_TOKEN)
    assert verify(proof, verifier=verifier)
    signed, _, signature = proof.rpartition(".")
    raw = decode_segment(signature)
    flipped = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    with pytest.raises(InvalidProof, match="used before"):
        verify(f"{signed}.{segment(flipped)}", verifier=verifier)


def test_a_proof_that_was_denied_can_still_be_used_where_it_belongs() -> None:
    verifier, proof = DPoPVerifier(now=lambda: NOW), make_proof(WITH_TOKEN)
    for more in ({"uri": URI + "0"}, {"token": "another"}, {"key": key_thumbprint(name="mallory")}):
        with pytest.raises(InvalidProof):
            verify(proof, verifier=verifier, **more)
    assert verify(proof, verifier=verifier)


@pytest.mark.parametrize("offset", [-WINDOW, 0, WINDOW])
def test_a_proof_is_a_replay_for_as_long_as_it_could_be_used(offset: float) -> None:
    clock = [NOW]
    verifier = DPoPVerifier(now=lambda: clock[0])
    proof = make_proof({**WITH_TOKEN, "iat": NOW + offset})
    assert verify(proof, verifier=verifier)
    for later in range(0, int(3 * WINDOW), 5):
        clock[0] = NOW + later
        with pytest.raises(InvalidProof):
            verify(proof, verifier=verifier)


def test_the_memory_forgets_what_can_no_longer_be_used() -> None:
    memory = ReplayMemory(WINDOW, size=10)
    for period in range(100):
        now = NOW + period * 4 * WINDOW
        for number in range(5):
            assert memory.add("key", str(number), now, now)
    assert len(memory) == 5


def test_a_full_memory_accepts_no_more() -> None:
    memory = ReplayMemory(WINDOW, size=4)
    for key in ("a", "b"):
        for number in range(2):
            assert memory.add(key, str(number), NOW, NOW)
    with pytest.raises(Overloaded, match="4 proofs"):
        memory.add("c", "1", NOW, NOW)
    assert not memory.add("a", "1", NOW, NOW)


def test_one_key_can_fill_its_share_alone() -> None:
    memory = ReplayMemory(WINDOW, size=4)
    for number in range(2):
        assert memory.add("a", str(number), NOW + WINDOW * number, NOW)
    with pytest.raises(Overloaded, match="one key"):
        memory.add("a", "2", NOW, NOW)
    assert memory.add("b", "2", NOW, NOW)


def test_the_same_id_of_two_keys_is_no_replay() -> None:
    verifier = DPoPVerifier(now=lambda: NOW)
    assert verify(make_proof(WITH_TOKEN), verifier=verifier) != verify(
        make_proof(WITH_TOKEN, name="mallory"), verifier=verifier
    )


def test_where_nonces_are_wanted_a_proof_without_a_current_one_is_told_it() -> None:
    clock = [NOW]
    nonces = Nonces(lambda: [bytes(32)], now=lambda: clock[0])
    verifier = DPoPVerifier(nonces=nonces, now=lambda: clock[0])
    for given in (None, "", "another", 7, "\u00e9", Nonces(lambda: [b"1" * 32], now=lambda: NOW).current()):
        with pytest.raises(NonceNeeded) as needed:
            verify(make_proof({**WITH_TOKEN, "nonce": given}), verifier=verifier)
        assert needed.value.nonce == nonces.current()
        assert needed.value.without_traceback().nonce == nonces.current()
    assert verify(make_proof({**WITH_TOKEN, "nonce": nonces.current()}), verifier=verifier)


def test_servers_that_share_a_secret_accept_each_others_nonces() -> None:
    old, new = b"1" * 32, b"2" * 32
    before = Nonces(lambda: [old], now=lambda: NOW)
    after = Nonces(lambda: [new, old], now=lambda: NOW)
    other = Nonces(lambda: [new], now=lambda: NOW)
    assert after.accepts(before.current())
    assert not before.accepts(after.current())
    assert other.accepts(after.current())
    assert not other.accepts(before.current())


def test_a_nonce_ends() -> None:
    clock = [NOW]
    nonces = Nonces(now=lambda: clock[0])
    nonce = nonces.current()
    assert nonces.accepts(nonce)
    clock[0] += LIFETIME
    assert nonces.accepts(nonce)
    clock[0] += LIFETIME
    assert not nonces.accepts(nonce)
    assert not Nonces(now=lambda: NOW).accepts(nonce)


SAME = [
    ("https://ledger.example", "https://ledger.example/"),
    ("https://ledger.example/a?b=c#d", "https://ledger.example/a"),
    ("HTTPS://LEDGER.example:443/a", "https://ledger.example/a"),
    ("http://ledger:80/a", "http://ledger/a"),
    ("https://ledger/%7Ealice/%2fb", "https://ledger/~alice/%2Fb"),
    ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
]
DIFFERENT = [
    ("https://ledger/A", "https://ledger/a"),
    ("https://ledger/a/", "https://ledger/a"),
    ("https://ledger/a//b", "https://ledger/a/b"),
    ("https://ledger/a%2Fb", "https://ledger/a/b"),
    ("https://ledger/a/./b", "https://ledger/a/b"),
    ("https://ledger/a;b", "https://ledger/a"),
    ("https://ledger:80/a", "https://ledger/a"),
]
NO_URIS = [
    "",
    "a",
    "/a",
    "//ledger/a",
    "ftp://ledger/a",
    "https:///a",
    "https://u@ledger/a",
    "https://ledger\\a",
    "https://l:x/",
]
NO_URIS += ["https://l\u00e9dger/a", "https://ledger/a b", "https://ledger/\n", "https://ledger:99999/"]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_uris_of_one_resource_are_the_same(one: str, other: str) -> None:
    assert normal_uri(one) == normal_uri(other) is not None


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_uris_of_two_resources_differ(one: str, other: str) -> None:
    assert normal_uri(one) != normal_uri(other)


@pytest.mark.parametrize("uri", NO_URIS)
def test_what_is_no_http_uri_is_none(uri: str) -> None:
    assert normal_uri(uri) is None
