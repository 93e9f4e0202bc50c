"""A small dataset for tests of planning and of what is pushed down: persons, their visits, the acts of a visit.

``care`` declares each thing the format knows: domains, bounds, nullable and constant columns, an entity key, a table
that reaches its unit over a path, a public code list. ``care_pairs`` is the same with a unit of two columns, as SNDS
has. ``plan`` plans a query over either. ``World`` holds rows, clean or as dirty as hospitals keep them, and
says which of them go when one person is taken away.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any

import duckdb
import psycopg
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.fits import ReleaseFit
from insitu_privacy.plan import MechanismChoice, PrivacyPlan, QueryParameters, Scope
from insitu_privacy.planner import plan_query

TOML = """
[dataset]
name = "care"
version = 1
title = "Persons, visits and acts"
min_units = 0

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id  = { type = "integer" }
sex        = { type = "text", values = ["F", "M"] }
birth_year = { type = "integer", min = 1900, max = 2030 }
region     = { type = "text", values = ["east", "north", "south"], nullable = true }
active     = { type = "boolean", nullable = true }
score      = { type = "decimal", min = 0, max = 10, nullable = true }

[tables.visit]
unit = "person_id"
entity_keys = [["visit_id"]]
max_rows_per_group = 3
max_groups = 2
[tables.visit.columns]
visit_id  = { type = "integer" }
person_id = { type = "integer" }
kind      = { type = "text", values = ["er", "in", "out"] }
start     = { type = "date", min = 2015-01-01, max = 2024-12-31 }
finish    = { type = "date", min = 2015-01-01, max = 2024-12-31, nullable = true }
cost      = { type = "decimal", min = 0, max = 1000, nullable = true }
weight    = { type = "decimal", nullable = true }
ward      = { type = "integer", nullable = true }
diagnosis = { type = "text", nullable = true }
noted     = { type = "date", nullable = true }
stage     = { type = "integer", min = 0, max = 4, nullable = true }
blood     = { type = "text", values = ["A", "B", "O"], nullable = true, constant_per_unit = true }
previous  = { type = "integer", nullable = true, references = "visit.visit_id" }

[tables.act]
unit_path = { through = "visit", on = ["visit_id"] }
entity_keys = [["act_id"]]
max_rows_per_group = 3
max_groups = 2
[tables.act.columns]
act_id   = { type = "integer" }
visit_id = { type = "integer" }
code     = { type = "text", values_from = "icd.code", nullable = true }
amount   = { type = "integer", min = -50, max = 500, nullable = true }
points   = { type = "decimal", min = -1, max = 1, nullable = true }
at       = { type = "timestamp", min = 2015-01-01, max = 2025-01-01, nullable = true }

[tables.line]
unit_path = { through = "act", on = ["act_id"] }
max_rows_per_group = 3
max_groups = 2
[tables.line.columns]
act_id = { type = "integer" }
item   = { type = "text", nullable = true }
price  = { type = "decimal", min = 0, max = 100, nullable = true }

[tables.icd]
public = true
key = ["code"]
source = "icd.csv"
[tables.icd.columns]
code     = { type = "text" }
chapter  = { type = "text", values_from = "icd.chapter" }
severity = { type = "integer", min = 0, max = 9 }
"""

ICD = (("A00", "infection", 3), ("B99", "infection", 1), ("I10", "heart", 2), ("I21", "heart", 9), ("J45", "lung", 4))
_FILES = {
    "icd.csv": "".join(f"{','.join(map(str, row))}\n" for row in (("code", "chapter", "severity"), *ICD)).encode()
}

PUBLIC = frozenset({"icd"})
_TYPES: Mapping[str, Mapping[str, str]] = {
    "person": {
        "person_id": "BIGINT",
        "rang": "INTEGER",
        "sex": "VARCHAR",
        "birth_year": "INTEGER",
        "region": "VARCHAR",
        "active": "BOOLEAN",
        "score": "DOUBLE PRECISION",
    },
    "visit": {
        "visit_id": "BIGINT",
        "person_id": "BIGINT",
        "rang": "INTEGER",
        "kind": "VARCHAR",
        "start": "DATE",
        "finish": "DATE",
        "cost": "DOUBLE PRECISION",
        "weight": "DOUBLE PRECISION",
        "ward": "BIGINT",
        "diagnosis": "VARCHAR",
        "noted": "DATE",
        "stage": "INTEGER",
        "blood": "VARCHAR",
        "previous": "BIGINT",
    },
    "act": {
        "act_id": "BIGINT",
        "visit_id": "BIGINT",
        "code": "VARCHAR",
        "amount": "BIGINT",
        "points": "DOUBLE PRECISION",
        "at": "TIMESTAMP",
    },
    "line": {"act_id": "BIGINT", "item": "VARCHAR", "price": "DOUBLE PRECISION"},
    "icd": {"code": "VARCHAR", "chapter": "VARCHAR", "severity": "INTEGER"},
}


def bundle(toml: str = TOML, **replaced: str) -> DatasetBundle:
    """The dataset's bytes; ``replaced`` maps a piece of its text, by name, to another (see ``changed``)."""
    return DatasetBundle(toml=toml.encode(), files=_FILES)


