"""Confidence intervals by parametric bootstrap: perturbed copies of what was released.

Each statistic of a copy carries more noise of its own law, one draw per node, and the outer SQL is run on all copies
(``postprocess``); ``percentiles`` reads the intervals from their spread. The generator is seeded with the plan and the
values, so that the same releases always give the same intervals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from insitu_privacy.draws import noise
from insitu_privacy.merge import MergedRelease
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.released import Released, at_an_end, key_arrays, quantile_array
from insitu_privacy.stacked import COPY
from insitu_privacy.tree import Array

_COPIES = 999
_CELL_BUDGET = 100_000
"""Copies times cells: larger relations get fewer copies, at least 199."""
WHOLE_COPIES = 119
"""The fewest copies of a whole answer, where its rows are not cells; as many where each is a run of its own."""
_WHOLE_BUDGET = 60_000
"""Copies times rows of a whole answer, or cells of its largest relation."""
_TREE_BUDGET = 4_000_000
"""Copies times nodes of trees: larger trees get fewer copies, at least 119."""
_FEWEST = 119
_STEP = 40
"""Numbers of copies are one less than a multiple of it: n copies and the truth have n + 1 ranks, and 2.5 per cent of
them on each side are then whole ranks (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 5.2)."""
_TREES_AT_ONCE = 500_000


def number_of_copies(one: Released) -> int:
    """How many copies a released relation gets."""
    cells = max(len(one.keys), 1)
    copies = max(199, min(_COPIES, _CELL_BUDGET // cells))
    nodes = sum(tree.release.width for _, tree in one.quantiles) * cells
    copies = max(_FEWEST, min(copies, _TREE_BUDGET // nodes)) if nodes else copies
    return (copies + 1) // _STEP * _STEP - 1


def stacked_copies(plan: PrivacyPlan, one: Released, copies: int) -> pa.Table:
    """All copies of the one relation of a plan, under one another. The first is not perturbed."""
    cells = len(one.keys)
    columns: dict[str, Any] = {
        "__cell": np.tile(np.arange(cells, dtype=np.int64), copies),
        **key_arrays(one, copies, plan.copies_sql),
        **_perturbed(plan, one, copies, first_as_it_is=True),
    }
    return pa.table(columns)


def number_of_whole(relations: Sequence[Released], rows: int) -> int:
    """How many copies a whole answer of so many rows gets."""
    size = max(rows, *(len(one.keys) for one in relations), 1)
    trees = sum(tree.release.width * len(tree.nodes) for one in relations for _, tree in one.quantiles)
    copies = min(_COPIES, _WHOLE_BUDGET // size, _TREE_BUDGET // max(trees, 1))
    return max(WHOLE_COPIES, (copies + 1) // _STEP * _STEP - 1)


class Copies:
    """Perturbed copies of one relation."""

    def __init__(self, plan: PrivacyPlan, one: Released, copies: int) -> None:
        self._cells = len(one.keys)
        self._keys = key_arrays(one, 1, plan.copies_sql)
        self._values = _perturbed(plan, one, copies, first_as_it_is=False)

    def table(self, first: int, last: int) -> pa.Table:
        """The copies from ``first`` up to but not including ``last``, under one another."""
        number = last - first
        columns: dict[str, Any] = {
            COPY: np.repeat(np.arange(first, last, dtype=np.int64), self._cells),
            "__cell": np.tile(np.arange(self._cells, dtype=np.int64), number),
        }
        columns |= {name: pa.concat_arrays([keys] * number) for name, keys in self._keys.items()}
        for name, values in self._values.items():
            columns[name] = values.slice(first * self._cells, number * self._cells)
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
            added = noise(generator, one.base.release, index, one.base.nodes, copies)
            if first_as_it_is:
                added[: len(values)] = 0
            columns[f"s{index}"] = pa.array(added + np.tile(np.array(values, dtype=np.int64), copies), mask=hidden)
    for quantile, tree in one.quantiles:
        ended, places = at_an_end(quantile, tree), _generator(plan, tree)
        found = [
            quantile_array(
                quantile,
                tree,
                counts,
                one.hidden,
                opened=opened,
                lost=opened & ended,
                within=places.uniform(-0.5, 0.5, counts.shape[:-1]) * opened,
            )
            for counts, opened in _perturbed_trees(plan, tree, copies, first_as_it_is=first_as_it_is)
        ]
        columns[quantile.column] = pa.concat_arrays(found)
    return columns


def _perturbed_trees(
    plan: PrivacyPlan, tree: MergedRelease, copies: int, *, first_as_it_is: bool
) -> Iterator[tuple[Array, Array]]:
    """Perturbed trees (some copies, cells, nodes), a few copies at a time, and which of them (some copies, 1) are."""
    counts = np.array(tree.statistics, dtype=float).reshape(tree.release.width, -1)
    nodes = tree.nodes * tree.release.width
    at_once = max(1, _TREES_AT_ONCE // max(1, counts.size))
    generator = _generator(plan, tree)
    for start in range(0, copies, at_once):
        number = min(at_once, copies - start)
        added = noise(generator, tree.release, 0, nodes, number).reshape(number, *counts.shape).astype(float)
        perturbed = np.ones((number, 1), dtype=bool)
        if first_as_it_is and not start:
            added[0], perturbed[0] = 0, False
        yield (added + counts).swapaxes(-1, -2), perturbed


def _generator(plan: PrivacyPlan, one: MergedRelease) -> np.random.Generator:
    text = f"{plan.digest}:{one.statistics}:{one.nodes}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(seed))
