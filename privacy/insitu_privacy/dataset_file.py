"""Reads ``dataset.toml`` into a ``Dataset``: pydantic checks the text, this module checks what the text means.

Deny by default: a table is protected unless it says ``public = true``; a protected table without unit or unit path
is refused; unknown keys are refused. Bytes come in, frozen values go out: reading files is done by
``insitu_access.bundle``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, StringConstraints, ValidationError

from insitu_privacy.dataset import (
    Bound,
    Column,
    ColumnType,
    ContributionBounds,
    Dataset,
    DatasetBundle,
    DomainValue,
    Table,
    UnitPath,
)
from insitu_privacy.dataset_checks import check_types
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.public_files import Cells, names_in, read_public, written_type
from insitu_privacy.rules_file import IdentifierFile, Purposes, Release, RulesFile, read_rules
from insitu_privacy.untrusted import Refusable, read_toml

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
_Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
_INTEGER_LIMIT = 2**53
"""Integers are read within these limits even where no bounds are declared, so that arithmetic on them is total."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ColumnFile(_Strict):
    type: ColumnType
    nullable: StrictBool = False
    values: list[Any] | None = None
    values_from: StrictStr | None = None
    min: Any = None
    max: Any = None
    constant_per_unit: StrictBool = False
    references: StrictStr | list[StrictStr] | None = None
    release: Release | None = None
    description: StrictStr | None = None


class _UnitPathFile(_Strict):
    through: _Name
    on: Annotated[list[_Name], Field(min_length=1)]


class _TableFile(_Strict):
    public: StrictBool = False
    unit: _Name | list[_Name] | None = None
    unit_path: _UnitPathFile | None = None
    entity_keys: list[Annotated[list[_Name], Field(min_length=1)]] = []
    one_row_per_unit: StrictBool = False
    max_rows_per_group: _Count | None = None
    max_groups: _Count | None = None
    key: list[_Name] = []
    source: StrictStr | None = None
    description: StrictStr | None = None
    columns: dict[_Name, _ColumnFile] = {}


