"""Any bytes in any header: only the one valid form of a valid token is allowed, and nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.attacked_app import ALICE, ENTRY_POINTS, LOCAL, MALLORY, AttackedApps, AttackEnv
from tests.security.hostile_headers import authorizations, other_headers
from tests.support.leak_detector import LeakDetector


@pytest.fixture(scope="module")
def app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApps:
    return attack_env.make_apps(leak_detector)


@pytest.fixture(scope="module")
def optional_app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApps:
    return attack_env.make_apps(leak_detector, optional=True, exempt=["/healthz"])


@pytest.fixture(scope="module")
def tokens(attack_env: AttackEnv) -> list[bytes]:
    """Return Alice's valid token first, then tokens that are invalid here, or another pod's."""
    others = [
        attack_env.alice.token("eve"),
        attack_env.alice.token("bob", lifetime=-120),
        attack_env.cluster.forge(attack_env.token),
        attack_env.cluster.service_account("default/alice").token("bob"),
        attack_env.mallory.token("bob"),
    ]
    return [token.encode() for token in (attack_env.token, *others)]


@given(data=st.data(), entry_point=st.sampled_from(ENTRY_POINTS))
def test_only_one_bearer_header_with_one_valid_token_is_allowed(
    attack_env: AttackEnv, app: AttackedApps, tokens: list[bytes], data: st.DataObject, entry_point: str
) -> None:
    values = data.draw(authorizations(tokens))
    peer = data.draw(st.sampled_from([ALICE, ALICE, MALLORY, LOCAL, None]))
    result = app.send(entry_point, [(b"authorization", value) for value in values], peer)
    assert result.allowed == attack_env.model_allows(values, peer)
    assert result.status != 503


@given(data=st.data(), entry_point=st.sampled_from(ENTRY_POINTS))
def test_an_invalid_credential_never_counts_as_no_credential(
    attack_env: AttackEnv, optional_app: AttackedApps, tokens: list[bytes], data: st.DataObject, entry_point: str
) -> None:
    values = data.draw(authorizations(tokens))
    result = optional_app.send(entry_point, [(b"authorization", value) for value in values])
    assert result.allowed == (not values or attack_env.model_allows(values, ALICE))
    assert (result.caller is None) == (not attack_env.model_allows(values, ALICE))


@given(data=st.data(), entry_point=st.sampled_from(ENTRY_POINTS))
def test_an_exempt_path_is_anonymous_even_with_a_valid_token(
    optional_app: AttackedApps, tokens: list[bytes], data: st.DataObject, entry_point: str
) -> None:
    values = data.draw(authorizations(tokens))
    result = optional_app.send(entry_point, [(b"authorization", value) for value in values], path="/healthz")
    assert (result.status, result.caller) == (200, None)


@given(
    headers=st.lists(other_headers()),
    entry_point=st.sampled_from(ENTRY_POINTS),
    peer=st.sampled_from([ALICE, MALLORY, LOCAL, None, ""]),
)
def test_no_other_header_allows_a_request_or_raises(
    attack_env: AttackEnv, app: AttackedApps, headers: list[tuple[bytes, bytes]], entry_point: str, peer: str | None
) -> None:
    credential = (b"authorization", b"Bearer " + attack_env.token.encode())
    result = app.send(entry_point, [*headers, credential], peer)
    assert attack_env.model_allows([credential[1]], peer) or not result.allowed
    assert result.status in (200, 403)
    assert app.send(entry_point, headers, peer).status == 401


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR"])
def test_the_scheme_is_case_insensitive(
    attack_env: AttackEnv, app: AttackedApps, entry_point: str, scheme: bytes
) -> None:
    assert app.send(entry_point, [(b"authorization", scheme + b" " + attack_env.token.encode())]).allowed
