"""Reads the legal rules of ``dataset.toml``: what the text says, and that it fits the tables (D4).

```toml
[dataset]
purposes = ["public-health-research"]

[dataset.rules]
at_most_identifiers = 1

[[dataset.identifiers]]
name = "exact date of care"
french = "date exacte des soins"
columns = ["er_prs_f.exe_soi_dtd"]
finer_than = "month"

[[dataset.identifiers]]
name = "month and year of birth"
together = [["ir_ben_r.ben_nai_ann"], ["ir_ben_r.ben_nai_moi"]]

[tables.ir_ben_r.columns]
free_note = { type = "text", release = "never" }
```

A rule that could not work is refused: a column that is not there, a period of what is no date, a column that every
query reads. Unknown keys are refused by ``dataset_file``, which these models are part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StrictStr, StringConstraints

from insitu_privacy.dataset import Table
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.language import Phrase
from insitu_privacy.rules import ColumnName, Identifier, Period, Rules

_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f;]{1,80}$")]
_Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
_Columns = Annotated[list[StrictStr], Field(min_length=1)]
Release = Literal["never"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IdentifierFile(_Strict):
    """One ``[[dataset.identifiers]]``."""

    name: _Line
    french: _Line | None = None
    columns: _Columns | None = None
    together: Annotated[list[_Columns], Field(min_length=2)] | None = None
    finer_than: Period | None = None


class RulesFile(_Strict):
    """``[dataset.rules]``."""

    at_most_identifiers: Annotated[int, Field(strict=True, ge=0, le=100)] = 1


Purposes = Annotated[list[_Code], Field(min_length=1)]
"""An empty list would read as "none" and mean "any": leave it out for any."""


def read_rules(
    identifiers: Sequence[IdentifierFile],
    rules: RulesFile | None,
    purposes: Sequence[str] | None,
    never: Sequence[ColumnName],
    tables: Mapping[str, Table],
) -> Rules:
    """The rules that a file declares. Raises ConfigInvalid where they do not fit its tables."""
    if rules is not None and not identifiers:
        _refuse("dataset.rules: at_most_identifiers has no identifiers to count")
    for column in never:
        _check_column(column, tables, "release")
    found = tuple(_identifier(text, tables) for text in identifiers)
    _check_names(found)
    if len(set(purposes or ())) < len(purposes or ()):
        _refuse("dataset.purposes: a code stands twice")
    return Rules(
        identifiers=found,
        at_most_identifiers=rules.at_most_identifiers if rules is not None else 1,
        never_released=frozenset(never),
        purposes=tuple(purposes or ()),
    )


def _identifier(text: IdentifierFile, tables: Mapping[str, Table]) -> Identifier:
    where = f"dataset.identifiers {text.name!r}"
    if (text.columns is None) == (text.together is None):
        _refuse(f"{where}: say columns, or together, and not both")
    written = text.together if text.columns is None else [text.columns]
    assert written is not None
    parts = tuple(frozenset(_column(name, tables, where) for name in part) for part in written)
    if len(frozenset[ColumnName]().union(*parts)) < sum(len(part) for part in written):
        _refuse(f"{where}: a column stands twice")
    for table, column in sorted(frozenset[ColumnName]().union(*parts)) if text.finer_than else ():
        if tables[table].columns[column].type not in ("date", "timestamp"):
            _refuse(f"{where}: finer_than is of dates and timestamps, and {table}.{column} is none")
    return Identifier(name=Phrase(text.name, text.french or text.name), parts=parts, finer_than=text.finer_than)


def _column(written: str, tables: Mapping[str, Table], where: str) -> ColumnName:
    table, _, column = written.partition(".")
    if table not in tables or column not in tables[table].columns:
        _refuse(f"{where}: {written} is not table.column of this dataset")
    _check_column((table, column), tables, where)
    return table, column


def _check_column(name: ColumnName, tables: Mapping[str, Table], where: str) -> None:
    table, column = name
    if tables[table].public:
        _refuse(f"{where}: {table}.{column} is public")
    if column in tables[table].unit or any(
        column in other.unit_path.on
        for other in tables.values()
        if other.unit_path is not None and table in (other.name, other.unit_path.through)
    ):
        _refuse(f"{where}: {table}.{column} leads to the privacy unit: every query reads it, and none releases it")


def _check_names(identifiers: Sequence[Identifier]) -> None:
    """One name has one French form: identifiers are told apart by their names."""
    if len({one.name for one in identifiers}) > len({one.name.english for one in identifiers}):
        _refuse("dataset.identifiers: one name has two French forms")


def _refuse(reason: str) -> NoReturn:
    raise ConfigInvalid("INSITU-CONFIG-INVALID", path="dataset.toml", reason=reason)
