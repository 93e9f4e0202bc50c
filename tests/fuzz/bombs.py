"""Small inputs that would be large, deep or slow, by the targets that must bear them. Each was, or could be, a fault."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.targets_privacy import parquet
from tests.testkit.care import TOML

_DEEP = 30_000
JSON = {
    "deep list": b"[" * _DEEP + b"]" * _DEEP,
    "deep object": b'{"a":' * _DEEP + b"1" + b"}" * _DEEP,
    "open lists": b"[" * 1_000_000,
    "many lists": b"[" + b"[]," * 300_000 + b"[]]",
    "long number": b'{"a":' + b"9" * 1_000_000 + b"}",
    "infinity": b'{"a":1e999}',
    "nan": b'{"a":NaN}',
    "twice": b'{"a":1,"a":2}',
    "surrogate": b'{"a":"\\ud800"}',
    "escapes": b'{"a":"' + b"\\u0000" * 100_000 + b'"}',
    "bom": b"\xef\xbb\xbf{}",
    "utf-16": '{"a":1}'.encode("utf-16"),
    "many keys": b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(50_000)) + b"}",
}
TOMLS = {
    "deep list": b"a = " + b"[" * _DEEP,
    "deep table": b"a = " + b"{a=" * _DEEP,
    "dotted key": b".".join([b"a"] * _DEEP) + b" = 1",
    "dotted table": b"[" + b".".join([b"a"] * _DEEP) + b"]",
    "quoted key": b".".join([b'"a.b"'] * 1000) + b" = 1",
    "long number": b"a = " + b"9" * 5000,
    "long hexadecimal": b"a = 0x" + b"f" * 1_000_000,
    "open texts": b'"""\\' * 100_000,
    "open quotes": b"a = '''" + b"''" * 100_000,
    "too long": b"#" * (5 * 2**20),
    "many tables": b"".join(b"[t%d]\n" % i for i in range(20_000)),
}
_SELECT = "SELECT COUNT(*) AS n FROM visit WHERE "
SQL = {
    "parentheses": _SELECT + "(" * 5000 + "1" + ")" * 5000,
    "parentheses within": _SELECT + "(" * 190 + "stage = 1" + ")" * 190,
    "types or calls": "SELECT " + "BIGINT(" * 40 + "1" + ")" * 40 + " FROM visit",
    "types or calls with more": "SELECT " + "BINARY(1, " * 40 + "1" + ")" * 40 + " FROM visit",
    "types or names": "SELECT " + "(BIGINT " * 40 + "1" + ")" * 40 + " FROM visit",
    "arrays or names": "SELECT " + "ARRAY[" * 40 + "1" + "]" * 40 + " FROM visit",
    "connect by": "SELECT (SELECT CONNECT BY 1)",
    "copied arguments": "SELECT " + "SORT_ARRAY(1, " * 30 + "1" + ")" * 30,
    "copied arguments of others": "SELECT " + "DIV0(" * 30 + "1" + ", 1)" * 30,
    "not": _SELECT + "NOT " * 5000 + "active",
    "minus": _SELECT + "- " * 5000 + "1 = 1",
    "case": _SELECT + "CASE WHEN 1=1 THEN " * 1500 + "1" + " END" * 1500,
    "10,000 ors": _SELECT + " OR ".join(f"stage = {i}" for i in range(10_000)),
    "900 ors": _SELECT + " OR ".join(f"stage = {i % 5}" for i in range(900)),
    "900 ands": _SELECT + " AND ".join(f"stage <> {i % 5}" for i in range(900)),
    "long list": _SELECT + f"ward IN ({', '.join(map(str, range(35_000)))})",
    "long literal": _SELECT + "diagnosis = '" + "x" * 250_000 + "'",
    "long number": _SELECT + "ward = " + "9" * 100_000,
    "huge exponent": _SELECT + "cost < 1e999999999",
    "tiny exponent": _SELECT + "cost < 1e-999999999",
    "too long": _SELECT + "ward = 1 " + " " * 300_000,
    "comments": _SELECT + "/* c */ " * 20_000 + "ward = 1",
    "nested comments": _SELECT + "/*" * 20_000,
    "open text": _SELECT + "kind = 'in",
    "open identifier": 'SELECT COUNT(*) FROM "visit',
    "open dollar": "SELECT $$" + "$ " * 1000,
    "nul": _SELECT + "kind = '\0'",
    "surrogate": _SELECT + "kind = '\udcff'",
    "semicolons": ";" * 100_000,
    "unions": " UNION ALL ".join(["SELECT COUNT(*) FROM visit"] * 400),
    "subqueries": "SELECT COUNT(*) FROM " + "(SELECT * FROM " * 150 + "visit" + ") AS t" * 150,
    "with": "WITH "
    + ", ".join(f"t{i} AS (SELECT * FROM {f't{i - 1}' if i else 'visit'})" for i in range(120))
    + " SELECT COUNT(*) FROM t119",
    "doubling with": "WITH t0 AS (SELECT person_id FROM visit)"
    + "".join(
        f", t{i} AS (SELECT person_id FROM t{i - 1} UNION ALL SELECT person_id FROM t{i - 1})" for i in range(1, 30)
    )
    + " SELECT COUNT(*) FROM t29",
    "joins": "SELECT COUNT(*) FROM visit AS v0 "
    + " ".join(f"JOIN visit AS v{i} ON v{i}.person_id = v0.person_id" for i in range(1, 60)),
    "cube": "SELECT COUNT(*) FROM visit GROUP BY CUBE (kind, stage, blood, ward, start, finish, diagnosis, noted)",
    "rows of values": f"SELECT COUNT(*) FROM (VALUES {', '.join(['(1)'] * 2000)}) AS t(a)",
    "cast types": _SELECT + "CAST(1 AS " + "STRUCT<a " * 60 + "INT" + ">" * 60 + ") IS NULL",
    "array types": _SELECT + "CAST(1 AS INT" + "[]" * 1000 + ") IS NULL",
    "arrows": _SELECT + "ward" + "->1" * 1000 + " IS NULL",
    "casts": _SELECT + "ward" + "::INT" * 1000 + " = 1",
    "dots": "SELECT " + "a." * 1500 + "b FROM visit",
    "like": _SELECT + f"diagnosis LIKE '{'%a' * 5000}'",
    "similar": _SELECT + f"regexp_matches(diagnosis, '{'(a+)+' * 200}$')",
    "concatenation": _SELECT + " || ".join(["diagnosis"] * 900) + " = 'x'",
    "lambda": _SELECT + "list_transform([1], " + "x -> " * 150 + "x) IS NULL",
    "interval": _SELECT + "start > " + "INTERVAL " * 300 + "1 DAY",
    "repeat": _SELECT + "REPEAT(REPEAT('x', 1000000000), 1000000000) = 'x'",
    "power": "SELECT SUM(" + "POWER(" * 30 + "stage" + ", 99)" * 30 + ") FROM visit",
    "products": "SELECT SUM(" + " * ".join(["cost"] * 400) + ") FROM visit",
    "round": "SELECT SUM(ROUND(cost, 999999999)) FROM visit",
    "quantiles": "SELECT " + ", ".join(f"QUANTILE_CONT(cost, 0.{i:04d})" for i in range(1, 300)) + " FROM visit",
}


