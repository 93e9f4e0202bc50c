"""A first look: it asks for the rows and groups of each unit that a query reads, and decides between guesses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import duckdb
import numpy as np
import pytest
from insitu_privacy.data_profile import DataProfile, Histogram
from insitu_privacy.dataset import Dataset
from insitu_privacy.first_look import FirstLook, first_look, own_rows
from insitu_privacy.fitting import OwnRows, fitted, is_worth_a_look
from insitu_privacy.fitting.crowd import crowds
from insitu_privacy.fitting.curves import Curve
from insitu_privacy.fitting.independent import sums_of
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.render import render
from insitu_privacy.tree import grown

from tests.testkit.care import care, care_pairs, clean_world, create, fill_duckdb, parameters, plan, run_duckdb, whole
from tests.unit.privacy.test_fitting import MEASURES, heavy, histogram, profile

DEAR = "SELECT COUNT(*) AS n FROM visit WHERE weight > 70"
COHORT = "person_id IN (SELECT person_id FROM visit WHERE kind = 'er')"


def part(sql: str, dataset: Dataset | None = None) -> PrivacyPlan:
    """The plan of a first look's SQL."""
    return plan(sql, dataset=dataset, delta="0", mechanism="laplace", max_rows_per_group=1, max_groups=1, epsilon="0.1")


def look_at(sql: str, dialect: str = "duckdb", dataset: Dataset | None = None) -> FirstLook | None:
    made = plan(sql, dialect=dialect, dataset=dataset)
    return first_look(sql, dialect, made, dataset or care(), lambda text: part(text, dataset))


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        for statement in create():
            connection.execute(statement)
        fill_duckdb(connection, clean_world(300, visits=9, acts=5))
        yield connection


def released(duck: duckdb.DuckDBPyConnection, release: Release) -> ReleasedValues:
    """What a node would release without noise."""
    assert release.tree is not None
    rows = run_duckdb(duck, render(release, dialect="duckdb", tables=whole(), cap_key="k"))
    tree = grown(release.tree.leaves, [(int(leaf), int(count)) for leaf, count in rows])
    return ReleasedValues(keys=None, statistics=tuple((count,) for count in tree))


def binned(numbers: list[int], like: Histogram) -> list[float]:
    edges = [float(edge) for edge in like.measure.edges]
    found = np.bincount(np.searchsorted(edges, numbers, side="right"), minlength=like.measure.bins)
    return [float(one) for one in found]


@pytest.mark.parametrize(
    ("sql", "rows", "key"),
    [
        (DEAR, "visit WHERE weight > 70", None),
        ("SELECT kind, COUNT(*) FROM visit WHERE stage > 1 GROUP BY kind", "visit WHERE stage > 1", "kind"),
        ("SELECT kind AS k, SUM(cost) FROM visit WHERE stage > 1 GROUP BY k", "visit WHERE stage > 1", "kind"),
        ("SELECT COUNT(*), YEAR(start) FROM visit WHERE ward = 2 GROUP BY 2", "visit WHERE ward = 2", "YEAR(start)"),
        ("SELECT kind, stage, COUNT(*) FROM visit WHERE ward = 2 GROUP BY 1, 2", "visit WHERE ward = 2", None),
        (
            "SELECT p.sex, v.kind, COUNT(*) FROM visit v JOIN person p USING (person_id) WHERE p.active GROUP BY 1, 2",
            "visit v JOIN person USING (person_id) WHERE active",
            "kind",
        ),
        (
            "SELECT p.sex, AVG(v.cost) FROM person p JOIN visit v ON v.person_id = p.person_id WHERE v.stage = 1 "
            "GROUP BY p.sex HAVING COUNT(*) > 5 ORDER BY 2",
            "visit v JOIN person USING (person_id) WHERE stage = 1",
            None,
        ),
        (
            "SELECT code, SUM(amount) FROM act WHERE amount > 0 GROUP BY code",
            "act JOIN visit USING (visit_id) WHERE amount > 0",
            "code",
        ),
        (
            "SELECT COUNT(*) FROM line WHERE price > 10",
            "line JOIN act USING (act_id) JOIN visit USING (visit_id) WHERE price > 10",
            None,
        ),
        (
            "WITH v AS (SELECT person_id, kind FROM visit WHERE stage > 1) SELECT kind, COUNT(*) FROM v GROUP BY kind",
            "visit WHERE stage > 1",
            "kind",
        ),
        (f"SELECT COUNT(*) FROM visit WHERE {COHORT}", f"visit WHERE {COHORT}", None),
        ("SELECT COUNT(*) FROM visit a JOIN visit b USING (person_id)", "visit a JOIN visit b USING (person_id)", None),
    ],
)
def test_a_look_counts_the_rows_and_groups_of_each_person(
    duck: duckdb.DuckDBPyConnection, sql: str, rows: str, key: str | None
) -> None:
    look = look_at(sql)
    assert look is not None
    made = part(look.sql)
    found = own_rows(look, made, merge(made, [[released(duck, one) for one in made.releases]]), nodes=1)
    plain = duck.execute(
        f"SELECT COUNT(*), COUNT(DISTINCT {key or 'person_id'}) FROM {rows} GROUP BY person_id"
    ).fetchall()
    assert sum(count for count, _ in plain) > 60, "there is something to count"
    assert list(found.rows.counts) == pytest.approx(binned([count for count, _ in plain], found.rows), abs=1e-3)
    if key is None:
        assert found.groups is None
    else:
        assert found.groups is not None
        assert list(found.groups.counts) == pytest.approx(binned([keys for _, keys in plain], found.groups), abs=1e-3)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM person WHERE active",
        "SELECT COUNT(DISTINCT person_id) AS n FROM person",
        "SELECT COUNT(*) FROM visit UNION ALL SELECT COUNT(*) FROM act",
        "SELECT (SELECT COUNT(*) FROM visit) AS a, (SELECT COUNT(*) FROM act) AS b",
        "SELECT k, COUNT(*) FROM (SELECT person_id, COUNT(*) AS k FROM visit GROUP BY 1) f GROUP BY k",
        "SELECT chapter FROM icd",
    ],
)
def test_some_queries_have_no_look(sql: str) -> None:
    assert look_at(sql) is None


