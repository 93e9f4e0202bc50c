"""Adds up what nodes released. Pure; costs no budget, and anyone can do it again.

Every node ran the same plan, so cells and statistics line up. Keys that nodes selected by thresholding are united: a
group that a node did not release counts 0 there. Keys come out sorted, NULL first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import product

from insitu_privacy.errors import IntegrityFailed
from insitu_privacy.plan import KeyColumn, KeyValue, PrivacyPlan, Release, ReleasedValues, key_order


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRelease:
    """The sum over nodes of one release."""

    release: Release
    keys: tuple[tuple[KeyValue, ...], ...]
    """One tuple per cell; a release without keys has the one cell ()."""
    statistics: tuple[tuple[int, ...], ...]
    """``statistics[j][i]``: statistic j in cell i, summed over nodes."""
    nodes: tuple[int, ...]
    """How many nodes' noise stands in each cell."""
    answered: int
    """How many nodes released; of a group that fewer of them named, the sum holds only a part."""
    sites: tuple[str, ...] | None = None
    """Where nodes are kept apart, the node of each cell: there are as many cells with a key as nodes released it."""
    non_negative: bool = False
    """Of a tree of counts, whether its leaves are moved to where none is below zero (``improve``)."""


def merge(
    plan: PrivacyPlan, releases: Sequence[Sequence[ReleasedValues]], names: Sequence[str] = ()
) -> tuple[MergedRelease, ...]:
    """The sum of ``releases[node][release]``; of those whose nodes are kept apart, all of them in order of ``names``.

    Raises IntegrityFailed (INSITU-VERIFY-RESULT) where a node's values do not have the plan's shape.
    """
    for values in releases:
        if len(values) != len(plan.releases):
            raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="a node released another number of relations")
        _check_followed(plan, values)
    names = names or [f"node {place}" for place in range(1, len(releases) + 1)]
    return tuple(
        _kept_apart(release, [values[index] for values in releases], names)
        if release.name in plan.by_node
        else _merge_one(release, [values[index] for values in releases])
        for index, release in enumerate(plan.releases)
    )


def _kept_apart(release: Release, values: Sequence[ReleasedValues], names: Sequence[str]) -> MergedRelease:
    own = [(name, _merge_one(release, [one])) for name, one in sorted(zip(names, values, strict=True), key=_by_name)]
    return MergedRelease(
        release=release,
        keys=tuple(key for _, one in own for key in one.keys),
        statistics=tuple(
            tuple(value for _, one in own for value in one.statistics[index]) for index in range(release.width)
        ),
        nodes=tuple(count for _, one in own for count in one.nodes),
        answered=1,
        sites=tuple(name for name, one in own for _ in one.keys),
    )


def _by_name(pair: tuple[str, ReleasedValues]) -> str:
    return pair[0]


def _check_followed(plan: PrivacyPlan, values: Sequence[ReleasedValues]) -> None:
    keys = {release.name: one.keys for release, one in zip(plan.releases, values, strict=True)}
    for release in plan.releases:
        if release.tree is not None and release.tree.keys_of and keys[release.name] != keys[release.tree.keys_of]:
            raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="a tree of counts has other keys than its release")


def _merge_one(release: Release, values: Sequence[ReleasedValues]) -> MergedRelease:
    if release.cells is None:
        return _merge_selected(release, values)
    keys = tuple(product(*(key.domain or () for key in release.keys)))
    for one in values:
        if one.keys is not None or not _fits(release, one, len(keys)):
            raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="a release does not have the plan's cells")
    columns = tuple(
        tuple(_fitted(sum(cell)) for cell in zip(*(one.statistics[index] for one in values), strict=True))
        if values
        else (0,) * len(keys)
        for index in range(release.width)
    )
    return MergedRelease(
        release=release, keys=keys, statistics=columns, nodes=(len(values),) * len(keys), answered=len(values)
    )


_LIMIT = 2**63 - 1


def _fitted(total: int) -> int:
    """Within 64 bits, whatever a node claims: one node's nonsense may not stop the others' answer."""
    return max(-_LIMIT, min(_LIMIT, total))


def _fits(release: Release, values: ReleasedValues, cells: int) -> bool:
    return len(values.statistics) == release.width and all(len(row) == cells for row in values.statistics)


def _merge_selected(release: Release, values: Sequence[ReleasedValues]) -> MergedRelease:
    width = release.width
    sums: dict[tuple[KeyValue, ...], list[int]] = {}
    nodes: dict[tuple[KeyValue, ...], int] = {}
    for one in values:
        if one.keys is None or not _fits(release, one, len(one.keys)) or len(set(one.keys)) < len(one.keys):
            raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="a release does not have the plan's cells")
        for place, raw in enumerate(one.keys):
            key = _typed(release.keys, raw)
            total = sums.setdefault(key, [0] * width)
            nodes[key] = nodes.get(key, 0) + 1
            for index in range(width):
                total[index] = _fitted(total[index] + one.statistics[index][place])
    keys = tuple(sorted(sums, key=key_order))
    columns = tuple(tuple(sums[key][index] for key in keys) for index in range(width))
    return MergedRelease(
        release=release,
        keys=keys,
        statistics=columns,
        nodes=tuple(nodes[key] for key in keys),
        answered=len(values),
    )


def _typed(columns: Sequence[KeyColumn], raw: Sequence[int | float | str | bool | None]) -> tuple[KeyValue, ...]:
    if len(raw) != len(columns):
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="a released key has another number of columns")
    return tuple(_value(column, value) for column, value in zip(columns, raw, strict=True))


def _value(column: KeyColumn, value: int | float | str | bool | None) -> KeyValue:
    if value is None:
        return None
    fits = {
        "integer": type(value) is int,
        "decimal": type(value) in (int, float),
        "boolean": type(value) is bool,
    }.get(column.type, type(value) is str)
    try:
        if fits and column.type == "date":
            return date.fromisoformat(str(value))
        if fits and column.type == "timestamp":
            return datetime.fromisoformat(str(value))
    except ValueError:
        fits = False
    if not fits:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason=f"a released key is not of type {column.type}")
    return value
