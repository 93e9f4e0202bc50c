"""The dataset: the contract shared by all nodes that serve it, as frozen values, and its digest.

A dataset says what tables and columns exist, which columns are the privacy unit, by which key path a table without
its own unit reaches one, which columns are entity keys, and the public facts that planning may use (DESIGN.md
section 3). Public facts come from documentation, never from data.

The digest covers the exact bytes of ``dataset.toml`` and of every public file it names, so that two parties with the
same digest plan the same queries the same way. Reading files is not done here: see ``insitu_access.bundle``.
The file format is parsed in ``dataset_file``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import Literal

from insitu_privacy.rules import Rules

ColumnType = Literal["integer", "decimal", "text", "date", "timestamp", "boolean"]
Scalar = int | float | str | bool | date | datetime
DomainValue = int | str | bool | date | datetime
Bound = Fraction | date | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column and the public facts about it."""

    name: str
    type: ColumnType
    nullable: bool = False
    """Whether NULL is an ordinary value, and so a group key like any other."""
    values: tuple[DomainValue, ...] | None = None
    """The finite public domain, sorted, without NULL; anything else in the data reads as NULL."""
    minimum: Bound | None = None
    maximum: Bound | None = None
    """Inclusive public bounds; a value outside reads as NULL."""
    constant_per_unit: bool = False
    references: tuple[tuple[str, str], ...] = ()
    """(table, column) of each entity key that this column holds under another name: of several, one on each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPath:
    """How a table without the privacy unit reaches it: equality of ``on`` with the same columns of ``through``."""

    through: str
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionBounds:
    """How much of one privacy unit a release may use."""

    max_rows_per_group: int
    """m: rows of one unit that count in one group."""
    max_groups: int
    """C: groups that one unit may contribute to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the dataset: protected, or public with a unique key."""

    name: str
    columns: Mapping[str, Column]
    public: bool = False
    unit: tuple[str, ...] = ()
    """The columns that together are the privacy unit; empty for public tables and for those with a ``unit_path``."""
    unit_path: UnitPath | None = None
    entity_keys: tuple[tuple[str, ...], ...] = ()
    one_row_per_unit: bool = False
    bounds: ContributionBounds | None = None
    key: tuple[str, ...] = ()
    """The unique key of a public table; empty where none is declared."""
    source: str | None = None
    """The public file the table comes from, relative to the dataset file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset contract. ``digest`` is hex SHA-256 over the file and its public sources."""

    name: str
    version: int
    title: str
    nodes_per_unit: int
    min_units: int
    tables: Mapping[str, Table]
    digest: str
    rules: Rules = field(default_factory=Rules)
    """The legal rules that its custodian declares."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    """The public files that come with it, which the digest covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetBundle:
    """The bytes of a dataset: its TOML text, and the public files it names by their relative path."""

    toml: bytes
    files: Mapping[str, bytes]

    def digest(self) -> str:
        """Hex SHA-256 over the TOML and, in order of name, each file's name and SHA-256."""
        total = hashlib.sha256(b"insitu-dataset-v1\0")
        total.update(hashlib.sha256(self.toml).digest())
        for name in sorted(self.files):
            total.update(hashlib.sha256(name.encode()).digest())
            total.update(hashlib.sha256(self.files[name]).digest())
        return total.hexdigest()
