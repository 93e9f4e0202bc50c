"""Scalar SQL and rows to run it on, as hypothesis strategies: every operation of the language over columns of every type.

Expressions are made as SQL text and lowered by the ``allow`` pass, so that what is tested is what a researcher can
reach. Rows hold values within the declarations: edge values first. Decimals are multiples of 1/8, so that sums and
products are exact in floats whatever the order; quotients may differ in the last place and are kept away from
comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Any

import sqlglot
from hypothesis import strategies as st
from insitu_privacy.dataset import Column
from insitu_privacy.domains import Facts, Inference, column_facts
from insitu_privacy.errors import SqlRefused
from insitu_privacy.expressions import ColumnRef, Expression, conjuncts
from insitu_privacy.passes.allow import Allow

_F = Fraction
COLUMNS: Mapping[str, Column] = {
    column.name: column
    for column in (
        Column(name="i", type="integer", minimum=_F(-20), maximum=_F(20)),
        Column(name="n", type="integer", nullable=True, minimum=_F(-(10**9)), maximum=_F(10**9)),
        Column(name="w", type="integer", nullable=True),
        Column(name="v", type="integer", values=(-3, 0, 2, 2_000_000_000), nullable=True),
        Column(name="d", type="decimal", minimum=_F(-2), maximum=_F(2)),
        Column(name="e", type="decimal", minimum=_F(0), maximum=_F(1000), nullable=True),
        Column(name="u", type="decimal", nullable=True),
        Column(name="b", type="boolean", nullable=True),
        Column(name="f", type="boolean"),
        Column(name="s", type="text", values=("", "A_", "a", "ab%", "b c"), nullable=True),
        Column(name="x", type="text", nullable=True),
        Column(name="k", type="date", minimum=date(2015, 1, 1), maximum=date(2024, 12, 31)),
        Column(name="m", type="date", nullable=True),
        Column(name="z", type="timestamp", minimum=datetime(2000, 1, 1), maximum=datetime(2030, 1, 1), nullable=True),
    )
}
ENGINE_TYPES = {
    "integer": "BIGINT",
    "decimal": "DOUBLE PRECISION",
    "text": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "boolean": "BOOLEAN",
}
VALUES: Mapping[str, tuple[Any, ...]] = {
    "i": (0, 1, -1, 20, -20, 7),
    "n": (0, 1, -1, 10**9, -(10**9), 12, None),
    "w": (0, 2**53, -(2**53), 3, None),
    "v": (-3, 0, 2, 2_000_000_000, None),
    "d": (0.0, 0.5, -0.5, 1.5, -1.5, 2.0, -2.0, 0.125),
    "e": (0.0, 0.5, 2.5, 1000.0, 999.875, None),
    "u": (0.0, 0.5, -2.5, 1e300, -1e300, 1e-300, 3.0, None),
    "b": (True, False, None),
    "f": (True, False),
    "s": ("", "A_", "a", "ab%", "b c", None),
    "x": (
        "",
        "a",
        "AB",
        "it's",
        "a_b",
        "%",
        "é",
        "日本",
        'q"q',
        "x" * 30,
        " 7 ",
        "+007",
        "-3.5e1",
        "2020-2-29",
        "2021-02-29",
        "2020-02-29 23:59:59.5",
        "0000-01-01",
        "20200229",
        None,
    ),
    "k": (date(2015, 1, 1), date(2024, 12, 31), date(2020, 2, 29), date(2019, 12, 31)),
    "m": (date(1, 1, 1), date(9999, 12, 31), date(2000, 2, 29), date(1969, 12, 31), None),
    "z": (datetime(2000, 1, 1), datetime(2030, 1, 1), datetime(2020, 2, 29, 23, 59, 59, 999_999), None),
}
FACTS = {ColumnRef("t", name): column_facts(column) for name, column in COLUMNS.items()}
Row = dict[ColumnRef, Any]


def inference() -> Inference:
    """What is known of the columns."""
    return Inference(dict(FACTS))


def lowered(sql: str, known: Inference | None = None) -> Expression:
    """The expression of scalar SQL over ``t``. Raises SqlRefused where the language does not hold it."""
    tree = sqlglot.parse_one(sql, read="duckdb")
    for column in tree.find_all(sqlglot.exp.Column):
        column.set("table", sqlglot.exp.to_identifier("t"))
    return Allow(known or inference(), lambda _, name: ColumnRef("t", name)).expression(tree)


def rows() -> st.SearchStrategy[Row]:
    """Rows within the declarations."""
    return st.fixed_dictionaries({ColumnRef("t", name): st.sampled_from(values) for name, values in VALUES.items()})


def facts(expression: Expression) -> Facts:
    """What is inferred of an expression."""
    return inference().facts(expression)


def _text(parts: st.SearchStrategy[tuple[str, ...]], template: str) -> st.SearchStrategy[str]:
    return parts.map(lambda drawn: template.format(*drawn))


def _of(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return _text(st.tuples(*parts), template)


_INTEGERS = st.sampled_from(["i", "n", "v", "0", "1", "-7", "3", "2000000000", "CAST(b AS INTEGER)", "NULL"])
_DECIMALS = st.sampled_from(["d", "e", "0.5", "-1.25", "0.0", "CAST(i AS DOUBLE)"])
_WRITTEN = st.sampled_from(
    ["x", "s", "'12'", "CAST(i AS VARCHAR)", "CONCAT('20', i, '-', i, '-1')", "(x || '')", "LPAD(x, 10, '20200')"]
)
_TEXTS = st.sampled_from(["s", "x", "''", "'a'", "'it''s'", "'AB'"])
_DATES = st.sampled_from(["k", "DATE '2020-02-29'", "CAST(z AS DATE)"])
_LITERAL_TEXT = st.sampled_from(["'a'", "''", "'%'", "'_'", "'a%'", "'%b'", "'a_b'", "'A_'", "'b c'", "'%%'"])


def _extend_integers(a: st.SearchStrategy[str], c: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = ["({} + {})", "({} - {})", "({} * {})", "({} // {})", "({} % {})", "LEAST({}, {})", "GREATEST({}, {})"]
    pairs += ["COALESCE({}, {})", "NULLIF({}, {})"]
    single = ["(- {})", "ABS({})", "FLOOR({})", "CEIL({})", "ROUND({})"]
    return st.one_of(
        *(_of(template, a, a) for template in pairs),
        *(_of(template, a) for template in single),
        _of("CASE WHEN {} THEN {} ELSE {} END", c, a, a),
        _of("CASE WHEN {} THEN {} END", c, a),
        _of("CASE {} WHEN {} THEN {} WHEN 1 THEN 5 ELSE {} END", a, a, a, a),
    )


def _extend_decimals(a: st.SearchStrategy[str], c: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = ["({} + {})", "({} - {})", "({} * {})", "LEAST({}, {})", "GREATEST({}, {})", "COALESCE({}, {})"]
    single = ["(- {})", "ABS({})", "FLOOR({})", "CEIL({})", "ROUND({})", "CAST({} AS DOUBLE)"]
    return st.one_of(
        *(_of(template, a, a) for template in pairs),
        *(_of(template, a) for template in single),
        _of("CASE WHEN {} THEN {} ELSE {} END", c, a, a),
        _of("NULLIF({}, {})", a, a),
    )


def _conditions(
    integers: st.SearchStrategy[str],
    decimals: st.SearchStrategy[str],
    texts: st.SearchStrategy[str],
    dates: st.SearchStrategy[str],
) -> st.SearchStrategy[str]:
    compare = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
    equal = st.sampled_from(["=", "<>"])
    plain = st.one_of(
        st.sampled_from(["b", "f", "TRUE", "FALSE", "b IS NULL", "b IS TRUE", "b IS NOT FALSE", "u > 2", "w < 3"]),
        _of("({} {} {})", integers, compare, integers),
        _of("({} {} {})", decimals, compare, decimals),
        _of("({} {} {})", integers, compare, decimals),
        _of("({} {} {})", texts, equal, texts),
        _of("({} {} {})", dates, compare, dates),
        _of("({} BETWEEN {} AND {})", integers, integers, integers),
        _of("({} IN (1, 2.5, NULL))", decimals),
        _of("({} NOT IN (0, 1, 2000000000))", integers),
        _of("({} IN ('a', '', 'it''s'))", texts),
        _of("({} IS NULL)", st.one_of(integers, decimals, texts, dates)),
        _of("({} LIKE {})", texts, _LITERAL_TEXT),
        _of(
            "({} {} {} ESCAPE '!')",
            texts,
            st.sampled_from(["LIKE", "NOT LIKE"]),
            st.sampled_from(["'a!_%'", "'!%'", "'a!!'"]),
        ),
        _of("({} {} {})", integers, compare, st.sampled_from(["x", "s", "'7'", "'-1.5'"])),
        _of("({} {} {})", dates, compare, st.sampled_from(["x", "z", "'2020-02-29 10:00'"])),
        _of("({} IS DISTINCT FROM {})", texts, texts),
        _of(
            "{}({}, {})",
            st.sampled_from(["STARTS_WITH", "CONTAINS", "ENDS_WITH"]),
            texts,
            st.sampled_from(["'a'", "'b '"]),
        ),
        _of("({} NOT LIKE {})", texts, _LITERAL_TEXT),
        _of("({} ILIKE {})", st.sampled_from(["s", "'Ab%'", "'A_'"]), _LITERAL_TEXT),
    )
    return st.recursive(
        plain, lambda inner: st.one_of(_of("({} AND {})", inner, inner), _of("({} OR {})", inner, inner), _of("(NOT {})", inner)),
        max_leaves=4,
    )  # fmt: skip


def _extend_texts(a: st.SearchStrategy[str], c: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    single = ["LOWER(s || {})", "UPPER(s || {})"]
    ascii_text = st.sampled_from(["'Q'", "s", "'it''s'"])
    return st.one_of(
        *(_of(template, ascii_text) for template in single),
        _of("({} || {})", a, a),
        _of("CONCAT({}, 'z')", a),
        _of("SUBSTRING({}, {}, {})", a, st.sampled_from("123"), st.sampled_from("0129")),
        _of("SUBSTRING({}, 2)", a),
        _of("{}({})", st.sampled_from(["TRIM", "LTRIM", "RTRIM"]), _of("({} || ' ')", a)),
        _of(
            "REPLACE({}, {}, {})", a, st.sampled_from(["'a'", "'b '", "'日'"]), st.sampled_from(["''", "'c'", "'aaa'"])
        ),
        _of("RIGHT({}, {})", a, st.sampled_from("0129")),
        _of(
            "{}({}, {}, {})",
            st.sampled_from(["LPAD", "RPAD"]),
            a,
            st.sampled_from("019"),
            st.sampled_from(["'xy'", "' '"]),
        ),
        _of("SPLIT_PART({}, {}, {})", a, st.sampled_from(["'a'", "'b '", "' '"]), st.sampled_from("123")),
        _of("CONCAT_WS({}, {}, {})", st.sampled_from(["''", "', '"]), a, a),
        _of("STRFTIME({}, {})", _DATES, st.sampled_from(["'%Y-%m'", "'%d.%m.%y'", "'%j'"])),
        _of("STRFTIME(z, {})", st.sampled_from(["'%Y%m%d%H'", "'%H:%M:%S'"])),
        _of("LEFT({}, 1)", a),
        _of("CAST({} AS VARCHAR)", _INTEGERS),
        _of("COALESCE({}, {})", a, a),
        _of("NULLIF({}, {})", a, a),
        _of("CASE WHEN {} THEN {} ELSE {} END", c, a, a),
    )


def _extend_dates(a: st.SearchStrategy[str], c: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    single = [
        "DATE_TRUNC('month', {})",
        "DATE_TRUNC('year', {})",
        "({} + INTERVAL 40 DAY)",
        "({} + INTERVAL 1 MONTH)",
        "({} - INTERVAL '2' YEAR)",
        "({} + TO_DAYS(i))",
        "({} - 366)",
        "CAST({} AS DATE)",
        "DATE_TRUNC('quarter', {})",
        "DATE_TRUNC('week', {})",
        "LAST_DAY({})",
        "({} + TO_DAYS(w))",
        "({} + INTERVAL (n) MONTH)",
    ]
    return st.one_of(
        *(_of(template, a) for template in single),
        _of("LEAST({}, {})", a, a),
        _of("GREATEST({}, {})", a, a),
        _of("COALESCE({}, {})", a, a),
        _of("CASE WHEN {} THEN {} ELSE {} END", c, a, a),
        st.sampled_from(
            ["DATE_TRUNC('month', z)", "DATE_TRUNC('year', m)", "m", "LAST_DAY(m)", "DATE_TRUNC('week', m)"]
        ),
        _of("CAST({} AS DATE)", _WRITTEN),
        _of("CAST(STRPTIME({}, '%Y%m%d') AS DATE)", _WRITTEN),
        _of(
            "MAKE_DATE({}, {}, {})",
            st.sampled_from(["i", "2000 + i", "w"]),
            st.sampled_from(["i", "2", "n"]),
            st.sampled_from(["i", "29", "31"]),
        ),
    )


_CONDITIONS = _conditions(_INTEGERS, _DECIMALS, _TEXTS, _DATES)
_integers = st.recursive(_INTEGERS, lambda inner: _extend_integers(inner, _CONDITIONS), max_leaves=5)
_decimals = st.recursive(_DECIMALS, lambda inner: _extend_decimals(inner, _CONDITIONS), max_leaves=5)
_texts = st.recursive(_TEXTS, lambda inner: _extend_texts(inner, _CONDITIONS), max_leaves=4)
_dates = st.recursive(_DATES, lambda inner: _extend_dates(inner, _CONDITIONS), max_leaves=3)
_TIMES = st.sampled_from(["z", "m", "k", "TIMESTAMP '2020-02-29 12:00:00'"])
_timestamps = st.one_of(
    _TIMES,
    _of("CAST({} AS TIMESTAMP)", st.one_of(_TIMES, _WRITTEN)),
    _of("({} {} INTERVAL ({}) {})", _TIMES, st.sampled_from("+-"), st.sampled_from(["i", "n", "w", "3"]),
        st.sampled_from(["SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"])),
    _of("DATE_TRUNC({}, {})", st.sampled_from(["'hour'", "'minute'", "'day'"]), _TIMES),
    _of("COALESCE({}, {})", _TIMES, _TIMES),
)  # fmt: skip
_moments = st.one_of(_dates, _timestamps)
_parts = st.one_of(
    _of("{}({})", st.sampled_from(["YEAR", "QUARTER", "MONTH", "DAY"]), _moments),
    _of("date_diff('day', {}, {})", _moments, _moments),
    _of("LENGTH({})", _texts),
    _of("POSITION({} IN {})", st.sampled_from(["'a'", "'b '", "'本'"]), _texts),
    _of("{}({})", st.sampled_from(["HOUR", "MINUTE", "SECOND", "ISODOW", "DAYOFYEAR", "WEEK"]), _moments),
    _of("EXTRACT(DOW FROM {})", _moments),
    _of("date_diff({}, {}, {})", st.sampled_from(["'hour'", "'minute'", "'second'", "'quarter'"]), _moments, _moments),
    _of("CAST({} AS BIGINT)", _WRITTEN),
    _of("SIGN({})", st.one_of(_integers, _decimals)),
    _of(
        "WIDTH_BUCKET({}, {}, 7, {})",
        st.one_of(_integers, _decimals),
        st.sampled_from(["-2.5", "0", "1"]),
        st.sampled_from(["1", "3", "100"]),
    ),
    _of("CAST({} AS BIGINT)", _decimals),
)
_quotients = st.one_of(
    _of("({} / {})", _decimals, _decimals),
    _of("({} / {})", _integers, _integers),
    _of("FLOOR({} / {})", _integers, _integers),
    _of("ROUND({}, 2)", _decimals),
    _of("ROUND({} * 0.1, 1)", _integers),
    _of("(e / {})", st.sampled_from(["u", "CAST(w AS DOUBLE)", "d"])),
    _of(
        "{}({})",
        st.sampled_from(["SQRT", "LN", "LOG10", "EXP", "SIN", "COS", "ASIN", "ACOS", "ATAN", "TRUNC"]),
        _decimals,
    ),
    _of("{}(u)", st.sampled_from(["SQRT", "LN", "LOG10", "EXP", "SIN", "COS", "ASIN", "ACOS", "ATAN"])),
    _of("POWER({}, {})", st.one_of(_decimals, st.just("u")), st.sampled_from(["1", "2", "3", "6", "0.5"])),
    _of("CAST({} AS DOUBLE)", _WRITTEN),
    _of("EPOCH({})", _moments),
    st.just("ROUND(u)"),
    st.just("FLOOR(u)"),
    st.just("LEAST(GREATEST(u, -10), 10.5)"),
)


def scalars() -> st.SearchStrategy[str]:
    """Scalar SQL of any type that the language holds."""
    return st.one_of(
        _integers,
        _decimals,
        _texts,
        _dates,
        _parts,
        _quotients,
        _conditions(st.one_of(_integers, _parts), _decimals, _texts, _dates),
    ).filter(is_lowered)


def is_lowered(sql: str) -> bool:
    """Whether the language holds it: what could overflow is refused."""
    try:
        lowered(sql)
    except SqlRefused:
        return False
    return True


def refined(sql: str) -> Inference:
    """What is known where a condition holds."""
    return inference().refine(conjuncts(lowered(sql)))


def conditions() -> st.SearchStrategy[str]:
    """Conjunctions of comparisons with literals, from which domains are learned."""
    literal = st.sampled_from(["0", "1", "2.5", "-3", "NULL", "2000000000"])
    one = st.one_of(
        _of("({} {} {})", st.sampled_from(["i", "n", "v", "d", "e", "i + 1", "i % 5"]), st.sampled_from(["=", "<", "<=", ">", ">=", "<>"]), literal),
        _of("({} < {})", literal, st.sampled_from(["i", "v", "e"])),
        _of("({} IN (0, 2, NULL, 7))", st.sampled_from(["i", "v", "n", "i // 3"])),
        _of("({} {} 'a')", st.sampled_from(["s", "x"]), st.sampled_from(["=", "<>"])),
        _of("(s IN ('a', 'zz', ''))"),
        _of("({} {} DATE '2020-02-29')", st.sampled_from(["k", "m"]), st.sampled_from(["=", "<", "<=", ">", ">="])),
        _of("(YEAR({}) BETWEEN 2016 AND 2020)", st.sampled_from(["k", "m", "z"])),
        st.sampled_from(["b", "NOT b", "b = TRUE", "n IS NOT NULL", "NOT (e IS NULL)", "1 = 1", "z > '2020-01-01'"]),
    )  # fmt: skip
    return st.lists(one, min_size=1, max_size=3).map(" AND ".join)
