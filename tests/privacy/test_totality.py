"""No statement fails because of what one person's rows hold: an error that a neighbouring database would not give is a
bit of that person, without noise and at any epsilon (DESIGN.md section 4, No side doors).

Hostile queries single out person 42 and try to make the database fail on her rows alone: by overflow, by casts, by
conditions that are evaluated in another order, by texts that double. Sites store columns as narrow as they may, as
hospitals do, which the other tests' databases do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_privacy.errors import SqlRefused
from insitu_privacy.render import render

from tests.testkit.care import (
    Row,
    World,
    clean_world,
    columns,
    create,
    fill_duckdb,
    fill_postgres,
    plan,
    run_duckdb,
    run_postgres,
    whole,
    without,
)
from tests.testkit.databases import new_database

NARROW = (
    ('"birth_year" INTEGER', '"birth_year" SMALLINT'),
    ('"score" DOUBLE PRECISION', '"score" NUMERIC(18, 4)'),
    ('"stage" INTEGER', '"stage" SMALLINT'),
    ('"amount" BIGINT', '"amount" SMALLINT'),
)
HER = (42,)
DAY = date(2020, 1, 1)


def narrow() -> list[str]:
    statements = []
    for statement in create():
        for old, new in NARROW:
            statement = statement.replace(old, new)
        statements.append(statement)
    return statements


@pytest.fixture(scope="module")
def small_duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "400MB"}) as connection:
        for statement in narrow():
            connection.execute(statement)
        yield connection


@pytest.fixture(scope="module")
def small_pg(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(new_database(postgres_url, *narrow()), autocommit=True) as connection:
        connection.execute("SET statement_timeout = '20s'")
        yield connection


def visit(visit_id: int, person: int, **other: Any) -> Row:
    names = ("kind", "start", "finish", "cost", "weight", "ward", "diagnosis", "noted", "stage", "blood", "previous")
    values = {"kind": "in", "start": DAY, "finish": DAY, "cost": 10.0, "weight": 1.0, "ward": 1, "diagnosis": "x"}
    values |= {"noted": DAY, "stage": 4, "blood": "A", "previous": None} | other
    return (visit_id, person, 0, *(values[name] for name in names))


def world(*hers: Row, others: int = 30) -> World:
    """Some clean persons, and her, born 1980, with three stays unless others are given."""
    base = clean_world(others)
    mine = hers or tuple(visit(9000 + i, 42) for i in range(3))
    return World(
        person=(*base.person[:39], *(p for p in base.person[39:] if p[0] != 42), (42, 0, "F", 1980, "east", True, 1.0)),
        visit=(*(v for v in base.visit if v[1] != 42), *mine),
        act=(*base.act, (9000, 9000, "A00", 500, 0.5, None)),
    )


DOUBLED = ", ".join(f"a{i} AS (SELECT DISTINCT person_id, d || d AS d FROM a{i - 1})" for i in range(1, 27))
SHARP = ", ".join(
    f"a{i} AS (SELECT DISTINCT person_id, REPLACE(UPPER(d), 'SS', 'ßß') AS d FROM a{i - 1})" for i in range(1, 13)
)
ATTACKS = {
    "days in another order": (
        """SELECT COUNT(*) FROM (SELECT person_id, ward FROM visit WHERE ward IN (0, 1, 2, 3, 4, 5, 6, 7)) f
        WHERE DATE '2020-01-01' + ward > DATE '2016-01-01'""",
        (visit(9000, 42, ward=6_000_000_000),),
    ),
    "dates beyond the calendar": (
        """SELECT COUNT(*) FROM visit WHERE start + TO_DAYS(ward) > finish OR start + INTERVAL (ward) MONTH > finish
        OR start + INTERVAL (ward) SECOND > start OR start - INTERVAL (ward) YEAR > finish
        OR MAKE_DATE(ward, ward, ward) > start OR noted + INTERVAL 1 DAY > start OR LAST_DAY(noted) > start
        OR noted - INTERVAL 1 MONTH > start""",
        (
            visit(9000, 42, ward=2**53, noted=date(9999, 12, 31)),
            visit(9001, 42, ward=-(2**53), noted=date(1, 1, 1)),
            visit(9002, 42, ward=5_000_000, noted=date(9999, 12, 31)),
            visit(9003, 42, ward=320_000_000_000, noted=None),
        ),
    ),
    "text that is no number and no date": (
        """SELECT COUNT(*) FROM visit WHERE CAST(diagnosis AS INTEGER) > 5 OR CAST(diagnosis AS DOUBLE) > 5
        OR CAST(diagnosis AS DATE) > start OR CAST(diagnosis AS TIMESTAMP) > start OR diagnosis > start
        OR diagnosis = ward OR STRPTIME(diagnosis, '%Y%m%d') > start OR CAST(diagnosis AS DATE) + ward > start
        OR SPLIT_PART(diagnosis, '-', 3) = 7""",
        tuple(
            visit(9000 + place, 42, diagnosis=text)
            for place, text in enumerate(
                [
                    "",
                    "1e999",
                    "1e-999",
                    "9" * 40,
                    "-",
                    "+",
                    ".",
                    "NaN",
                    "infinity",
                    "2021-02-29",
                    "2020-13-01",
                    "20211331",
                    "0000-01-01",
                    "2020-01-01 24:00",
                    "2020-01-01 10:00:60",
                    "now",
                    "epoch",
                    "12\n",
                    " 5",
                    "0x10",
                    "1_0",
                    "2020-01-01 BC",
                    "１２",
                    "10000-01-01",
                    "2020-01-01+25",
                ]
            )
        ),
    ),
    "decimals outside the domain": (
        """SELECT COUNT(*) FROM visit WHERE SQRT(weight) > 1 OR LN(weight) > 1 OR LOG10(weight) > 1 OR EXP(weight) > 1
        OR POWER(weight, 6) > 1 OR SIN(weight) > 1 OR COS(weight) > 1 OR ASIN(weight) > 1 OR ACOS(weight) > 1
        OR ATAN(weight) > 1 OR TRUNC(weight) > 1 OR EXP(EXP(EXP(weight))) > 1 OR LN(EXP(SIN(weight))) > 2""",
        tuple(
            visit(9000 + place, 42, weight=number)
            for place, number in enumerate(
                [0.0, -0.0, -1.0, 1e300, -1e300, 5e-324, -5e-324, 1e-160, 709.9, -746.0, 1e10]
            )
        ),
    ),
    "texts that grow": (
        """SELECT COUNT(*) FROM visit WHERE LENGTH(REPLACE(REPLACE(REPLACE(REPLACE(diagnosis, 'x', 'xxxxxxxxxxxxxxxxxxxx'),
        'x', 'xxxxxxxxxxxxxxxxxxxx'), 'x', 'xxxxxxxxxxxxxxxxxxxx'), 'x', 'xxxxxxxxxxxxxxxxxxxx')) > 5
        OR LENGTH(LPAD(RPAD(diagnosis, 1000, 'ab'), 1000, 'c')) > 5""",
        (visit(9000, 42, diagnosis="x" * 50_000),),
    ),
    "narrow integers across levels": (
        """SELECT COUNT(*) FROM (SELECT person_id, sex, birth_year AS b FROM person WHERE birth_year > 1900) f
        WHERE CASE WHEN person_id = 42 AND sex = 'F' THEN b * b * b > 0 ELSE TRUE END""",
        (),
    ),
    "narrow integers seen from outside": (
        """SELECT COUNT(*) FROM visit v WHERE EXISTS (SELECT 1 FROM person p WHERE p.person_id = v.person_id AND
        p.birth_year > 1900 AND CASE WHEN v.visit_id = 9001 THEN p.birth_year * p.birth_year * p.birth_year ELSE 1 END
        > v.stage)""",
        (),
    ),
    "narrow integers in an average": (
        "SELECT AVG(b * b) FROM (SELECT birth_year AS b FROM person WHERE birth_year >= 1950) f",
        (),
    ),
    "a number that stays an integer": (
        """SELECT COUNT(*) FROM act WHERE CASE WHEN visit_id = 9000 AND amount > 100
        THEN NULLIF(amount, 0.5) * 9000000000000000 * 1000 > 1 ELSE TRUE END""",
        (),
    ),
    "sums over windows": (
        """SELECT COUNT(*) FROM (SELECT person_id, SUM(stage * 1000000000000000 * 1000) OVER (PARTITION BY person_id)
        AS w FROM visit WHERE person_id = 42) f WHERE w > 0""",
        (),
    ),
    "sums over windows, multiplied": (
        """SELECT COUNT(*) FROM (SELECT person_id, SUM(stage * 1000000000000000 * 1000) OVER (PARTITION BY person_id)
        AS w FROM visit WHERE person_id = 42) f WHERE w * 100 > 0""",
        (visit(9000, 42, stage=1),),
    ),
    "texts that double": (
        f"""WITH a0 AS (SELECT person_id, CASE WHEN person_id = 42 AND diagnosis = 'x' THEN 'xxxxxxxxxxxxxxxx' ELSE ''
        END AS d FROM visit), {DOUBLED} SELECT COUNT(d) FROM a26""",
        (),
    ),
    "quotients of large by large": (
        """SELECT COUNT(*) FROM visit
        WHERE LEAST(GREATEST(9000000000000000 * 10000000000000.0 / weight, -1), 1) / weight > 0""",
        (visit(9000, 42, weight=1e178),),
    ),
    "numbers next to zero": (
        "SELECT SUM(LEAST(GREATEST(weight, -1000000000000000), 1000000000000000)) FROM visit",
        (visit(9000, 42, weight=1e-322),),
    ),
    "numbers next to zero, summed per person": (
        """SELECT SUM(s) FROM (SELECT person_id, SUM(LEAST(GREATEST(weight, -1000000000000000), 1000000000000000)) AS s
        FROM visit GROUP BY person_id) f""",
        (visit(9000, 42, weight=1e-322),),
    ),
    "functions of window counts": (
        """SELECT SUM(s), SUM(a) FROM (SELECT person_id, SUM(EXP(w)) AS s, AVG(POWER(w, 6)) AS a FROM (SELECT person_id,
        COUNT(*) OVER (PARTITION BY person_id) AS w FROM visit) a GROUP BY person_id) b""",
        tuple(visit(9000 + i, 42) for i in range(60)),
    ),
    "the greatest of window counts": (
        """SELECT COUNT(*) FROM (SELECT person_id, MAX(w) AS m, AVG(EXP(w)) AS e FROM (SELECT person_id, COUNT(*) OVER
        (PARTITION BY person_id) AS w FROM visit) a GROUP BY person_id) b WHERE m * 100 > 5 AND CAST(e AS INTEGER) > 3""",
        tuple(visit(9000 + i, 42) for i in range(60)),
    ),
    "letters that become two": (
        f"""WITH a0 AS (SELECT person_id, diagnosis AS d FROM visit), {SHARP} SELECT COUNT(d) FROM a12""",
        (visit(9000, 42, diagnosis="ß"),),
    ),
    "weeks beyond the calendar": ("SELECT COUNT(*) FROM visit WHERE start + INTERVAL '999999999' WEEK > finish", ()),
    "no absolute value": (
        "SELECT COUNT(*) FROM (SELECT person_id AS p, kind FROM visit) f WHERE ABS(p) > 5 OR -p > 3",
        (visit(9000, -(2**63)),),
    ),
    "no quotient by minus one": (
        "SELECT COUNT(*) FROM (SELECT person_id AS p, stage FROM visit) f WHERE p // (stage - 5) > 5 OR p % (stage - 5) = 1",
        (visit(9000, -(2**63)),),
    ),
}


REFUSED = {
    "conditions in another order, multiplied": """SELECT COUNT(*) FROM (SELECT person_id, ward FROM visit WHERE ward IN (0, 1, 2, 3, 4, 5, 6, 7)) f
        WHERE ward * 1000000000000 * 100000 > 5""",
    "whole quotients": """SELECT SUM(LEAST(1, ((4000000000000000 * 1000 - (LEAST(GREATEST(COALESCE(ward, 0), 990000), 999999)
        // 1000000) * (4000000000000000 * 1000)) * 100) % 7)) FROM visit WHERE person_id = 42 AND diagnosis = 'x'""",
}


def statements(name: str, dialect: str) -> list[str]:
    made = plan(ATTACKS[name][0]).releases
    return [render(one, dialect=dialect, tables=tables, cap_key="k") for one in made for tables in (whole(), without())]


@pytest.mark.attacks("P1")
@pytest.mark.parametrize("name", ATTACKS)
def test_no_statement_fails_on_one_persons_rows(
    small_duck: duckdb.DuckDBPyConnection, small_pg: psycopg.Connection[Any], name: str
) -> None:
    hers = ATTACKS[name][1]
    there, unit = world(*hers), (hers[0][1],) if hers else HER
    fill_duckdb(small_duck, there, unit)
    fill_postgres(small_pg, there, unit)
    engines: dict[str, Callable[[str], list[Row]]] = {
        "duckdb": lambda text: run_duckdb(small_duck, text),
        "postgres": lambda text: run_postgres(small_pg, text),
    }
    answers = [[run(text) for text in statements(name, dialect)] for dialect, run in engines.items()]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_an_inner_condition_bounds_is_not_bounded(name: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(REFUSED[name])
    assert refused.value.code == "INSITU-SQL-UNBOUNDED"


def test_how_a_database_reads_dates_by_default_changes_no_cast(small_pg: psycopg.Connection[Any]) -> None:
    fill_postgres(small_pg, world(visit(9000, 42, diagnosis="0002-3-4"), visit(9001, 42, diagnosis="2020-02-13")), HER)
    (release,) = plan("SELECT DAY(CAST(diagnosis AS DATE)) AS day, COUNT(*) FROM visit GROUP BY 1").releases
    text = render(release, dialect="postgres", tables=whole(), cap_key="k")
    found = []
    for style in ("ISO, MDY", "SQL, DMY", "German, YMD"):
        small_pg.execute(f"SET DateStyle = '{style}'".encode())
        found.append(sorted(run_postgres(small_pg, text), key=repr))
    small_pg.execute("RESET DateStyle")
    assert found[0] == found[1] == found[2]
    assert {4, 13} <= {row[0] for row in found[0]}


def test_a_database_that_computes_conditions_in_another_order_is_one(small_pg: psycopg.Connection[Any]) -> None:
    """What the attack on the order rests on: PostgreSQL takes the cheaper condition first, across derived tables."""
    fill_postgres(small_pg, world(visit(9000, 42, ward=6_000_000_000)), HER)
    inner = "SELECT ward FROM visit WHERE ward IN (0, 1, 2, 3, 4, 5, 6, 7)"
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        small_pg.execute(
            f"SELECT COUNT(*) FROM ({inner}) AS f WHERE DATE '2020-01-01' + CAST(ward AS INTEGER) > '2016-1-1'".encode()
        )


def test_text_that_only_looks_equal_is_not_one_group(
    small_duck: duckdb.DuckDBPyConnection, small_pg: psycopg.Connection[Any]
) -> None:
    """Under a collation without case one row's spelling would name the group of all, in the domain or out of it."""
    there = world(visit(9000, 42, kind="IN", diagnosis="HIV"))
    fill_duckdb(small_duck, there, HER)
    tables = {
        **whole(),
        "visit": "SELECT * REPLACE (kind COLLATE NOCASE AS kind, diagnosis COLLATE NOCASE AS diagnosis) FROM visit ORDER BY visit_id DESC",
    }
    for sql in (
        "SELECT kind, COUNT(*) FROM visit GROUP BY kind",
        "SELECT diagnosis, COUNT(*) FROM visit GROUP BY diagnosis",
    ):
        (release,) = plan(sql).releases
        strict = run_duckdb(small_duck, render(release, dialect="duckdb", tables=whole(), cap_key="k"))
        loose = run_duckdb(small_duck, render(release, dialect="duckdb", tables=tables, cap_key="k"))
        assert sorted(strict, key=repr) == sorted(loose, key=repr)


def test_derived_tables_that_multiply_their_text_are_refused() -> None:
    """A database flattens them, and its planner would take minutes and gigabytes."""
    levels = ", ".join(f"a{i} AS (SELECT person_id, d || d AS d FROM a{i - 1})" for i in range(1, 27))
    with pytest.raises(SqlRefused) as refused:
        plan(f"WITH a0 AS (SELECT person_id, diagnosis AS d FROM visit), {levels} SELECT COUNT(d) FROM a26")
    assert refused.value.code == "INSITU-SQL-TOO-LONG"


def test_a_number_that_is_no_double_is_no_value(small_pg: psycopg.Connection[Any]) -> None:
    """A NUMERIC column holds more than doubles do: what is beyond them reads as NULL, or as zero, in any query."""
    fill_postgres(small_pg, world(), HER)
    for value in ("1e-400", "1e1000", "-1e1000", "NaN", "Infinity", "1e200"):
        hers = f"CASE WHEN person_id = 42 THEN '{value}'::NUMERIC ELSE 1.5 END"
        shown = ", ".join(f'{hers} AS "weight"' if name == "weight" else f'"{name}"' for name in columns("visit"))
        tables = {**whole(), "visit": f"SELECT {shown} FROM visit"}
        for sql in (
            "SELECT SUM(LEAST(GREATEST(weight, 0), 100)) FROM visit",
            "SELECT COUNT(*) FROM visit WHERE weight > 2",
        ):
            (release,) = plan(sql).releases
            assert run_postgres(small_pg, render(release, dialect="postgres", tables=tables, cap_key="k"))


def test_sums_of_decimals_do_not_depend_on_the_order_of_rows(
    small_duck: duckdb.DuckDBPyConnection, small_pg: psycopg.Connection[Any]
) -> None:
    sql = """SELECT COUNT(*) FROM (SELECT person_id, AVG(CASE stage WHEN 1 THEN 100000000.0 WHEN 2 THEN -100000000.0
        WHEN 3 THEN 0.000000001 END) AS s FROM visit GROUP BY person_id) f WHERE s > 0"""
    (release,) = plan(sql).releases
    answers = []
    for order in ((1, 2, 3), (1, 3, 2), (3, 2, 1)):
        rows = [
            visit(100 * person + place, person, stage=s) for person in range(1, 31) for place, s in enumerate(order)
        ]
        fill_duckdb(small_duck, World(person=(), visit=tuple(rows), act=()))
        fill_postgres(small_pg, World(person=(), visit=tuple(rows), act=()))
        answers.append(run_duckdb(small_duck, render(release, dialect="duckdb", tables=whole(), cap_key="k")))
        answers.append(run_postgres(small_pg, render(release, dialect="postgres", tables=whole(), cap_key="k")))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("text", ["LPAD(diagnosis, 5, '\0') = 'x'", "REPLACE(diagnosis, 'x\0', 'xx') = 'x'"])
def test_text_that_no_database_keeps_is_refused(text: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        plan(f"SELECT COUNT(*) FROM visit WHERE {text}")
    assert refused.value.code == "INSITU-SQL-SYNTAX"


def test_rows_are_not_multiplied_by_public_tables_without_end() -> None:
    """One row of one person would take all the time that a node gives, and its absence none."""
    joins = " ".join(f"JOIN icd i{n} ON i{n}.severity >= 0" for n in range(6))
    with pytest.raises(SqlRefused) as refused:
        plan(f"SELECT COUNT(*) FROM visit v {joins} WHERE v.person_id = 42")
    assert refused.value.code == "INSITU-SQL-FORBIDDEN-CONSTRUCT"
    levels = ", ".join(f"a{n} AS (SELECT person_id FROM a{n - 1} a JOIN icd i ON i.severity > 0)" for n in range(1, 6))
    with pytest.raises(SqlRefused):
        plan(f"WITH a0 AS (SELECT person_id FROM visit), {levels} SELECT COUNT(*) FROM a5")
    assert plan("SELECT i.chapter, COUNT(*) FROM act a JOIN icd i ON i.severity > a.amount GROUP BY i.chapter").releases
