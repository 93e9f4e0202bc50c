"""FEDERATION.toml: what is read from it, and what each mistake in it says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from insitu_compose.federation import load_federation
from insitu_privacy.errors import ConfigInvalid

POSTGRES = 'engine = "postgres"\ndatabase = "postgresql://node@localhost/care"'
DUCKDB = 'engine = "duckdb"\ndatabase = "north.duckdb"'


def test_reads_what_the_file_says(write, tmp_path: Path) -> None:
    federation = load_federation(write())
    node = federation.file.node[0]
    assert (federation.name, node.id, node.organisation, node.jurisdiction) == (
        "small",
        "north",
        "North hospital",
        "FR",
    )
    assert federation.datasets == {"care": tmp_path / "care" / "dataset.toml"}
    assert node.datasets["care"].database == str(tmp_path / "north.duckdb")
    assert node.datasets["care"].tables == {"person": "person"}


def test_numbers_are_exact(write) -> None:
    grant = load_federation(write("20.0", "0.1")).file.grant
    assert (grant.epsilon, grant.delta) == (Fraction(1, 10), Fraction(1, 10**6))
    assert load_federation(write("20.0", "1e300")).file.grant.epsilon == 10**300
    assert load_federation(write("20.0", '"1/3"')).file.grant.epsilon == Fraction(1, 3)


def test_names_who_is_not_named(write) -> None:
    federation = load_federation(write('organisation = "North hospital"\njurisdiction = "FR"\n', ""))
    assert (federation.file.node[0].organisation, federation.file.node[0].jurisdiction) == ("north", "ZZ")
    assert (federation.file.gateway.id, federation.file.gateway.operator) == ("gateway", "insitu-compose")


def test_takes_the_optional_sections(write) -> None:
    extra = '[gateway]\noperator = "A"\njurisdiction = "BE"\n[grant]\nproject = "p"\ntables = ["care.person:sex"]\ndays = 3\npurpose_code = "ph"'
    file = load_federation(write("[grant]", extra)).file
    assert (file.gateway.operator, file.gateway.jurisdiction) == ("A", "BE")
    assert (file.grant.project, file.grant.tables, file.grant.days) == ("p", ("care.person:sex",), 3)
    assert file.grant.purpose_code == "ph"


def test_paths_are_relative_to_the_file(write, tmp_path: Path, monkeypatch) -> None:
    path = write('person = "person"', "person = \"SELECT * FROM read_parquet('north/person.parquet')\"")
    monkeypatch.chdir("/")
    tables = load_federation(path).file.node[0].datasets["care"].tables
    assert tables["person"] == f"SELECT * FROM read_parquet('{tmp_path}/north/person.parquet')"


def test_a_url_stays_as_it_is(write) -> None:
    source = load_federation(write(DUCKDB, POSTGRES)).file.node[0].datasets["care"]
    assert source.database == "postgresql://node@localhost/care"


def test_duckdb_needs_no_database(write) -> None:
    assert load_federation(write('database = "north.duckdb"\n', "")).file.node[0].datasets["care"].database is None


def test_the_fingerprint_follows_file_and_dataset(write, tmp_path: Path) -> None:
    first = load_federation(write()).fingerprint
    assert load_federation(write()).fingerprint == first
    assert load_federation(write("20.0", "21.0")).fingerprint != first
    path = write()
    dataset = tmp_path / "care" / "dataset.toml"
    dataset.write_text(dataset.read_text().replace("version = 1", "version = 2"))
    assert load_federation(path).fingerprint != first


MISTAKES = [
    ("[grant]", "[grant", "INSITU-CONFIG-INVALID", "not TOML"),
    ('engine = "duckdb"', 'engine = "dbase"', "INSITU-CONFIG-INVALID", "node.0.datasets.care.engine"),
    (DUCKDB, 'engine = "postgres"', "INSITU-CONFIG-INVALID", "postgres needs a database URL"),
    ("north.duckdb", "gone.duckdb", "INSITU-CONFIG-FILE", "gone.duckdb: no such file"),
    ("care/dataset.toml", "gone.toml", "INSITU-CONFIG-FILE", "gone.toml"),
    ("[node.datasets.care", "[node.datasets.other", "INSITU-CONFIG-INVALID", "dataset other is not one of"),
    ('person = "person"', 'visit = "visit"', "INSITU-CONFIG-INVALID", "has no table visit"),
    ('id = "north"', 'id = "../north"', "INSITU-CONFIG-INVALID", "node.0.id"),
    ('name = "', 'jurisdictions = ["FRA"]\nname = "', "INSITU-CONFIG-INVALID", "federation.jurisdictions.0"),
    ('jurisdiction = "FR"', 'jurisdiction = "France"', "INSITU-CONFIG-INVALID", "node.0.jurisdiction"),
    ('jurisdiction = "FR"', 'jurisdiktion = "FR"', "INSITU-CONFIG-INVALID", "node.0.jurisdiktion"),
    ("epsilon = 20.0", "epsilon = 0", "INSITU-CONFIG-INVALID", "grant.epsilon"),
    ("epsilon = 20.0", "epsilon = inf", "INSITU-CONFIG-INVALID", "grant.epsilon"),
    ("epsilon = 20.0", "epsilon = true", "INSITU-CONFIG-INVALID", "grant.epsilon"),
    ("delta = 1e-6", "delta = 1", "INSITU-CONFIG-INVALID", "grant.delta"),
    ("delta = 1e-6", "delta = -1e-6", "INSITU-CONFIG-INVALID", "grant.delta"),
    ('accounting = "zcdp"', 'accounting = "renyi"', "INSITU-CONFIG-INVALID", "grant.accounting"),
    ('datasets = ["care/dataset.toml"]', "datasets = []", "INSITU-CONFIG-INVALID", "federation.datasets"),
    ('["care/dataset.toml"]', '["care/dataset.toml", "care/dataset.toml"]', "INSITU-CONFIG-INVALID", "stands twice"),
]


@pytest.mark.parametrize(("old", "new", "code", "says"), MISTAKES, ids=[new for _, new, _, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_it(write, old: str, new: str, code: str, says: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_federation(write(old, new))
    assert caught.value.code == code
    assert says in caught.value.line()
    assert "\n" not in caught.value.line()


def test_two_nodes_of_one_id(write) -> None:
    path = write()
    path.write_text(path.read_text() + '[[node]]\nid = "NORTH"\n[node.datasets.care]\nengine = "duckdb"\n')
    with pytest.raises(ConfigInvalid, match="north stands twice"):
        load_federation(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_federation(tmp_path / "FEDERATION.toml")
    assert caught.value.code == "INSITU-CONFIG-FILE"


def test_a_bad_dataset(write, tmp_path: Path) -> None:
    path = write()
    (tmp_path / "care" / "dataset.toml").write_text("[dataset]\n")
    with pytest.raises(ConfigInvalid) as caught:
        load_federation(path)
    assert caught.value.code == "INSITU-CONFIG-INVALID"
