"""Improving by post-processing: what fits best, what adds up, what is not negative, and intervals that still hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from insitu_privacy.errors import ParameterRefused
from insitu_privacy.families import Family, Member, families
from insitu_privacy.improve import IMPROVEMENTS, NOTHING_TO_FIT, Improvement, read_improvements
from insitu_privacy.improved_intervals import count_columns
from insitu_privacy.marginals import consistent
from insitu_privacy.merge import MergedRelease, merge
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.postprocess import Postprocessor, ResultTable
from insitu_privacy.simplex import onto_simplex, whole
from insitu_privacy.tree import grown, not_below_zero, quantile_places

from tests.testkit.care import care, plan

CUBE = "SELECT kind, stage, COUNT(*) AS n FROM visit WHERE stage IN (1, 2, 3) GROUP BY CUBE (kind, stage)"
"""3 kinds by 3 stages."""


@pytest.fixture(scope="module")
def post() -> Iterator[Postprocessor]:
    with Postprocessor() as made:
        yield made


def family(sizes: Sequence[int], *members: tuple[tuple[int, ...], float]) -> Family:
    return Family(
        sizes=tuple(sizes),
        members=tuple(
            Member(release=place, statistic=0, axes=axes, variance=variance)
            for place, (axes, variance) in enumerate(members)
        ),
        counts=True,
    )


def marginal(table: Any, axes: Sequence[int]) -> Any:
    """The flat cells of a marginal, its keys in the order of ``axes``."""
    summed = table.sum(axis=tuple(axis for axis in range(table.ndim) if axis not in axes))
    return summed.transpose(np.argsort(np.argsort(axes)) if len(axes) else []).reshape(-1)


# -- least squares -----------------------------------------------------------------------------------------------------

SHAPES = {
    "a cube": ((2, 3), [((0, 1), 4.0), ((0,), 1.0), ((1,), 9.0), ((), 1.0)]),
    "keys in another order": ((2, 3, 4), [((2, 0), 2.0), ((0, 2, 1), 5.0), ((1,), 0.5)]),
    "keys that overlap": ((3, 2, 4), [((0, 1), 3.0), ((1, 2), 1.0)]),
    "keys apart": ((3, 4), [((0,), 1.0), ((1,), 2.0)]),
    "the same twice": ((5,), [((0,), 1.0), ((0,), 4.0), ((), 2.0)]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_fit_is_that_of_least_squares_over_the_table_of_all_keys(name: str) -> None:
    sizes, members = SHAPES[name]
    made = family(sizes, *members)
    generator = np.random.default_rng(7)
    values = [generator.normal(0, 1e9, int(np.prod([sizes[a] for a in axes], dtype=int))) for axes, _ in members]
    cells = list(np.eye(int(np.prod(sizes))).reshape(-1, *sizes))
    matrices = [np.array([marginal(cell, axes) for cell in cells]).T for axes, _ in members]
    stacked = np.vstack([m / variance**0.5 for m, (_, variance) in zip(matrices, members, strict=True)])
    measured = np.concatenate([v / variance**0.5 for v, (_, variance) in zip(values, members, strict=True)])
    exact = np.linalg.lstsq(stacked, measured, rcond=None)[0]
    for fit, matrix in zip(consistent(made, values), matrices, strict=True):
        assert fit == pytest.approx(matrix @ exact, abs=2.0 + len(cells))  # whole numbers


@pytest.mark.parametrize("non_negative", [False, True])
@pytest.mark.parametrize("name", ["a cube", "keys in another order", "the same twice"])
def test_parts_add_up_to_the_last_digit(name: str, *, non_negative: bool) -> None:
    sizes, members = SHAPES[name]
    generator = np.random.default_rng(8)
    values = [generator.normal(1, 6, int(np.prod([sizes[a] for a in axes], dtype=int))) for axes, _ in members]
    fits = consistent(family(sizes, *members), values, non_negative=non_negative)
    top = max(range(len(members)), key=lambda place: len(members[place][0]))
    axes = members[top][0]
    order = np.argsort(axes)
    finest = np.zeros([size if axis in axes else 1 for axis, size in enumerate(sizes)])
    finest[...] = fits[top].reshape([sizes[a] for a in axes]).transpose(order).reshape(finest.shape)
    for fit, (others, _) in zip(fits, members, strict=True):
        assert fit.tolist() == marginal(finest, others).tolist()
        assert not non_negative or fit.min() >= 0


def test_what_agrees_already_stays_as_it_is() -> None:
    table = np.arange(12).reshape(3, 4)
    made = family((3, 4), ((0, 1), 1.0), ((0,), 2.0), ((), 1e-30))
    values = [marginal(table, axes).astype(float) for axes in ((0, 1), (0,), ())]
    for fit, value in zip(consistent(made, values, non_negative=True), values, strict=True):
        assert fit.tolist() == value.tolist()


def test_a_fit_is_closer_than_what_was_released() -> None:
    generator = np.random.default_rng(9)
    made = family((4, 6), ((0, 1), 100.0), ((0,), 100.0), ((1,), 100.0), ((), 100.0))
    table = generator.integers(0, 40, (4, 6))
    exact = [marginal(table, one.axes) for one in made.members]
    errors = np.zeros((3, 4))
    for _ in range(60):
        noisy = [value + generator.normal(0, 10, value.shape) for value in exact]
        found = (noisy, consistent(made, noisy), consistent(made, noisy, non_negative=True))
        for place, values in enumerate(found):
            errors[place] += [np.square(one - true).mean() for one, true in zip(values, exact, strict=True)]
    assert (errors[1] < errors[0]).all()
    assert errors[2][0] < errors[1][0]  # empty cells are known to be no less than empty


# -- nearest values ----------------------------------------------------------------------------------------------------


def test_the_nearest_on_a_simplex_keeps_the_total_and_moves_all_that_stays_alike() -> None:
    generator = np.random.default_rng(3)
    values, totals = generator.normal(0, 5, (50, 7)), np.abs(generator.normal(0, 5, 50))
    found = onto_simplex(values, totals)
    assert found.min() >= 0
    assert found.sum(axis=-1) == pytest.approx(totals)
    for row, near in zip(values, found, strict=True):
        shifts = (row - near)[near > 0]
        assert shifts == pytest.approx(np.full(shifts.shape, shifts[0]))
        assert (row[near == 0] <= shifts[0] + 1e-9).all()
    assert onto_simplex(np.array([[-3.0, -1.0]]), np.array([0.0])).tolist() == [[0, 0]]


def test_thin_parts_keep_their_total_when_they_are_made_whole() -> None:
    values = np.full((1, 1000), 0.3)
    assert whole(values, np.array([300.0])).sum() == 300
    assert set(whole(values, np.array([300.0])).ravel()) == {0, 1}
    assert whole(np.array([-0.5, 1.5]), np.array(1.0)).sum() == 1


def test_leaves_that_are_not_negative_keep_the_sums_above_them() -> None:
    generator = np.random.default_rng(4)
    leaves = 300
    counts = [5 if leaf < 60 else 0 for leaf in range(leaves)]
    exact = np.array(grown(leaves, enumerate(counts)), dtype=float)
    found = not_below_zero(leaves, np.array(counts) + generator.normal(0, 3, (20, leaves)))
    assert found.min() >= 0
    noise = np.array(counts) + generator.normal(0, 3, leaves)
    assert not_below_zero(leaves, noise).sum() == pytest.approx(noise.sum())
    trees = exact + generator.laplace(0, 4, (200, len(exact)))
    places = {
        flag: quantile_places(
            leaves, trees, kind="continuous", level=0.5, weight=1, deviation=np.full(200, 5.7), non_negative=flag
        )
        for flag in (False, True)
    }
    assert np.abs(places[True] - 29.5).mean() <= np.abs(places[False] - 29.5).mean()
    assert abs(places[True].mean() - 29.5) < 2


# -- families ----------------------------------------------------------------------------------------------------------


def merged(made: PrivacyPlan, *nodes: Sequence[Sequence[Sequence[int]]]) -> tuple[MergedRelease, ...]:
    """Each node's releases, given as statistics of public cells."""
    return merge(
        made,
        [[ReleasedValues(keys=None, statistics=tuple(map(tuple, one))) for one in node] for node in nodes],
    )


