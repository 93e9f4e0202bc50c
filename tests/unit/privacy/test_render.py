"""The statement that a node runs: one, of bounded size, over the site's own tables whatever they are called."""

from __future__ import annotations

import duckdb
import pytest
from insitu_privacy.errors import SqlRefused
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.render import render
from sqlglot import exp, parse

from tests.privacy.queries import PAIRS, QUERIES
from tests.testkit.care import care_pairs, clean_world, create, fill_duckdb, plan, whole

COUNT = "SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind"


def text(made: PrivacyPlan, dialect: str = "duckdb", cap_key: str = "k", **tables: str) -> str:
    (release,) = made.releases
    return render(release, dialect=dialect, tables={**whole(), **tables}, cap_key=cap_key)


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize("name", [*QUERIES, *(f"{name} (pairs)" for name in PAIRS)])
def test_it_is_one_select_of_moderate_size_that_never_changes(name: str, dialect: str) -> None:
    sql, dataset = (PAIRS[name.removesuffix(" (pairs)")], care_pairs()) if name.endswith(")") else (QUERIES[name], None)
    made = plan(sql, dataset=dataset)
    found = text(made, dialect)
    assert found == text(made, dialect)
    (statement,) = parse(found, read=dialect)
    assert isinstance(statement, exp.Select)
    assert not list(statement.find_all(exp.Command, exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Drop, exp.Into))
    assert len(found) < 8_000


@pytest.mark.parametrize(
    "mapped",
    [
        "visit", "main.visit", '"visit"', "selected_visits", "values_2020", "with_history", "fromage", "SELECT * FROM visit", "select * from visit;",
        "  SELECT * FROM visit WHERE TRUE ;  ", "WITH x AS (SELECT * FROM visit) SELECT * FROM x", "FROM visit", "(SELECT * FROM visit)",
        "insitu_rows", "unit_rows", "capped", "owner", "src",
    ],
)  # fmt: skip
def test_the_site_maps_a_table_to_a_name_or_a_select_of_its_own(mapped: str) -> None:
    with duckdb.connect(":memory:") as connection:
        for statement in create():
            connection.execute(statement)
        fill_duckdb(connection, clean_world(30))
        if mapped.replace("_", "").isalnum() and mapped != "visit" and not mapped.startswith("insitu_"):
            connection.execute(f"CREATE VIEW {mapped} AS SELECT * FROM visit")
        name = "visit" if mapped.startswith("insitu_") else mapped
        expected = connection.execute(text(plan(COUNT))).fetchall()
        assert sorted(connection.execute(text(plan(COUNT), visit=name)).fetchall()) == sorted(expected)
        assert len(expected) == 3


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_the_cap_key_is_quoted(dialect: str) -> None:
    (statement,) = parse(text(plan(COUNT), dialect, cap_key="a'b; DROP TABLE visit; --"), read=dialect)
    assert isinstance(statement, exp.Select)


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize(
    "operation",
    ["({} * 1)", "({} * 1.5 - 1)", "({} / 2)", "ROUND({})", "ROUND({}, 1)", "ABS({})", "LEAST({}, 9)", "CASE WHEN {} > 1 THEN 1 ELSE 2 END",
     "COALESCE({}, 1)", "NULLIF({}, 1)", "({} - 1)", "(- {})", "FLOOR({})"],
)  # fmt: skip
def test_nested_operations_do_not_multiply_its_text(operation: str, dialect: str) -> None:
    """Operations that repeat their operands double the text at each level: fourteen levels made a gigabyte."""
    value = "cost"
    for _ in range(14):
        value = operation.replace("{}", value)
        try:
            made = plan(f"SELECT SUM({value}) AS s FROM visit")
        except SqlRefused as refused:
            refusal = refused
            break
        assert len(text(made, dialect)) < 4_000_000
    else:
        return
    assert refusal.code in ("INSITU-SQL-UNBOUNDED", "INSITU-SQL-TOO-LONG")
