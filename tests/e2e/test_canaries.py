"""Sovereignty (W4): no value of a person's rows leaves a node, in any encoding.

Values that could not come about by chance stand in the rows of two real nodes, on DuckDB and PostgreSQL. They are asked
all kinds of questions. Every byte that they send to the gateway, within TLS, and all that they and the others write down
for people is then searched. Only a custodian's own state may hold what it keeps, and it holds no values either.
"""

from __future__ import annotations

import base64
import gzip
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import duckdb
import insitu
import pytest
from insitu_privacy.errors import InsituError

from tests.e2e.small import Parties, stop
from tests.e2e.world import BIN
from tests.testkit.canaries import Canary, forms, found
from tests.testkit.databases import new_database
from tests.testkit.hostile_world import turned

CANARIES: dict[str, Canary] = {
    "name": "Zoë Kwyjibo-Xanthakos",
    "identifier": 8_675_309_123_457,
    "stay": 7_223_372_036_117,
    "code": "QZX97",
    "amount": 31415.92653589,
    "day": date(1893, 11, 27),
    "outside": 987654.3219876,
}
DATASET = """
[dataset]
name = "care"
version = 1
title = "Stays"
nodes_per_unit = 1
min_units = 0
[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
sex = { type = "text", values = ["F", "M"] }
name = { type = "text" }
born = { type = "date", min = 1890-01-01, max = 2026-12-31 }
[tables.stay]
unit = "person_id"
entity_keys = [["stay_id"]]
max_rows_per_group = 5
max_groups = 5
[tables.stay.columns]
stay_id = { type = "integer" }
person_id = { type = "integer" }
code = { type = "text" }
amount = { type = "decimal", min = 0, max = 50000 }
paid = { type = "decimal", min = 0, max = 1000, nullable = true }
[tables.broken]
unit = "person_id"
one_row_per_unit = true
[tables.broken.columns]
person_id = { type = "integer" }
score = { type = "decimal", min = 0, max = 10 }
"""
SCORE = "CASE WHEN name = 'n' THEN 1 ELSE CAST(name AS DOUBLE PRECISION) END"
BROKEN = f'broken = "SELECT person_id, {SCORE} AS score FROM person"'
"""A site's own query that fails on the canary's row alone: the database says on what value."""
FEDERATION = """
[federation]
name = "test"
datasets = ["care/dataset.toml"]
[[node]]
id = "alpha"
jurisdiction = "FR"
[node.datasets.care]
engine = "duckdb"
database = "alpha.duckdb"
[node.datasets.care.tables]
person = "person"
stay = "stay"
{broken}
[[node]]
id = "beta"
jurisdiction = "FR"
[node.datasets.care]
engine = "postgres"
database = "{url}"
[node.datasets.care.tables]
person = "person"
stay = "stay"
{broken}
[grant]
epsilon = 200.0
delta = 1e-3
accounting = "zcdp"
"""
NODES = ("alpha", "beta")


def statements(series: str) -> list[str]:
    """Three hundred people, one of them with all canaries."""
    each = "CASE WHEN i = 0 THEN {canary} ELSE {other} END"
    who = each.format(canary=CANARIES["identifier"], other="CAST(i AS BIGINT)")
    name = each.format(canary=f"'{CANARIES['name']}'", other="'n'")
    born = each.format(canary=f"DATE '{CANARIES['day']}'", other="DATE '1950-01-01' + CAST(i AS INTEGER)")
    stay = each.format(canary=CANARIES["stay"], other="CAST(i AS BIGINT)")
    code = each.format(canary=f"'{CANARIES['code']}'", other="'E1'")
    amount = each.format(canary=CANARIES["amount"], other="CAST(100 + i AS DOUBLE PRECISION)")
    paid = each.format(canary=CANARIES["outside"], other="CAST(i AS DOUBLE PRECISION)")
    return [
        f"CREATE TABLE person AS SELECT {who} AS person_id, CASE WHEN i % 2 = 0 THEN 'F' ELSE 'M' END AS sex, "
        f"{name} AS name, {born} AS born FROM {series}",
        f"CREATE TABLE stay AS SELECT {stay} AS stay_id, {who} AS person_id, {code} AS code, {amount} AS amount, "
        f"{paid} AS paid FROM {series}",
    ]


