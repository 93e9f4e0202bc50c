"""Confidence intervals by parametric bootstrap: perturbed copies of what was released, and what their spread says.

Each statistic of a copy carries more noise of its own law, one draw per node, and the outer SQL is run on all copies
(``postprocess``). The interval is the bias-corrected percentile interval of the copies (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, section 14.3, without acceleration): the noise being symmetric, it is exact for
any increasing function of a statistic, ratios and roots among them, and it moves back what noise moves one way, as it
does a variance. The generator is seeded with the plan and the values, so that gateway and SDK find the same intervals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from insitu_privacy.merge import MergedRelease
from insitu_privacy.plan import Mechanism, PrivacyPlan, Release
from insitu_privacy.released import Released, key_arrays, quantile_array
from insitu_privacy.tree import Array

_COPIES = 999
_CELL_BUDGET = 100_000
"""Copies times cells: larger relations get fewer copies, at least 199."""
WHOLE_COPIES = 100
"""Copies of a whole answer, where its rows are not cells: each is a run of the outer SQL of its own."""
_TREE_BUDGET = 4_000_000
"""Copies times nodes of trees: larger trees get fewer copies, at least 100."""
_FEWEST = 100
_TREES_AT_ONCE = 500_000
_POOL = 2**19
_LEAST_SIDE = 0.02
"""With a smaller share of copies on one side the value is an extreme of what noise makes of it: no interval."""

# -- copies ------------------------------------------------------------------------------------------------------------


def number_of_copies(one: Released) -> int:
    """How many copies a released relation gets."""
    cells = max(len(one.keys), 1)
    copies = max(199, min(_COPIES, _CELL_BUDGET // cells))
    nodes = sum(tree.release.width for _, tree in one.quantiles) * cells
    return max(_FEWEST, min(copies, _TREE_BUDGET // nodes)) if nodes else copies


def stacked_copies(plan: PrivacyPlan, one: Released, copies: int) -> pa.Table:
    """All copies of the one relation of a plan, under one another. The first is not perturbed."""
    cells = len(one.keys)
    columns: dict[str, Any] = {
        "__cell": np.tile(np.arange(cells, dtype=np.int64), copies),
        **key_arrays(one, copies, plan.copies_sql),
        **_perturbed(plan, one, copies, first_as_it_is=True),
    }
    return pa.table(columns)


class Copies:
    """Perturbed copies of one relation, one table each."""

    def __init__(self, plan: PrivacyPlan, one: Released) -> None:
        self._cells = len(one.keys)
        self._keys = key_arrays(one, 1, plan.copies_sql)
        self._values = _perturbed(plan, one, WHOLE_COPIES, first_as_it_is=False)

    def table(self, number: int) -> pa.Table:
        """One copy."""
        columns = {"__cell": pa.array(range(self._cells), type=pa.int64()), **self._keys}
        for name, values in self._values.items():
            columns[name] = values.slice(number * self._cells, self._cells)
        return pa.table(columns)


def _perturbed(plan: PrivacyPlan, one: Released, copies: int, *, first_as_it_is: bool) -> dict[str, pa.Array]:
    """The statistics and quantiles that the SQL for copies reads, for all copies."""
    columns: dict[str, pa.Array] = {}
    hidden = None if one.hidden is None else np.tile(one.hidden, copies)
    if one.base is not None:
        generator = _generator(plan, one.base)
        for index, values in enumerate(one.base.statistics):
            if f"{one.name}.s{index}" not in plan.copies_sql:
                continue
            noise = _noise(generator, one.base.release, index, one.base.nodes, copies)
            if first_as_it_is:
                noise[: len(values)] = 0
            columns[f"s{index}"] = pa.array(noise + np.tile(np.array(values, dtype=np.int64), copies), mask=hidden)
    for quantile, tree in one.quantiles:
        found = [
            quantile_array(quantile, tree, counts, one.hidden)
            for counts in _perturbed_trees(plan, tree, copies, first_as_it_is=first_as_it_is)
        ]
        columns[quantile.column] = pa.concat_arrays(found)
    return columns


def _perturbed_trees(plan: PrivacyPlan, tree: MergedRelease, copies: int, *, first_as_it_is: bool) -> Iterator[Array]:
    """Perturbed trees (some copies, cells, nodes), a few copies at a time."""
    counts = np.array(tree.statistics, dtype=float).reshape(tree.release.width, -1)
    nodes = tree.nodes * tree.release.width
    at_once = max(1, _TREES_AT_ONCE // max(1, counts.size))
    generator = _generator(plan, tree)
    for start in range(0, copies, at_once):
        number = min(at_once, copies - start)
        noise = _noise(generator, tree.release, 0, nodes, number).reshape(number, *counts.shape).astype(float)
        if first_as_it_is and not start:
            noise[0] = 0
        yield (noise + counts).swapaxes(-1, -2)


def _generator(plan: PrivacyPlan, one: MergedRelease) -> np.random.Generator:
    text = f"{plan.digest}:{one.statistics}:{one.nodes}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(seed))


@lru_cache(maxsize=64)
def _pool(mechanism: Mechanism, nodes: int) -> Array:
    """Draws of the sum of ``nodes`` nodes' noise at scale 1, made once: a stretch of it at a random place serves."""
    generator = np.random.Generator(np.random.PCG64(nodes))
    if mechanism == "gaussian":
        return generator.normal(0.0, math.sqrt(nodes), _POOL)
    total = np.zeros(_POOL)
    for _ in range(nodes):
        total += generator.laplace(0.0, 1.0, _POOL)
    return total


