"""Pass 1: limits that hold before anything is parsed, dialects, and where a syntax error lies."""

from __future__ import annotations

import logging
import time

import pytest
from insitu_privacy.errors import Span, SqlRefused, underline
from insitu_privacy.passes.parse import SQL_BYTES, SQL_DEPTH, parse

from tests.testkit.care import plan


def refused(sql: str, dialect: str = "duckdb") -> SqlRefused:
    with pytest.raises(SqlRefused) as found:
        plan(sql, dialect=dialect)
    return found.value


def test_a_text_at_the_limit_is_read_and_one_byte_more_is_not() -> None:
    base = "SELECT COUNT(*) FROM person -- "
    assert parse(base + "x" * (SQL_BYTES - len(base)), "duckdb")
    assert refused(base + "x" * (SQL_BYTES - len(base) + 1)).code == "INSITU-SQL-TOO-LONG"
    assert refused(base + "é" * (SQL_BYTES // 2)).code == "INSITU-SQL-TOO-LONG"


def test_nesting_at_the_limit_is_read_and_one_level_more_is_not() -> None:
    def nested(depth: int) -> str:
        return f"SELECT COUNT(*) FROM person WHERE {'(' * depth}birth_year = 2000{')' * depth}"

    assert parse(nested(SQL_DEPTH), "duckdb")
    error = refused(nested(SQL_DEPTH + 1))
    assert error.code == "INSITU-SQL-TOO-DEEP"
    assert error.span is not None


def outcome(sql: str) -> SqlRefused | None:
    """The refusal, or None where there is a plan. Any other error is a crash."""
    try:
        plan(sql)
    except SqlRefused as error:
        return error
    return None


_DEEP = {
    "signs": "birth_year = " + "- " * 5000 + "1",
    "negations": "NOT " * 5000 + "active",
    "sums": "birth_year = " + " + ".join(["1"] * 5000),
    "casts": "birth_year" + "::INT" * 5000 + " = 1",
    "conjunctions": " AND ".join(["active"] * 20000),
    "disjunctions": " OR ".join(["active"] * 20000),
    "concatenations": " || ".join(["sex"] * 5000) + " = 'a'",
    "cases": "CASE WHEN " * 1000 + "TRUE" + " THEN TRUE END" * 1000,
    "closed before opened": "END " * 1000 + "(" * 1000,
    "tests": "sex" + " IS NULL" * 5000,
    "betweens": "1 BETWEEN 0 AND " * 5000 + "1",
    "brackets": "sex" + "[1]" * 5000 + " = 1",
    "dots": "sex" + ".a" * 5000 + " = 1",
    "functions": "x -> " * 5000 + "1",
    "intervals": "INTERVAL " * 5000 + "1",
    "list": "birth_year IN (" + ", ".join(map(str, range(40000))) + ")",
    "exponent": "birth_year < 1e999999999",
    "subqueries": "EXISTS (SELECT 1 WHERE " * 180 + "TRUE" + ")" * 180,
}


@pytest.mark.parametrize("name", _DEEP)
def test_no_text_of_a_stranger_takes_long_or_breaks_the_planner(name: str) -> None:
    sql = f"SELECT COUNT(*) FROM person WHERE {_DEEP[name]}"
    if len(sql) > SQL_BYTES:
        sql = sql[: SQL_BYTES - 1]
    start = time.process_time()
    found = outcome(sql)
    assert time.process_time() - start < 5.0
    assert found is None or (found.code.startswith("INSITU-SQL-") and len(found.line()) < 1000)


@pytest.mark.parametrize(
    ("sql", "count"),
    [("", 0), (";", 0), ("-- nothing", 0), ("SELECT 1; SELECT 2", 2), ("SELECT 1; DROP TABLE person", 2)],
)
def test_exactly_one_statement_is_taken(sql: str, count: int) -> None:
    error = refused(sql)
    assert error.code == "INSITU-SQL-NOT-ONE"
    assert str(count) in error.text


@pytest.mark.parametrize(
    "sql", ["SELECT COUNT(*) FROM person;", "(SELECT COUNT(*) FROM person)", "/* x */ SELECT COUNT(*) FROM person -- y"]
)
def test_what_surrounds_one_statement_does_not_matter(sql: str) -> None:
    assert plan(sql).digest == plan("SELECT COUNT(*) FROM person").digest


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM person", "UPDATE person SET sex = 'F'", "INSERT INTO person VALUES (1)", "DROP TABLE person",
        "CREATE TABLE x AS SELECT * FROM person", "COPY person TO 'x.csv'", "ATTACH 'x.db'", "PRAGMA database_list", "SET x = 1",
        "EXPLAIN SELECT COUNT(*) FROM person", "DESCRIBE person", "VALUES (1)", "BEGIN", "VACUUM", "CALL f()", "SHOW TABLES",
        "LOAD httpfs", "INSTALL httpfs", "EXPORT DATABASE 'x'", "MERGE INTO person USING visit ON TRUE WHEN MATCHED THEN DELETE",
    ],
)  # fmt: skip
def test_what_is_not_a_query_is_refused(sql: str) -> None:
    assert refused(sql).code in ("INSITU-SQL-NOT-SELECT", "INSITU-SQL-SYNTAX", "INSITU-SQL-FORBIDDEN-CONSTRUCT")