class _HeadFile(_Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    version: Annotated[StrictInt, Field(ge=1)]
    title: StrictStr = ""
    description: StrictStr | None = None
    nodes_per_unit: _Count = 1
    min_units: Annotated[int, Field(strict=True, ge=0)] = 11
    purposes: Purposes | None = None
    rules: RulesFile | None = None
    identifiers: list[IdentifierFile] = []


class _DatasetFile(_Strict):
    dataset: _HeadFile
    tables: dict[_Name, _TableFile]


def source_names(toml: bytes) -> tuple[str, ...]:
    """The public files that a dataset file names, sorted. Raises ConfigInvalid where the text is not valid."""
    return tuple(sorted({table.source for table in _read(toml).tables.values() if table.source is not None}))


def parse_dataset(bundle: DatasetBundle) -> Dataset:
    """The dataset of a bundle.

    Raises ConfigInvalid (INSITU-CONFIG-INVALID) where the file is malformed or contradicts itself.
    """
    file = _completed(_read(bundle.toml), bundle.files)
    tables = {name: _table(file, name, bundle.files) for name in file.tables}
    for table in tables.values():
        _check_source(table, bundle.files)
        _check_unique(table, bundle.files)
    check_types(tables)
    return Dataset(
        name=file.dataset.name,
        version=file.dataset.version,
        title=file.dataset.title,
        nodes_per_unit=file.dataset.nodes_per_unit,
        min_units=file.dataset.min_units,
        tables=tables,
        digest=bundle.digest(),
        rules=read_rules(file.dataset.identifiers, file.dataset.rules, file.dataset.purposes, _never(file), tables),
        files=bundle.files,
    )


def _never(file: _DatasetFile) -> list[tuple[str, str]]:
    """The columns that are never to be released."""
    return [(name, key) for name, table in file.tables.items() for key, one in table.columns.items() if one.release]


def _refuse(reason: str) -> NoReturn:
    raise ConfigInvalid("INSITU-CONFIG-INVALID", path="dataset.toml", reason=reason)


def _read(toml: bytes) -> _DatasetFile:
    try:
        return _DatasetFile.model_validate(read_toml(toml))
    except Refusable as error:
        _refuse(str(error))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        _refuse(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


def _completed(file: _DatasetFile, files: Mapping[str, bytes]) -> _DatasetFile:
    """The file with the columns it leaves unsaid: a public source's, and entity keys, which are only ever compared."""
    types = {name: column.type for table in file.tables.values() for name, column in table.columns.items()}
    tables = {}
    for name, table in file.tables.items():
        columns = dict(table.columns)
        if table.public and table.source is not None and not columns:
            read = _public_columns(table.source, files)
            columns = {key: _ColumnFile(type=written_type(cells), nullable="" in cells) for key, cells in read.items()}
        elif not table.public:
            columns |= {
                key: _ColumnFile(type=types.get(key, "integer")) for key in _entities_of(table) if key not in columns
            }
        if not columns:
            _refuse(f"tables.{name}: it has no columns")
        tables[name] = table.model_copy(update={"columns": columns})
    return file.model_copy(update={"tables": tables})


def _entities_of(table: _TableFile) -> list[str]:
    on = table.unit_path.on if table.unit_path else []
    return [*on, *(column for key in table.entity_keys for column in key)]


def _keys_of(table: _TableFile) -> list[str]:
    unit = [table.unit] if isinstance(table.unit, str) else list(table.unit or ())
    return [*unit, *table.key, *_entities_of(table)]


def _table(file: _DatasetFile, name: str, files: Mapping[str, bytes]) -> Table:
    text = file.tables[name]
    unit = (text.unit,) if isinstance(text.unit, str) else tuple(text.unit or ())
    _check_protection(file, name, text, unit)
    if any(column.startswith("_unit_") for column in text.columns):
        _refuse(f"tables.{name}: names that start with _unit_ are reserved")
    for column in _keys_of(text):
        if column not in text.columns:
            _refuse(f"tables.{name}: {column} is not one of its columns")
    constant = text.one_row_per_unit
    return Table(
        name=name,
        columns={key: _column(file, name, key, constant or key in unit, files) for key in text.columns},
        public=text.public,
        unit=unit,
        unit_path=UnitPath(through=text.unit_path.through, on=tuple(text.unit_path.on)) if text.unit_path else None,
        entity_keys=tuple(tuple(key) for key in text.entity_keys),
        one_row_per_unit=text.one_row_per_unit,
        bounds=_bounds(text),
        key=tuple(text.key),
        source=text.source,
    )


def _check_protection(file: _DatasetFile, name: str, text: _TableFile, unit: tuple[str, ...]) -> None:
    if sum((text.public, bool(unit), text.unit_path is not None)) != 1:
        _refuse(f"tables.{name}: say exactly one of unit, unit_path and public = true")
    if not text.public and (text.source or text.key):
        _refuse(f"tables.{name}: source and key are for public tables")
    if text.public and (text.entity_keys or text.one_row_per_unit or text.max_groups or text.max_rows_per_group):
        _refuse(f"tables.{name}: a public table has no unit, entity keys or contribution bounds")
    if text.unit_path is None:
        return
    through = file.tables.get(text.unit_path.through)
    if through is None or through.public or set(text.unit_path.on) - through.columns.keys():
        _refuse(f"tables.{name}: unit_path.through must be a protected table that has the columns of unit_path.on")
    if list(text.unit_path.on) not in through.entity_keys:
        _refuse(f"tables.{name}: unit_path.on must be an entity key of {text.unit_path.through}")
    _check_path_ends(file, name)


def _check_path_ends(file: _DatasetFile, name: str) -> None:
    seen, at = {name}, file.tables[name].unit_path
    while at is not None:
        if at.through in seen or at.through not in file.tables:
            _refuse(f"tables.{name}: its unit_path never reaches a table with a unit")
        seen.add(at.through)
        at = file.tables[at.through].unit_path


def _bounds(text: _TableFile) -> ContributionBounds | None:
    if text.one_row_per_unit:
        return ContributionBounds(max_rows_per_group=1, max_groups=1)
    if text.max_rows_per_group is None and text.max_groups is None:
        return None
    return ContributionBounds(max_rows_per_group=text.max_rows_per_group or 1, max_groups=text.max_groups or 1)


def _column(file: _DatasetFile, table: str, name: str, constant: bool, files: Mapping[str, bytes]) -> Column:
    text = file.tables[table].columns[name]
    where = f"tables.{table}.columns.{name}"
    if text.values is not None and text.values_from is not None:
        _refuse(f"{where}: say values or values_from, not both")
    values = text.values if text.values_from is None else _code_list(file, where, text.values_from, files)
    minimum, maximum = _bound(where, text.type, text.min), _bound(where, text.type, text.max)
    if minimum is not None and maximum is not None and minimum > maximum:  # type: ignore[operator]  # same type, checked
        _refuse(f"{where}: min is above max")
    return Column(
        name=name,
        type=text.type,
        nullable=text.nullable,
        values=None if values is None else _domain(where, text.type, values),
        minimum=minimum,
        maximum=maximum,
        constant_per_unit=constant or text.constant_per_unit,
        references=_references(file, where, text.references),
    )


def _bound(where: str, kind: ColumnType, value: object) -> Bound | None:
    if value is None:
        return None
    if kind in ("integer", "decimal") and isinstance(value, (int, float)) and not isinstance(value, bool):
        exact = Fraction(str(value)) if abs(value) < _INTEGER_LIMIT else None
        if exact is None or (kind == "integer" and exact.denominator != 1):
            _refuse(f"{where}: bounds of an {kind} column are finite {kind} numbers below 2^53")
        return exact
    if kind == "date" and type(value) is date:
        return value
    if kind == "timestamp" and isinstance(value, (date, datetime)):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
        if moment.tzinfo is not None:
            _refuse(f"{where}: timestamps carry no time zone")
        return moment
    _refuse(f"{where}: bounds do not fit type {kind}")


_PYTHON_TYPE: Mapping[ColumnType, type] = {"integer": int, "text": str, "date": date, "boolean": bool}


def _domain(where: str, kind: ColumnType, values: Iterable[object]) -> tuple[DomainValue, ...]:
    expected = _PYTHON_TYPE.get(kind)
    found: set[Any] = set()
    for value in values:
        if expected is None or type(value) is not expected:
            _refuse(f"{where}: values of a {kind} column must be of that type")
        found.add(value)
    if not found:
        _refuse(f"{where}: values is empty")
    return tuple(sorted(found))


def _code_list(file: _DatasetFile, where: str, target: str, files: Mapping[str, bytes]) -> list[object]:
    table, _, column = target.partition(".")
    text = file.tables.get(table)
    if text is None or not text.public or text.source is None or column not in text.columns:
        _refuse(f"{where}: values_from must name a column of a public table that has a source")
    cells = _public_columns(text.source, files).get(column)
    if cells is None:
        _refuse(f"{where}: {text.source} has no column {column}")
    integer = text.columns[column].type == "integer"
    try:
        return [int(str(cell)) if integer else cell for cell in cells if cell is not None and cell != ""]
    except ValueError:
        _refuse(f"{where}: {text.source} holds a {column} that is not an integer")


def _source(source: str, files: Mapping[str, bytes]) -> bytes:
    if source not in files:
        _refuse(f"{source} is missing")
    return files[source]


def _public_columns(source: str, files: Mapping[str, bytes]) -> Mapping[str, Cells]:
    data = _source(source, files)
    try:
        return read_public(source, data)
    except ValueError as error:
        _refuse(f"{source}: {error}")


def _check_source(table: Table, files: Mapping[str, bytes]) -> None:
    """A public table's columns stand in its source: whoever reads it finds as many values of each."""
    if table.source is None:
        return
    try:
        present = names_in(table.source, _source(table.source, files))
    except ValueError as error:
        _refuse(f"{table.source}: {error}")
    if missing := [name for name in table.columns if name not in present]:
        _refuse(f"tables.{table.name}: {table.source} has no column {missing[0]}")


def _check_unique(table: Table, files: Mapping[str, bytes]) -> None:
    """A public table's key is unique in its source: a join to it cannot multiply rows."""
    if table.source is None or not table.key:
        return
    columns = _public_columns(table.source, files)
    rows = list(zip(*(columns[name] for name in table.key), strict=True))
    if len(set(rows)) < len(rows):
        _refuse(f"tables.{table.name}: its key {', '.join(table.key)} stands in more than one row of {table.source}")


def _references(file: _DatasetFile, where: str, targets: str | list[str] | None) -> tuple[tuple[str, str], ...]:
    listed = [targets] if isinstance(targets, str) else targets or []
    return tuple(dict.fromkeys(_reference(file, where, target) for target in listed))


def _reference(file: _DatasetFile, where: str, target: str) -> tuple[str, str]:
    table, _, column = target.partition(".")
    other = file.tables.get(table)
    if other is None or other.public or [column] not in other.entity_keys:
        _refuse(f"{where}: references must name table.column of a one-column entity key")
    return table, column