def zeros(made: PrivacyPlan) -> tuple[MergedRelease, ...]:
    return merge(
        made,
        [[
            ReleasedValues(
                keys=() if one.cells is None else None,
                statistics=tuple((0,) * (one.cells or 0) for _ in range(one.width)),
            )
            for one in made.releases
        ]],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (CUBE, [("rows", 4)]),
        ("SELECT kind, 1.0 * COUNT(*) / (SELECT COUNT(*) FROM visit) AS s FROM visit GROUP BY kind", [("rows", 2)]),
        ("SELECT kind, 1.0 * COUNT(*) / (SELECT COUNT(*) FROM visit WHERE stage > 1) AS s FROM visit GROUP BY kind", []),
        ("SELECT kind, stage, SUM(stage) AS s FROM visit GROUP BY ROLLUP (kind, stage)", [("sum", 3)]),
        ("SELECT kind, COUNT(DISTINCT person_id) AS p FROM visit GROUP BY ROLLUP (kind)", []),
        ("SELECT sex, region, COUNT(DISTINCT person_id) AS p FROM person GROUP BY CUBE (sex, region)", [("units", 4)]),
        ("SELECT ward, COUNT(*) AS n FROM visit GROUP BY ROLLUP (ward)", []),
        ("SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind", []),
        ("SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind UNION ALL SELECT sex, COUNT(*) FROM person GROUP BY sex", []),
    ],
)  # fmt: skip
def test_releases_of_the_same_rows_are_a_family(sql: str, found: list[tuple[str, int]]) -> None:
    made = plan(sql)
    kinds = [
        (made.releases[one.members[0].release].statistics[one.members[0].statistic].kind, len(one.members))
        for one in families(zeros(made), made.copies_sql)
    ]
    assert kinds == found


