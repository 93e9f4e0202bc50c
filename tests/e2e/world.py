"""A federation of real processes for end-to-end tests: a gateway and three nodes, started by ``insitu-compose``.

Two nodes stand on DuckDB, one of them on bare Parquet files, one on PostgreSQL. 600 persons are split over them. Exact
answers come from one DuckDB that holds all three sites: no party of the federation has such a thing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import insitu
import psycopg

from tests.testkit.typed import Done, typed

BIN = Path(sys.executable).parent
CANARY = "CANARY-7f3a-DUPONT"
"""Stands in a private text column of every site; nothing may ever show it."""

DATASET = """
[dataset]
name = "care"
version = 1
title = "Stays and claims"
nodes_per_unit = 1
min_units = 0

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
sex = { type = "text", values = ["F", "M"] }
birth_year = { type = "integer", min = 1900, max = 2026 }
name = { type = "text" }

[tables.visit]
unit = "person_id"
entity_keys = [["visit_id"]]
max_rows_per_group = 40
max_groups = 12
[tables.visit.columns]
visit_id = { type = "integer" }
person_id = { type = "integer" }
day = { type = "date", min = 2015-01-01, max = 2026-12-31 }
icd10 = { type = "text" }
amount = { type = "decimal", min = 0, max = 1000 }
note = { type = "decimal", nullable = true }

