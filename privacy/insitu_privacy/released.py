"""Released relations as the post-processing sees them: keys, statistics, and quantiles read from trees of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from insitu_privacy.dataset import ColumnType
from insitu_privacy.merge import MergedRelease
from insitu_privacy.plan import NODE_ID, KeyColumn, KeyValue, PrivacyPlan, Quantile, Release, Tree
from insitu_privacy.tree import Array, quantile_places

ARROW: dict[ColumnType, pa.DataType] = {
    "integer": pa.int64(),
    "decimal": pa.float64(),
    "text": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "boolean": pa.bool_(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One released relation: the merged release of its statistics, if it has any, and its trees."""

    name: str
    base: MergedRelease | None
    quantiles: tuple[tuple[Quantile, MergedRelease], ...]
    visible: tuple[bool, ...]
    """Which cells are shown: those whose noisy count reaches ``suppress_below``."""

    @property
    def any(self) -> MergedRelease:
        """Any of its releases: all have the same cells."""
        return self.base if self.base is not None else self.quantiles[0][1]

    @property
    def keys(self) -> tuple[tuple[KeyValue, ...], ...]:
        """One tuple per cell."""
        return self.any.keys

    @property
    def key_columns(self) -> tuple[KeyColumn, ...]:
        """The group keys."""
        return self.any.release.keys

    @property
    def whole(self) -> list[bool]:
        """Of each cell, whether all nodes that answered named it."""
        return [count == self.any.answered for count in self.any.nodes]

    @property
    def hidden(self) -> Array | None:
        """Mask of the cells that are not shown; None where all are."""
        return None if all(self.visible) else ~np.array(self.visible, dtype=bool)


def released_relations(plan: PrivacyPlan, merged: Sequence[MergedRelease]) -> list[Released]:
    """The relations that the post-processing of a plan reads."""
    by_name = {one.release.name: one for one in merged}
    bases = {one.release.name: one for one in merged if one.release.tree is None}
    names = dict.fromkeys([*bases, *(quantile.relation for quantile in plan.quantiles)])
    return [
        Released(
            name=name,
            base=bases.get(name),
            quantiles=tuple((one, by_name[one.tree]) for one in plan.quantiles if one.relation == name),
            visible=tuple(_visible(bases[name])) if name in bases else (True,) * len(by_name[name].keys),
        )
        for name in names
    ]


def _visible(one: MergedRelease) -> list[bool]:
    least = one.release.suppress_below
    counts = [s.value is None and s.kind in ("units", "rows") for s in one.release.statistics]
    units = [s.value is None and s.kind == "units" for s in one.release.statistics]
    index = units.index(True) if True in units else counts.index(True) if True in counts else None
    if not least or index is None:
        return [True] * len(one.keys)
    return [count >= least for count in one.statistics[index]]


def suppressed_rows(
    relations: Sequence[Released],
    rows: Sequence[Sequence[object]],
    cells: Sequence[int] | None,
    noisy: Sequence[int],
) -> tuple[int, ...]:
    """Places of the rows of an answer that are made of suppressed cells.

    ``cells`` are the cells that the rows are made of. Where rows are none, those without any ``noisy`` value are meant,
    in an answer that has suppressed cells: what went into a row cannot be told from its SQL.
    """
    if all(one.hidden is None for one in relations):
        return ()
    if cells is not None:
        return tuple(place for place, cell in enumerate(cells) if not relations[0].visible[cell])
    return tuple(place for place, row in enumerate(rows) if noisy and all(row[index] is None for index in noisy))


def key_arrays(one: Released, repeat: int, sql: str) -> dict[str, pa.Array]:
    """The key columns that a statement reads, ``repeat`` times under one another."""
    columns = {}
    if one.any.sites is not None and f"{one.name}.{NODE_ID}" in sql:
        columns[NODE_ID] = pa.array(one.any.sites * repeat, type=pa.string())
    for place, column in enumerate(one.key_columns):
        if f"{one.name}.{column.name}" not in sql:
            continue
        array = pa.array([key[place] for key in one.keys], type=ARROW[column.type])
        columns[column.name] = pa.concat_arrays([array] * repeat) if repeat > 1 else array
    return columns


def point_table(one: Released, sql: str) -> pa.Table:
    """The relation as it was released."""
    columns = {"__cell": pa.array(range(len(one.keys)), type=pa.int64()), **key_arrays(one, 1, sql)}
    for index, values in enumerate(() if one.base is None else one.base.statistics):
        shown = [value if seen else None for value, seen in zip(values, one.visible, strict=True)]
        columns[f"s{index}"] = pa.array(shown, type=pa.int64())
    for quantile, tree in one.quantiles:
        columns[quantile.column] = quantile_array(quantile, tree, _counts(tree), one.hidden)
    return pa.table(columns)