def test_a_unit_of_two_columns_and_another_dialect() -> None:
    look = look_at("SELECT COUNT(*) FROM act WHERE amount > 0", dataset=care_pairs())
    assert look is not None
    assert "GROUP BY insitu_visit.person_id, insitu_visit.rang" in look.sql
    look = look_at("SELECT COUNT(*) FROM visit WHERE start > '2020-01-01'::date AND kind ~ 'e'", dialect="postgres")
    assert look is not None
    assert part(look.sql).releases


def test_names_are_read_whatever_their_case_and_a_derived_table_needs_none() -> None:
    look = look_at("SELECT kind AS K, COUNT(*) FROM visit WHERE stage > 1 GROUP BY k")
    assert look is not None
    assert [one.kind for one in look.measures] == ["rows", "distinct"]
    look = look_at("SELECT COUNT(*) FROM (SELECT person_id FROM visit WHERE stage > 1)")
    assert look is not None
    assert '""' not in look.sql


def test_each_person_counts_once_in_a_look_and_it_costs_its_epsilon() -> None:
    look = look_at("SELECT kind, COUNT(*), SUM(cost) FROM visit WHERE stage > 1 GROUP BY kind")
    assert look is not None
    made = part(look.sql)
    assert [measure.kind for measure in look.measures] == ["rows", "distinct"]
    assert made.loss.epsilon == pytest.approx(0.1)
    for release in made.releases:
        assert release.one_row_per_unit
        assert (release.bounds.max_rows_per_group, release.bounds.max_groups) == (1, 1)


def test_rows_beyond_the_declared_bounds_are_seen(duck: duckdb.DuckDBPyConnection) -> None:
    """A COUNT of a person would be cut at 3 x 2, which the contract declares."""
    look = look_at("SELECT COUNT(*) FROM act a JOIN visit v ON v.visit_id = a.visit_id WHERE v.ward >= 0")
    assert look is not None
    made = part(look.sql)
    found = own_rows(look, made, merge(made, [[released(duck, one) for one in made.releases]]), nodes=1)
    assert sum(found.rows.counts[7:]) > 5, "persons with eight rows and more"


def test_nodes_that_did_not_answer_are_taken_to_be_like_the_others(duck: duckdb.DuckDBPyConnection) -> None:
    look = look_at(DEAR)
    assert look is not None
    made = part(look.sql)
    one = [released(duck, each) for each in made.releases]
    alone, of_three = (own_rows(look, made, merge(made, [one]), nodes=nodes) for nodes in (1, 3))
    assert of_three.rows.counts == pytest.approx([3 * count for count in alone.rows.counts])
    assert of_three.rows.deviation == pytest.approx(3 * alone.rows.deviation)