# -- answers -----------------------------------------------------------------------------------------------------------


def noisy_cube(made: PrivacyPlan, table: Any, seed: int) -> tuple[MergedRelease, ...]:
    generator = np.random.default_rng(seed)
    axes = {"kind": 0, "stage": 1}

    def values(release: Release) -> list[list[int]]:
        exact = marginal(table, [axes[key.expression.column] for key in release.keys])  # type: ignore[union-attr]
        scale = float(release.statistics[0].scale)
        return [[int(v) for v in np.rint(exact + generator.laplace(0, scale, exact.shape))] for _ in release.statistics]

    return merged(made, *[[values(release) for release in made.releases] for _ in range(2)])


def improved(post: Postprocessor, made: PrivacyPlan, found: Any, *how: Improvement) -> ResultTable:
    return post.run(made, found, improve=how)


def test_a_cube_adds_up_is_not_negative_and_its_intervals_hold(post: Postprocessor) -> None:
    made = plan(CUBE, epsilon="2")
    table = np.array([[0, 0, 40], [3, 0, 90], [0, 1, 200]])
    exact = {
        (kind, stage): 2 * int(table[0 if kind is None else places[0], :][() if stage is None else places[1]].sum())
        for kind, stage in product(("er", "in", "out"), (1, 2, 3))
        if (places := (("er", "in", "out").index(kind), stage - 1))
    }
    widths = {}
    covered = total = 0
    found = noisy_cube(made, table, 0)
    for how in ((), ("consistent",), IMPROVEMENTS):
        answer = improved(post, made, found, *how)
        cells = {row[:2]: row[2] for row in answer.rows}
        widths[len(how)] = np.mean([i[2][1] - i[2][0] for i in answer.intervals if i[2] is not None])
        if not how:
            continue
        assert sum(v for k, v in cells.items() if None not in k) == cells[None, None]
        assert sum(v for k, v in cells.items() if k[0] is not None and k[1] is None) == cells[None, None]
        for row, intervals in zip(answer.rows, answer.intervals, strict=True):
            low, high = intervals[2] or (None, None)
            assert low <= row[2] <= high
            if "non-negative" in how:
                assert low >= 0
            if row[:2] in exact:
                covered += low <= exact[row[:2]] <= high
                total += 1
    assert widths[1] < 0.9 * widths[0]
    assert covered / total > 0.8


