"""A small federation on disk: one dataset, one DuckDB file, one federation file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

DATASET = """\
[dataset]
name = "care"
version = 1

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
sex = { type = "text", values = ["F", "M"] }
"""

FEDERATION = """\
[federation]
name = "small"
datasets = ["care/dataset.toml"]

[[node]]
id = "north"
organisation = "North hospital"
jurisdiction = "FR"
[node.datasets.care]
engine = "duckdb"
database = "north.duckdb"
[node.datasets.care.tables]
person = "person"

[grant]
epsilon = 20.0
delta = 1e-6
accounting = "zcdp"
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the federation file, with ``old`` replaced by ``new``, beside its dataset and its database."""

    def written(old: str = "", new: str = "") -> Path:
        assert old in FEDERATION
        (tmp_path / "care").mkdir(exist_ok=True)
        (tmp_path / "care" / "dataset.toml").write_text(DATASET)
        if not (tmp_path / "north.duckdb").exists():
            with duckdb.connect(str(tmp_path / "north.duckdb")) as site:
                site.execute("CREATE TABLE person AS SELECT i AS person_id, 'F' AS sex FROM range(5) r(i)")
        path = tmp_path / "FEDERATION.toml"
        path.write_text(FEDERATION.replace(old, new) if old else FEDERATION)
        return path

    return written