def _counts(tree: MergedRelease) -> Array:
    """Its nodes: (cells, nodes)."""
    found: Array = np.array(tree.statistics, dtype=float).reshape(tree.release.width, -1).T
    return found


def _tree(one: MergedRelease) -> Tree:
    assert one.release.tree is not None
    return one.release.tree


def quantile_array(
    quantile: Quantile,
    tree: MergedRelease,
    counts: Array,
    hidden: Array | None,
    *,
    opened: Array | None = None,
    lost: Array | None = None,
    within: Array | None = None,
) -> pa.Array:
    """A quantile's numbers from trees (..., cells, nodes), one after another; NULL where there is none.

    The first and the last leaf may hold values from beyond them too. An answer is that leaf, an interval that reaches
    it reaches to where they may lie: where ``opened`` (..., 1) is true a place in such a leaf is read as its farthest
    value. An answer that is such a leaf has no interval: where ``lost`` (..., cells) is true there is no value.
    ``within`` (..., cells) is how far from the middle of a leaf a value is taken to lie, in leaves: it may be anywhere
    in it, unless each leaf is a whole number or a day of its own.
    """
    (statistic,) = tree.release.statistics
    places = _places(quantile, tree, counts)
    missing = np.isnan(places) if hidden is None else np.isnan(places) | hidden
    missing = missing if lost is None else missing | lost
    values = float(statistic.center) + np.where(missing, 0, places) * float(statistic.granularity)
    if within is not None and not _is_exact(tree):
        first, step = float(statistic.center), float(statistic.granularity)
        values = np.clip(values + within * step, first, first + step * (_tree(tree).leaves - 1))
    if opened is not None:
        for place, end in zip((0, _tree(tree).leaves - 1), _tree(tree).beyond, strict=True):
            values = values if end is None else np.where(opened & (places == place), float(end), values)
    return pa.array(np.round(values, 9).reshape(-1), mask=missing.reshape(-1))


def _places(quantile: Quantile, tree: MergedRelease, counts: Array) -> Array:
    return quantile_places(
        _tree(tree).leaves,
        counts,
        kind=quantile.kind,
        level=float(quantile.level),
        weight=_tree(tree).weight,
        non_negative=tree.non_negative,
        beyond=(_tree(tree).beyond[0] is not None, _tree(tree).beyond[1] is not None),
        deviation=np.broadcast_to(deviation(tree.release, tree.nodes), counts.shape[:-1]),
    )


def deviation(release: Release, nodes: Sequence[int]) -> Array:
    """Standard deviation of the noise of a release's first statistic, for each cell."""
    scale = float(release.statistics[0].scale) * (math.sqrt(2) if release.mechanism == "laplace" else 1)
    found: Array = scale * np.sqrt(np.array(nodes, dtype=float))
    return found


def warnings(relations: Sequence[Released]) -> tuple[str, ...]:
    """What a reader of the answer has to know."""
    found = [
        f"{hidden} of {len(one.visible)} cells have fewer than {one.base.release.suppress_below} by their noisy count "
        "and are suppressed"
        for one in relations
        if one.base is not None and (hidden := sum(not shown for shown in one.visible))
    ]
    if any(quantile.kind in ("least", "greatest") for one in relations for quantile, _ in one.quantiles):
        found.append(
            "MIN and MAX are the outermost values that stand clear of the noise: the true ones may lie further out"
        )
    beyond = [_beyond(one) for one in relations]
    if any(beyond):
        found.append(
            f"{sum(beyond)} quantile(s) may lie beyond the values that profiles let expect, and are given as the last "
            "of those: with bounds of your own, LEAST(GREATEST(value, low), high), none is"
        )
    return tuple(found)


def _beyond(one: Released) -> int:
    """How many quantiles are read from a first or last leaf that holds what lies beyond it."""
    shown = np.array(one.visible, dtype=bool)
    return sum(int((at_an_end(quantile, tree) & shown).sum()) for quantile, tree in one.quantiles)


def _is_exact(tree: MergedRelease) -> bool:
    """Whether all values of a leaf are one and the same."""
    (statistic,) = tree.release.statistics
    return statistic.granularity == 1 and tree.release.value_types == ("integer",)


def at_an_end(quantile: Quantile, tree: MergedRelease) -> Array:
    """Which cells' quantiles, as released, lie in a first or last leaf that holds what lies beyond it: (cells)."""
    found: Array = np.zeros(len(tree.keys), dtype=bool)
    if _tree(tree).beyond == (None, None):
        return found
    places = _places(quantile, tree, _counts(tree))
    for place, end in zip((0, _tree(tree).leaves - 1), _tree(tree).beyond, strict=True):
        found |= (places == place) & (end is not None)
    return found
