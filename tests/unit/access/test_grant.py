"""The grant's numbered checks G1 to G5."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from insitu_access.grant import Grant, GrantedDataset, grant_sha256, open_grant, seal_grant
from insitu_access.payload import Malformed
from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import Scope

from tests.unit.access.strategies import grants, quick
from tests.unit.access.world import (
    AUTHORITY,
    DAY,
    NOW,
    RESEARCHER,
    STRANGER,
    grant,
    manifest,
    payload_of,
    signed,
    without,
)

TOKEN = seal_grant(grant(), AUTHORITY)


def refused(token: str = TOKEN, *, now=NOW, **changes) -> str:
    with pytest.raises(AccessRefused) as caught:
        open_grant(token, manifest(**changes), now=now)
    return caught.value.code


@quick
@given(grants())
def test_a_sealed_grant_opens_as_itself(made: Grant) -> None:
    known = manifest(federation=made.federation)
    assert open_grant(seal_grant(made, AUTHORITY), known, now=made.not_before) == made


def test_it_is_a_jwt_with_the_registered_claims() -> None:
    claims = payload_of(TOKEN)
    assert claims["iss"] == "demo"
    assert claims["jti"] == "grant-1"
    assert claims["nbf"] == int((NOW - DAY).timestamp())
    assert claims["exp"] == int((NOW + 90 * DAY).timestamp())
    assert claims["cnf"] == {"jwks": {"keys": [RESEARCHER.public().as_json()]}}
    assert claims["epsilon"] == "5"


@pytest.mark.attacks("G1")
def test_g1_only_a_current_key_of_the_authority_grants() -> None:
    assert refused(seal_grant(grant(), STRANGER)) == "INSITU-ACCESS-SIGNATURE"
    assert refused(seal_grant(grant(), RESEARCHER)) == "INSITU-ACCESS-SIGNATURE"
    assert refused(authority_keys=(STRANGER.public(),)) == "INSITU-ACCESS-SIGNATURE"
    assert open_grant(TOKEN, manifest(authority_keys=(STRANGER.public(), AUTHORITY.public())), now=NOW)


OPTIONAL = {"purpose_code", "results"}


@pytest.mark.attacks("G2")
@pytest.mark.parametrize("name", sorted(payload_of(TOKEN)))
def test_g2_every_claim_is_needed_and_typed(name: str) -> None:
    value = payload_of(TOKEN)
    nulls = [] if name in OPTIONAL else [value | {name: None}]
    for wrong in (without(value, name), *nulls, value | {name: False}, value | {name: {}}):
        assert refused(signed(wrong, AUTHORITY, "insitu-grant+jwt")) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("G2")
@pytest.mark.parametrize(
    "change",
    [
        {"revision": 0}, {"min_nodes": 0}, {"min_nodes": 9}, {"min_units": -1}, {"results": []}, {"results": ["rows"]},
        {"results": ["counts", "counts"]}, {"purpose_code": "a b"},
        {"extra": 1}, {"aud": "x"}, {"epsilon": 5}, {"epsilon": 5.0}, {"epsilon": "0"}, {"epsilon": "-1"},
        {"epsilon": "inf"}, {"delta": "1"}, {"delta": "-1e-6"}, {"accounting": "renyi"}, {"nodes": []},
        {"nodes": ["a", "a"]}, {"nodes": ["a", "A"]}, {"nodes": "ab"}, {"datasets": []},
        {"datasets": [{"name": "care"}]}, {"datasets": [{"name": "care", "tables": {}}]},
        {"datasets": [{"name": "care", "tables": {"person": []}}]},
        {"datasets": [{"name": "care", "tables": {"person": "sex"}}]},
        {"datasets": [{"name": "care", "tables": {"Person": None}}]},
        {"datasets": [{"name": "care", "tables": None}, {"name": "care", "tables": None}]},
        {"cnf": {"jwks": {"keys": []}}}, {"cnf": {"jwk": RESEARCHER.public().as_json()}},
        {"cnf": {"jwks": {"keys": [RESEARCHER.jwk.as_dict(private=True)]}}},
        {"project": ""}, {"project": "a\nb"}, {"purpose": "\x1b[2J"}, {"purpose": "x" * 501}, {"reference": "  "},
        {"nbf": 2**60}, {"nbf": -1}, {"exp": 0}, {"jti": "../../etc/passwd"}, {"jti": "x" * 64},
    ],
)  # fmt: skip
def test_g2_a_grant_of_another_form_is_refused(change: dict) -> None:
    value = payload_of(TOKEN) | change
    assert refused(signed(value, AUTHORITY, "insitu-grant+jwt")) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("G3")
def test_g3_a_grant_of_another_federation_is_refused() -> None:
    assert refused(federation="other") == "INSITU-ACCESS-NOT-GRANTED"


@pytest.mark.attacks("G4")
def test_g4_a_revoked_grant_is_refused_even_when_expired() -> None:
    assert refused(revoked_grants=frozenset({"grant-1"})) == "INSITU-ACCESS-GRANT-REVOKED"
    later = NOW + 99 * DAY
    assert refused(revoked_grants=frozenset({"grant-1"}), now=later) == "INSITU-ACCESS-GRANT-REVOKED"
    assert open_grant(TOKEN, manifest(revoked_grants=frozenset({"grant-2"})), now=NOW)


@pytest.mark.attacks("G5")
def test_g5_a_grant_holds_from_its_start_to_before_its_end() -> None:
    start, end, second = grant().not_before, grant().expires_at, timedelta(seconds=1)
    assert refused(now=start - second) == "INSITU-ACCESS-GRANT-EXPIRED"
    assert open_grant(TOKEN, manifest(), now=start)
    assert open_grant(TOKEN, manifest(), now=end - second)
    assert refused(now=end) == "INSITU-ACCESS-GRANT-EXPIRED"


def test_scope_is_what_the_grant_covers() -> None:
    made = grant(datasets=(GrantedDataset(name="care"), GrantedDataset(name="claims", tables={"act": None})))
    assert made.scope("care") == Scope(accounting="zcdp", tables=None)
    assert made.scope("claims") == Scope(accounting="zcdp", tables={"act": None})
    assert made.dataset("other") is None
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-NOT-GRANTED"):
        made.scope("other")


def test_an_enormous_epsilon_is_a_positive_number() -> None:
    made = grant(epsilon=Fraction(10**12), accounting="pure")
    assert open_grant(seal_grant(made, AUTHORITY), manifest(), now=NOW).epsilon == 10**12


def test_numbers_that_could_not_be_read_back_are_not_signed() -> None:
    with pytest.raises(Malformed):
        grant(epsilon=Fraction(10**1000))
    with pytest.raises(Malformed):
        grant(delta=Fraction(1, 10**1000))


def test_the_name_of_a_grant_in_requests_is_its_exact_token() -> None:
    assert grant_sha256(TOKEN) != grant_sha256(seal_grant(grant(project="other"), AUTHORITY))
    assert len(grant_sha256(TOKEN)) == 64


@pytest.mark.attacks("G6")
def test_g6_a_suspended_grant_is_refused_while_it_is_suspended() -> None:
    assert refused(suspended_grants=frozenset({"grant-1"})) == "INSITU-ACCESS-GRANT-SUSPENDED"
    assert open_grant(TOKEN, manifest(suspended_grants=frozenset({"grant-2"})), now=NOW)


@pytest.mark.attacks("G7")
def test_g7_an_amended_grant_does_not_fall_back() -> None:
    assert refused(grant_revisions={"grant-1": 2}) == "INSITU-ACCESS-GRANT-AMENDED"
    newest = seal_grant(grant(revision=2), AUTHORITY)
    assert open_grant(newest, manifest(grant_revisions={"grant-1": 2}), now=NOW).revision == 2
    assert open_grant(newest, manifest(), now=NOW)  # the researcher may be ahead of the manifest


@pytest.mark.attacks("G8")
def test_g8_a_revoked_key_is_no_researchers_key() -> None:
    lost = frozenset({RESEARCHER.thumbprint})
    assert refused(revoked_keys=lost) == "INSITU-ACCESS-WRONG-KEY"
    shared = seal_grant(grant(researchers=(RESEARCHER.public(), STRANGER.public())), AUTHORITY)
    assert open_grant(shared, manifest(revoked_keys=lost), now=NOW).researchers == (STRANGER.public(),)
