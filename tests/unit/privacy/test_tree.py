"""Trees of counts as arithmetic: every level is a sum, noise is fitted, and quantiles are those of the values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insitu_privacy.plan import QuantileKind, tree_levels
from insitu_privacy.tree import consistent, grown, quantile_places
from scipy import stats

Array = np.ndarray[Any, Any]
MANY = settings(max_examples=150, deadline=None)
FULL = (5, 32, 64, 512, 768)
"""Numbers of leaves whose every node stands above 16; 768 have three levels."""
RAGGED = (1, 33, 201, 551, 2001, 3653)
"""Numbers of leaves whose last nodes stand above fewer."""
KINDS: tuple[QuantileKind, ...] = ("continuous", "discrete", "least", "greatest")


def exact_tree(leaves: int, data: Sequence[int], weight: int = 1) -> Array:
    return np.array(grown(leaves, [(leaf, weight) for leaf in data]), dtype=float)


def place(leaves: int, tree: Array, kind: QuantileKind, level: Fraction, weight: int = 1) -> float:
    """Without noise."""
    found = quantile_places(
        leaves, tree, kind=kind, level=float(level), weight=weight, deviation=np.zeros(tree.shape[:-1])
    )
    return float(found)


def sums_of_leaves(leaves: int) -> Array:
    """The matrix that makes a tree of its leaves: one row a node."""
    rows, levels = [], tree_levels(leaves)
    for height, size in zip(reversed(range(len(levels))), levels, strict=True):
        span = 16**height
        rows += [[float(node * span <= leaf < (node + 1) * span) for leaf in range(leaves)] for node in range(size)]
    return np.array(rows)


@st.composite
def values(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A number of leaves, and values as the leaves they fall on."""
    leaves = draw(st.sampled_from((*FULL, *RAGGED)))
    data = draw(st.lists(st.integers(0, leaves - 1) | st.sampled_from((0, leaves - 1)), min_size=1, max_size=60))
    return leaves, data


_LEVELS = st.integers(0, 100).map(lambda percent: Fraction(percent, 100))
_WEIGHTS = st.sampled_from((1, 2**10))

