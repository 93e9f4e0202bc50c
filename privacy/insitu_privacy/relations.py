"""The relation under a release: sources joined and filtered, to any depth. Frozen values, carried in the plan.

A source is a scan of a table, or derived: a body of its own, which is again made of a relation. A relation is protected
when a source or a cohort is. Its privacy unit is that of its first protected source that is joined inner; the
``track`` pass has proved that every other protected source and cohort is tied to it by equality of the unit. So each
relation, at any depth, is a function of each unit's rows alone: the rows of a unit do not depend on another's.

Aliases are unique in the whole plan, so that a cohort's conditions can name columns of the relation around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from insitu_privacy.dataset import Column, ColumnType, UnitPath
from insitu_privacy.expressions import ColumnRef, Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One use of a table: the columns that the query reads of it, each guarded when it is read."""

    alias: str
    table: str
    public: bool
    columns: tuple[Column, ...]
    unit: tuple[str, ...]
    """The unit columns as this scan gives them; empty for public tables."""
    unit_path: tuple[PathStep, ...] = ()
    """How a table without unit columns reaches them, nearest table first; empty where it has them."""
    one_row_per_unit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStep:
    """One step of a unit path: the table reached and the columns it is reached by."""

    path: UnitPath
    unit: tuple[str, ...]
    """The unit columns of the table reached, where the path ends; else empty."""
    types: tuple[ColumnType, ...]
    """Of the columns it is reached by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A source made of a body."""

    alias: str
    body: Body
    public: bool
    unit: tuple[str, ...]
    """The names under which the body gives the unit; empty for public ones."""
    one_row_per_unit: bool = False


Source = Scan | Derived


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A source joined to all before it."""

    source: Source
    kind: Literal["inner", "left"]
    on: tuple[Expression, ...]
    """Conditions of a left join. Those of inner joins stand in ``Relation.where``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Sources joined in order, and the conditions that hold for every row."""

    first: Source
    joins: tuple[Join, ...]
    where: tuple[Expression, ...]
    unit: tuple[ColumnRef, ...]
    """Empty where the relation is public."""
    cohorts: tuple[Derived, ...] = ()
    """What ``Exists`` in its expressions look into."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that are joined, in order."""
        return (self.first, *(join.source for join in self.joins))

    @property
    def outer(self) -> frozenset[str]:
        """Aliases of the sources that are joined left: their columns may be NULL together."""
        return frozenset(join.source.alias for join in self.joins if join.kind == "left")

    def scans(self) -> Iterator[Scan]:
        """The scans at any depth."""
        for source in (*self.sources, *self.cohorts):
            if isinstance(source, Scan):
                yield source
            else:
                yield from scans_in(source.body)


# -- bodies of derived sources ---------------------------------------------------------------------------------------

Named = tuple[str, Expression]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Rows of a relation: its unit under ``Derived.unit``, and columns."""

    relation: Relation
    columns: tuple[Named, ...]
    distinct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """An aggregate over one unit's rows in one group; exact, so that it does not depend on the order of rows."""

    kind: Literal["rows", "count", "distinct", "sum", "average", "least", "greatest"]
    value: Expression | None
    """None for ``rows``."""
    type: ColumnType
    """Of the result."""
    granularity: Fraction
    """What ``sum`` and ``average`` of decimals add up multiples of: a sum of floats depends on their order."""
    reach: Fraction
    """Of those, the size that each value is clipped to."""
    limit: Fraction
    """The size to which counts and sums are cut, as planning assumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """One row per unit and group: the unit, keys and aggregates. Of a public relation: per group."""

    relation: Relation
    keys: tuple[Named, ...]
    aggregates: tuple[tuple[str, Aggregate], ...]


WindowFunction = Literal[
    "row_number", "rank", "dense_rank", "lag", "lead", "first", "last", "least", "greatest", "count", "sum"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window function over one unit's rows. Where ties would leave the database a choice, ``order`` breaks them."""

    function: WindowFunction
    value: Expression | None
    type: ColumnType
    offset: int
    """Of ``lag`` and ``lead``."""
    partition: tuple[Expression, ...]
    """Beside the unit."""
    order: tuple[tuple[Expression, bool, bool], ...]
    """Expression, whether descending, whether NULL comes first."""
    frame: str = ""
    """ROWS BETWEEN ... AND ...; empty for the one that there is without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windowing:
    """Rows of a relation with window functions over each unit's rows."""

    relation: Relation
    columns: tuple[Named, ...]
    windows: tuple[tuple[str, Window], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A set operation of two bodies with the same columns and, where protected, the same unit names."""

    kind: Literal["union", "union all", "intersect", "except"]
    left: Body
    right: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One row without columns: what a SELECT without FROM reads."""


Body = Projection | Grouping | Windowing | Combination | Single


def scans_in(body: Body) -> Iterator[Scan]:
    """The scans of a body, at any depth."""
    if isinstance(body, Single):
        return
    if isinstance(body, Combination):
        yield from scans_in(body.left)
        yield from scans_in(body.right)
    else:
        yield from body.relation.scans()
