"""The relation under a release: scans of tables, joined and filtered. Frozen values, carried in the plan.

A relation is protected when at least one scan is. Its privacy unit is that of its first protected scan; the
``track`` pass has proved that every other protected scan is joined on equality of the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from insitu_privacy.dataset import Column, UnitPath
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A scan joined to all before it."""

    scan: Scan
    kind: Literal["inner", "left"]
    on: tuple[Expression, ...]
    """Conditions of a left join. Those of inner joins stand in ``Relation.where``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Scans joined in order, and the conditions that hold for every row."""

    first: Scan
    joins: tuple[Join, ...]
    where: tuple[Expression, ...]
    unit: tuple[ColumnRef, ...]

    @property
    def scans(self) -> tuple[Scan, ...]:
        """All scans, in order."""
        return (self.first, *(join.scan for join in self.joins))