def _header(**fields: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=")


_SEALED = {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "typ": "insitu-key+jwe", "p2c": 250_000, "p2s": "c2FsdHNhbHQ"}
_REST = b".AAAA.AAAA.AAAA.AAAA"
SEALED = {
    "rounds": _header(**{**_SEALED, "p2c": 10**12}) + _REST,
    "rounds that are too many": _header(**{**_SEALED, "p2c": 2**31 - 1}) + _REST,
    "rounds that are few": _header(**{**_SEALED, "p2c": 1}) + _REST,
    "rounds that are no number": _header(**{**_SEALED, "p2c": 1e300}) + _REST,
    "rounds that are true": _header(**{**_SEALED, "p2c": True}) + _REST,
    "packed": _header(**_SEALED, zip="DEF") + _REST,
    "critical": _header(**_SEALED, crit=["p2c"]) + _REST,
    "another algorithm": _header(**{**_SEALED, "alg": "dir"}) + _REST,
    "long salt": _header(**{**_SEALED, "p2s": "A" * 40_000}) + _REST,
    "deep header": base64.urlsafe_b64encode(b"[" * 30_000) + _REST,
    "a list": base64.urlsafe_b64encode(b"[1]") + _REST,
    "not base64": b"eyJ\xff\xff" + _REST,
    "no parts": b"eyJ",
}
_FORM = {"alg": "Ed25519", "kid": "k", "typ": "insitu-grant+jwt"}
TOKENS = {
    "none": _header(**{**_FORM, "alg": "none"}) + b".e30.",
    "symmetric": _header(**{**_FORM, "alg": "HS256"}) + b".e30.AAAA",
    "own key": _header(**_FORM, jwk={"kty": "OKP"}) + b".e30.AAAA",
    "remote key": _header(**_FORM, jku="https://example.org/k") + b".e30.AAAA",
    "critical": _header(**_FORM, crit=["exp"]) + b".e30.AAAA",
    "not encoded": _header(**_FORM, b64=False, crit=["b64"]) + b".e30.AAAA",
    "packed": _header(**_FORM, zip="DEF") + b".e30.AAAA",
    "no text": _header(alg=1, kid=[], typ={}) + b".e30.AAAA",
    "huge header": _header(**_FORM, x="a" * 200_000) + b".e30.AAAA",
    "deep header": base64.urlsafe_b64encode(b"[" * 300) + b".e30.AAAA",
    "dots": b"." * 100_000,
    "steps": b"a.b.c\n" * 100_000,
    "encrypted": b"a.b.c.d.e",
    "not ascii": "é.é.é".encode(),
    "huge": b"A" * 5_000_000,
}
PROTO = {
    "groups": b"\x0b" * 10_000,
    "length": b"\x0a\xff\xff\xff\xff\x0f",
    "long length": b"\x0a" + b"\xff" * 9 + b"\x01",
    "unknown fields": b"\xf8\x07\x01" * 100_000,
    "same field again": (b"\x0a\x02\x0a\x00") * 100_000,
    "no text": b"\x0a\x04\x0a\x02\xff\xfe",
    "nested": b"\x0a\x7f" * 5_000,
    "zero": b"\0" * 10_000,
}
DETAILS = {
    "far span": b"\x0a\x13INSITU-SQL-SYNTAX\x20\x20\x12\x01x\x1a\x01y\x22\x0c\x08\xff\xff\xff\xff\x0f\x10\xff\xff\xff\xff\x0f",
}


def _repeated() -> bytes:
    """A text of a megabyte, once in a dictionary and on two million rows."""
    indices = pa.array([0] * 2_000_000, type=pa.int32())
    texts = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 2**20]))
    return _written(pa.table({"code": texts, "chapter": texts, "severity": indices}))