[tables.icd]
public = true
source = "icd.csv"
key = ["code"]
[tables.icd.columns]
code = { type = "text" }
label = { type = "text" }
"""

SITES = {"alpha": 0, "beta": 1, "gamma": 2}


@dataclass
class World:
    """A running federation, and the commands of its parties."""

    root: Path
    profile: Path
    exact: duckdb.DuckDBPyConnection
    grants: int = field(default=0)
    open: dict[Path, insitu.Federation] = field(default_factory=dict)

    def close(self) -> None:
        for federation in self.open.values():
            federation.close()
        self.exact.close()

    @property
    def dir(self) -> Path:
        return self.root / "federation"

    def run(self, command: str, *arguments: object, stdin: str | None = None, timeout: float = 90) -> Done:
        done = subprocess.run(
            [str(BIN / command), *(str(one) for one in arguments)],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def typed(self, command: str, *arguments: object) -> Done:
        """The same in this process: most of a command's time is to start."""
        return typed([command, *(str(one) for one in arguments)])

    def query(self, sql: str, *arguments: object, profile: Path | None = None, epsilon: object = 1) -> Done:
        where = profile or self.profile
        return self.typed(
            "insitu", "query", sql, "--profile", where, "--epsilon", epsilon, "--format", "json", *arguments
        )

    def budget(self, profile: Path | None = None) -> Any:
        """As the nodes' ledgers state it, through the SDK: the command takes a second each time."""
        where = profile or self.profile
        if where not in self.open:
            self.open[where] = insitu.connect(where)
        return self.open[where].budget().to_json()

    def new_profile(
        self,
        *options: object,
        epsilon: object = 20,
        delta: object = "1e-6",
        accounting: str = "zcdp",
        identity: Path | None = None,
        connect: bool = True,
    ) -> Path:
        """Another project: a grant by the federation's own authority, and the profile `insitu connect` makes of it."""
        self.grants += 1
        grant, profile = self.root / f"grant-{self.grants}.jwt", self.root / f"profile-{self.grants}"
        identity = identity or self.dir / "researcher" / "identity"
        base = ["--project", f"p{self.grants}", "--purpose", "tests", "--reference", "none", "--researcher", identity]
        base += [] if "--dataset" in options else ["--dataset", "care"]
        base += [] if "--node" in options else [part for node in SITES for part in ("--node", node)]
        base += [] if "--expires" in options else ["--days", 30]
        budget = ["--epsilon", epsilon, "--delta", delta, "--accounting", accounting]
        done = self.typed("insitu-authority", "grant", self.dir / "authority", *base, *budget, *options, "--out", grant)
        assert done.code == 0, done.err
        if connect:
            connected = self.connect(profile, grant, self.dir / "researcher" / "identity")
            assert connected.code == 0, connected.err
        return profile if connect else grant

    def connect(self, profile: Path, grant: Path, identity: Path) -> Done:
        return self.typed(
            "insitu", "connect", profile, "--gateway", self.address, "--identity", identity, "--grant", grant
        )

    @property
    def address(self) -> str:
        return str(json.loads((self.dir / "compose.json").read_text())["address"])

    def pid(self, process: str) -> int:
        return int(json.loads((self.dir / "run" / f"{process}.json").read_text())["pid"])

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted((self.dir / "logs").glob("*.log")))

    def restart(self, process: str, command: str, config: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a process of the federation again by hand, as its own party would."""
        with (self.dir / "logs" / f"{process}.log").open("ab") as log:
            return subprocess.Popen(
                [str(BIN / command), "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def kill(self, process: str) -> None:
        """kill -9, and wait until it is gone."""
        pid = self.pid(process)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                    return
            except FileNotFoundError:
                return
            time.sleep(0.02)
        raise AssertionError(f"{process} did not die")

    def wait_connected(self, *nodes: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done = self.typed(
                "insitu-gateway", "status", "--config", self.dir / "gateway" / "gateway.toml", "--format", "json"
            )
            if done.code == 0 and {n["id"] for n in done.json["nodes"] if n["connected"]} >= set(nodes):
                return
            time.sleep(0.1)
        raise AssertionError(f"{nodes} did not connect: {self.logs()[-3000:]}")


def _statements() -> list[str]:
    return [
        f"""CREATE TABLE person AS SELECT i AS person_id, CASE WHEN i % 3 = 0 THEN 'F' ELSE 'M' END AS sex,
        1930 + i % 80 AS birth_year, '{CANARY}-' || i AS name FROM range(1, 601) t(i)""",
        """CREATE TABLE visit AS SELECT i AS visit_id, 1 + (i * i + i // 7) % 600 AS person_id,
        DATE '2016-01-01' + CAST((i * 37) % 3600 AS INTEGER) AS day, 'E' || (i % 6) AS icd10,
        CAST((i * 131) % 90000 AS DOUBLE) / 100 AS amount, NULL::DOUBLE AS note FROM range(1, 6001) t(i)""",
        "CREATE TABLE icd AS SELECT 'E' || i AS code, 'chapter ' || (i // 2) AS label FROM range(6) t(i)",
    ]


def build(root: Path, postgres: str, grant: str) -> World:
    """Data, FEDERATION.toml, and the federation started from it."""
    exact = duckdb.connect()
    for statement in _statements():
        exact.execute(statement)
    (root / "care").mkdir(parents=True)
    (root / "care" / "dataset.toml").write_text(DATASET)
    exact.execute(f"COPY icd TO '{root}/care/icd.csv' (HEADER)")
    _alpha(exact, root / "alpha.duckdb")
    for table in ("person", "visit"):
        exact.execute(f"COPY (SELECT * FROM {table} WHERE person_id % 3 = 1) TO '{root}/beta_{table}.parquet'")
    _gamma(exact, postgres)
    (root / "FEDERATION.toml").write_text(_federation(root, postgres, grant))
    world = World(root=root, profile=root / "federation" / "profile", exact=exact)
    done = world.run("insitu-compose", "up", root / "FEDERATION.toml", "--dir", world.dir, "--detach")
    assert done.code == 0, done.err
    assert Path(done.out.strip().splitlines()[-1]) == world.profile
    return world


def _alpha(exact: duckdb.DuckDBPyConnection, path: Path) -> None:
    exact.execute(f"ATTACH '{path}' AS alpha")
    for table in ("person", "visit"):
        exact.execute(f"CREATE TABLE alpha.{table} AS SELECT * FROM {table} WHERE person_id % 3 = 0")
    exact.execute("DETACH alpha")


def _gamma(exact: duckdb.DuckDBPyConnection, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE person (person_id bigint, sex text, birth_year int, name text)")
        connection.execute(
            "CREATE TABLE visit (visit_id bigint, person_id bigint, day date, icd10 text, amount float8, note float8)"
        )
        for table, width in (("person", 4), ("visit", 6)):
            rows = exact.execute(f"SELECT * FROM {table} WHERE person_id % 3 = 2").fetchall()
            with connection.cursor() as cursor:
                cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * width)})".encode(), rows)


def _federation(root: Path, postgres: str, grant: str) -> str:
    return f"""
[federation]
name = "test"
datasets = ["care/dataset.toml"]
[[node]]
id = "alpha"
organisation = "Alpha"
jurisdiction = "FR"
[node.datasets.care]
engine = "duckdb"
database = "alpha.duckdb"
[node.datasets.care.tables]
person = "person"
visit = "visit"
[[node]]
id = "beta"
organisation = "Beta"
jurisdiction = "FR"
[node.datasets.care]
engine = "duckdb"
[node.datasets.care.tables]
person = "SELECT * FROM read_parquet('beta_person.parquet')"
visit = "SELECT * FROM read_parquet('beta_visit.parquet')"
[[node]]
id = "gamma"
organisation = "Gamma"
jurisdiction = "FR"
[node.datasets.care]
engine = "postgres"
database = "{postgres}"
[node.datasets.care.tables]
person = "person"
visit = "visit"
{grant}
"""
