"""What makes released counts better for free: that they are not negative, and that parts add up to their total.

Post-processing of what was released, so that it costs no budget; who asks for it says so, and the answer says that it
is on. Two kinds:

* ``non-negative``: counts are at least 0. Each is cut off at 0, which moves small cells up: a cell that is empty shows
  half of the noise's mean size rather than 0 on average. Leaves of a tree of counts are moved to the nearest that are
  not negative and keep the sums above them (``simplex``).
* ``consistent``: where releases count the same rows under different keys (``families``), each is moved to what fits all
  of them best, in weighted least squares over the variances of their noise. Then all is made
  whole numbers from the total down, so that the parts add up to the last digit (``marginals``).

Both at once: from the total down, the parts of each cell are the nearest that are not negative and add up to it.

What is assumed: that the releases count the same. Where contribution bounds cut more from one than from another they
do not quite, and a fit lies between them. A release with suppressed cells takes no part: they could be read from the
difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from insitu_privacy.errors import ParameterRefused
from insitu_privacy.families import Family, Member, families
from insitu_privacy.marginals import consistent
from insitu_privacy.merge import MergedRelease
from insitu_privacy.released import Released

Array = np.ndarray[Any, Any]
Improvement = Literal["non-negative", "consistent"]
IMPROVEMENTS: tuple[Improvement, ...] = get_args(Improvement)
SAID: Mapping[Improvement, str] = {"non-negative": "non-negative counts", "consistent": "consistent marginals"}
"""How an answer says that it is on."""
NOTHING_TO_FIT = "nothing to make consistent: no two releases count the same rows under public keys, no cell hidden"
_COUNTS = ("rows", "units", "entities")
_LIMIT = 2**63 - 1


def read_improvements(names: Iterable[str]) -> tuple[Improvement, ...]:
    """The improvements of these names, each once. Raises ParameterRefused (INSITU-PARAM-IMPROVE) for any other."""
    given = names.split(",") if isinstance(names, str) else names if isinstance(names, Iterable) else [names]
    asked = [str(name).strip().lower() for name in given]
    unknown = [name for name in asked if name and name not in IMPROVEMENTS]
    if unknown:
        raise ParameterRefused("INSITU-PARAM-IMPROVE", name=unknown[0][:40], known=", ".join(IMPROVEMENTS))
    return tuple(one for one in IMPROVEMENTS if one in asked)


class Improving:
    """The relations of one answer, and what is done to them. ``sql`` is what copies are run through: what it does not
    read takes no part, since copies do not have it."""

    def __init__(self, relations: Sequence[Released], wanted: Sequence[Improvement], sql: str) -> None:
        self._wanted = frozenset(wanted)
        self.raw = [self._with_trees(one) for one in relations]
        # A release that takes no part stands for nothing; the places of the others stay.
        self._parts = [one.base if one.base is not None and one.hidden is None else None for one in self.raw]
        self._families = self._found(sql) if "consistent" in self._wanted else ()

    @property
    def cuts(self) -> bool:
        """Whether counts are kept from being negative."""
        return "non-negative" in self._wanted

    @property
    def fits(self) -> bool:
        """Whether any statistics are made consistent."""
        return bool(self._families)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the answer has to know."""
        return (NOTHING_TO_FIT,) if "consistent" in self._wanted and not self._families else ()

    def fitted(self) -> list[Released]:
        """The relations with consistent statistics, whatever their sign: what intervals are computed from."""
        return self._moved(non_negative=False)

    def points(self) -> list[Released]:
        """The relations as they are shown."""
        moved = self._moved(non_negative=self.cuts)
        return [_cut_off(one) for one in moved] if self.cuts else moved

    def fit_copies(self, tables: Sequence[pa.Table]) -> list[pa.Table]:
        """Perturbed copies of the raw relations, made consistent in the same way."""
        found = list(tables)
        for family in self._families:
            values = [found[one.release].column(f"s{one.statistic}").to_numpy().astype(float) for one in family.members]
            for one, fit in zip(family.members, consistent(family, values), strict=True):
                table, name = found[one.release], f"s{one.statistic}"
                column = pa.array(fit.astype(np.int64))
                found[one.release] = table.set_column(table.column_names.index(name), name, column)
        return found

    def _with_trees(self, one: Released) -> Released:
        if "non-negative" not in self._wanted:
            return one
        trees = tuple((quantile, replace(tree, non_negative=True)) for quantile, tree in one.quantiles)
        return replace(one, quantiles=trees)

    def _found(self, sql: str) -> tuple[Family, ...]:
        there = [(place, one) for place, one in enumerate(self._parts) if one is not None]
        return tuple(
            replace(
                family,
                members=tuple(replace(member, release=there[member.release][0]) for member in family.members),
            )
            for family in families([one for _, one in there], sql)
        )

    def _moved(self, *, non_negative: bool) -> list[Released]:
        columns: dict[int, list[tuple[int, ...]]] = {}
        for family in self._families:
            values = [np.array(self._statistics(one), dtype=float) for one in family.members]
            fits = consistent(family, values, non_negative=non_negative and family.counts)
            for one, fit in zip(family.members, fits, strict=True):
                part = self._parts[one.release]
                assert part is not None
                columns.setdefault(one.release, list(part.statistics))[one.statistic] = _integers(fit)
        return [
            one if place not in columns else _with_statistics(one, columns[place]) for place, one in enumerate(self.raw)
        ]

    def _statistics(self, member: Member) -> tuple[int, ...]:
        part = self._parts[member.release]
        assert part is not None
        return part.statistics[member.statistic]


def _with_statistics(one: Released, columns: Sequence[tuple[int, ...]]) -> Released:
    assert one.base is not None
    return replace(one, base=replace(one.base, statistics=tuple(columns)))


def _integers(values: Array) -> tuple[int, ...]:
    return tuple(max(-_LIMIT, min(_LIMIT, int(value))) for value in values)


def _cut_off(one: Released) -> Released:
    if one.base is None:
        return one
    return _with_statistics(one, non_negative(one.base))


def non_negative(merged: MergedRelease) -> list[tuple[int, ...]]:
    """The statistics of a release, those that count at least 0."""
    return [
        tuple(max(0, value) for value in values) if statistic.kind in _COUNTS else values
        for statistic, values in zip(merged.release.statistics, merged.statistics, strict=True)
    ]
