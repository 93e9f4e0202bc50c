"""File names in a site's mapping become absolute; nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu_compose.site_paths import absolute_database, absolute_mapping

HERE = Path("/sites")
CHANGED = {
    "SELECT * FROM read_parquet('a.parquet')": "SELECT * FROM read_parquet('/sites/a.parquet')",
    "SELECT * FROM READ_CSV('a*.csv', delim = ';')": "SELECT * FROM READ_CSV('/sites/a*.csv', delim = ';')",
    "SELECT * FROM read_parquet(['a.parquet', 'b.parquet'])": (
        "SELECT * FROM read_parquet(['/sites/a.parquet', '/sites/b.parquet'])"
    ),
    "SELECT * FROM 'a.parquet' WHERE x = 'a.parquet'": "SELECT * FROM '/sites/a.parquet' WHERE x = 'a.parquet'",
    "select 'é', * from  read_parquet ( 'it''s.parquet' ) -- all": (
        "select 'é', * from  read_parquet ( '/sites/it''s.parquet' ) -- all"
    ),
    "visits/*.parquet": "/sites/visits/*.parquet",
    "visits.csv": "/sites/visits.csv",
}
KEPT = [
    "visit",
    "cdm.visit",
    "SELECT * FROM read_parquet('/data/a.parquet')",
    "SELECT * FROM read_parquet('s3://bucket/a.parquet')",
    "SELECT * FROM visit WHERE note = 'read_parquet' AND kind IN ('a', 'b')",
    "SELECT concat('a.parquet', x) FROM visit",
    "SELECT 'unclosed FROM visit",
]


@pytest.mark.parametrize(("text", "expected"), CHANGED.items(), ids=CHANGED.keys())
def test_relative_files_become_absolute(text: str, expected: str) -> None:
    assert absolute_mapping(text, HERE) == expected


@pytest.mark.parametrize("text", KEPT)
def test_everything_else_stays(text: str) -> None:
    assert absolute_mapping(text, HERE) == text


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        (None, None),
        (":memory:", None),
        ("a.duckdb", "/sites/a.duckdb"),
        ("/data/a.duckdb", "/data/a.duckdb"),
        ("postgresql://x/y", "postgresql://x/y"),
    ],
)
def test_databases(database: str | None, expected: str | None) -> None:
    assert absolute_database(database, HERE) == expected