@pytest.mark.parametrize("before", [0, 3, 70, 5000])
def test_of_a_long_line_what_stands_around_the_clause_is_shown(before: int) -> None:
    sql = "x" * before + "WRONG" + "y" * 5000
    line, carets = underline(sql, Span(start=before, end=before + 5)).split("\n")
    assert len(line) <= 202
    assert line[carets.index("^") : len(carets)] == "WRONG"


def test_a_comment_after_the_semicolon_is_no_statement() -> None:
    assert parse("SELECT 1 AS one; -- and nothing more\n", "duckdb").sql() == "SELECT 1 AS one"


@pytest.mark.parametrize(
    ("sql", "mark"),
    [
        ("SELECT COUNT(* FROM person", "FROM"),
        ("SELECT COUNT(*)\nFROM person\nWHERE sex = = 'F'", "="),
        ("SELECT COUNT(*) FROM person GROUP sex", "sex"),
    ],
)
def test_a_syntax_error_is_underlined_where_it_lies(sql: str, mark: str) -> None:
    error = refused(sql)
    assert error.code == "INSITU-SQL-SYNTAX"
    assert error.span is not None
    assert sql[error.span.start : error.span.end] == mark
    line, carets = underline(sql, error.span).split("\n")
    assert line in sql.split("\n")
    assert line[carets.index("^") :].startswith(mark)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM person WHERE",
        "SELECT",
        "SELECT 'abc FROM person",
        "SELECT COUNT(*) FROM person WHERE sex = \ud800",
        "\0",
        "SELECT `",
        'SELECT "a',
    ],
)
def test_broken_text_is_a_syntax_error_that_says_nothing_of_the_parser(sql: str) -> None:
    error = refused(sql)
    assert error.code in (
        "INSITU-SQL-SYNTAX",
        "INSITU-SQL-NOT-SELECT",
        "INSITU-SQL-NO-PROTECTED",
        "INSITU-SQL-FORBIDDEN-CONSTRUCT",
    )
    assert "sqlglot" not in error.line()
    assert "class" not in error.line()
    if error.span is not None:
        assert 0 <= error.span.start < error.span.end <= max(len(sql), 1)


def test_an_unknown_dialect_is_refused_by_name() -> None:
    error = refused("SELECT COUNT(*) FROM person", dialect="cobol")
    assert error.code == "INSITU-SQL-UNKNOWN-DIALECT"
    assert "cobol" in error.text
    assert "postgres" in error.remedy


_SPELLINGS = {
    "duckdb": "SELECT YEAR(start) AS y, COUNT(*) AS n FROM visit WHERE cost > 5 GROUP BY 1",
    "postgres": "SELECT EXTRACT(YEAR FROM start) AS y, COUNT(*) AS n FROM visit WHERE cost > 5 GROUP BY 1",
    "oracle": "SELECT EXTRACT(YEAR FROM START) AS Y, COUNT(*) AS N FROM VISIT WHERE COST > 5 GROUP BY EXTRACT(YEAR FROM START)",
    "tsql": "SELECT YEAR([start]) AS y, COUNT(*) AS n FROM visit WHERE cost > 5 GROUP BY YEAR([start])",
    "mysql": "SELECT YEAR(`start`) AS y, COUNT(*) AS n FROM visit WHERE cost > 5 GROUP BY y",
    "snowflake": "SELECT YEAR(START) AS Y, COUNT(*) AS N FROM VISIT WHERE COST > 5 GROUP BY 1",
    "bigquery": "SELECT EXTRACT(YEAR FROM start) AS y, COUNT(*) AS n FROM visit WHERE cost > 5 GROUP BY 1",
}


@pytest.mark.parametrize("dialect", _SPELLINGS)
def test_the_same_question_in_another_dialect_has_the_same_plan(dialect: str) -> None:
    assert plan(_SPELLINGS[dialect], dialect=dialect).digest == plan(_SPELLINGS["duckdb"]).digest


def test_the_parser_never_writes_the_sql_into_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for sql in (
            "SELECT COUNT(*) FROM person WHERE secret(1) = 'x'",
            "CREATE FOO BAR secret",
            "SELECT COUNT(*) FROM person LIMIT secret",
        ):
            with pytest.raises(SqlRefused):
                plan(sql)
    assert "secret" not in caplog.text
