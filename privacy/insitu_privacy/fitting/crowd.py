"""The units that a query is expected to read: rows, groups and sums of each, from profiles and the plan alone.

What is assumed, and said so by ``explain``: a unit with many rows has many groups and large sums (all three grow
together); its rows are spread evenly over its groups; conditions keep a share of rows that is guessed
(``selectivity``), either rows at random or whole units. Both are tried, and bounds are chosen for their mean error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from insitu_privacy.data_profile import DataProfile, MeasureKind
from insitu_privacy.dataset import Column, Dataset
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, columns_of
from insitu_privacy.fitting.curves import Array, Curve, curve_of, grid
from insitu_privacy.fitting.independent import sums_of
from insitu_privacy.fitting.own import SHARES, OwnRows, shares_of, with_groups
from insitu_privacy.fitting.selectivity import Known, conjuncts, kept_share
from insitu_privacy.fitting.smooth import smooth
from insitu_privacy.fitting.values import spread
from insitu_privacy.plan import KeyColumn, Release, cell_count
from insitu_privacy.relations import Derived, Projection, Relation, Scan, Source

GUESSED_CELLS = 50
"""Groups of a private key that no profile has."""
_NEARLY_ALL = 0.99
_MOST_CELLS = 5_000
SPREAD = ((-1.4, 0.25), (0.0, 0.5), (1.4, 0.25))
"""How a Poisson number is spread, such as rows kept at random, or those of one group: deviations and their share."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crowd:
    """Expected units. Arrays are parallel: ``units[i]`` units with ``rows[i]`` rows in ``groups[i]`` groups."""

    units: Array
    rows: Array
    groups: Array
    sums: Mapping[int, Array]
    """By value expression, what a unit's values add up to; only where a profile says."""
    cells: int
    """Groups of all units together."""

    @property
    def total(self) -> float:
        """Rows of all units."""
        return float(self.units @ self.rows)


def crowds(release: Release, dataset: Dataset, profile: DataProfile, own: OwnRows | None = None) -> tuple[Crowd, ...]:
    """The units of a release under each assumption; none where neither profiles nor a first look speak of its rows."""
    view = _View(release, dataset, profile)
    whole = view.whole()
    if own is not None:
        return _looked(view, whole, own)
    if whole is None:
        return ()
    of_rows, of_units = view.shares()
    base = replace(whole, units=whole.units * of_units)
    if of_rows >= 1:
        return (base,)
    return (replace(base, units=base.units * of_rows), *view.both(_thinned(base, of_rows, view.domain)))


def rarer(release: Release, dataset: Dataset, profile: DataProfile) -> Crowd | None:
    """The units of a release if conditions that keep whole units kept the square of the share that they are taken to:
    a half may be a quarter, a tenth a hundredth. None where there are no such conditions alone."""
    view = _View(release, dataset, profile)
    whole = view.whole()
    if whole is None:
        return None
    of_rows, of_units = view.shares()
    return replace(whole, units=whole.units * of_units**2) if of_rows >= 1 and of_units < 1 else None


def _looked(view: _View, whole: Crowd | None, own: OwnRows) -> tuple[Crowd, ...]:
    """What a first look bears out; by the profiles alone where it shows nothing."""
    found: list[Crowd] = []
    if whole is not None:
        of_rows, _ = view.shares()
        shares = SHARES if of_rows < 1 else SHARES[:1]  # conditions on persons alone keep all of their rows
        for share, of_units in shares_of(own.rows, whole, shares):
            left = whole if share >= 1 else _thinned(whole, share, view.domain)
            found.append(replace(left, units=left.units * of_units))
    if not found:
        curves = [one for one in smooth(own.rows) or (curve_of(own.rows),) if one.total > 0]
        found = [view.seen(one, whole) for one in curves] or ([whole] if whole is not None else [])
    if whole is None and len(view.varying) > 1:  # nobody knows their groups: no more than the contract declares
        most = view.release.bounds.max_groups
        found = [replace(one, groups=np.minimum(one.groups, most)) for one in found]
    return tuple(each for one in found for each in view.both(with_groups(one, own.groups, view.domain)))


