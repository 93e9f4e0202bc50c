"""Both dialects, on their engines: what they write gives the value that ``evaluate`` gives, and never fails.

Expressions over the whole language, and rows of edge values (tests/testkit/expressions.py). Then the guards: what is
out of bounds, out of domain, NaN or infinite reads as NULL on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from fractions import Fraction
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from insitu_privacy.dataset import Column
from insitu_privacy.dialects import DIALECTS
from insitu_privacy.evaluate import evaluate
from insitu_privacy.expressions import ColumnRef, Expression, Literal

from tests.testkit.databases import new_database
from tests.testkit.expressions import COLUMNS, ENGINE_TYPES, VALUES, Row, facts, lowered, rows, scalars

Run = Callable[[str], list[tuple[Any, ...]]]
FEW = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
_TYPES = {"integer": int, "decimal": float, "text": str, "boolean": bool, "date": date}


@pytest.fixture(scope="module")
def engines(postgres_url: str) -> Iterator[dict[str, Run]]:
    """A function that runs a statement, by the dialect's name."""
    with duckdb.connect(":memory:", config={"threads": 1}) as duck, psycopg.connect(new_database(postgres_url)) as pg:
        duck.execute("SET TimeZone = 'UTC'")
        pg.read_only = False
        pg.autocommit = True
        yield {
            "duckdb": lambda text: duck.execute(text).fetchall(),
            "postgres": lambda text: pg.execute(text.encode()).fetchall(),
        }


def table(dialect: str, some: Sequence[Row]) -> str:
    """The rows as a derived table ``t``, numbered."""
    writer = DIALECTS[dialect]
    double = ENGINE_TYPES["decimal"] if dialect == "postgres" else "DOUBLE"
    kinds = ENGINE_TYPES | {"decimal": double}
    lines = []
    for place, row in enumerate(some):
        cells = [
            f"CAST({constant(writer, name, row[ColumnRef('t', name)])} AS {kinds[column.type]}) AS {writer.identifier(name)}"
            for name, column in COLUMNS.items()
        ]
        lines.append(f"SELECT {place} AS place, {', '.join(cells)}")
    return f"({' UNION ALL '.join(lines)}) AS t"


def constant(writer: Any, name: str, value: Any) -> str:
    return str(writer.literal(COLUMNS[name].type, Fraction(value) if isinstance(value, float) else value))


def ask(run: Run, dialect: str, expressions: Sequence[Expression], some: Sequence[Row]) -> list[tuple[Any, ...]]:
    texts = ", ".join(DIALECTS[dialect].write(expression) for expression in expressions)
    return [row[1:] for row in run(f"SELECT place, {texts} FROM {table(dialect, some)} ORDER BY place")]


def same(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=1e-12, abs_tol=1e-140)
    return bool(expected == found)


@FEW
@given(texts=st.lists(scalars(), min_size=4, max_size=10), some=st.lists(rows(), min_size=5, max_size=5))
def test_both_engines_give_the_value_that_evaluation_gives(
    engines: dict[str, Run], texts: list[str], some: list[Row]
) -> None:
    expressions = [lowered(text) for text in texts]
    for dialect, run in engines.items():
        found = ask(run, dialect, expressions, some)
        for row, values in zip(some, found, strict=True):
            for text, expression, value in zip(texts, expressions, values, strict=True):
                expected = evaluate(expression, row)
                assert same(expected, value), f"{dialect}: {text} over {row} is {value!r}, not {expected!r}"


@FEW
@given(texts=st.lists(scalars(), min_size=4, max_size=10), some=st.lists(rows(), min_size=3, max_size=3))
def test_engines_return_the_type_that_is_inferred(engines: dict[str, Run], texts: list[str], some: list[Row]) -> None:
    """A key of another type would not be found in its domain, and a float would be summed."""
    expressions = [lowered(text) for text in texts]
    for dialect, run in engines.items():
        for values in ask(run, dialect, expressions, some):
            for text, expression, value in zip(texts, expressions, values, strict=True):
                kind = facts(expression).type
                if value is not None and kind != "timestamp":
                    assert type(value) is _TYPES[kind], f"{dialect}: {text} is {type(value).__name__}, not {kind}"


