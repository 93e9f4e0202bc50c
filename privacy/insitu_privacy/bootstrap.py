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
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from insitu_privacy.dataset import ColumnType
from insitu_privacy.merge import MergedRelease
from insitu_privacy.plan import Mechanism, PrivacyPlan, Release

Array = np.ndarray[Any, Any]
_COPIES = 999
_CELL_BUDGET = 100_000
"""Copies times cells: larger relations get fewer copies, at least 199."""
WHOLE_COPIES = 100
"""Copies of a whole answer, where its rows are not cells: each is a run of the outer SQL of its own."""
_POOL = 2**19
_LEAST_SIDE = 0.02
"""With a smaller share of copies on one side the value is an extreme of what noise makes of it: no interval."""

_ARROW: dict[ColumnType, pa.DataType] = {
    "integer": pa.int64(),
    "decimal": pa.float64(),
    "text": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "boolean": pa.bool_(),
}


# -- copies ------------------------------------------------------------------------------------------------------------


def key_columns(one: MergedRelease, repeat: int, sql: str) -> dict[str, pa.Array]:
    """The key columns that a statement reads, once for each copy."""
    columns = {}
    for place, column in enumerate(one.release.keys):
        if f"{one.release.name}.{column.name}" not in sql:
            continue
        array = pa.array([key[place] for key in one.keys], type=_ARROW[column.type])
        columns[column.name] = pa.concat_arrays([array] * repeat) if repeat > 1 else array
    return columns


def number_of_copies(cells: int) -> int:
    """How many copies a release of so many cells gets."""
    return max(199, min(_COPIES, _CELL_BUDGET // max(cells, 1)))


def stacked_copies(plan: PrivacyPlan, one: MergedRelease, visible: list[bool], copies: int) -> pa.Table:
    """All copies of the one release of a plan, under one another. The first is not perturbed."""
    cells = len(one.keys)
    generator = _generator(plan, one)
    columns: dict[str, Any] = {
        "__cell": np.tile(np.arange(cells, dtype=np.int64), copies),
        **key_columns(one, copies, plan.copies_sql),
    }
    hidden = None if all(visible) else np.tile(~np.array(visible, dtype=bool), copies)
    for index, values in enumerate(one.statistics):
        if f"{one.release.name}.s{index}" not in plan.copies_sql:
            continue
        noise = _noise(generator, one.release, index, one.nodes, copies)
        noise[:cells] = 0
        noise += np.tile(np.array(values, dtype=np.int64), copies)
        columns[f"s{index}"] = pa.array(noise, mask=hidden)
    return pa.table(columns)


class Copies:
    """Perturbed copies of one release, one table each."""

    def __init__(self, plan: PrivacyPlan, one: MergedRelease, visible: list[bool]) -> None:
        self._cells = len(one.keys)
        self._keys = key_columns(one, 1, plan.copies_sql)
        self._hidden = None if all(visible) else ~np.array(visible, dtype=bool)
        generator = _generator(plan, one)
        self._values = [
            np.array(values, dtype=np.int64)
            + _noise(generator, one.release, index, one.nodes, WHOLE_COPIES).reshape(WHOLE_COPIES, -1)
            for index, values in enumerate(one.statistics)
        ]

    def table(self, number: int) -> pa.Table:
        """One copy."""
        columns = {"__cell": pa.array(range(self._cells), type=pa.int64()), **self._keys}
        for index, values in enumerate(self._values):
            columns[f"s{index}"] = pa.array(values[number], mask=self._hidden)
        return pa.table(columns)


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
