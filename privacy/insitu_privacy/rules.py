"""The legal rules of a dataset, as its custodian declares them: frozen values, and what crosses them. Pure.

Three rules (``docs/threat-model.md`` D1 to D3), each off where a dataset declares nothing:

- *Potential identifiers* are named, and at most so many of them may be used in one query. French law names five for
  SNDS and allows one at a time: commune of residence, month and year of birth, exact date of care, exact date of
  death, commune of death.
- *Columns never to be released* may decide which rows count, and never stand in an answer.
- *Purposes* are the codes of what the data may be used for.

What a query uses is found by ``passes.reads`` on its plan, never on its text. What is not here: the file format
(``rules_file``), the refusals (``passes.legal``, ``purposes``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from insitu_privacy.language import Phrase

ColumnName = tuple[str, str]
"""(table, column)."""
Period = Literal["year", "quarter", "month"]
Precision = Literal["year", "quarter", "month", "exact"]

FINENESS: Mapping[Precision, int] = {"year": 0, "quarter": 1, "month": 2, "exact": 3}
"""Each is a function of the next finer: so nothing that is made of reads by month, however many, is finer than that."""


@dataclass(frozen=True, slots=True)
class Read:
    """A column that is used, and how fine the use is. Columns that are no date are used exactly, or asked for NULL."""

    table: str
    column: str
    precision: Precision

    @property
    def name(self) -> ColumnName:
        """The column."""
        return self.table, self.column


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """One way to hold a potential identifier. Several of one name are one identifier, however many are used."""

    name: Phrase
    parts: tuple[frozenset[ColumnName], ...]
    """It is used where a column of each part is: one part, or several that identify together alone."""
    finer_than: Period | None
    """Of dates: a use by this period, or a longer one, is none."""

    def crossed(self, reads: Collection[Read]) -> tuple[ColumnName, ...]:
        """A column of each part that is used; empty where some part is not."""
        found = [self._first(part, reads) for part in self.parts]
        return tuple(name for name in found if name is not None) if None not in found else ()

    def _first(self, part: frozenset[ColumnName], reads: Collection[Read]) -> ColumnName | None:
        return min((read.name for read in reads if read.name in part and self._is_fine(read)), default=None)

    def _is_fine(self, read: Read) -> bool:
        return self.finer_than is None or FINENESS[read.precision] > FINENESS[self.finer_than]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a dataset's custodian may not have asked of it. Empty where nothing is declared."""

    identifiers: tuple[Identifier, ...] = ()
    at_most_identifiers: int = 1
    """How many identifiers of different names one query may use."""
    never_released: frozenset[ColumnName] = frozenset()
    purposes: tuple[str, ...] = ()
    """Codes; empty for any purpose."""

    def crossed(self, reads: Collection[Read]) -> dict[Phrase, tuple[ColumnName, ...]]:
        """The identifiers that are used, by name in the order of declaration, each with the columns that it is by."""
        found: dict[Phrase, tuple[ColumnName, ...]] = {}
        for identifier in self.identifiers:
            columns = identifier.crossed(reads)
            if columns:
                found.setdefault(identifier.name, columns)
        return found
