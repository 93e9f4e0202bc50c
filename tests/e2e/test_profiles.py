"""Profiles in a real federation: compose has them made, nodes announce them, the gateway keeps them; made once.

Values that could not come about by chance stand in the rows: no profile, log or store of another party holds one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.e2e.small import Parties, stop
from tests.e2e.world import BIN
from tests.testkit.canaries import Canary, found

pytestmark = pytest.mark.e2e

CANARIES: dict[str, Canary] = {
    "name": "Zoë Kwyjibo-Xanthakos",
    "identifier": 8_675_309_123_457,
    "amount": 31415.92653589,
    "day": date(1893, 11, 27),
}
DATASET = """
[dataset]
name = "care"
version = 1
[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
name = { type = "text" }
born = { type = "date", min = 1890-01-01, max = 2026-12-31 }
[tables.stay]
unit = "person_id"
max_rows_per_group = 20
max_groups = 1
[tables.stay.columns]
person_id = { type = "integer" }
amount = { type = "decimal", min = 0, max = 50000 }
"""
NODE = """
[[node]]
id = "{id}"
[node.datasets.care]
engine = "duckdb"
database = "{id}.duckdb"
profile = {profile}
[node.datasets.care.tables]
person = "person"
stay = "stay"
"""
HEAD = '[federation]\nname = "test"\ndatasets = ["care/dataset.toml"]\n'
GRANT = '[grant]\nepsilon = 10\ndelta = 1e-6\naccounting = "pure"\n'


def start(root: Path) -> Parties:
    (root / "care").mkdir(parents=True)
    (root / "care" / "dataset.toml").write_text(DATASET)
    for index, node in enumerate(("alpha", "beta")):
        with duckdb.connect(str(root / f"{node}.duckdb")) as database:
            database.execute(
                f"""CREATE TABLE person AS SELECT i AS person_id, 'n' AS name, DATE '1950-01-01' AS born
                FROM range(6000) t(i) WHERE i % 2 = {index}"""
            )
            database.execute(
                """CREATE TABLE stay AS SELECT person_id, CAST(j * 10 AS DOUBLE) AS amount FROM person, range(40) r(j)"""
            )
            one = [CANARIES["identifier"], CANARIES["name"], CANARIES["day"]]
            database.execute("INSERT INTO person VALUES (?, ?, ?)", one)
            many = [CANARIES["identifier"], CANARIES["amount"]]
            database.execute("INSERT INTO stay SELECT ?, ? FROM range(500)", many)
    nodes = [NODE.format(id="alpha", profile=1.0), NODE.format(id="beta", profile='"1/2"')]
    (root / "FEDERATION.toml").write_text("\n".join([HEAD, *nodes, GRANT]))
    parties = Parties(root / "federation")
    done = subprocess.run(
        [str(BIN / "insitu-compose"), "up", str(root / "FEDERATION.toml"), "--dir", str(parties.dir), "--detach"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "making 2 profiles" in done.stderr
    return parties


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    started = start(Path(tmp_path_factory.mktemp("profiles")))
    yield started
    stop(started)


def profile(parties: Parties, *options: str) -> Any:
    line = " ".join(["insitu-node profile care --config node.toml --format json", *options])
    return parties.works("node alpha", line)


def kept(parties: Parties) -> list[tuple[str, int]]:
    """Node and serial of each profile that the gateway said it keeps, in order."""
    lines = (parties.dir / "logs" / "gateway.log").read_text().splitlines()
    said = [json.loads(line) for line in lines if '"profile kept"' in line]
    return [(str(line["node"]), int(line["serial"])) for line in said]


def spent(parties: Parties) -> list[float]:
    shown = parties.works("node alpha", "insitu-node ledger --config node.toml --format json")
    return [account["epsilon_spent"] for account in shown["accounts"] if account["profile"]]


def test_compose_has_them_made_and_the_gateway_gets_them(parties: Parties) -> None:
    parties.wait(lambda: sorted(kept(parties)) == [("alpha", 1), ("beta", 1)], 20)
    assert spent(parties) == [1.0]


@pytest.mark.attacks("H8")
def test_asked_again_nothing_is_charged(parties: Parties) -> None:
    again = profile(parties, "--epsilon 0.9")
    assert (again["how"], again["serial"], again["epsilon"], again["charged"]) == ("kept", 1, 1.0, False)
    assert spent(parties) == [1.0]


@pytest.mark.attacks("H7", "H8")
def test_a_refresh_is_held_to_the_budget_survives_a_kill_and_reaches_the_gateway(parties: Parties) -> None:
    """All of it beside the running node."""
    where = parties.where("node alpha")
    refused = parties.run("node alpha", "insitu-node profile care --refresh --epsilon 0.001 --config node.toml")
    assert refused.code == 2
    assert refused.err.startswith("INSITU-PROFILE-BUDGET")
    assert spent(parties) == [1.0]
    config = where / "node.toml"
    config.write_text(config.read_text().replace('profile_epsilon = "1"', 'profile_epsilon = "3/2"'))
    killed = subprocess.run(
        [str(BIN / "insitu-node"), "profile", "care", "--refresh", "--epsilon", "0.5", "--config", str(config)],
        env={**os.environ, "INSITU_TEST_CRASH_AT": "after-noise", "INSITU_ALLOW_TEST_HOOKS": "1"},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert killed.returncode == -9
    assert spent(parties) == [1.5]
    assert profile(parties)["serial"] == 1
    made = profile(parties, "--refresh --epsilon 0.5")
    assert (made["how"], made["serial"], made["epsilon_spent"]) == ("finished", 2, 1.5)
    assert spent(parties) == [1.5]
    parties.wait(lambda: ("alpha", 2) in kept(parties), 20)


def test_queries_pay_from_their_grant_alone(parties: Parties) -> None:
    query = 'insitu query "SELECT COUNT(*) AS n FROM stay" --epsilon 1 --format json -q --profile ' + str(
        parties.dir / "profile"
    )
    assert parties.works("authority", query)["spent"]["epsilon"] == 1
    assert spent(parties) == [1.5]
    shown = parties.works("authority", f"insitu budget --format json --profile {parties.dir / 'profile'}")
    assert {row["epsilon_spent"] for row in shown["nodes"]} == {1.0}
    listed = parties.works("node alpha", "insitu-node projects list --config node.toml --format json")
    assert len(listed["projects"]) == 1


def test_the_audit_log_tells_all_of_it_and_holds(parties: Parties) -> None:
    verified = parties.works("node alpha", "insitu-node audit verify --config node.toml --format json")
    assert verified["holds"]
    shown = parties.works("node alpha", "insitu-node audit show --config node.toml --format json")
    kinds = [entry["kind"] for entry in shown["entries"]]
    assert kinds.count("profile-made") == 2
    assert kinds.count("charge-reserved") == 3


def test_a_first_look_is_charged_as_any_query_free_again_and_part_of_the_evidence(parties: Parties) -> None:
    def ask() -> Any:
        sql = "SELECT COUNT(*) AS n FROM stay WHERE amount > 380"
        line = f'insitu query "{sql}" --epsilon 2 --format json -q --profile {parties.dir / "profile"}'
        return parties.works("authority", line)

    def charges() -> list[float]:
        shown = parties.works("node alpha", "insitu-node ledger --config node.toml --format json")
        return [account["epsilon_spent"] for account in shown["accounts"] if not account["profile"]]

    (before,) = charges()
    first, again = ask(), ask()
    assert (first["spent"]["epsilon"], first["first_look"]["epsilon"]) == (2.0, 0.2)
    assert (again["spent"]["epsilon"], again["first_look"]["epsilon"]) == (0.0, 0.0)
    assert again["rows"] == first["rows"]
    assert charges() == [before + 2]
    file = parties.dir / "looked.json"
    file.write_text(json.dumps(first))
    parties.works("authority", f"insitu verify {file} --profile {parties.dir / 'profile'}")
    books = "--node nodes/alpha --node nodes/beta --gateway gateway --receipt looked.json --format json"
    held = parties.works("authority", f"insitu-authority audit reconcile authority {books}")
    assert (held["agree"], held["receipts"]) == (True, 1)
    first["evidence"]["first_look"] = None
    file.write_text(json.dumps(first))
    assert parties.run("authority", f"insitu verify {file} --profile {parties.dir / 'profile'}").code == 4


@pytest.mark.attacks("H9", "W4")
def test_no_value_of_a_row_is_in_any_of_it(parties: Parties) -> None:
    made = list((parties.where("node alpha") / "state" / "profiles").glob("*.json"))
    told = [path for path in (parties.dir / "gateway").rglob("*") if path.is_file()]
    logs = list((parties.dir / "logs").glob("*.log"))
    assert made
    assert told
    for path in [*made, *told, *logs]:
        assert found(path.read_bytes(), CANARIES) == set(), path
    text = parties.run("node alpha", "insitu-node profile care --config node.toml")
    assert found(text.out.encode() + text.err.encode(), CANARIES) == set()