def _noise(generator: np.random.Generator, release: Release, index: int, nodes: Sequence[int], copies: int) -> Array:
    """Noise of ``nodes[i]`` nodes' mechanisms in cell i, for each copy, rounded to integers."""
    scale = float(release.statistics[index].scale)
    total = np.zeros((copies, len(nodes)))
    for count in sorted(set(nodes) - {0}):
        places = np.flatnonzero(np.array(nodes) == count)
        wanted = copies * len(places)
        pool = _pool(release.mechanism, count)
        start = int(generator.integers(0, _POOL))
        drawn = (
            pool.take(range(start, start + wanted), mode="wrap") if start + wanted > _POOL else pool[start:][:wanted]
        )
        total[:, places] = drawn.reshape(copies, len(places))
    rounded: Array = np.rint(total * scale).clip(-(2.0**61), 2.0**61).astype(np.int64).reshape(-1)
    return rounded


# -- intervals ---------------------------------------------------------------------------------------------------------


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column of answers can have intervals."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def cell_deviations(answer: Any, copies: int, cells: int, level: float) -> tuple[Array, Array]:
    """How far the interval of each cell reaches below and above it, for stacked copies; NaN where it has none."""
    values = answer.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    table = values.reshape(copies, cells)
    with np.errstate(invalid="ignore"):  # infinity less infinity: no interval
        return _percentiles(table[1:] - table[:1], level)


def row_deviation(copies: Sequence[Any], value: Any, level: float) -> tuple[float, float]:
    """The same for one value of a whole answer; NaN where it is no number, or a copy has none."""
    numbers = [float(one) for one in copies if _is_number(one)]
    if len(numbers) < WHOLE_COPIES or not _is_number(value):
        return math.nan, math.nan
    low, high = _percentiles((np.array(numbers) - float(value)).reshape(-1, 1), level)
    return float(low[0]), float(high[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _percentiles(spread: Array, level: float) -> tuple[Array, Array]:
    """Bounds of each column of deviations, one row a copy."""
    copies = len(spread)
    least = math.floor((1 - level) / 2 * copies)
    with np.errstate(invalid="ignore"):
        below = ((spread < 0).sum(axis=0) + 0.5 * (spread == 0).sum(axis=0)) / copies
        parted = np.partition(spread, (least, copies - 1 - least, copies - 1), axis=0)  # NaN is last
    low, high = parted[least].copy(), parted[copies - 1 - least].copy()
    luck = 1 / math.sqrt(copies)  # two standard deviations of a share near one half
    for column in np.flatnonzero(np.abs(below - 0.5) > luck):
        low[column], high[column] = _corrected(np.sort(spread[:, column]), float(below[column]), level)
    unbounded = ~np.isfinite(parted[-1])
    return np.where(unbounded, np.nan, low), np.where(unbounded, np.nan, high)


def _corrected(ordered: Array, below: float, level: float) -> tuple[float, float]:
    if not _LEAST_SIDE <= below <= 1 - _LEAST_SIDE:
        return math.nan, math.nan
    normal = NormalDist()
    shift, reach = 2 * normal.inv_cdf(below), normal.inv_cdf((1 + level) / 2)
    places = [math.floor(normal.cdf(shift + side * reach) * len(ordered)) for side in (-1, 1)]
    low, high = (float(ordered[min(max(place, 0), len(ordered) - 1)]) for place in places)
    return low, high
