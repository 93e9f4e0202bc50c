"""What researchers write, and what custodians write about data: SQL, dataset files and their public files."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
from insitu_node.engines.public_source import arrow, read_source
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.dataset_file import parse_dataset, source_names
from insitu_privacy.errors import underline
from insitu_privacy.passes.parse import parse
from insitu_privacy.plan import PublicTable
from insitu_privacy.published import published_table

from tests.fuzz.targets import Target
from tests.golden.cases import CASES
from tests.testkit.care import ICD, TOML, bundle, plan

DIALECTS = (
    "duckdb",
    "postgres",
    "oracle",
    "tsql",
    "bigquery",
    "snowflake",
    "spark",
    "clickhouse",
    "mysql",
    "teradata",
)
_TYPES = 'code     = { type = "text" }'


def _sql(data: bytes) -> tuple[str, str]:
    """The dialect that the first byte chooses, and the SQL after it."""
    return DIALECTS[(data[:1] or b"0")[0] % len(DIALECTS)], data[1:].decode(errors="surrogateescape")


def _parse(data: bytes) -> None:
    dialect, sql = _sql(data)
    parse(sql, dialect)


def _plan(data: bytes) -> None:
    dialect, sql = _sql(data)
    try:
        plan(sql, dialect=dialect)
    except Exception as error:
        if getattr(error, "span", None) is not None:
            underline(sql, error.span)
        raise


def _dataset(data: bytes) -> None:
    source_names(data)
    parse_dataset(DatasetBundle(toml=data, files=bundle().files))


def _csv(data: bytes) -> None:
    _public("icd.csv", data)


def _parquet(data: bytes) -> None:
    _public("icd.parquet", data)


def _public(name: str, data: bytes) -> None:
    """All three who read a public file: the contract, a node's engine, the post-processing."""
    dataset = parse_dataset(DatasetBundle(toml=TOML.replace("icd.csv", name).encode(), files={name: data}))
    table = dataset.tables["icd"]
    columns = tuple((column.name, column.type) for column in table.columns.values())
    published_table(PublicTable(name="icd", columns=columns, source=name, content=data))
    arrow(table, read_source(table, data))


def parquet(rows: int = 5, **options: object) -> bytes:
    """The public file of ``care``, as Parquet; more rows are the same ones again."""
    code, chapter, severity = zip(*ICD, strict=True)
    times = -(-rows // len(ICD))
    table = pa.table({"code": code * times, "chapter": chapter * times, "severity": severity * times})
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


_QUERIES = [bytes([60 + place % 2]) + case.sql.encode() for place, case in enumerate(CASES.values())]  # "<", "="

TARGETS = (
    Target(name="sql-parse", run=_parse, seeds=_QUERIES, seconds=2, longest=4096, examples=150),
    Target(name="sql-plan", run=_plan, seeds=_QUERIES, seconds=5, megabytes=128, longest=4096, examples=150),
    Target(name="dataset", run=_dataset, seeds=[TOML.encode()], seconds=2, examples=80),
    Target(name="public-csv", run=_csv, seeds=[bundle().files["icd.csv"]]),
    Target(
        name="public-parquet",
        run=_parquet,
        megabytes=128,
        seeds=[parquet(), parquet(compression="none"), parquet(version="1.0")],
    ),
)
