"""The request's numbered checks R1 to R4."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from insitu_access.payload import Malformed
from insitu_access.request import (
    BudgetRequest,
    QueryRequest,
    open_request,
    peek_request,
    request_sha256,
    seal_request,
)
from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import QueryParameters

from tests.unit.access.strategies import quick, requests
from tests.unit.access.world import (
    AUTHORITY,
    NODE,
    NOW,
    RESEARCHER,
    STRANGER,
    grant,
    payload_of,
    request,
    signed,
    without,
)

TOKEN = seal_request(request(), RESEARCHER)
TYP = "insitu-request+jws"


def budget_request() -> BudgetRequest:
    query = request()
    return BudgetRequest(
        request_id=query.request_id,
        grant_id=query.grant_id,
        grant_sha256=query.grant_sha256,
        nodes=query.nodes,
        issued_at=query.issued_at,
        deadline=query.deadline,
    )


def refused(token: str, made=None) -> str:
    with pytest.raises(AccessRefused) as caught:
        open_request(token, made or grant())
    return caught.value.code


@quick
@given(requests())
def test_a_sealed_request_opens_as_itself(made: QueryRequest | BudgetRequest) -> None:
    token = seal_request(made, RESEARCHER)
    assert open_request(token, grant(id=made.grant_id)) == made
    assert peek_request(token) == made


@pytest.mark.attacks("R1")
def test_r1_only_a_request_is_a_request() -> None:
    assert refused(signed(payload_of(TOKEN), RESEARCHER, "insitu-release+jws")) == "INSITU-ACCESS-MALFORMED"
    assert refused("") == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("R2")
@pytest.mark.parametrize("key", [STRANGER, NODE, AUTHORITY])
def test_r2_only_the_grants_researchers_may_ask(key) -> None:
    assert refused(seal_request(request(), key)) == "INSITU-ACCESS-WRONG-KEY"


def test_r2_each_researcher_of_the_grant_may_ask() -> None:
    shared = grant(researchers=(STRANGER.public(), RESEARCHER.public()))
    assert open_request(TOKEN, shared) == open_request(seal_request(request(), STRANGER), shared)


@pytest.mark.attacks("R2")
def test_r2_a_changed_request_is_refused() -> None:
    header, _, signature = TOKEN.split(".")
    other = seal_request(request(sql="SELECT COUNT(*) FROM visit"), RESEARCHER).split(".")[1]
    assert refused(f"{header}.{other}.{signature}") == "INSITU-ACCESS-SIGNATURE"


@pytest.mark.attacks("R3")
@pytest.mark.parametrize("name", sorted(payload_of(TOKEN)))
def test_r3_every_field_is_needed_and_typed(name: str) -> None:
    value = payload_of(TOKEN)
    for wrong in (without(value, name), value | {name: None}, value | {name: True}, value | {name: []}):
        assert refused(signed(wrong, RESEARCHER, TYP)) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.parametrize("name", sorted(payload_of(TOKEN)["parameters"]))
def test_r3_every_parameter_is_needed_and_typed(name: str) -> None:
    value = payload_of(TOKEN)
    for wrong in (without(value["parameters"], name), value["parameters"] | {name: False}):
        assert refused(signed(value | {"parameters": wrong}, RESEARCHER, TYP)) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("R3")
@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {"kind": "update"}, {"kind": "budget"}, {"min_nodes": 0}, {"min_nodes": 3}, {"min_nodes": 1.0},
        {"nodes": []}, {"nodes": ["a", "a"]}, {"request_id": "0F" * 16}, {"request_id": "x"},
        {"plan_digest": "cd" * 31}, {"grant_sha256": "CD" * 32}, {"deadline": 0}, {"dialect": "a b"},
        {"sql": "x" * (256 * 2**10 + 1)}, {"sql": "\ud800"},
    ],
)  # fmt: skip
def test_r3_a_request_of_another_form_is_refused(change: dict) -> None:
    assert refused(signed(payload_of(TOKEN) | change, RESEARCHER, TYP)) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": Fraction(0)}, {"epsilon": Fraction(-1)}, {"delta": Fraction(1)}, {"delta": Fraction(-1, 9)},
        {"max_groups": 0}, {"max_rows_per_group": -1}, {"max_groups": 2**53},
    ],
)  # fmt: skip
def test_r3_parameters_out_of_range_cannot_be_asked(change: dict) -> None:
    parameters = replace(QueryParameters(epsilon=Fraction(1), delta=Fraction(0)), **change)
    with pytest.raises(Malformed):
        request(parameters=parameters)


def test_r3_the_deadline_is_after_the_issue() -> None:
    with pytest.raises(Malformed):
        request(deadline=NOW)
    with pytest.raises(Malformed):
        request(issued_at=NOW.replace(tzinfo=None))


def test_r3_a_budget_request_carries_no_query() -> None:
    token = seal_request(budget_request(), RESEARCHER)
    assert open_request(token, grant()) == budget_request()
    value = payload_of(token) | {"sql": "SELECT 1"}
    assert refused(signed(value, RESEARCHER, TYP)) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("R4")
def test_r4_a_request_under_another_grant_is_refused() -> None:
    assert refused(TOKEN, grant(id="grant-2")) == "INSITU-ACCESS-MALFORMED"


def test_fractions_of_seconds_only_widen() -> None:
    made = request(issued_at=NOW + timedelta(milliseconds=900), deadline=NOW + timedelta(milliseconds=1100))
    opened = open_request(seal_request(made, RESEARCHER), grant())
    assert (opened.issued_at, opened.deadline) == (NOW, NOW + timedelta(seconds=2))


def test_peeking_verifies_nothing() -> None:
    forged = seal_request(request(), STRANGER)
    assert peek_request(forged) == request()
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-MALFORMED"):
        peek_request("no token")


def test_the_largest_sql_fits() -> None:
    made = request(sql="\n" * (256 * 2**10))
    assert open_request(seal_request(made, RESEARCHER), grant()) == made


def test_a_request_is_named_by_its_exact_token() -> None:
    assert request_sha256(TOKEN) == request_sha256(seal_request(request(), RESEARCHER))
    assert request_sha256(TOKEN) != request_sha256(seal_request(request(min_nodes=2), RESEARCHER))