# --------------------------------------------------------------------------------------------------- deciding by a look


def seen(rows: list[float], noise: float, seed: int = 2) -> OwnRows:
    look = look_at(DEAR)
    assert look is not None
    return OwnRows(rows=histogram(look.measures[0], rows, noise, seed), groups=None)


def kept_at_random(rows: list[float], share: float) -> list[float]:
    draw = np.random.default_rng(4)
    return [float(one) for one in draw.binomial([int(row) for row in rows], share) if one]


def most_of(known: DataProfile, own: OwnRows | None, sql: str = DEAR) -> int:
    made = plan(sql, delta="0", mechanism="laplace")
    asked = parameters(delta="0", mechanism="laplace")
    (fit,) = fitted(made, care(), known, parameters=asked, accounting="pure", nodes=1, own=own).fits
    return fit.max_rows_per_group


def wrong_by(rows: list[float], most: int) -> float:
    bias = sum(max(0.0, one - most) for one in rows)
    return float(np.hypot(bias, 2**0.5 * most))


@pytest.mark.parametrize("share", [0.3, 0.03, 0.004])
@pytest.mark.parametrize("who", ["rows at random", "whole persons"])
@pytest.mark.parametrize("noise", [2.0, 20.0])
def test_bounds_by_a_look_are_near_the_best_whatever_conditions_keep(share: float, who: str, noise: float) -> None:
    everyone = heavy()
    known = profile({("visit", "rows", None): everyone}, 2.0)
    there = kept_at_random(everyone, share) if who == "rows at random" else everyone[: int(len(everyone) * share)]
    best = min(wrong_by(there, round(2 ** (power / 2))) for power in range(30))
    by_look = wrong_by(there, most_of(known, seen(there, noise)))
    by_guess = wrong_by(there, most_of(known, None))
    assert by_look < 1.5 * by_guess
    assert by_look < 2.5 * best or len(there) < 5 * noise, "as good as hidden by the noise"


@pytest.mark.parametrize("seed", range(6))
def test_what_is_borne_out_has_about_as_many_persons_as_were_seen(seed: int) -> None:
    """No guess that a few hundred are left passes for the thousand that were counted."""
    everyone = heavy()
    there = kept_at_random(everyone, 0.008)
    (release,) = plan(DEAR).releases
    found = crowds(release, care(), profile({("visit", "rows", None): everyone}, 2.0), seen(there, 40.0, seed))
    assert 1 <= len(found) <= 3
    for one in found:
        assert float(one.units.sum()) == pytest.approx(len(there), rel=0.35)


def test_what_no_guess_explains_is_believed_as_it_is() -> None:
    """Everybody has one row but a few hundred, who have forty: neither rows at random nor whole persons."""
    known = profile({("visit", "rows", None): heavy()}, 2.0)
    there = [1.0] * 8_000 + [40.0] * 400
    assert 30 <= most_of(known, seen(there, 10.0)) <= 64
    assert most_of(known, seen([1.0] * 8_000, 10.0)) == 1


def test_without_a_profile_of_the_table_a_look_says_all() -> None:
    known = profile({("act", "rows", None): heavy()}, 2.0)
    assert worth(DEAR, known)
    there = [float(max(1, round(one))) for one in np.random.default_rng(3).lognormal(np.log(12), 0.3, 3_000)]
    assert 16 <= most_of(known, seen(there, 20.0)) <= 32
    private = "SELECT diagnosis, ward, COUNT(*) AS n FROM visit WHERE weight > 70 GROUP BY diagnosis, ward"
    made = plan(private)
    (fit,) = fitted(
        made, care(), known, parameters=parameters(), accounting="zcdp", nodes=1, own=seen(there, 20.0)
    ).fits
    assert fit.max_groups <= 2, "nobody knows in how many groups they are: as the contract declares"


def test_persons_that_count_once_need_no_look() -> None:
    known = profile({("act", "rows", None): heavy()}, 2.0)
    assert not worth("SELECT COUNT(DISTINCT person_id) AS n FROM visit WHERE weight > 70", known)
    assert worth("SELECT kind, COUNT(DISTINCT person_id) AS n FROM visit WHERE weight > 70 GROUP BY kind", known)


def test_a_look_that_shows_nothing_still_says_that_there_is_little() -> None:
    known = profile({("visit", "rows", None): heavy()}, 2.0)
    assert most_of(known, seen([], 20.0)) < most_of(known, None) / 2