def test_counts_are_cut_off_at_zero_and_so_are_the_ends_of_their_intervals(post: Postprocessor) -> None:
    made = plan("SELECT kind, COUNT(*) AS n, COUNT(*) - 5 AS m, SUM(stage) AS s FROM visit GROUP BY kind", epsilon="1")
    found = merged(made, [[[-7, 3, 900], [-50, -1, 4]]])
    plain, cut = improved(post, made, found), improved(post, made, found, "non-negative")
    assert [row[1] for row in cut.rows] == [0, 3, 900]
    assert [row[2] for row in cut.rows] == [-5, -2, 895]  # read from the counts that are shown
    assert [row[3] for row in cut.rows] == [row[3] for row in plain.rows]
    assert cut.intervals[0][1] == (0, max(0, plain.intervals[0][1][1]))
    assert cut.intervals[2] == plain.intervals[2]
    low, high = plain.intervals[0][2]
    assert cut.intervals[0][2] == (min(low, -5), max(high, -5))
    assert count_columns(made) == (False, True, False, False)
    assert cut.columns == plain.columns


def test_a_row_that_only_one_side_has_gets_no_interval(post: Postprocessor) -> None:
    made = plan("SELECT kind, COUNT(*) AS n FROM visit GROUP BY ROLLUP (kind) HAVING COUNT(*) >= 0", epsilon="1")
    found = merged(made, [[[-7, 3, 900]], [[800]]])
    answer = improved(post, made, found, "non-negative")
    assert [row for row in answer.rows if row[0] == "er"] == [("er", 0)]
    assert answer.intervals[[row[0] for row in answer.rows].index("er")] == (None, None)


def test_suppressed_cells_stay_suppressed_and_cannot_be_read_from_the_difference(post: Postprocessor) -> None:
    made = plan(CUBE, dataset=care(min_units=11), epsilon="1e6")
    table = np.array([[2, 50, 40], [30, 50, 90], [50, 60, 200]])
    found = noisy_cube(made, table, 0)
    plain, answer = improved(post, made, found), improved(post, made, found, *IMPROVEMENTS)
    assert (None,) in {row[2:] for row in plain.rows}
    assert sorted(map(str, answer.rows)) == sorted(map(str, plain.rows))
    assert answer.warnings == plain.warnings


def test_where_nothing_fits_together_the_answer_says_so(post: Postprocessor) -> None:
    made = plan("SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind")
    found = merged(made, [[[7, 3, 900]]])
    plain, answer = improved(post, made, found), improved(post, made, found, "consistent")
    assert (answer.rows, answer.intervals) == (plain.rows, plain.intervals)
    assert answer.warnings == (NOTHING_TO_FIT,)
    assert plain.warnings == ()


def test_medians_come_from_leaves_that_are_not_negative(post: Postprocessor) -> None:
    made = plan("SELECT MEDIAN(birth_year) AS m FROM person", epsilon="2")
    (release,) = made.releases
    assert release.tree is not None
    generator = np.random.default_rng(5)
    exact = grown(release.tree.leaves, [(leaf, release.tree.weight * 4) for leaf in range(80, 100)])
    noise = generator.laplace(0, float(release.statistics[0].scale), len(exact))
    found = merged(made, [[[int(v)] for v in np.rint(np.array(exact) + noise)]])
    answer = improved(post, made, found, "non-negative")
    low, high = answer.intervals[0][0]
    assert low <= answer.rows[0][0] <= high
    assert 1975 < answer.rows[0][0] < 2005
    assert answer.intervals != improved(post, made, found).intervals


@pytest.mark.parametrize("columns", [
    ("SELECT n, n + 1 AS m, share FROM (SELECT COUNT(*) AS n, 1.0 * COUNT(*) / 2 AS share FROM visit) AS t", (True, False, False)),
    ("WITH t AS (SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind) SELECT SUM(n) AS s, SUM(n) + SUM(n) AS d FROM t", (True, True)),
    ("SELECT COUNT_IF(stage > 1) AS n, AVG(stage) AS a FROM visit", (True, False)),
])  # fmt: skip
def test_columns_that_count_are_known_through_the_outer_sql(columns: tuple[str, tuple[bool, ...]]) -> None:
    assert count_columns(plan(columns[0])) == columns[1]


def test_names_of_improvements() -> None:
    assert read_improvements(["Consistent ", "non-negative", "consistent"]) == ("non-negative", "consistent")
    assert read_improvements("consistent,non-negative") == ("non-negative", "consistent")
    assert read_improvements("") == ()
    for wrong in (["positive"], "consistent;", [7], 7):
        with pytest.raises(ParameterRefused) as refused:
            read_improvements(wrong)  # type: ignore[arg-type]
        assert refused.value.code == "INSITU-PARAM-IMPROVE"
