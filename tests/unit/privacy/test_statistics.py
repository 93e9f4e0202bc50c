"""Passes 6 to 8: which statistics an aggregate becomes, what one unit moves them by, and which keys are public."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.domains import Facts
from insitu_privacy.errors import SqlRefused
from insitu_privacy.passes.bounds import granularity
from insitu_privacy.plan import Release

from tests.testkit.care import care, care_pairs, care_twins, changed, plan


def release(sql: str, **asked: Any) -> Release:
    (only,) = plan(sql, **asked).releases
    return only


def kinds(sql: str, **asked: Any) -> list[tuple[str, bool, int]]:
    """Kind, whether of a value, linf."""
    return [(one.kind, one.value is not None, one.linf) for one in release(sql, **asked).statistics]


# -- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT COUNT(*) FROM visit", [("rows", False, 3)]),
        ("SELECT COUNT(weight) FROM visit", [("rows", True, 3)]),
        ("SELECT COUNT(DISTINCT person_id) FROM visit", [("units", False, 1)]),
        ("SELECT COUNT(*) FROM person", [("rows", False, 1)]),
        ("SELECT COUNT(*), COUNT(*) + 1, 2 * COUNT(*) FROM visit", [("rows", False, 3)]),
        ("SELECT COUNT(DISTINCT person_id), COUNT(DISTINCT person_id) FROM visit", [("units", False, 1)]),
        ("SELECT SUM(stage), SUM(stage) / 2 FROM visit", [("sum", True, 12)]),
        ("SELECT SUM(stage), COUNT(stage) FROM visit", [("sum", True, 12), ("rows", True, 3)]),
        ("SELECT AVG(stage) FROM visit", [("sum", True, 6), ("rows", True, 3)]),
        ("SELECT AVG(stage), SUM(stage), COUNT(stage) FROM visit", [("sum", True, 6), ("rows", True, 3)]),
        (
            "SELECT AVG(stage), STDDEV(stage), VAR_POP(stage), SUM(stage) FROM visit",
            [("sum", True, 6), ("rows", True, 3), ("sum", True, 1200000000)],
        ),
        (
            "SELECT AVG(birth_year), STDDEV(birth_year), COUNT(*), COUNT(birth_year) FROM person",
            [("sum", True, 65), ("rows", False, 1), ("sum", True, 211250000)],
        ),
        ("SELECT COUNT_IF(stage = 2) FROM visit", [("rows", True, 3)]),
        ("SELECT COUNT(*) FILTER (WHERE stage = 2) FROM visit", [("rows", True, 3)]),
        ("SELECT COUNT(DISTINCT CASE WHEN stage = 2 THEN person_id END) FROM visit", [("units", True, 1)]),
        ("SELECT COUNT(DISTINCT person_id) FILTER (WHERE stage = 2) FROM visit", [("units", True, 1)]),
        ("SELECT SUM(stage) FILTER (WHERE kind = 'in') FROM visit", [("sum", True, 12)]),
        ("SELECT SUM(stage > 2) FROM visit", [("sum", True, 3)]),
        ("SELECT diagnosis, COUNT(*) FROM visit GROUP BY diagnosis", [("rows", False, 3), ("units", False, 1)]),
        ("SELECT diagnosis, COUNT(DISTINCT person_id) FROM visit GROUP BY 1", [("units", False, 1)]),
        ("SELECT diagnosis FROM visit GROUP BY diagnosis", [("units", False, 1)]),
    ],
)
def test_each_aggregate_becomes_the_fewest_statistics(sql: str, expected: list[tuple[str, bool, int]]) -> None:
    assert kinds(sql) == expected


def test_two_averages_share_nothing_but_the_count_of_all_rows() -> None:
    found = kinds("SELECT AVG(stage), AVG(cost), COUNT(*) FROM visit")
    assert [kind for kind, _, _ in found].count("sum") == 2
    values = release("SELECT AVG(stage), AVG(cost) FROM visit").values
    assert len(values) == len(set(values)) == 2


def test_an_average_is_centred_and_halves_the_sensitivity_of_its_sum() -> None:
    summed, averaged = release("SELECT SUM(cost) FROM visit"), release("SELECT AVG(cost) FROM visit")
    assert summed.statistics[0].center == 0
    assert averaged.statistics[0].center == 500
    assert averaged.statistics[0].linf * 2 == summed.statistics[0].linf


def test_a_suppressing_dataset_always_has_a_count_to_go_by() -> None:
    assert kinds("SELECT SUM(stage) FROM visit", dataset=care(min_units=11)) == [("sum", True, 12), ("units", False, 1)]
    assert kinds("SELECT COUNT(*) FROM visit", dataset=care(min_units=11)) == [("rows", False, 3)]


# -- bounds ----------------------------------------------------------------------------------------------------------


def bounds(sql: str, **asked: Any) -> tuple[int, int]:
    found = release(sql, **asked).bounds
    return found.max_rows_per_group, found.max_groups


@pytest.mark.parametrize(
    ("sql", "asked", "expected"),
    [
        ("SELECT COUNT(*) FROM visit", {}, (3, 1)),
        ("SELECT kind, COUNT(*) FROM visit GROUP BY kind", {}, (3, 2)),
        ("SELECT kind, COUNT(*) FROM visit GROUP BY kind", {"max_groups": 9}, (3, 3)),
        ("SELECT kind, stage, COUNT(*) FROM visit GROUP BY 1, 2", {"max_groups": 9}, (3, 9)),
        ("SELECT diagnosis, COUNT(*) FROM visit GROUP BY 1", {"max_groups": 9, "max_rows_per_group": 7}, (7, 9)),
        ("SELECT blood, COUNT(*) FROM visit GROUP BY blood", {}, (3, 1)),
        ("SELECT blood, kind, COUNT(*) FROM visit GROUP BY 1, 2", {"max_groups": 12}, (3, 3)),
        ("SELECT sex, region, COUNT(*) FROM person GROUP BY 1, 2", {}, (1, 1)),
        ("SELECT p.sex, COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id GROUP BY 1", {}, (3, 1)),
        (
            "SELECT p.sex, v.kind, COUNT(*) FROM person p JOIN visit v ON p.person_id = v.person_id GROUP BY 1, 2",
            {},
            (3, 2),
        ),
        ("SELECT kind, COUNT(*) FROM visit WHERE kind IN ('in') GROUP BY kind", {}, (3, 1)),
        ("SELECT i.chapter, COUNT(*) FROM act a JOIN icd i ON i.code = a.code GROUP BY 1", {}, (3, 2)),
    ],
)
def test_contribution_bounds_are_those_that_bind(sql: str, asked: dict[str, int], expected: tuple[int, int]) -> None:
    assert bounds(sql, **asked) == expected


@pytest.mark.parametrize(
    ("low", "high", "kind", "step"),
    [
        (0, 4, "integer", 1),
        (0, 10**12, "integer", 1),
        (0, 10**13, "integer", 10),
        (0, 1000, "decimal", Fraction(1, 10**5)),
        (0, 1, "decimal", Fraction(1, 10**8)),
        (-1, 1, "decimal", Fraction(1, 10**8)),
        (10**9, 10**9 + 1, "decimal", Fraction(1, 10**3)),
        (5, 5, "decimal", Fraction(1, 10**8)),
        (0, 0, "decimal", Fraction(1, 10**8)),
    ],
)
def test_granularity_divides_the_range_finely_and_keeps_values_small(
    low: int, high: int, kind: Any, step: Fraction
) -> None:
    found = granularity(Facts(type=kind, nullable=False, interval=(Fraction(low), Fraction(high))))
    assert found == step
    assert max(abs(low), abs(high)) / found < 2**40


@pytest.mark.parametrize(
    "expression", ["cost", "-cost", "cost - 500", "cost / 3", "stage * cost", "LEAST(GREATEST(weight, -3.7), 5.1)"]
)
@pytest.mark.parametrize("aggregate", ["SUM", "AVG"])
def test_linf_covers_every_value_of_the_interval(aggregate: str, expression: str) -> None:
    found = release(f"SELECT {aggregate}({expression}) FROM visit").statistics[0]
    ranges = {
        "cost": (0, 1000),
        "-cost": (-1000, 0),
        "cost - 500": (-500, 500),
        "cost / 3": (0, Fraction(1000, 3)),
        "stage * cost": (0, 4000),
    }
    low, high = ranges.get(expression, (Fraction("-3.7"), Fraction("5.1")))
    largest = max(abs(low - found.center), abs(high - found.center)) / found.granularity
    assert found.linf >= 3 * round(largest)
    assert found.linf <= 3 * (round(largest) + 1), "the sensitivity is larger than it need be"


# -- keys ------------------------------------------------------------------------------------------------------------


YEARS = range(2015, 2025)


def domain(sql: str, **asked: Any) -> Any:
    return release(sql, **asked).keys[0].domain


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("kind", ("er", "in", "out")),
        ("stage", (None, 0, 1, 2, 3, 4)),
        ("blood", (None, "A", "B", "O")),
        ("YEAR(start)", tuple(YEARS)),
        ("QUARTER(start)", (1, 2, 3, 4)),
        ("MONTH(finish)", (None, *range(1, 13))),
        ("kind = 'in'", (False, True)),
        ("cost > 500", (None, False, True)),
        ("cost IS NULL", (False, True)),
        ("CASE WHEN cost > 500 THEN 'dear' WHEN cost > 5 THEN 'fair' END", (None, "dear", "fair")),
        ("CASE kind WHEN 'in' THEN 1 ELSE 0 END", (0, 1)),
        ("COALESCE(blood, '?')", ("?", "A", "B", "O")),
        ("UPPER(kind)", ("ER", "IN", "OUT")),
        ("kind || '!'", ("er!", "in!", "out!")),
        ("stage + 1", (None, 1, 2, 3, 4, 5)),
        ("stage * 0.1", (None, 0.0, 0.1, 0.2, 0.30000000000000004, 0.4)),
        ("stage / 2", (None, 0.0, 0.5, 1.0, 1.5, 2.0)),
        ("diagnosis", None),
        ("ward", None),
        ("cost", None),
        ("start", None),
        ("noted", None),
        ("YEAR(noted)", None),
        ("DATE_TRUNC('quarter', start)", tuple(date(year, month, 1) for year in YEARS for month in (1, 4, 7, 10))),
        ("DATE_TRUNC('day', start)", None),
        ("DATE_TRUNC('month', noted)", None),
    ],
)  # fmt: skip
def test_the_domain_of_a_key_is_inferred_through_its_expression(key: str, expected: Any) -> None:
    assert domain(f"SELECT {key} AS k, COUNT(*) FROM visit GROUP BY 1") == expected


@pytest.mark.parametrize(
    ("key", "where", "expected"),
    [
        ("diagnosis", "diagnosis IN ('b', 'a')", ("a", "b")),
        ("ward", "ward = 7", (7,)),
        ("ward", "ward IN (1, 2, NULL)", (1, 2)),
        ("ward", "ward BETWEEN 3 AND 5", None),
        ("stage", "stage BETWEEN 3 AND 9", (3, 4)),
        ("stage", "stage IS NOT NULL", (0, 1, 2, 3, 4)),
        ("stage", "stage > 1 OR kind = 'in'", (None, 0, 1, 2, 3, 4)),
        ("kind", "kind = 'zz'", ()),
        ("YEAR(noted)", "YEAR(noted) IN (2020, 2021)", (2020, 2021)),
        ("start", "start = DATE '2020-01-01'", (date(2020, 1, 1),)),
        ("kind", "kind <> 'in'", ("er", "in", "out")),
    ],
)
def test_conditions_make_keys_public_or_narrow_them(key: str, where: str, expected: Any) -> None:
    assert domain(f"SELECT {key} AS k, COUNT(*) FROM visit WHERE {where} GROUP BY 1") == expected


def test_a_public_key_of_a_left_join_may_be_null() -> None:
    inner = "SELECT i.chapter AS k, COUNT(*) FROM act a JOIN icd i ON i.code = a.code GROUP BY 1"
    assert domain(inner) == ("heart", "infection", "lung")
    assert domain(inner.replace("JOIN icd", "LEFT JOIN icd")) == (None, "heart", "infection", "lung")


def test_one_private_key_makes_all_keys_private_and_costs_delta() -> None:
    mixed = plan("SELECT kind, diagnosis, COUNT(*) FROM visit GROUP BY 1, 2")
    (only,) = mixed.releases
    assert [key.domain for key in only.keys] == [None, None]
    assert only.cells is None
    assert only.threshold is not None
    assert mixed.loss.threshold_delta > 0
    public = plan("SELECT kind, COUNT(*) FROM visit GROUP BY 1", mechanism="laplace")
    assert (public.releases[0].threshold, public.loss.delta) == (None, 0)


def test_a_cross_product_too_large_is_thresholded() -> None:
    sql = "SELECT birth_year, sex, region, active, FLOOR(score) AS s, COUNT(*) FROM person GROUP BY 1, 2, 3, 4, 5"
    assert release(sql).cells is None
    many = "SELECT birth_year, YEAR(v.start) AS y, MONTH(v.start) AS m, kind, COUNT(*) FROM person p JOIN visit v ON v.person_id = p.person_id GROUP BY 1, 2, 3, 4"
    assert release(many).cells == 131 * 10 * 12 * 3
    assert release(many.replace("kind, COUNT", "kind, stage, COUNT").replace("3, 4", "3, 4, 5")).cells is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT COUNT(DISTINCT person_id) FROM visit", [("units", True, 1)]),
        ("SELECT COUNT(DISTINCT CASE WHEN stage > 1 THEN person_id END) FROM visit", [("units", True, 1)]),
        ("SELECT COUNT(DISTINCT CASE WHEN stage > 1 THEN visit_id END) FROM visit", [("entities", True, 3)]),
    ],
)
def test_a_declared_half_of_the_unit_counts_persons(sql: str, expected: list[tuple[str, bool, int]]) -> None:
    assert kinds(sql, dataset=care_twins()) == expected


def test_an_entity_key_of_two_columns_is_counted_by_what_they_make_together() -> None:
    stays = parse_dataset(
        changed(('entity_keys = [["visit_id"]]', 'entity_keys = [["visit_id"], ["diagnosis", "ward"]]'))
    )
    sql = "SELECT COUNT(DISTINCT diagnosis || '-' || ward) FROM visit"
    assert kinds(sql, dataset=stays) == [("entities", True, 3)]
    with pytest.raises(SqlRefused):
        plan(sql)


def test_a_join_on_a_declared_half_of_the_unit_is_one_on_the_unit() -> None:
    whole = "SELECT COUNT(*) FROM person p JOIN visit v ON v.person_id = p.person_id AND v.rang = p.rang"
    half = "SELECT COUNT(*) FROM person p JOIN visit v ON v.person_id = p.person_id"
    assert release(half, dataset=care_twins()).relation == release(whole, dataset=care_twins()).relation


def test_units_of_two_columns_are_counted_together() -> None:
    assert kinds("SELECT COUNT(DISTINCT (person_id, rang)) FROM visit", dataset=care_pairs()) == [("units", False, 1)]
    assert [ref.column for ref in release("SELECT COUNT(*) FROM visit", dataset=care_pairs()).relation.unit] == [
        "person_id",
        "rang",
    ]
