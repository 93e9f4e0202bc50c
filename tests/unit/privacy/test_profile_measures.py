"""Which histograms a profile has, in which bins, and that each is a release in which a unit counts once."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_privacy.data_profile import DataProfile, Histogram, Measure, added, day_number
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import ParameterRefused
from insitu_privacy.plan import ReleasedValues, composed
from insitu_privacy.planner import plan_query
from insitu_privacy.profile_measures import Question, histogram, profile_of, profile_plans, questions
from insitu_privacy.render import render
from insitu_privacy.tree import grown

from tests.testkit.care import care, care_pairs, whole

HEAD = '[dataset]\nname = "one"\nversion = 1\n'
TABLE = """
[tables.stay]
unit = "p"
entity_keys = [["s"]]
[tables.stay.columns]
p = { type = "integer" }
s = { type = "integer", min = 0, max = 9 }
"""


def of(*columns: str, head: str = HEAD) -> Dataset:
    """A dataset of one table with these columns."""
    return parse_dataset(DatasetBundle(toml="\n".join([head, TABLE, *columns]).encode(), files={}))


def edges(column: str, kind: str = "values") -> list[float]:
    """The edges of a column ``x``; none where it has no such measure."""
    found = [one.measure for one in questions(of(f"x = {{ {column} }}")) if one.measure.column == "x"]
    return [float(edge) for one in found if one.kind == kind for edge in one.edges]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ('type = "integer", min = 0, max = 4', [1, 2, 3, 4]),
        ('type = "integer", min = -2, max = 1', [-1, 0, 1]),
        ('type = "integer", min = 3, max = 3', []),
        ('type = "integer", min = 0, max = 100', [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96]),
        ('type = "integer", min = -40, max = 3', [-32, -24, -16, -12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3]),
        ('type = "integer"', []),
        ('type = "integer", min = 0', []),
        ('type = "decimal", min = 2.5, max = 2.5', []),
        ('type = "decimal", min = 0, max = 0', []),
        ('type = "text"', []),
        ('type = "boolean"', []),
        ('type = "date", min = 2020-01-01, max = 2020-01-01', []),
    ],
)
def test_the_bins_of_values(column: str, expected: list[float]) -> None:
    assert edges(column) == expected


def test_equal_bins_where_the_interval_is_narrow() -> None:
    years = edges('type = "integer", min = 1900, max = 2028')
    assert (years[:2], years[-1], len(years)) == ([1902, 1904], 2026, 63)
    below = edges('type = "decimal", min = -20, max = -0.5')
    assert (len(below), below[0]) == (63, -20 + 19.5 / 64)
    assert len(edges('type = "decimal", min = -33, max = -0.5')) != 63, "a factor of 66"
    days = edges('type = "date", min = 2020-01-01, max = 2020-01-04')
    assert days == [float(day_number(date(2020, 1, day))) for day in (1, 2, 3, 4)]
    moments = edges('type = "timestamp", min = 2015-01-01T06:00:00, max = 2025-01-01T00:00:00')
    assert len(moments) == 63
    assert all(edge == int(edge) for edge in moments)


def test_two_bins_to_each_doubling_elsewhere() -> None:
    wide = edges('type = "decimal", min = 0, max = 1000')
    assert wide[-4:] == [256, 384, 512, 768]
    assert 1000 / 2**17 < wide[0] <= 1000 / 2**16
    assert len(wide) == 34
    assert edges('type = "decimal", min = 10, max = 1000')[0] == 12, "none below the least value"
    small = edges('type = "decimal", min = -0.001, max = 0.0005')
    assert min(small) >= -0.001
    assert max(small) <= 0.0005
    assert min(abs(edge) for edge in small) <= 0.001 / 2**16


def test_sums_go_from_one_value_to_very_many() -> None:
    ages = edges('type = "integer", min = 20, max = 90', "sums")
    assert (ages[0], ages[-1]) == (24, 2**18)
    assert all(edge == int(edge) for edge in ages)
    debts = edges('type = "decimal", min = -8, max = -2', "sums")
    assert (debts[-1], debts[0]) == (-2, -24576)
    both = edges('type = "decimal", min = -1, max = 8', "sums")
    assert (both[0], both[-1]) == (-3072, 2**15)


numbers = st.decimals(min_value=-(10**9), max_value=10**9, places=4)


@given(st.tuples(numbers, numbers).map(sorted), st.sampled_from(("integer", "decimal")))
def test_bins_ascend_within_the_bounds_and_say_in_sql_what_they_are(ends: list[object], kind: str) -> None:
    low, high = [int(end) if kind == "integer" else end for end in ends]  # type: ignore[call-overload]
    dataset = of(f'x = {{ type = "{kind}", min = {low:f}, max = {high:f} }}')
    for one in questions(dataset):
        ascending = one.measure.edges
        assert all(a < b for a, b in pairwise(ascending))
        assert one.measure.bins <= 200
        if one.measure.kind == "values":
            assert all(Fraction(str(low)) < edge <= Fraction(str(high)) for edge in ascending)
        said = [Fraction(part.split(" THEN")[0].strip("()")) for part in one.sql.split(" < ")[1:]]
        assert said == list(ascending)


def test_measures_of_a_dataset_are_of_its_tables_columns_and_keys() -> None:
    found = {(one.measure.table, one.measure.kind, one.measure.column) for one in questions(care())}
    assert len(found) == len(questions(care())) == 22
    assert ("person", "rows", None) not in found, "a person has one row there"
    assert {("visit", "rows", None), ("act", "rows", None), ("line", "rows", None)} <= found
    assert {("visit", "distinct", "kind"), ("line", "distinct", "item")} <= found
    assert not {column for _, _, column in found} & {"person_id", "visit_id", "act_id", "previous", "weight", "icd"}
    assert ("visit", "distinct", "blood") not in found, "constant for a person"
    assert not any(table == "icd" for table, _, _ in found), "public"


@pytest.mark.parametrize(
    "dataset", [care(), care_pairs(), care(min_units=11)], ids=["one column", "two columns", "small cells suppressed"]
)
def test_each_measure_is_a_release_in_which_a_unit_counts_once(dataset: Dataset) -> None:
    plans = profile_plans(dataset, Fraction(1))
    assert len(plans) == len(questions(dataset))
    for measure, plan in plans:
        (release,) = plan.releases
        (statistic,) = release.statistics
        assert release.tree is not None
        assert (release.tree.leaves, release.keys, release.mechanism) == (measure.bins, (), "laplace")
        assert statistic.linf == release.tree.weight
        assert (release.bounds.max_rows_per_group, release.bounds.max_groups) == (1, 1)
        assert plan.dataset_digest == dataset.digest
    total = composed([plan.loss for _, plan in plans])
    assert (total.pure, total.epsilon, total.delta) == (1, 1, 0)


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_units_of_two_columns_and_paths_to_the_unit_stand_in_the_statements(dialect: str) -> None:
    plans = {(m.table, m.kind, m.column): plan for m, plan in profile_plans(care_pairs(), Fraction(1))}
    (release,) = plans["line", "rows", None].releases
    sql = render(release, dialect=dialect, tables=whole(), cap_key="k")
    assert "u0, u1, leaf" in sql
    assert all(f"FROM {table} AS src" in sql for table in ("line", "act", "visit"))


RULES = """
[dataset.rules]
at_most_identifiers = 0
[[dataset.identifiers]]
name = "exact day of the stay"
columns = ["stay.day"]
finer_than = "month"
"""


@pytest.mark.attacks("D1", "D2")
def test_what_legal_rules_refuse_is_left_out_and_its_share_goes_to_the_others() -> None:
    columns = [
        'x = { type = "integer", min = 0, max = 9 }',
        'y = { type = "decimal", min = 0, max = 9, release = "never" }',
        'note = { type = "text", release = "never" }',
        'day = { type = "date", min = 2015-01-01, max = 2026-12-31 }',
    ]
    plans = profile_plans(of(*columns, head=HEAD + RULES), Fraction(3))
    assert {(m.kind, m.column) for m, _ in plans} == {("rows", None), ("values", "x"), ("sums", "x")}
    assert {plan.loss.pure for _, plan in plans} == {Fraction(1)}


def test_tables_that_may_not_be_read_are_left_out_with_those_that_need_them() -> None:
    found = {measure.table for measure, _ in profile_plans(care(), Fraction(1), {"person", "act", "line"})}
    assert found == {"person"}
    found = {measure.table for measure, _ in profile_plans(care(), Fraction(1), {"visit", "act"})}
    assert found == {"visit", "act"}
    assert profile_plans(care(), Fraction(1), ()) == ()


def test_an_epsilon_out_of_range_is_refused() -> None:
    with pytest.raises(ParameterRefused, match="INSITU-PARAM-EPSILON"):
        profile_plans(care(), Fraction(1, 10**12))


def test_a_histogram_is_what_was_released_in_units() -> None:
    for measure, plan in profile_plans(care(), Fraction(22)):
        (release,) = plan.releases
        assert release.tree is not None
        weight = release.tree.weight
        counts = {place: (place * 7) % 5 for place in range(measure.bins)}
        tree = grown(measure.bins, [(place, count * weight) for place, count in counts.items()])
        made = histogram(measure, plan, ReleasedValues(keys=None, statistics=tuple((count,) for count in tree)))
        assert made.counts == pytest.approx(list(counts.values()), abs=1e-3)
        assert made.deviation == pytest.approx(2**0.5 * release.statistics[0].levels, rel=1e-3)


def test_noise_of_a_bin_is_within_the_deviation_that_is_told() -> None:
    from insitu_privacy.mechanisms import ExactCells, privatize

    measure, plan = next(one for one in profile_plans(care(), Fraction(22)) if one[0].kind == "rows")
    made = [histogram(measure, plan, privatize(plan.releases[0], ExactCells(()))) for _ in range(60)]
    told = np.std([one.counts for one in made])
    assert 0.5 * made[0].deviation < told <= 1.05 * made[0].deviation


def test_profiles_add_up_where_they_have_the_same_measures() -> None:
    one = Measure(table="t", kind="rows", column=None, edges=(Fraction(1),))
    other = Measure(table="t", kind="rows", column=None, edges=(Fraction(2),))
    first, second = (
        profile_of(care(), (Histogram(measure=measure, counts=(1.0, 2.0), deviation=3.0),)) for measure in (one, other)
    )
    both = added([first, first])
    assert both is not None
    assert (both.histograms[0].counts, both.histograms[0].deviation) == ((2.0, 4.0), pytest.approx(18**0.5))
    assert both.find("t", "rows") == both.histograms[0]
    assert added([first, second]) == DataProfile(dataset="care", dataset_digest=care().digest, histograms=())
    assert added([]) is None


def test_the_question_of_a_measure_is_one_that_a_researcher_could_ask() -> None:
    """No statement is made of text: each goes through the planner as any query does."""
    from insitu_privacy.plan import QueryParameters, Scope

    for one in questions(care()):
        assert isinstance(one, Question)
        parameters = QueryParameters(epsilon=Fraction(1), delta=Fraction(0), mechanism="laplace")
        plan = plan_query(
            one.sql, dialect="duckdb", dataset=care(), parameters=parameters, scope=Scope(accounting="pure")
        )
        assert len(plan.releases) == 1