def spreads(release: Release, dataset: Dataset, profile: DataProfile) -> tuple[Curve | None, ...]:
    """By value expression of a release, how its values are spread; None where no profile says."""
    view = _View(release, dataset, profile)
    return tuple(map(view.spread, release.values))


def _thinned(crowd: Crowd, share: float, domain: int | None) -> Crowd:
    """Every row kept with the same chance: units that keep one, by how many they keep."""
    there = 1 - np.power(1 - share, crowd.rows)
    mean = np.maximum(1.0, share * crowd.rows / np.maximum(there, 1e-12))
    rows = np.concatenate([np.maximum(1.0, mean + side * np.sqrt(mean - 1 + 1e-9)) for side, _ in SPREAD])
    units = np.concatenate([crowd.units * there * part for _, part in SPREAD])
    before = np.tile(crowd.rows, len(SPREAD))
    groups = np.minimum(np.tile(crowd.groups, len(SPREAD)), rows)
    if domain is not None:
        groups = _spread_over(rows, domain)
    sums = {place: np.tile(one, len(SPREAD)) * rows / before for place, one in crowd.sums.items()}
    return Crowd(units=units, rows=rows, groups=groups, sums=sums, cells=crowd.cells)


def _as_many(sums: Array, rows: Array, units: Array, whole: Crowd) -> Array:
    """Sums of units of ``whole`` for other numbers of rows, each of the same size in the mean."""
    found = sums * rows / whole.rows
    size, there = float(sums @ whole.units) / whole.total, float(found @ units) / float(rows @ units)
    return found * (size / there) if there else found


def _cells(key: KeyColumn, of_one: float | None) -> int:
    """How many values a key has: those of its domain; else twice as many as nearly every unit has at most."""
    if key.domain is not None:
        return max(1, len(key.domain))
    return GUESSED_CELLS if of_one is None else max(2, int(2 * of_one))


def _spread_over(rows: Array, groups: int) -> Array:
    """How many of so many equally likely groups rows are expected to be in."""
    found: Array = groups * (1 - np.power(1 - 1 / groups, rows))
    return np.maximum(found, 1.0)


