"""A guard leaves out what the query's own conditions say already, and nothing else."""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction

import pytest
from insitu_privacy.dataset import Column
from insitu_privacy.expressions import ColumnRef, Expression, Literal, Op, call
from insitu_privacy.implied import BOTH_ENDS, NO_ENDS, Ends, implied
from insitu_privacy.render import render

from tests.testkit.care import plan, whole

HERE = ColumnRef("t0", "x")
LOW, HIGH = Ends(low=True, high=False), Ends(low=False, high=True)
DAY = Column(name="x", type="date", minimum=date(2020, 1, 1), maximum=date(2024, 12, 31))
AGE = Column(name="x", type="integer", minimum=Fraction(0), maximum=Fraction(120))
KIND = Column(name="x", type="text", values=("er", "in"))


def day(year: int) -> Literal:
    return Literal("date", date(year, 6, 1))


def age(value: int | None) -> Literal:
    return Literal("integer", value)


def kind(value: str) -> Literal:
    return Literal("text", value)


@pytest.mark.parametrize(
    ("column", "term", "known"),
    [
        (DAY, call(Op.GE, HERE, day(2021)), LOW),
        (DAY, call(Op.LT, HERE, day(2021)), HIGH),
        (DAY, call(Op.LE, day(2021), HERE), LOW),
        (DAY, call(Op.GE, HERE, day(2019)), NO_ENDS),
        (DAY, call(Op.LT, HERE, day(2025)), NO_ENDS),
        (DAY, call(Op.EQ, HERE, day(2022)), BOTH_ENDS),
        (DAY, call(Op.NE, HERE, day(2022)), NO_ENDS),
        (DAY, call(Op.GE, HERE, Literal("timestamp", datetime(2021, 1, 1))), NO_ENDS),
        (DAY, call(Op.NOT, call(Op.GE, HERE, day(2021))), NO_ENDS),
        (DAY, call(Op.OR, call(Op.GE, HERE, day(2021)), call(Op.LT, HERE, day(2021))), NO_ENDS),
        (AGE, call(Op.IN, HERE, age(1), age(120)), BOTH_ENDS),
        (AGE, call(Op.IN, HERE, age(1), age(121)), LOW),
        (AGE, call(Op.IN, HERE, age(1), age(None)), NO_ENDS),
        (AGE, call(Op.GT, HERE, Literal("decimal", Fraction(3))), NO_ENDS),
        (AGE, call(Op.GT, ColumnRef("t1", "x"), age(3)), NO_ENDS),
        (AGE, call(Op.GT, HERE, ColumnRef("t1", "x")), NO_ENDS),
        (KIND, call(Op.EQ, HERE, kind("in")), BOTH_ENDS),
        (KIND, call(Op.EQ, kind("in"), HERE), BOTH_ENDS),
        (KIND, call(Op.IN, HERE, kind("in"), kind("out")), NO_ENDS),
        (KIND, call(Op.LE, HERE, kind("in")), NO_ENDS),
        (KIND, call(Op.LIKE, HERE, kind("in")), NO_ENDS),
    ],
)
def test_only_comparisons_with_constants_of_the_type_say_something(
    column: Column, term: Expression, known: Ends
) -> None:
    assert implied(column, HERE, [term]) == known


def test_conditions_add_up() -> None:
    assert implied(DAY, HERE, [call(Op.GE, HERE, day(2021)), call(Op.LE, HERE, day(2022))]) == BOTH_ENDS


def test_what_has_no_declared_bound_and_decimals_keep_their_guards() -> None:
    open_ended = Column(name="x", type="integer", minimum=Fraction(0))
    assert implied(open_ended, HERE, [call(Op.LE, HERE, age(10))]) == NO_ENDS
    cost = Column(name="x", type="decimal", minimum=Fraction(0), maximum=Fraction(9))
    assert implied(cost, HERE, [call(Op.EQ, HERE, Literal("decimal", Fraction(1)))]) == NO_ENDS


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_a_table_that_needs_no_guard_is_read_in_place_and_one_that_does_is_not(dialect: str) -> None:
    def text(sql: str) -> str:
        return render(plan(sql).releases[0], dialect=dialect, tables=whole(), cap_key="k")

    plain = text("SELECT COUNT(*) AS n FROM visit WHERE kind = 'in' AND stage >= 1")
    assert 'FROM visit AS "t0"\nWHERE "t0"."person_id" IS NOT NULL' in plain
    assert '"t0"."stage" <= 4' in plain
    assert '"t0"."stage" >= 0' not in plain
    assert "FROM visit AS src" in text("SELECT SUM(cost) AS s FROM visit")
    left = "SELECT COUNT(*) AS n FROM person p LEFT JOIN visit v ON v.person_id = p.person_id AND v.kind = 'in'"
    assert "FROM visit AS src" in text(left)