def changed(*edits: tuple[str, str], toml: str = TOML) -> DatasetBundle:
    """The bundle after edits of its text, each of which must find its place."""
    for old, new in edits:
        if old not in toml:
            raise ValueError(f"no {old!r} in the dataset's text")
        toml = toml.replace(old, new)
    return bundle(toml)


@cache
def care(*, min_units: int = 0) -> Dataset:
    """The dataset with one unit column."""
    return parse_dataset(changed(("min_units = 0", f"min_units = {min_units}")))


@cache
def care_pairs() -> Dataset:
    """The dataset with a unit of two columns, as SNDS has."""
    return parse_dataset(
        changed(
            ('unit = "person_id"', 'unit = ["person_id", "rang"]'),
            ('person_id  = { type = "integer" }', 'person_id  = { type = "integer" }\nrang = { type = "integer" }'),
            (
                'person_id = { type = "integer" }\nkind',
                'person_id = { type = "integer" }\nrang = { type = "integer" }\nkind',
            ),
        )
    )


@cache
def care_twins() -> Dataset:
    """``care_pairs`` where half of the unit is declared to be one person's but for twins, as SNDS's pseudonym is."""
    return parse_dataset(
        changed(
            ('unit = "person_id"', 'unit = ["person_id", "rang"]'),
            ("[tables.person]\n", '[tables.person]\nentity_keys = [["person_id"]]\n'),
            ('person_id  = { type = "integer" }', 'person_id  = { type = "integer" }\nrang = { type = "integer" }'),
            (
                'person_id = { type = "integer" }\nkind',
                'person_id = { type = "integer", references = "person.person_id" }\nrang = { type = "integer" }\nkind',
            ),
        )
    )


def parameters(
    *,
    epsilon: str = "1",
    delta: str = "1e-6",
    mechanism: MechanismChoice = "auto",
    max_rows_per_group: int | None = None,
    max_groups: int | None = None,
    fits: tuple[ReleaseFit, ...] = (),
) -> QueryParameters:
    """Parameters of a request, exact numbers as text."""
    return QueryParameters(
        epsilon=Fraction(epsilon),
        delta=Fraction(delta),
        mechanism=mechanism,
        max_rows_per_group=max_rows_per_group,
        max_groups=max_groups,
        fits=fits,
    )


def plan(
    sql: str,
    *,
    dialect: str = "duckdb",
    dataset: Dataset | None = None,
    scope: Scope | None = None,
    today: date | None = None,
    **asked: Any,
) -> PrivacyPlan:
    """The plan of a query over ``care``; ``asked`` as in ``parameters``."""
    return plan_query(
        sql,
        dialect=dialect,
        dataset=dataset if dataset is not None else care(),
        parameters=parameters(**asked),
        scope=scope if scope is not None else Scope(accounting="zcdp"),
        today=today,
    )


# -- rows ------------------------------------------------------------------------------------------------------------

Row = tuple[Any, ...]
Unit = tuple[Any, ...]
"""(person_id,) in ``care``, (person_id, rang) in ``care_pairs``."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The rows of one site, columns in the order of ``columns``."""

    person: tuple[Row, ...]
    visit: tuple[Row, ...]
    act: tuple[Row, ...]
    line: tuple[Row, ...] = ()

    def units(self, width: int = 1) -> list[Unit]:
        """Everyone who has a row of their own, by ``width`` unit columns."""
        found = {row[:width] for row in self.person} | {row[1 : 1 + width] for row in self.visit}
        return sorted(unit for unit in found if None not in unit)

    def owners(self, visit_id: Any, width: int) -> set[Unit]:
        """Who a visit belongs to: several where its key was given twice."""
        found = {row[1 : 1 + width] for row in self.visit if row[0] == visit_id and visit_id is not None}
        return {unit for unit in found if None not in unit}

    def owners_of_act(self, act_id: Any, width: int) -> set[Unit]:
        """Who an act belongs to, through its visits."""
        visits = {row[1] for row in self.act if row[0] == act_id and act_id is not None}
        return {unit for visit_id in visits for unit in self.owners(visit_id, width)}

    def marked(self, table: str, unit: Unit) -> list[Row]:
        """The rows of a table, and of each whether it is there because of this person alone."""
        width = len(unit)
        if table == "person":
            return [(*row, row[:width] == unit) for row in self.person]
        if table == "visit":
            return [(*row, row[1 : 1 + width] == unit) for row in self.visit]
        if table == "act":
            gone = {row[1] for row in self.act if self.owners(row[1], width) == {unit}}
            return [(*row, row[1] in gone) for row in self.act]
        if table == "line":
            gone = {row[0] for row in self.line if self.owners_of_act(row[0], width) == {unit}}
            return [(*row, row[0] in gone) for row in self.line]
        return [(*row, False) for row in ICD]


def columns(table: str) -> tuple[str, ...]:
    """The columns of a table as the site stores them."""
    return tuple(_TYPES[table])