QUESTIONS = (
    "SELECT sex, COUNT(*) AS n FROM person GROUP BY sex",
    "SELECT name, COUNT(*) AS n FROM person GROUP BY name",
    "SELECT code, COUNT(DISTINCT person_id) AS n, AVG(amount) AS a FROM stay GROUP BY code",
    "SELECT SUM(amount) AS s, SUM(paid) AS p, COUNT(paid) AS n FROM stay",
    "SELECT MIN(amount) AS low, MAX(amount) AS high FROM stay",
    "SELECT MAX(born) AS last, MIN(born) AS first FROM person",
    "SELECT PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY amount) AS p FROM stay",
    "SELECT COUNT(DISTINCT stay_id) AS n FROM stay WHERE LENGTH(code) > 3",
    "SELECT COUNT(*) AS n FROM stay WHERE 1 / (amount - amount) > 0 OR CAST(code AS INTEGER) > 0",
    "SELECT p.name, COUNT(*) AS n FROM stay AS s JOIN person AS p ON p.person_id = s.person_id GROUP BY p.name",
    "SELECT AVG(score) AS s FROM broken",
    "SELECT COUNT(*) AS n FROM broken WHERE score > 3",
    "SELECT name FROM person",
    "SELECT person_id, COUNT(*) AS n FROM stay GROUP BY person_id",
    "SELECT COUNT(DISTINCT name) AS n FROM person",
    "SELECT * FROM stay ORDER BY amount DESC LIMIT 1",
)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Parties]:
    root = tmp_path_factory.mktemp("canaries")
    (root / "care").mkdir()
    (root / "care" / "dataset.toml").write_text(DATASET)
    with duckdb.connect(str(root / "alpha.duckdb")) as database:
        for statement in statements("range(300) t(i)"):
            database.execute(statement)
    url = new_database(postgres_url, *statements("generate_series(0, 299) t(i)"))
    (root / "FEDERATION.toml").write_text(FEDERATION.format(url=url, broken=BROKEN))
    made = Parties(root / "federation")
    command = [str(BIN / "insitu-compose"), "up", str(root / "FEDERATION.toml"), "--dir", str(made.dir), "--detach"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    try:
        yield made
    finally:
        stop(made)


def answered(parties: Parties) -> Counter[str]:
    """Asks everything; how many questions were answered, and with what the others ended."""
    count: Counter[str] = Counter()
    with insitu.connect(parties.dir / "profile") as federation:
        for question in QUESTIONS:
            try:
                count["answered"] += len(federation.query(question, epsilon=1, delta=1e-6).nodes) == len(NODES)
            except InsituError as error:
                count[error.code] += 1
        federation.budget()
    return count


def written(parties: Parties) -> dict[str, bytes]:
    """All that stands in files or is shown, by where: but for the databases, which are the custodians' own."""
    texts = {}
    for node in NODES:
        for verb in ("status", "check", "ledger show", "audit show --details", "projects list"):
            done = parties.run(f"node {node}", f"insitu-node {verb} --config node.toml")
            texts[f"{node} {verb}"] = (done.out + done.err).encode()
        parties.works(f"node {node}", "insitu-node audit export --config node.toml --out export.jsonl")
    files = [path for path in parties.dir.rglob("*") if path.is_file()]
    return texts | {str(path.relative_to(parties.dir)): path.read_bytes() for path in files}


@pytest.mark.attacks("W4", "P4", "P5")
def test_no_value_of_a_row_leaves_a_node(parties: Parties) -> None:
    with turned(parties, *NODES) as gateway:
        ended = answered(parties)
        assert ended["answered"] >= 9
        assert ended["INSITU-NODE-FAILED"] == 2, ended  # on a row, after it was read
        sent = list(gateway.bytes_heard)
    assert sum(map(len, sent)) > 10_000
    assert {form for message in sent for form in found(message, CANARIES)} == set()
    places = written(parties)
    assert {"nodes/alpha/state/ledger.sqlite", "logs/node-alpha.log", "alpha ledger show"} <= places.keys()
    assert {where: hits for where, content in places.items() if (hits := found(content, CANARIES))} == {}


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "base64": base64.b64encode,
    "base64url": lambda content: base64.urlsafe_b64encode(content).rstrip(b"="),
    "hex": lambda content: content.hex().encode(),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "token of a packed value": lambda content: b"e30." + base64.urlsafe_b64encode(gzip.compress(content)) + b".x",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", CANARIES)
@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_the_search_finds_what_is_planted(name: str, wrapping: str, before: int) -> None:
    """Every form of every canary, wherever it stands; and nothing where nothing is."""
    noise = bytes(range(1, 90)) * 3
    for form, text in forms(CANARIES[name]).items():
        hidden = WRAPPINGS[wrapping](noise[:before] + text + noise)
        assert (name, form) in found(b"\x00\x08 " + hidden + b" \xff", CANARIES), form
    assert found(WRAPPINGS[wrapping](noise), CANARIES) == set()


def test_the_search_finds_a_value_in_the_database_itself(parties: Parties) -> None:
    """The canaries are where they are looked for from: the bytes of the custodian's own file hold them."""
    found_in: set[str] = set()
    path = Path(parties.dir.parent / "alpha.duckdb")
    with duckdb.connect(str(path), read_only=True) as database:
        for table in ("person", "stay"):
            found_in |= {name for name, _ in found(repr(database.table(table).fetchall()).encode(), CANARIES)}
    assert found_in >= CANARIES.keys() - {"day"}
