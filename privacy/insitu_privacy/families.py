"""Which of a plan's releases count the same rows under different keys: what has to agree between them.

Releases are of one family where their relation is the same but for the names of its scans, and for which columns it
reads; a key or a value is the same where its expression is. Statistics of a family add up: the rows of a total are
those of its parts. Persons and entities do so only over keys of which each person has one value.

Only public keys are looked at: of a selected key, what stayed below the threshold is missing from the parts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Any

from insitu_privacy.merge import MergedRelease
from insitu_privacy.plan import KeyValue, Release, StatisticKind
from insitu_privacy.relations import Scan

_AXES_LIMIT = 10
"""Each subset of a release's keys is fitted by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One statistic of one release."""

    release: int
    """Its place among the releases that were looked at."""
    statistic: int
    axes: tuple[int, ...]
    """For each of its keys, the axis of the family that it is."""
    variance: float
    """Of the noise in each cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The same statistic in several releases: marginals of one table."""

    sizes: tuple[int, ...]
    """Values of each axis."""
    members: tuple[Member, ...]
    counts: bool
    """Whether it counts, so that it cannot be below zero."""


@dataclass(frozen=True, slots=True)
class _Key:
    expression: Hashable
    domain: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a statistic is, apart from the noise in it."""

    kind: StatisticKind
    value: Hashable
    granularity: Fraction
    center: Fraction


def families(merged: Sequence[MergedRelease], sql: str) -> tuple[Family, ...]:
    """The families among merged releases, of what ``sql`` reads of them, with at least two members each."""
    groups: dict[tuple[Hashable, _Wanted, int], list[tuple[Member, tuple[_Key, ...]]]] = {}
    for place, one in enumerate(merged):
        release = one.release
        if release.cells is None or release.tree is not None or one.sites is not None:
            continue
        names: dict[str, int] = {}
        relation = _plain(release.relation, names)
        keys = tuple(_Key(_plain(key.expression, names), key.domain or ()) for key in release.keys)
        if len(set(keys)) < len(keys) or len(keys) > _AXES_LIMIT:
            continue
        for index, wanted in _additive(release, names):
            if f"{release.name}.s{index}" not in sql:
                continue
            variance = _variance(release, index) * max(one.answered, 1)
            member = Member(release=place, statistic=index, axes=(), variance=variance)
            groups.setdefault((relation, wanted, one.answered), []).append((member, keys))
    return tuple(_family(group, counts=wanted.kind != "sum") for (_, wanted, _), group in groups.items() if group[1:])


def _family(group: Sequence[tuple[Member, tuple[_Key, ...]]], *, counts: bool) -> Family:
    axes = {key: place for place, key in enumerate(dict.fromkeys(key for _, keys in group for key in keys))}
    members = tuple(
        Member(
            release=one.release,
            statistic=one.statistic,
            axes=tuple(axes[key] for key in keys),
            variance=one.variance,
        )
        for one, keys in group
    )
    return Family(sizes=tuple(len(key.domain) for key in axes), members=members, counts=counts)


def _additive(release: Release, names: dict[str, int]) -> list[tuple[int, _Wanted]]:
    """The statistics of a release whose parts add up, with what they are."""
    constant = all(key.constant for key in release.keys)
    found: list[tuple[int, _Wanted]] = []
    for index, one in enumerate(release.statistics):
        if one.kind in ("rows", "sum") or constant:
            value = None if one.value is None else _plain(release.values[one.value], dict(names))
            found.append((index, _Wanted(one.kind, value, one.granularity, one.center)))
    return found


def _variance(release: Release, index: int) -> float:
    scale = float(release.statistics[index].scale)
    return scale * scale * (2 if release.mechanism == "laplace" else 1)


def _plain(value: Any, names: dict[str, int]) -> Hashable:
    """A value of a plan with its scans numbered as they come, and without the columns that they read."""
    if is_dataclass(value) and not isinstance(value, type):
        parts: list[Hashable] = [type(value).__name__]
        for item in fields(value):
            inner = getattr(value, item.name)
            if item.name in ("alias", "scan", "cohort"):
                parts.append(names.setdefault(inner, len(names)))
            elif not (isinstance(value, Scan) and item.name == "columns"):
                parts.append(_plain(inner, names))
        return tuple(parts)
    if isinstance(value, (tuple, list)):
        return tuple(_plain(one, names) for one in value)
    return (type(value).__name__, value)