def create(*, prefix: str = "CREATE TABLE") -> tuple[str, ...]:
    """The site's tables, empty. ``gone`` marks what goes when one person is taken away."""
    return tuple(
        f"{prefix} {table} ({', '.join(f'{q(name)} {kind}' for name, kind in kinds.items())}, gone BOOLEAN)"
        for table, kinds in _TYPES.items()
    )


def q(name: str) -> str:
    """A quoted identifier."""
    return f'"{name}"'


def whole() -> dict[str, str]:
    """The site's mapping: every row."""
    return {table: table for table in _TYPES}


def without() -> dict[str, str]:
    """The neighbouring database: the same tables without the rows marked ``gone``."""
    return {table: f"SELECT * FROM {table} WHERE NOT gone" for table in _TYPES}


def fill_duckdb(connection: duckdb.DuckDBPyConnection, world: World, unit: Unit = ()) -> None:
    """Makes the site's tables hold exactly this world."""
    for table in _TYPES:
        connection.execute(f"DELETE FROM {table}")
        rows = world.marked(table, unit)
        if rows:
            values = ", ".join(f"({', '.join(_constant(value) for value in row)})" for row in rows)
            connection.execute(f"INSERT INTO {table} VALUES {values}")


def fill_postgres(connection: psycopg.Connection[Any], world: World, unit: Unit = ()) -> None:
    """Makes the site's tables hold exactly this world."""
    with connection.cursor() as cursor:
        cursor.execute(("TRUNCATE " + ", ".join(_TYPES)).encode())
        for table in _TYPES:
            with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in world.marked(table, unit):
                    copy.write_row([_endless(value) for value in row])


def _endless(value: Any) -> Any:
    return "infinity" if value == date.max or value == datetime.max else value


def _constant(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE)"
    if value == date.max or value == datetime.max:
        return "'infinity'"
    if isinstance(value, (str, date, datetime)):
        return "'" + str(value).replace("'", "''") + "'"
    return str(value)


def clean_world(persons: int = 40, *, seed: int = 7, visits: int = 3, acts: int = 2) -> World:
    """A world in which everything is as declared, some persons with more rows than others."""
    draw = random.Random(seed)
    person = tuple(
        (
            p,
            p % 2,
            draw.choice("FM"),
            draw.randint(1900, 2030),
            draw.choice([None, "east", "north", "south"]),
            draw.choice([None, True, False]),
            draw.choice([None, round(draw.uniform(0, 10), 3)]),
        )
        for p in range(1, persons + 1)
    )
    visit, act, line = list[Row](), list[Row](), list[Row]()
    for p in range(1, persons + 1):
        blood = draw.choice([None, "A", "B", "O"])
        first = len(visit) + 1
        for _ in range(draw.randint(0, visits)):
            earlier = list(range(first, len(visit) + 1))
            visit.append(_visit(draw, len(visit) + 1, p, blood, earlier))
            act += [_act(draw, len(act) + i + 1, len(visit)) for i in range(draw.randint(0, acts))]
    for row in act:
        line += [
            (row[0], draw.choice(["bed", "drug", None]), draw.choice([None, 12.5])) for _ in range(draw.randint(0, 2))
        ]
    return World(person=person, visit=tuple(visit), act=tuple(act), line=tuple(line))


def _visit(draw: random.Random, visit_id: int, p: int, blood: str | None, earlier: list[int]) -> Row:
    start = date(2015, 1, 1) + timedelta(days=draw.randint(0, 3600))
    finish = min(start + timedelta(days=draw.randint(0, 40)), date(2024, 12, 31))
    return (
        visit_id,
        p,
        p % 2,
        draw.choice(["er", "in", "out"]),
        start,
        draw.choice([finish, finish, None]),
        draw.choice([None, 0.0, 1000.0, round(draw.uniform(0, 1000), 2)]),
        draw.choice([None, round(draw.uniform(-300, 300), 1)]),
        draw.choice([None, 1, 2, 3]),
        draw.choice([None, "x", "y", "ü"]),
        draw.choice([None, start]),
        draw.choice([None, 0, 1, 2, 3, 4]),
        blood,
        draw.choice([None, *earlier]),
    )


def _act(draw: random.Random, act_id: int, visit_id: int) -> Row:
    return (
        act_id,
        visit_id,
        draw.choice([None, *(row[0] for row in ICD)]),
        draw.choice([None, -50, 0, 500, draw.randint(-50, 500)]),
        draw.choice([None, round(draw.uniform(-1, 1), 3)]),
        datetime(2015, 1, 1) + timedelta(minutes=draw.randint(0, 5_000_000)),
    )


def run_duckdb(connection: duckdb.DuckDBPyConnection, statement: str) -> list[Row]:
    """The rows of a statement."""
    return connection.execute(statement).fetchall()


def run_postgres(connection: psycopg.Connection[Any], statement: str) -> list[Row]:
    """The rows of a statement."""
    return connection.execute(statement.encode()).fetchall()


def cells(rows: Iterable[Row], keys: int) -> dict[Row, tuple[int, ...]]:
    """Statistics by group key, integers whatever type the driver gave them."""
    return {tuple(row[:keys]): tuple(int(value) for value in row[keys:]) for row in rows}