_FIXED = [
    "ROUND(0.5)", "ROUND(-0.5)", "ROUND(1.5)", "ROUND(2.5)", "ROUND(-2.5)", "ROUND(0.125, 2)", "ROUND(-1.005, 2)",
    "-7 // 2", "7 // -2", "-7 % 3", "7 % -3", "7 % 0", "7 // 0", "7 / 0", "0.0 / 0", "1 / u",
    "FLOOR(-0.5)", "CEIL(-0.5)", "FLOOR(u)", "ABS(-7)", "2000000000 + 2000000000", "100000 * 100000 * 100000",
    "CASE WHEN f THEN 2000000000 ELSE 1 END * CASE WHEN f THEN 2000000000 ELSE 1 END",
    "CAST(f AS INTEGER) * 3000000 * 1000", "v * v", "ROUND(n)", "FLOOR(n)", "CEIL(v)", "LEAST(NULL, 3, i)",
    "GREATEST(n, v)", "LEAST(i, 0.5)", "GREATEST(n, NULL)", "COALESCE(n, 2.5)", "NULLIF(i, 0)", "NULLIF(NULL, 1)",
    "YEAR(NULL)", "LOWER(NULL)", "NOT NULL", "b AND NULL", "b OR NULL", "NULL IS NULL", "NULL LIKE 'a'",
    "CASE WHEN NULL THEN 1 ELSE 2 END", "i IN (NULL)", "n IN (1, NULL)", "x || NULL", "SUBSTRING(x, 2, 0)", "SUBSTRING(x, 30)",
    "x LIKE '%'", "x LIKE '_'", "x LIKE 'a_b'", "x LIKE ''", "x ILIKE 'AB'", "x LIKE '%%%'",
    "LENGTH(x)", "x || x", "'it''s' || x", "x = 'it''s'", "m - DATE '0001-01-01'", "date_diff('day', m, z)",
    "YEAR(m)", "QUARTER(m)", "DATE_TRUNC('year', m)", "DATE_TRUNC('month', z)", "DATE_TRUNC('month', TIMESTAMP '2020-02-29 23:59:59.999999')",
    "k + 1", "k - INTERVAL 1 DAY", "CAST(z AS DATE)", "z > '2020-01-01 10:00:00'", "z BETWEEN '2020-01-01' AND '2030-01-01'",
    "u = u", "w = 9007199254740991", "-w", "ABS(w)", "e - 1000", "e * e * e", "d * d * d * d",
    "date_diff('year', k, z)", "date_diff('month', k, z)", "CASE i WHEN 0 THEN 'a' WHEN 1 THEN 'b' END", "ROUND(u)",
    "k + w", "m + w", "m - w", "m + TO_DAYS(n)", "k + INTERVAL (w) MONTH", "m + INTERVAL (n) YEAR", "m + INTERVAL 1 MONTH",
    "m - INTERVAL 1 MONTH", "m + 1", "m - 1", "z + INTERVAL (w) SECOND", "z + INTERVAL (n) HOUR", "m + INTERVAL (w) HOUR",
    "z + INTERVAL (i) MONTH", "z + INTERVAL (w) WEEK", "z - INTERVAL 20 YEAR", "m + INTERVAL 1 SECOND",
    "m - INTERVAL 1 SECOND", "z + 3 * INTERVAL '1' DAY", "z + INTERVAL (n) SECOND", "m + INTERVAL (n) MINUTE",
    "MAKE_DATE(w, 1, 1)", "MAKE_DATE(1900, 2, 29)", "MAKE_DATE(2000 + 4 * i, 2, 29)", "MAKE_DATE(2000, i, 31)",
    "MAKE_DATE(2000, w, w)", "LAST_DAY(m)", "LAST_DAY(z)", "DATE_TRUNC('week', m)", "DATE_TRUNC('quarter', z)",
    "DATE_TRUNC('hour', z)", "DATE_TRUNC('minute', m)", "DATE_TRUNC('day', z)", "EPOCH(z)", "EPOCH(m)", "SECOND(z)",
    "HOUR(m)", "EXTRACT(DOW FROM m)", "ISODOW(m)", "DAYOFYEAR(m)", "WEEK(m)", "date_diff('hour', m, z)",
    "date_diff('second', z, m)", "date_diff('quarter', k, z)", "EXTRACT(EPOCH FROM z - k)", "CAST(m AS TIMESTAMP)",
    "m < z", "z BETWEEN k AND m", "m <= '2020-01-01 10:00'", "x < m", "x = z", "x = k", "x = i", "x = d", "i = '7'",
    "i IN ('7', '-1', '0.5')", "w > '9'", "CAST(x AS BIGINT)", "TRY_CAST(x AS DOUBLE)", "CAST(x AS DATE)",
    "CAST(x AS TIMESTAMP)", "CAST(s AS INTEGER)", "STRPTIME(x, '%Y%m%d')", "STRPTIME(x, '%Y-%m-%d')",
    "STRFTIME(m, '%Y-%m-%d')", "STRFTIME(z, '%Y%m%d %H:%M:%S')", "STRFTIME(m, '%y/%j')", "TRIM(x)", "LTRIM(x)",
    "RTRIM(x)", "REPLACE(x, 'x', 'yy')", "REPLACE(x, '日', '')", "POSITION('本' IN x)", "POSITION('q\"q' IN x)",
    "RIGHT(x, 0)", "RIGHT(x, 2)", "LPAD(x, 0, 'a')", "LPAD(x, 5, '日本')", "RPAD(x, 31, 'ab')", "LPAD(x, 1, 'ab')",
    "SPLIT_PART(x, 'x', 3)", "SPLIT_PART(x, '-', 2)", "SPLIT_PART(x, 'zz', 1)", "SPLIT_PART(x, 'zz', 2)",
    "CONCAT_WS('-', x, NULL, s)", "CONCAT_WS(', ', s, x, i)", "CONCAT(x, i, NULL)", "STARTS_WITH(x, '日')",
    "CONTAINS(x, '%')", "ENDS_WITH(x, '')", "x NOT LIKE '%a%'", "x NOT ILIKE 'AB'", "x LIKE '!%' ESCAPE '!'",
    "x LIKE 'a!_b' ESCAPE '!'", "x LIKE 'a\\_b' ESCAPE '\\'", "x NOT LIKE 'a!_%' ESCAPE '!'", "x ILIKE 'A!_B' ESCAPE '!'",
    "x LIKE '%*%%' ESCAPE '*'", "CAST(x AS TEXT)", "CAST(e AS DECIMAL(18, 2))", "CAST(d AS DECIMAL(10, 0))",
    "SIGN(u)", "SIGN(w)", "SQRT(u)", "SQRT(w)", "LN(u)", "LN(w)", "LOG10(u)", "LOG10(e)", "LOG(2, e)", "EXP(u)", "EXP(e)",
    "POWER(u, 2)", "POWER(u, 6)", "POWER(w, 3)", "POWER(d, 0.5)", "SIN(u)", "COS(u)", "ASIN(u)", "ACOS(u)", "ATAN(u)",
    "ASIN(d)", "RADIANS(e)", "DEGREES(d)", "PI() * d", "TRUNC(d)", "TRUNC(e, 1)", "TRUNC(u)",
    "i IS NOT DISTINCT FROM n", "x IS DISTINCT FROM s", "IFNULL(n, 3)", "date_part('dow', k)", "m + to_months(n)", "z - to_hours(w)", "i ** 2", "CAST(f AS INTEGER)",
]  # fmt: skip


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_edge_values_are_the_same_everywhere(engines: dict[str, Run], dialect: str) -> None:
    expressions = [lowered(text) for text in _FIXED]
    some = edge_rows()
    wrong = []
    for row, values in zip(some, ask(engines[dialect], dialect, expressions, some), strict=True):
        for text, expression, value in zip(_FIXED, expressions, values, strict=True):
            expected = evaluate(expression, row)
            if not same(expected, value):
                wrong.append((text, expected, value))
    assert wrong == []


