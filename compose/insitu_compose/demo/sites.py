"""The three hospitals of the demonstration: their data, and the FEDERATION.toml that names it.

Two keep their OMOP tables in DuckDB files, one in PostgreSQL. Who is known where is decided by the last digit of
``person_id``, so no person is known to two of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from insitu_privacy.dataset import Dataset

from insitu_compose.demo.contract import contract, contract_path
from insitu_compose.demo.eunomia import write_site
from insitu_compose.demo.hospital import SCHEMA, load, server

EPSILON, DELTA = "10.0", "1e-6"
PROFILE, PROFILED = "4.0", ["condition_occurrence", "drug_exposure"]
"""What a profile costs, of the tables that the questions count in: of all, each measure would get a hundredth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One hospital of the demonstration."""

    id: str
    organisation: str
    jurisdiction: str
    last_digits: tuple[int, ...]
    engine: str


SITES = (
    Site(id="chu-lille", organisation="CHU de Lille", jurisdiction="FR", last_digits=(0, 1, 2, 3, 4), engine="duckdb"),
    Site(id="chu-rennes", organisation="CHU de Rennes", jurisdiction="FR", last_digits=(5, 6, 7), engine="duckdb"),
    Site(id="uz-leuven", organisation="UZ Leuven", jurisdiction="BE", last_digits=(8, 9), engine="postgres"),
)
"""The names are of real hospitals, to be easy to read; the persons are synthetic and none of theirs."""


@contextmanager
def prepared(folder: Path) -> Iterator[Path]:
    """Makes every site's data under ``folder``, keeps PostgreSQL running, and yields the path of FEDERATION.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = contract()
    with server(folder / "postgres") as admin:
        files = {site.id: folder / f"{site.id}.duckdb" for site in SITES}
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(lambda site: write_site(files[site.id], dataset, site.last_digits), SITES))
        databases: dict[str, str] = {}
        for site in SITES:
            databases[site.id] = str(files[site.id])
            if site.engine == "postgres":
                databases[site.id] = load(admin, files[site.id], dataset)
                files[site.id].unlink()
        path = folder / "FEDERATION.toml"
        path.write_text(federation_toml(dataset, databases), encoding="utf-8")
        yield path


def federation_toml(dataset: Dataset, databases: Mapping[str, str]) -> str:
    """The federation file, for sites whose databases are given by id."""
    parts = [
        '# The demonstration federation, as `make demo` writes it.\n[federation]\nname = "demo"\n'
        f'datasets = [{_text(str(contract_path()))}]\njurisdictions = ["EU"]\n',
        '[gateway]\noperator = "demonstration"\njurisdiction = "FR"\n',
    ]
    parts += [_node(site, dataset, databases[site.id]) for site in SITES]
    parts.append(
        f'[grant]\nproject = "NSAIDs and gastrointestinal bleeding"\npurpose = "demonstration on synthetic persons"\n'
        f'reference = "demo"\nepsilon = {EPSILON}\ndelta = {DELTA}\naccounting = "zcdp"\n'
    )
    return "\n".join(parts)


def _node(site: Site, dataset: Dataset, database: str) -> str:
    prefix = f"{SCHEMA}." if site.engine == "postgres" else ""
    # The PostgreSQL site has a vocabulary of its own; the others leave theirs to the dataset's public files.
    tables = [table.name for table in dataset.tables.values() if prefix or not table.public]
    lines = [f'{name} = "{prefix}{name}"' for name in tables]
    return (
        f'[[node]]\nid = "{site.id}"\norganisation = "{site.organisation}"\njurisdiction = "{site.jurisdiction}"\n'
        f'[node.datasets.{dataset.name}]\nengine = "{site.engine}"\ndatabase = {_text(database)}\n'
        f"profile = {PROFILE}\nprofile_tables = {json.dumps(PROFILED)}\n"
        f"[node.datasets.{dataset.name}.tables]\n" + "\n".join(lines) + "\n"
    )


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
