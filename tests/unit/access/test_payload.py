"""Payload text is read in one way only, and every other way is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_access import payload
from insitu_access.payload import Fields, Malformed

from tests.unit.access.strategies import quick

NUMBERS = st.fractions(min_value=0)


@quick
@given(NUMBERS)
def test_exact_numbers_survive(number: Fraction) -> None:
    assert payload.read_number(str(number)) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1/2", Fraction(1, 2)), ("1e-6", Fraction(1, 10**6)), ("20.0", 20), ("1.5e+2", 150), ("007", 7)],
)
def test_numbers_in_the_forms_people_write(text: str, value: Fraction) -> None:
    assert payload.read_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "-1", "+1", "1/0", "1/-2", "nan", "inf", "0x1", "1_0", "1e9999", "1e999999999", ".5", "1.", "١",
     "9" * 1001, "1/2/3", "1.5/2"],
)  # fmt: skip
def test_other_texts_are_not_numbers(text: str) -> None:
    assert payload.read_number(text) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff{}", b"[]", b'"a"', b"1", b"null", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1,"a":1}',
     b'{"a":{"b":1,"b":2}}', b"[" * 100_000, b'{"a":' * 100_000, b"{}{}", b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_not_one_plain_object_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        payload.read(data)


def test_a_field_that_nobody_reads_is_refused() -> None:
    with pytest.raises(Malformed, match="not known"), payload.read(b'{"a":1,"b":2}') as fields:
        fields.integer("a")


def test_a_missing_field_is_refused_by_its_path() -> None:
    with (
        pytest.raises(Malformed, match=r"^a\.b is missing$"),
        payload.read(b'{"a":{}}') as fields,
        fields.fields("a") as inner,
    ):
        inner.text("b")


def test_null_must_be_written_out() -> None:
    with payload.read(b'{"a":null}') as fields:
        assert fields.optional_text("a") is None
    with pytest.raises(Malformed), payload.read(b"{}") as fields:
        fields.optional_text("a")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("text", 1), ("text", None), ("text", "\ud800"), ("integer", True), ("integer", 1.0), ("integer", "1"),
        ("flag", 0), ("flag", "true"), ("moment", -1), ("moment", 10**12), ("moment", 1.5), ("number", 1),
        ("number", "one"), ("fields", []), ("texts", "ab"), ("texts", [1]),
    ],
)  # fmt: skip
def test_types_are_exact_and_the_reason_hides_the_value(read: str, value: object) -> None:
    with pytest.raises(Malformed) as caught:
        getattr(Fields({"x": value}, ""), read)("x")
    assert caught.value.reason.startswith("x")
    assert "one" not in caught.value.reason


@quick
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.booleans() | st.none()))
def test_writing_is_a_function_of_the_value(value: dict) -> None:
    assert payload.write(value) == payload.write(dict(reversed(value.items())))


@quick
@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_seconds_enclose_the_moment(moment: datetime) -> None:
    down = datetime.fromtimestamp(payload.seconds_down(moment), UTC)
    up = datetime.fromtimestamp(payload.seconds_up(moment), UTC)
    assert down <= moment <= up
    assert up - down <= timedelta(seconds=1)