class _View:
    """A release as profiles see it: one table whose rows are counted, and what is joined to it once for each unit."""

    def __init__(self, release: Release, dataset: Dataset, profile: DataProfile) -> None:
        self.release, self._dataset, self._profile = release, dataset, profile
        self.relation = _flat(release.relation)
        self._scans = {one.alias: one for one in _scans(release.relation)}
        self.varying = [key for key in release.keys if not key.constant]
        self.domain = cell_count(self.varying)

    # -- units -------------------------------------------------------------------------------------------------------

    def whole(self) -> Crowd | None:
        """All units, whatever conditions keep; None where no profile speaks of them."""
        found = None if self.relation is None else self.crowd()
        return None if found is None or found.total <= 0 else found

    def seen(self, curve: Curve, whole: Crowd | None) -> Crowd:
        """The units of a first look. Sums are those of profiles, for as many rows as there are."""
        levels, shares = grid()
        rows = np.maximum(1.0, curve.quantiles(levels))
        groups, cells = self._groups(rows, levels)
        units = shares * curve.total
        sums = {} if whole is None else {place: _as_many(one, rows, units, whole) for place, one in whole.sums.items()}
        return Crowd(units=units, rows=rows, groups=np.minimum(groups, rows), sums=sums, cells=cells)

    def both(self, crowd: Crowd) -> tuple[Crowd, ...]:
        """With sums that grow with rows, as profiles have them, and with those of independent values."""
        curves = {
            place: curve
            for place in crowd.sums
            if (curve := self.spread(self.release.values[place])) is not None and curve.total > 0
        }
        if not curves:
            return (crowd,)
        sums = {place: sums_of(crowd.rows, crowd.units, curve) for place, curve in curves.items()}
        return (crowd, replace(crowd, sums={**crowd.sums, **sums}))

    def crowd(self) -> Crowd | None:
        scan = self._counted()
        if scan is None:
            return None
        levels, shares = grid()
        if scan.one_row_per_unit:
            known = [self._curve(ColumnRef(scan.alias, column.name)) for column in scan.columns]
            total = max((one.total for one in known if one is not None), default=0.0) or self._units(scan)
            rows = np.ones_like(levels)
        else:
            found = self._measure(scan.table, "rows", None)
            if found is None:
                return None
            total, rows = found.total, np.maximum(1.0, found.quantiles(levels))
        groups, cells = self._groups(rows, levels)
        sums = {
            place: one
            for place, value in enumerate(self.release.values)
            if (one := self._sums(value, levels, scan)) is not None
        }
        return Crowd(units=shares * total, rows=rows, groups=np.minimum(groups, rows), sums=sums, cells=cells)

    def _counted(self) -> Scan | None:
        """The table with several rows for a unit; where there are several such, that with the most; else any."""
        protected = [scan for scan in self._scans.values() if not scan.public]
        many = [scan for scan in protected if not scan.one_row_per_unit]

        def size(scan: Scan) -> float:
            found = self._measure(scan.table, "rows", None)
            return found.mean if found is not None else 0.0

        return max(many, key=size) if many else next(iter(protected), None)

    def _units(self, scan: Scan) -> float:
        measured = [h for h in self._profile.histograms if h.measure.table == scan.table]
        return max((curve_of(one).total for one in measured), default=0.0)

    def _groups(self, rows: Array, levels: Array) -> tuple[Array, int]:
        """Groups of each unit, and of all."""
        constant = cell_count([key for key in self.release.keys if key.constant])
        constant = GUESSED_CELLS if constant is None else constant
        if not self.varying:
            return np.ones_like(rows), constant
        if self.domain is not None:
            return _spread_over(rows, self.domain), constant * self.domain
        of_each = [self._distinct(key, rows, levels) for key in self.varying]
        groups = np.minimum(rows, np.prod([rows if one is None else one for one in of_each], axis=0))
        cells = constant
        for key, each in zip(self.varying, of_each, strict=True):
            cells *= _cells(key, None if each is None else float(each[levels <= _NEARLY_ALL].max()))
        return groups, min(cells, _MOST_CELLS)

    def _distinct(self, key: KeyColumn, rows: Array, levels: Array) -> Array | None:
        """How many values of a key each unit has: those of its column are the most that an expression of it has."""
        if key.domain is not None:
            return _spread_over(rows, max(1, len(key.domain)))
        columns = [one for one in columns_of(key.expression) if one.scan in self._scans]
        if len(columns) != 1:
            return None
        found = self._measure(self._scans[columns[0].scan].table, "distinct", columns[0].column)
        return None if found is None else np.maximum(1.0, found.quantiles(levels))

    # -- values ------------------------------------------------------------------------------------------------------

    def _sums(self, value: Expression, levels: Array, counted: Scan) -> Array | None:
        """What a unit's values add up to, for a column of the table whose rows are counted, or less than one."""
        column = summed_column(value)
        scan = self._scans.get(column.scan) if column is not None else None
        if column is None or scan is None or scan.alias != counted.alias:
            return None
        kind: MeasureKind = "values" if scan.one_row_per_unit else "sums"
        found = self._measure(scan.table, kind, column.column)
        return None if found is None else found.quantiles(levels) * self._cut(value)

    def _cut(self, value: Expression) -> float:
        """How much larger a value is in the mean where conditions on its own column keep large or small ones."""
        free, cut = spread(value, (), self._known), self.spread(value)
        return cut.mean / free.mean if free is not None and cut is not None and free.mean and cut.total > 0 else 1.0

    def spread(self, value: Expression) -> Curve | None:
        conditions = () if self.relation is None else self.relation.where
        return spread(value, conditions, self._known)

    @property
    def _known(self) -> Known:
        return Known(column=self._column, curve=self._curve)

    # -- conditions --------------------------------------------------------------------------------------------------

    def shares(self) -> tuple[float, float]:
        """The share of rows that conditions keep, and of units: by what they read."""
        assert self.relation is not None
        conditions = [one for one in conjuncts(self.relation.where) if not self._is_tie(one)]
        known = self._known
        of_units = [one for one in conditions if self._is_constant(one)]
        of_rows = [one for one in conditions if columns_of(one) and not self._is_constant(one)]
        return kept_share(of_rows, known) if of_rows else 1.0, kept_share(of_units, known) if of_units else 1.0

    def _is_constant(self, condition: Expression) -> bool:
        columns = columns_of(condition)
        return bool(columns) and all(self._is_fixed(column) for column in columns)

    def _is_fixed(self, ref: ColumnRef) -> bool:
        scan, column = self._scans.get(ref.scan), self._column(ref)
        return scan is not None and (scan.one_row_per_unit or (column is not None and column.constant_per_unit))

    @staticmethod
    def _is_tie(condition: Expression) -> bool:
        """An equality of two columns: a join."""
        return (
            isinstance(condition, Call)
            and condition.op is Op.EQ
            and all(isinstance(a, ColumnRef) for a in condition.args)
        )

    def _column(self, ref: ColumnRef) -> Column | None:
        scan = self._scans.get(ref.scan)
        return None if scan is None else next((one for one in scan.columns if one.name == ref.column), None)

    def _curve(self, ref: ColumnRef) -> Curve | None:
        scan = self._scans.get(ref.scan)
        return None if scan is None else self._measure(scan.table, "values", ref.column)

    def _measure(self, table: str, kind: MeasureKind, column: str | None) -> Curve | None:
        found = self._profile.find(table, kind, column)
        return None if found is None else curve_of(found)