def edge_rows() -> list[Row]:
    """Rows that hold each edge value of each column at least once."""
    longest = max(len(values) for values in VALUES.values())
    return [
        {ColumnRef("t", name): values[place % len(values)] for name, values in VALUES.items()}
        for place in range(longest)
    ]


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize(
    ("total", "rows", "most", "reach", "expected"),
    [
        (7, 3, 2, 3, 4), (-7, 3, 2, 3, -4), (0, 5, 3, 1, 0), (10**18, 10**6, 10**6, 10**12, 10**18),
        (-(10**18), 7, 3, 10**18, -(3 * 10**18 // 7)), (9 * 10**21, 10**4, 10, 9 * 10**17, 9 * 10**18),
        (1024 * 2**43, 1024, 2**10, 2**43, 2**53), (1023 * 2**43, 1023, 2**10, 2**43, 2**53),
    ],
)  # fmt: skip
def test_scaling_truncates_towards_zero_in_wide_integers(
    engines: dict[str, Run], dialect: str, total: int, rows: int, most: int, reach: int, expected: int
) -> None:
    text = DIALECTS[dialect].scaled("total", "n", most, reach=reach)
    wide = "NUMERIC" if dialect == "postgres" else "HUGEINT"
    for kind in (wide, "BIGINT"):
        source = f"(SELECT CAST('{total}' AS {wide}) AS total, CAST({rows} AS {kind}) AS n) AS x"
        ((value,),) = engines[dialect](f"SELECT {text} FROM {source}")
        assert int(value) == expected
        assert int(value) == value


@pytest.mark.parametrize(("dialect", "collation"), [("duckdb", "NOCASE"), ("postgres", '"C"')])
def test_a_code_stands_for_the_very_text(engines: dict[str, Run], dialect: str, collation: str) -> None:
    """Equal bytes alone are equal, whatever the column's collation; the least is the least text; NULL is no code."""
    writer, domain = DIALECTS[dialect], [None, "é", "a", "B", "it's", " a"]
    assert writer.codes("text", domain)
    lines = " UNION ALL ".join(
        f"SELECT CAST('{one}' AS VARCHAR) COLLATE {collation} AS c" for one in ["a", "A", "b", "B", "é", "É", " a"]
    )
    source = f"FROM (SELECT {writer.coded('c', domain)} AS code FROM ({lines}) AS x) AS y"
    text = writer.decoded("code", domain)
    found = engines[dialect](f"SELECT {text} AS code, COUNT(*) {source} GROUP BY code")
    assert dict(found) == {None: 3, "a": 1, "B": 1, "é": 1, " a": 1}
    least, greatest = (writer.decoded(f"{name}(code)", domain) for name in ("MIN", "MAX"))
    assert engines[dialect](f"SELECT {least}, {greatest} {source}") == [(" a", "é")]


@pytest.mark.parametrize(("dialect", "most"), [("duckdb", 255), ("postgres", 32)])
def test_not_every_domain_has_codes(dialect: str, most: int) -> None:
    writer = DIALECTS[dialect]
    texts = [f"{place}" for place in range(most + 1)]
    assert writer.codes("text", texts[1:])
    for domain in (None, [], [None], ["a\0", "a"], texts):
        assert not writer.codes("text", domain)
    assert not writer.codes("integer", [1])


# -- guards ----------------------------------------------------------------------------------------------------------

_NAN, _INF = "'NaN'", "'Infinity'"
_GUARDS = [
    (Column(name="c", type="decimal"), "DOUBLE PRECISION", ["'1.5'", _NAN, _INF, "'-Infinity'", "'1e299'", "NULL"], [1.5, None, None, None, 1e299, None]),
    (Column(name="c", type="decimal", minimum=Fraction(0), maximum=Fraction(1)), "DOUBLE PRECISION", ["'0'", "'1'", "'1.0000001'", "'-1e-9'", _NAN, _INF], [0.0, 1.0, None, None, None, None]),
    (Column(name="c", type="decimal", minimum=Fraction(0)), "DOUBLE PRECISION", ["'0'", _INF, _NAN, "'-1'"], [0.0, None, None, None]),
    (Column(name="c", type="decimal", maximum=Fraction(0)), "REAL", ["'0'", "'-Infinity'", _NAN, "'1'"], [0.0, None, None, None]),
    (Column(name="c", type="decimal"), "DECIMAL(20,3)", ["'12.345'", "NULL"], [12.345, None]),
    (Column(name="c", type="integer"), "BIGINT", ["'9007199254740992'", "'9007199254740993'", "'-9223372036854775808'", "'7'"], [2**53, None, None, 7]),
    (Column(name="c", type="integer", minimum=Fraction(1), maximum=Fraction(5)), "DOUBLE PRECISION", ["'1'", "'5'", "'6'", _NAN, _INF, "'-Infinity'", "'1e300'"], [1, 5, None, None, None, None, None]),
    (Column(name="c", type="integer"), "DOUBLE PRECISION", ["'3'", _NAN, _INF, "'1e300'"], [3, None, None, None]),
    (Column(name="c", type="integer", values=(1, 2)), "SMALLINT", ["'1'", "'2'", "'3'", "NULL"], [1, 2, None, None]),
    (Column(name="c", type="text", values=("a", "it's")), "VARCHAR", ["'a'", "'it''s'", "'A'", "''", "NULL"], ["a", "it's", None, None, None]),
    (Column(name="c", type="text"), "VARCHAR", ["'a'", "''", "NULL"], ["a", "", None]),
    (Column(name="c", type="date"), "DATE", ["'2020-01-01'", "'infinity'", "'-infinity'", "'12000-01-01'", "'0044-03-15 BC'", "'9999-12-31'", "'0001-01-01'"], [date(2020, 1, 1), None, None, None, None, date(9999, 12, 31), date(1, 1, 1)]),
    (Column(name="c", type="date", minimum=date(2020, 1, 1)), "DATE", ["'2020-01-01'", "'infinity'", "'2019-12-31'"], [date(2020, 1, 1), None, None]),
    (Column(name="c", type="date", maximum=date(2020, 1, 1)), "DATE", ["'2020-01-01'", "'-infinity'", "'2020-01-02'"], [date(2020, 1, 1), None, None]),
    (Column(name="c", type="date", minimum=date(2020, 1, 1), maximum=date(2020, 1, 2)), "DATE", ["'2020-01-02'", "'infinity'", "'-infinity'"], [date(2020, 1, 2), None, None]),
    (Column(name="c", type="date", values=(date(2020, 1, 1),)), "DATE", ["'2020-01-01'", "'infinity'", "'2020-01-02'"], [date(2020, 1, 1), None, None]),
    (Column(name="c", type="timestamp"), "TIMESTAMP", ["'2020-01-01 10:00:00'", "'infinity'", "'-infinity'", "'12000-01-01'"], [datetime(2020, 1, 1, 10), None, None, None]),
    (Column(name="c", type="timestamp", minimum=datetime(2020, 1, 1), maximum=datetime(2020, 1, 2)), "TIMESTAMP", ["'2020-01-02 00:00:00'", "'2020-01-02 00:00:01'", "'infinity'"], [datetime(2020, 1, 2), None, None]),
    (Column(name="c", type="boolean"), "BOOLEAN", ["'true'", "'false'", "NULL"], [True, False, None]),
]  # fmt: skip


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize(("column", "stored", "raw", "expected"), _GUARDS)
def test_what_is_outside_its_declaration_reads_as_null(
    engines: dict[str, Run], dialect: str, column: Column, stored: str, raw: list[str], expected: list[Any]
) -> None:
    writer = DIALECTS[dialect]
    lines = " UNION ALL ".join(
        f"SELECT {place} AS place, CAST({value.replace(' BC', ' (BC)') if dialect == 'duckdb' else value} AS {stored}) AS c"
        for place, value in enumerate(raw)
    )
    found = engines[dialect](f"SELECT {writer.guard(column, 'src.c')} FROM ({lines}) AS src ORDER BY place")
    assert [row[0] for row in found] == expected
    assert [type(row[0]) for row in found] == [type(value) for value in expected]


@pytest.mark.attacks("P1")
@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_text_and_identifiers_cannot_leave_their_quotes(engines: dict[str, Run], dialect: str) -> None:
    writer = DIALECTS[dialect]
    evil = "'; DROP TABLE x; --\\' \" $$ é \n"
    column = writer.identifier('a"b')
    ((value, name),) = engines[dialect](
        f"SELECT {writer.write(Literal('text', evil))}, {column} FROM (SELECT 7 AS {column}) AS t"
    )
    assert value == evil
    assert name == 7


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize("kind", ["integer", "decimal", "text", "date", "timestamp", "boolean"])
def test_the_least_of_a_constant_column_is_one_value(engines: dict[str, Run], dialect: str, kind: Any) -> None:
    pairs = {
        "integer": (1, 2), "decimal": (0.5, 1.5), "text": ("a", "b"), "date": (date(2020, 1, 1), date(2021, 1, 1)),
        "timestamp": (datetime(2020, 1, 1), datetime(2021, 1, 1)), "boolean": (False, True),
    }  # fmt: skip
    writer = DIALECTS[dialect]
    low, high = pairs[kind]
    lines = " UNION ALL ".join(f"SELECT {writer.literal(kind, value)} AS c" for value in (high, None, low))
    ((value,),) = engines[dialect](f"SELECT {writer.least_of(kind, 'c')} FROM ({lines}) AS x")
    assert value == low
