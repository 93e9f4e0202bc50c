"""The outcome's numbered checks O1 to O4."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from insitu_access.payload import Malformed
from insitu_access.release import (
    BudgetStatement,
    NodeRelease,
    Outcome,
    Refusal,
    open_outcome,
    read_values,
    refusal_of,
    seal_outcome,
    values_as_json,
)
from insitu_privacy.errors import IntegrityFailed, Span, SqlRefused
from insitu_privacy.plan import ReleasedValues

from tests.unit.access.strategies import outcomes, quick
from tests.unit.access.world import NODE, NOW, STRANGER, payload_of, release, signed, without

TOKEN = seal_outcome(release(), NODE)
REFUSAL = refusal_of(
    SqlRefused("INSITU-SQL-ROW-OUTPUT", span=Span(start=7, end=8)),
    node="chu-lille", request_id="0f" * 16, request_sha256="12" * 32, issued_at=NOW,
)  # fmt: skip
STATEMENT = BudgetStatement(
    node="chu-lille", request_id="0f" * 16, request_sha256="12" * 32, grant_id="g", rows=(), issued_at=NOW
)


def refused(token: str, *, node: str = "chu-lille") -> str:
    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE") as caught:
        open_outcome(token, NODE.public(), node=node)
    return caught.value.text


@quick
@given(outcomes())
def test_a_sealed_outcome_opens_as_itself(made: Outcome) -> None:
    opened = open_outcome(seal_outcome(made, NODE), NODE.public(), node=made.node)
    assert opened == made
    assert repr(opened) == repr(made)  # also tells 1 from 1.0 from True, and 0.0 from -0.0


@quick
@given(outcomes())
def test_released_values_survive_storage(made: Outcome) -> None:
    if isinstance(made, NodeRelease):
        assert read_values(values_as_json(made.values), "values") == made.values


@pytest.mark.attacks("O1")
def test_o1_only_an_outcome_is_an_outcome() -> None:
    assert "not an outcome" in refused(signed(payload_of(TOKEN), NODE, "insitu-request+jws"))
    assert "not an outcome" in refused("")
    assert "not an outcome" in refused("a.b.c")


@pytest.mark.attacks("O1")
@pytest.mark.parametrize("made", [release(), REFUSAL, STATEMENT])
def test_o1_no_kind_passes_for_another(made: Outcome) -> None:
    value = payload_of(seal_outcome(made, NODE))
    own = {NodeRelease: "release", Refusal: "refusal", BudgetStatement: "statement"}[type(made)]
    for other in {"release", "refusal", "statement"} - {own}:
        assert "malformed" in refused(signed(value, NODE, f"insitu-{other}+jws"))


@pytest.mark.attacks("O2")
def test_o2_only_the_nodes_key_counts() -> None:
    assert "signature" in refused(seal_outcome(release(), STRANGER))
    header, _, signature = TOKEN.split(".")
    changed = release(values=(ReleasedValues(keys=None, statistics=((11,),)),))
    assert "signature" in refused(f"{header}.{seal_outcome(changed, NODE).split('.')[1]}.{signature}")


@pytest.mark.attacks("O3")
@pytest.mark.parametrize("made", [release(), REFUSAL, STATEMENT])
def test_o3_every_field_is_needed_and_typed(made: Outcome) -> None:
    token = seal_outcome(made, NODE)
    typ = {NodeRelease: "insitu-release+jws", Refusal: "insitu-refusal+jws"}.get(type(made), "insitu-statement+jws")
    for name in payload_of(token):
        value = payload_of(token)
        wrongs = [without(value, name), value | {name: 1.5}, value | {name: {"a": 1}}, value | {"extra": 1}]
        for wrong in wrongs:
            assert "malformed" in refused(signed(wrong, NODE, typ))


@pytest.mark.attacks("O3")
@pytest.mark.parametrize(
    "values",
    [
        {"keys": None, "statistics": [[1], [1, 2]]},
        {"keys": [["a"]], "statistics": [[1, 2]]},
        {"keys": [["a"], ["b", "c"]], "statistics": [[1, 2]]},
        {"keys": [["a"], ["a"]], "statistics": [[1, 2]]},
        {"keys": [[["a"]]], "statistics": [[1]]},
        {"keys": ["a"], "statistics": [[1]]},
        {"keys": [[{}]], "statistics": [[1]]},
        {"keys": [[2**63]], "statistics": [[1]]},
        {"keys": None, "statistics": [[True]]},
        {"keys": None, "statistics": [[1.0]]},
        {"keys": None, "statistics": [["1"]]},
        {"keys": None, "statistics": [[None]]},
        {"keys": None, "statistics": [[[1]]]},
        {"keys": None, "statistics": [[2**63]]},
        {"keys": None, "statistics": [[-(2**63)]]},
        {"keys": None, "statistics": [1]},
        {"keys": None, "statistics": None},
        {"keys": None, "statistics": {}},
        {"keys": None},
        {"statistics": [[1]]},
        {"keys": None, "statistics": [[1]], "extra": 1},
    ],
)
def test_o3_values_of_another_shape_are_refused(values: dict) -> None:
    value = payload_of(TOKEN) | {"values": [values]}
    assert "malformed" in refused(signed(value, NODE, "insitu-release+jws"))


@pytest.mark.attacks("O3")
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000])
def test_o3_there_is_no_number_beyond_numbers(number: bytes) -> None:
    for place in (b"[[%b]],", b"null,"):
        keys = place % number if b"%b" in place else place
        statistic = b"1" if b"%b" in place else number
        values = b'[{"keys":' + keys + b'"statistics":[[' + statistic + b"]]}]"
        text = json.dumps(payload_of(TOKEN) | {"values": "HERE"}).encode().replace(b'"HERE"', values)
        assert "malformed" in refused(signed(text, NODE, "insitu-release+jws"))


def test_o3_keys_that_python_calls_equal_are_different_keys() -> None:
    values = ReleasedValues(keys=((1,), (1.0,), (True,)), statistics=((1, 2, 3),))
    made = release(values=(values,))
    assert open_outcome(seal_outcome(made, NODE), NODE.public(), node="chu-lille") == made


@pytest.mark.parametrize(
    "values",
    [
        ReleasedValues(keys=None, statistics=((True,),)),
        ReleasedValues(keys=None, statistics=((1.0,),)),  # type: ignore[arg-type]
        ReleasedValues(keys=None, statistics=((2**63,),)),
        ReleasedValues(keys=((float("nan"),),), statistics=((1,),)),
        ReleasedValues(keys=(("\ud800",),), statistics=((1,),)),
        ReleasedValues(keys=(), statistics=((1,),)),
    ],
)
def test_o3_a_node_cannot_sign_what_nobody_would_read(values: ReleasedValues) -> None:
    with pytest.raises(Malformed):
        release(values=(values,))


@pytest.mark.parametrize("code", ["", "X", "INSITU-", "insitu-sql-syntax", "INSITU-SQL SYNTAX", "INSITU" + "-A" * 40])
def test_o3_codes_are_codes(code: str) -> None:
    with pytest.raises(Malformed):
        replace(REFUSAL, code=code)


@pytest.mark.attacks("O4")
def test_o4_a_node_cannot_answer_for_another() -> None:
    assert "another node" in refused(TOKEN, node="chu-rennes")


def test_a_refusal_reports_the_error_that_was_raised() -> None:
    assert (REFUSAL.code, REFUSAL.span) == ("INSITU-SQL-ROW-OUTPUT", Span(start=7, end=8))
    assert REFUSAL.text == "this would return rows of persons"
    assert open_outcome(seal_outcome(REFUSAL, NODE), NODE.public(), node="chu-lille") == REFUSAL


@pytest.mark.parametrize("reason", ["é" * 20_000, "\ud800"])
def test_a_refusal_of_any_text_can_be_signed(reason: str) -> None:
    error = SqlRefused("INSITU-SQL-SYNTAX", reason=reason)
    made = refusal_of(error, node="n", request_id="0f" * 16, request_sha256="12" * 32, issued_at=NOW)
    assert open_outcome(seal_outcome(made, NODE), NODE.public(), node="n") == made


def test_a_large_release_fits() -> None:
    values = ReleasedValues(keys=None, statistics=(tuple(range(300_000)),))
    made = release(values=(values,))
    assert open_outcome(seal_outcome(made, NODE), NODE.public(), node="chu-lille") == made