def summed_column(value: Expression) -> ColumnRef | None:
    """The column that an expression is, or is at most in size: in a CASE without else, a LEAST, a COALESCE to 0."""
    if isinstance(value, ColumnRef):
        return value
    if not isinstance(value, Call):
        return None
    if value.op is Op.CASE and len(value.args) == 3 and _is_nothing(value.args[2]):
        return summed_column(value.args[1])
    if value.op is Op.TO_DECIMAL:
        return summed_column(value.args[0])
    if value.op in (Op.COALESCE, Op.LEAST):
        rest = [one for one in value.args if not isinstance(one, Literal)]
        return summed_column(rest[0]) if len(rest) == 1 else None
    return None


def _is_nothing(one: Expression) -> bool:
    return isinstance(one, Literal) and (one.value is None or one.value == 0)


def _flat(relation: Relation) -> Relation | None:
    """The relation with the conditions of the projections below it; None where something else lies below."""
    conditions = list(relation.where)
    for source in relation.sources:
        below = _below(source)
        if below is None:
            return None
        conditions += below
    return replace(relation, where=tuple(conditions))


def _below(source: Source) -> Sequence[Expression] | None:
    if isinstance(source, Scan) or source.public:
        return ()
    if not isinstance(source.body, Projection) or source.body.distinct:
        return None
    inner = _flat(source.body.relation)
    return None if inner is None else inner.where


def _scans(relation: Relation) -> Iterator[Scan]:
    """The scans that rows come from: not those of cohorts."""
    for source in relation.sources:
        if isinstance(source, Scan):
            yield source
        elif isinstance(source, Derived) and isinstance(source.body, Projection):
            yield from _scans(source.body.relation)