# -- growing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [*FULL, *RAGGED, 4096])
def test_a_tree_has_few_nodes_at_its_top_and_all_leaves_at_its_bottom(leaves: int) -> None:
    levels = tree_levels(leaves)
    assert levels[-1] == leaves
    assert levels[0] <= 32
    assert all(above == -(-below // 16) for above, below in pairwise(levels))
    assert len(levels) <= 3


@MANY
@given(case=values())
def test_every_level_of_a_tree_counts_everything(case: tuple[int, list[int]]) -> None:
    leaves, data = case
    tree = grown(leaves, [(leaf, 3) for leaf in data])
    ends = np.cumsum(tree_levels(leaves))
    assert len(tree) == ends[-1]
    assert [sum(level) for level in np.split(np.array(tree), ends[:-1])] == [3 * len(data)] * len(ends)


@pytest.mark.parametrize("leaves", [*FULL, 33, 201, 551])
def test_every_node_is_the_sum_of_the_leaves_below_it(leaves: int) -> None:
    counts = np.random.default_rng(leaves).integers(-5, 50, leaves)
    assert grown(leaves, enumerate(counts.tolist())) == (sums_of_leaves(leaves) @ counts).tolist()


def test_leaves_that_are_not_there_count_nothing_and_those_given_twice_are_added() -> None:
    assert grown(4, []) == [0, 0, 0, 0]
    assert grown(4, [(2, 5), (0, 1), (2, 6)]) == [1, 0, 11, 0]


# -- fitting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", FULL)
def test_the_fitted_leaves_are_those_of_least_squares(leaves: int) -> None:
    tree = np.random.default_rng(leaves).normal(0, 100, sum(tree_levels(leaves)))
    sums = sums_of_leaves(leaves)  # of full rank: the leaves themselves are among its rows
    left_over = sums @ consistent(leaves, tree) - tree
    assert sums.T @ left_over == pytest.approx(np.zeros(leaves), abs=1e-6)  # no change of a leaf makes it less


@pytest.mark.parametrize("leaves", [*FULL, *RAGGED])
def test_exact_leaves_are_left_as_they_are(leaves: int) -> None:
    counts = np.random.default_rng(leaves).integers(0, 10**6, leaves)
    tree = np.array(grown(leaves, enumerate(counts.tolist())), dtype=float)
    assert consistent(leaves, tree) == pytest.approx(counts, abs=1e-6)


@pytest.mark.parametrize("leaves", [512, 768, 201, 551, 2001])
def test_fitting_moves_no_rank_one_way_and_brings_ranks_nearer(leaves: int) -> None:
    """The noise of the rank in the middle: as much above as below, and far less than that of adding leaves up."""
    draw = np.random.default_rng(leaves)
    noise = draw.laplace(0, 10, (2000, sum(tree_levels(leaves))))
    fitted = consistent(leaves, noise)[:, : leaves // 2].sum(axis=-1)
    added = noise[:, -leaves:][:, : leaves // 2].sum(axis=-1)
    assert abs(fitted.mean()) < 5 * fitted.std() / math.sqrt(2000)
    assert fitted.std() < added.std() / 2


# -- quantiles without noise -------------------------------------------------------------------------------------------


@MANY
@given(case=values(), level=_LEVELS, weight=_WEIGHTS)
def test_a_continuous_quantile_is_that_of_numpy(case: tuple[int, list[int]], level: Fraction, weight: int) -> None:
    leaves, data = case
    found = place(leaves, exact_tree(leaves, data, weight), "continuous", level, weight)
    assert found == pytest.approx(np.quantile(data, float(level), method="linear"), abs=1e-3)


@MANY
@given(case=values(), level=_LEVELS, weight=_WEIGHTS)
def test_a_discrete_quantile_is_the_first_value_whose_share_reaches_the_level(
    case: tuple[int, list[int]], level: Fraction, weight: int
) -> None:
    leaves, data = case
    found = place(leaves, exact_tree(leaves, data, weight), "discrete", level, weight)
    assert found == sorted(data)[max(math.ceil(level * len(data)), 1) - 1]


@pytest.mark.parametrize(
    ("data", "level", "value"),
    [([1, 2, 3], "1/2", 2), ([0, 4], "2/5", 0), ([0, 4], "3/5", 4), ([0, 1, 2, 3, 4], "0.3", 1)],
)
def test_a_discrete_quantile_between_two_ranks_is_the_upper_one(data: list[int], level: str, value: int) -> None:
    assert place(5, exact_tree(5, data), "discrete", Fraction(level)) == value


@MANY
@given(case=values(), weight=_WEIGHTS)
def test_least_and_greatest_values_are_exact(case: tuple[int, list[int]], weight: int) -> None:
    leaves, data = case
    tree = exact_tree(leaves, data, weight)
    assert place(leaves, tree, "least", Fraction(0), weight) == min(data)
    assert place(leaves, tree, "greatest", Fraction(1), weight) == max(data)


@pytest.mark.parametrize("leaves", [*FULL, *RAGGED])
@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_quantile_of_nothing(leaves: int, kind: QuantileKind) -> None:
    assert math.isnan(place(leaves, exact_tree(leaves, []), kind, Fraction(1, 2)))


# -- quantiles of noisy trees ------------------------------------------------------------------------------------------

RUNS = 2000
SCALE = 20.0


@cache
def noise(leaves: int, law: str) -> tuple[Array, float]:
    """Noise of trees, and its deviation; the same whenever it is asked for, hence drawn once."""
    draw = np.random.default_rng(5)
    shape = (RUNS, sum(tree_levels(leaves)))
    if law == "gaussian":
        return draw.normal(0, SCALE, shape), SCALE
    nodes = 3 if law == "laplace of three" else 1
    drawn = sum((draw.laplace(0, SCALE, shape) for _ in range(nodes)), np.zeros(shape))
    return drawn, SCALE * math.sqrt(2 * nodes)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Its hundred megabytes go with the last test."""
    yield
    noise.cache_clear()


def noisy(leaves: int, data: Sequence[int], law: str) -> tuple[Array, Array]:
    """Trees with noise, and the deviation of a node's noise; ``law`` is a mechanism, of three nodes or of one."""
    drawn, deviation = noise(leaves, law)
    return drawn + exact_tree(leaves, data), np.full(RUNS, deviation)


def read(leaves: int, trees: Array, deviations: Array, kind: QuantileKind) -> Array:
    return quantile_places(leaves, trees, kind=kind, level=0.5, weight=1, deviation=deviations)


def at_most(hits: Array, share: float) -> bool:
    """Whether so many hits may come of such a chance, but for one time in a million."""
    return bool(stats.binomtest(int(hits.sum()), RUNS, share, alternative="greater").pvalue > 1e-6)


@pytest.mark.parametrize("law", ["laplace", "laplace of three", "gaussian"])
@pytest.mark.parametrize("leaves", [5, 32, 201, 768, 2001])
@pytest.mark.parametrize("kind", ["least", "greatest"])
def test_ninety_nine_of_a_hundred_empty_groups_have_neither_minimum_nor_maximum(
    leaves: int, law: str, kind: QuantileKind
) -> None:
    assert at_most(~np.isnan(read(leaves, *noisy(leaves, [], law), kind)), 0.01)


@pytest.mark.parametrize("law", ["laplace", "laplace of three", "gaussian"])
@pytest.mark.parametrize("leaves", [32, 201, 768, 2001])
def test_minimum_and_maximum_lie_beyond_all_data_one_time_in_a_hundred_for_each_level(leaves: int, law: str) -> None:
    data = [leaves // 2] * 10_000
    trees, deviations = noisy(leaves, data, law)
    least, greatest = read(leaves, trees, deviations, "least"), read(leaves, trees, deviations, "greatest")
    allowed = 0.01 * len(tree_levels(leaves))
    assert at_most(least < leaves // 2, allowed)
    assert at_most(greatest > leaves // 2, allowed)
    assert (least == leaves // 2).mean() > 0.9
    assert (greatest == leaves // 2).mean() > 0.9


def test_where_no_child_stands_clear_of_the_noise_the_answer_is_the_outer_edge_of_their_parent() -> None:
    """Ten values on each leaf of one node, under a noise that a leaf does not rise above and the node does."""
    leaves, deviation = 512, np.array(5.0)
    tree = exact_tree(leaves, [leaf for leaf in range(160, 176) for _ in range(10)])
    low = quantile_places(leaves, tree, kind="least", level=0.0, weight=1, deviation=deviation)
    high = quantile_places(leaves, tree, kind="greatest", level=1.0, weight=1, deviation=deviation)
    assert (float(low), float(high)) == (160, 175)
    last = exact_tree(500, [leaf for leaf in range(496, 500) for _ in range(20)])
    assert float(quantile_places(500, last, kind="greatest", level=1.0, weight=1, deviation=deviation)) == 499


@pytest.mark.parametrize("law", ["laplace", "laplace of three", "gaussian"])
@pytest.mark.parametrize(("leaves", "rows"), [(32, 3000), (768, 4000), (2001, 6000)])
def test_extremes_lie_beyond_the_quartiles_also_where_no_node_stands_clear(leaves: int, rows: int, law: str) -> None:
    """Rows spread thinly over all leaves: each topmost node has little more than noise."""
    trees, deviations = noisy(leaves, [place * leaves // rows for place in range(rows)], law)

    def at(kind: QuantileKind, level: float) -> Array:
        return quantile_places(leaves, trees, kind=kind, level=level, weight=1, deviation=deviations)

    levels = tree_levels(leaves)
    margin = 4 * deviations[0] * math.sqrt(levels[0] / 2 + 8 * (len(levels) - 1))
    least, greatest = at("least", 0), at("greatest", 1)
    compared = [tail for tail in (0.25, 0.5) if tail * rows > 1.4 * margin]
    assert compared
    for tail in compared:
        assert at_most(~(greatest >= at("continuous", 1 - tail)), 0.01)
        assert at_most(~(least <= at("continuous", tail)), 0.01)


@pytest.mark.parametrize("law", ["laplace", "gaussian"])
@pytest.mark.parametrize("leaves", [5, 32, 201, 2001])
def test_an_empty_group_rarely_has_a_median(leaves: int, law: str) -> None:
    """Two deviations of noise alone: that of the number of rows, which is summed over many nodes."""
    assert at_most(~np.isnan(read(leaves, *noisy(leaves, [], law), "continuous")), 0.03)


@pytest.mark.parametrize("leaves", [32, 201, 768, 2001])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_a_noisy_median_of_many_values_is_near_the_exact_one(leaves: int, kind: QuantileKind) -> None:
    data = np.random.default_rng(leaves).integers(0, leaves, 20_000).tolist()
    found = read(leaves, *noisy(leaves, data, "laplace"), kind)
    assert not np.isnan(found).any()
    assert np.abs(found - np.median(data)).max() <= max(2, leaves / 20)
    assert abs(np.mean(found) - np.median(data)) <= max(1, leaves / 200)


@pytest.mark.parametrize("level", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("leaves", [201, 768, 2001])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_noise_moves_a_quantile_up_as_often_as_down(leaves: int, level: float, kind: QuantileKind) -> None:
    """Of values spread evenly and thinly, where the noise of a rank is that of many leaves' values.

    The first leaf at which a noisy rank is ever reached comes far too early: ranks walk up and down.
    """
    data = np.linspace(0, leaves - 1, 2000).round().astype(int).tolist()
    trees, deviations = noisy(leaves, data, "laplace")
    found = quantile_places(leaves, trees, kind=kind, level=level, weight=1, deviation=deviations)
    exact = level * (leaves - 1)
    above, below = (found > exact).mean(), (found < exact).mean()
    assert min(above, below) > 0.42
    assert abs(found.mean() - exact) < 0.2 * found.std()


# -- shapes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leaves", [5, 201, 2001])
def test_copies_and_cells_are_read_as_each_tree_alone(leaves: int, kind: QuantileKind) -> None:
    draw = np.random.default_rng(3)
    cells = [exact_tree(leaves, draw.integers(0, leaves, size).tolist()) for size in (0, 200, 2000)]
    trees = draw.laplace(0, 3, (4, 3, sum(tree_levels(leaves)))) + np.array(cells)
    deviations = np.array([4.0, 5.0, 6.0])
    together = quantile_places(
        leaves, trees, kind=kind, level=0.3, weight=1, deviation=np.broadcast_to(deviations, (4, 3))
    )
    assert together.shape == (4, 3)
    for copy in range(4):
        for cell in range(3):
            alone = quantile_places(
                leaves, trees[copy, cell], kind=kind, level=0.3, weight=1, deviation=deviations[cell]
            )
            assert together[copy, cell] == pytest.approx(float(alone), nan_ok=True)
    assert not np.isnan(together[:, 2]).any()
    assert consistent(leaves, trees).shape == (4, 3, leaves)


def test_no_cells_have_no_quantiles() -> None:
    none = np.zeros((7, 0, sum(tree_levels(201))))
    for kind in KINDS:
        assert quantile_places(201, none, kind=kind, level=0.5, weight=1, deviation=np.zeros((7, 0))).shape == (7, 0)