def _nested() -> bytes:
    deep: pa.Array = pa.array([1])
    for _ in range(50):
        deep = pa.ListArray.from_arrays([0, 1], deep)
    return _written(pa.table({"code": deep, "chapter": deep, "severity": deep}))


def _written(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


@cache
def _parquets() -> dict[str, bytes]:
    whole = parquet()
    return {
        "many rows": parquet(8_000_000, compression="zstd", use_dictionary=True),
        "long texts": _repeated(),
        "lists": _nested(),
        "cut": whole[:-20],
        "no footer": b"PAR1" + b"\0" * 100 + b"\xff\xff\xff\x7fPAR1",
        "footer alone": b"PAR1\x00\x00\x00\x00PAR1",
        "zeros": b"PAR1" + b"\0" * 1000 + b"\xe8\x03\0\0PAR1",
    }


CSV = {
    "wide": b"code,chapter,severity" + b",x" * 200_000 + b"\n",
    "long cell": b"code,chapter,severity\n" + b"x" * 500_000 + b",y,1\n",
    "open quote": b'code,chapter,severity\n"' + b"x\n" * 100_000,
    "long number": b"code,chapter,severity\nA,b," + b"9" * 100_000 + b"\n",
    "same names": b"code,code,chapter,severity\nA,B,c,1\n",
    "nul": b"code,chapter,severity\nA\0,b,1\n",
    "exponent": b"code,chapter,severity\nA,b,1e999999999\n",
    "empty": b"",
    "blank lines": b"\n" * 200_000,
}

_CARE = TOML.encode()


def _toml_bombs() -> dict[str, bytes]:
    return TOMLS | {f"{name}, after a dataset": _CARE + b"\n" + bomb for name, bomb in TOMLS.items()}


_SIGNED = ("manifest", "grant", "request", "release", "refusal", "statement", "seal", "invitation", "answer")
_OF: dict[str, Callable[[], dict[str, bytes]]] = (
    {
        "sql-parse": lambda: {  # in Snowflake; ``sql-plan`` parses them all
            name: b"\5" + sql.encode() for name, sql in SQL.items() if "copied" in name or "types" in name
        },
        "sql-plan": lambda: {name: b"<" + sql.encode(errors="surrogateescape") for name, sql in SQL.items()},
        "dataset": _toml_bombs,
        "node-config": lambda: TOMLS,
        "gateway-config": lambda: TOMLS,
        "federation": lambda: TOMLS,
        "profile": lambda: TOMLS,
        "bundle": lambda: TOMLS,
        "public-csv": lambda: CSV,
        "public-parquet": _parquets,
        "messages": lambda: PROTO,
        "error-detail": lambda: PROTO | DETAILS,
        "events": lambda: {name: len(data[:60_000]).to_bytes(2, "big") + data[:60_000] for name, data in PROTO.items()},
        "chunks": lambda: {"empty ones": b"\0\0" * 400_000, "names": b"\0\x06\x0a\x04\xc3\xa9ab" * 1000},
        "token": lambda: TOKENS,
        "key-file": lambda: SEALED,
        "gateway-result": lambda: JSON,
        "result-file": lambda: JSON | {"deep evidence": b'{"evidence":' + b"[" * 500 + b"]" * 500 + b"}"},
        "node-values": lambda: JSON,
        "audit-log": lambda: JSON | {"lines": b"{}\n" * 20_000},
        "enrolment": lambda: JSON,
        "succession": lambda: JSON,
    }
    | dict.fromkeys(_SIGNED, lambda: JSON)
)


def bombs() -> Iterator[tuple[str, str, bytes]]:
    """Target, name and bytes of each."""
    for target, made in _OF.items():
        for name, data in made().items():
            yield target, name, data