@pytest.mark.parametrize("seed", range(5))
def test_large_sums_are_expected_though_the_look_shows_few_persons(seed: int) -> None:
    """Seven rows of a hundred hold nearly all of what is summed: bounds of the sum must leave room for them."""
    draw = np.random.default_rng(seed)
    rows = heavy(8_000)
    costs = np.where(draw.random(200_000) < 0.07, 900.0, 3.0)
    units = {("visit", "rows", None): rows, ("visit", "values", "cost"): costs[: len(rows)].tolist()}
    units["visit", "sums", "cost"] = [float(costs[draw.integers(0, len(costs), int(one))].sum()) for one in rows]
    known = profile(units, 5.0)  # type: ignore[arg-type]
    there = kept_at_random(rows, 0.02)
    made = plan("SELECT COUNT(*) AS n, SUM(cost) AS s FROM visit WHERE weight > 70", delta="0", mechanism="laplace")
    asked = parameters(delta="0", mechanism="laplace")
    found = fitted(made, care(), known, parameters=asked, accounting="pure", nodes=1, own=seen(there, 20.0))
    (fit,), (outlook,) = found.fits, found.outlooks
    cap = fit.statistics[1].linf
    if cap is not None:
        assert cap >= 500 * made.releases[0].statistics[1].granularity ** -1
    assert outlook is not None
    assert outlook.rows == pytest.approx(sum(there), rel=0.4)
    assert outlook.choice.bias[1] < 0.5


def test_independent_sums_have_the_mean_and_the_large_values_of_rows() -> None:
    values = Curve(values=np.array([1.0, 1000.0]), units=np.array([990.0, 10.0]))
    rows, units = np.array([1.0, 3.0, 40.0] * 200), np.array([50.0, 10.0, 1.0] * 200)
    sums = sums_of(rows, units, values)
    assert float(sums @ units) / float(rows @ units) == pytest.approx(values.mean, rel=0.15)
    single = rows == 1
    assert set(np.unique(sums[single])) == {1.0, 1000.0}
    assert float(units[single & (sums > 1)].sum() / units[single].sum()) == pytest.approx(0.01, abs=0.005)
    assert np.all(sums_of(rows, units, values) == sums), "whoever asks finds the same"


# -------------------------------------------------------------------------------------------------------- where it pays


def worth(sql: str, known: DataProfile, **asked: str) -> bool:
    made = plan(sql, **{"delta": "0", "mechanism": "laplace", **asked})  # type: ignore[arg-type]
    given = parameters(**{"delta": "0", "mechanism": "laplace", **asked})  # type: ignore[arg-type]
    return is_worth_a_look(made, care(), known, parameters=given, accounting="pure", nodes=1)


def test_a_look_is_worth_it_where_a_wrong_guess_would_cost_more_than_it() -> None:
    known = profile({("visit", "rows", None): heavy()}, 2.0)
    assert worth(DEAR, known)
    assert worth("SELECT kind, COUNT(*) FROM visit WHERE diagnosis = 'I10' GROUP BY kind", known)
    assert not worth("SELECT COUNT(*) FROM visit", known)
    assert not worth("SELECT COUNT(*) FROM visit WHERE 1 = 1", known)
    assert not worth("SELECT COUNT(*) FROM person WHERE active", known)
    assert not worth("SELECT COUNT(DISTINCT person_id) AS n FROM visit WHERE weight > 70", known)
    joined = "SELECT COUNT(*) FROM visit v JOIN person p USING (person_id) WHERE "
    assert not worth(joined + "p.sex = 'F'", known), "half of the persons, or a quarter: bounds are about the same"
    assert worth(joined + "p.score = 7", known), "a tenth of the persons, or a hundredth"


def test_bounds_that_were_named_are_no_question() -> None:
    known = profile({("visit", "rows", None): heavy()}, 2.0)
    made = plan(DEAR, max_rows_per_group=5)
    asked = replace(parameters(max_rows_per_group=5), epsilon=Fraction(1))
    assert not is_worth_a_look(made, care(), known, parameters=asked, accounting="pure", nodes=1)


def test_the_measures_of_a_profile_stay_as_they_are() -> None:
    """Bins of a look are coarser; those of profiles are part of what nodes have signed."""
    assert len(MEASURES["visit", "rows", None].edges) == 64
    look = look_at(DEAR)
    assert look is not None
    assert look.measures[0].bins == 32
