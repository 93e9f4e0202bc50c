"""A small federation of real processes for changes of keys: two DuckDB nodes, a gateway, a researcher, an authority.

Parties stand in their own directories; ``Parties.play`` runs the steps of a drill there, and carries files between them.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.e2e.world import BIN, DATASET
from tests.testkit.typed import Done, typed

NODES = ("alpha", "beta")
TOTAL = 600
FEDERATION = """
[federation]
name = "test"
datasets = ["care/dataset.toml"]
{nodes}
[grant]
epsilon = 1e15
delta = 1e-6
accounting = "pure"
"""
NODE = """
[[node]]
id = "{id}"
jurisdiction = "FR"
[node.datasets.care]
engine = "duckdb"
database = "{id}.duckdb"
[node.datasets.care.tables]
person = "person"
"""

_YEARS = itertools.count(1000)
"""Each question is another one, so that none is a replay."""


@dataclass
class Parties:
    """A running federation; every party's commands run where that party stands."""

    dir: Path

    def where(self, who: str) -> Path:
        role, _, party = who.partition(" ")
        places = {"authority": self.dir, "node": self.dir / "nodes" / party, "gateway": self.dir / "gateway"}
        return places.get(role, self.dir / "profile")

    def run(self, who: str, command: str, **environment: str) -> Done:
        """A command line as a person would type it, where that person stands."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.where(who))
            for name, value in environment.items():
                patch.setenv(name, value)
            return typed(shlex.split(os.path.expandvars(command)))

    def works(self, who: str, command: str, **environment: str) -> Any:
        done = self.run(who, command, **environment)
        assert done.code == 0, f"{who}: {command}: {done.err}\n{self.logs()[-2000:]}"
        return json.loads(done.out) if done.out.startswith("{") else done.out

    def carry(self, who: str, file: str, to: str, name: str) -> None:
        source, target = self.where(who) / file, self.where(to) / name
        if source != target:
            shutil.copy(source, target)

    def drill(self, key: str, *options: str) -> list[dict[str, Any]]:
        line = " ".join(["insitu-authority drill", key, "authority", *options, "--format json"])
        return list(self.works("authority", line)["steps"])

    def play(self, steps: list[dict[str, Any]]) -> None:
        """Every step as it is printed. The thumbprint is read from the authority's own key, as by telephone."""
        time.sleep(1.1)  # signed times are whole seconds: answers must be younger than the manifest before them
        for step in steps:
            if "carry" in step:
                self.carry(step["who"], step["carry"], step["to"], step["as"])
                if step["as"] == "manifest.jws":
                    self.wait_for_manifest()
                continue
            typed = " --no-passphrase" if step["run"].startswith("insitu key rotate") else ""  # else it asks for one
            self.works(step["who"], step["run"] + typed, THUMBPRINT=self.thumbprint())
            time.sleep(1.2 if " key install " in step["run"] or " trust " in step["run"] else 0)

    def thumbprint(self) -> str:
        return str(self.works("authority", "insitu-authority keys authority --format json")["authority_key"])

    def count(self, profile: str = "profile", timeout: float = 20) -> int:
        """The exact number of persons: at this epsilon there is no noise."""
        done = self.ask(profile, timeout)
        assert done.code == 0, done.err + self.logs()[-3000:]
        return int(done.json["rows"][0][0])

    def ask(self, profile: str = "profile", timeout: float = 20) -> Done:
        sql = f"SELECT COUNT(*) AS n FROM person WHERE birth_year > {next(_YEARS)}"
        query = (
            f'insitu query "{sql}" --epsilon 1e9 --format json -q --timeout {timeout} --profile {self.dir / profile}'
        )
        return self.run("authority", query)

    def keep_receipt(self, name: str) -> None:
        """A result as a researcher keeps it."""
        done = self.ask()
        assert done.code == 0, done.err
        (self.dir / f"{name}.receipt.json").write_text(done.out)

    def evidence_holds(self) -> None:
        """Every party's log verifies, whatever keys it had, and all of them agree with all receipts."""
        logs = []
        for who in ("gateway gateway", *(f"node {node}" for node in NODES)):
            role = who.split()[0]
            assert self.works(who, f"insitu-{role} audit verify --config {role}.toml --format json")["holds"] is True
            self.works(who, f"insitu-{role} audit export --config {role}.toml --out copy.jsonl")
            logs.append(f"--{role} {self.where(who)}/copy.jsonl")
        assert self.works("authority", "insitu-authority audit verify authority --format json")["holds"] is True
        receipts = [f"--receipt {path}" for path in sorted(self.dir.glob("*.receipt.json"))]
        line = " ".join(["insitu-authority audit reconcile authority", *logs, *receipts, "--format json"])
        found = self.run("authority", line)
        assert found.json["discrepancies"] == []
        assert (found.json["agree"], found.json["receipts"]) == (True, len(receipts))
        assert found.json["compared"] > 10 * len(receipts)

    def status(self) -> dict[str, Any]:
        found = self.works("gateway", "insitu-gateway status --config gateway.toml --format json")
        return {node["id"]: node for node in found["nodes"]} | {"version": found["manifest_version"]}

    def wait_for_manifest(self, seconds: float = 4) -> None:
        """Until the gateway serves the manifest that lies there."""
        shown = self.works("gateway", "insitu-authority show ../manifest.jws --format json")
        self.wait(lambda: self.status()["version"] == shown["version"], seconds, required=False)

    def wait_connected(self, *nodes: str) -> None:
        self.wait(lambda: all(self.status()[node]["connected"] for node in nodes or NODES), 30)

    def wait(self, holds: Any, seconds: float, *, required: bool = True) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                assert not required, self.logs()[-3000:]
                return
            time.sleep(0.3)

    def pids(self) -> dict[str, int]:
        return {path.stem: json.loads(path.read_text())["pid"] for path in (self.dir / "run").glob("*.json")}

    def alive(self) -> bool:
        return all(Path(f"/proc/{pid}").exists() for pid in self.pids().values())

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted((self.dir / "logs").glob("*.log")))

    @property
    def address(self) -> str:
        return str(json.loads((self.dir / "compose.json").read_text())["address"])


def build(root: Path) -> Parties:
    """Data, the federation file, and the federation started from it."""
    (root / "care").mkdir(parents=True)
    (root / "care" / "dataset.toml").write_text(DATASET.split("[tables.visit]")[0])
    for index, node in enumerate(NODES):
        with duckdb.connect(str(root / f"{node}.duckdb")) as database:
            database.execute(
                f"""CREATE TABLE person AS SELECT i AS person_id, CASE WHEN i % 3 = 0 THEN 'F' ELSE 'M' END AS sex,
                1930 + i % 80 AS birth_year, 'x' AS name FROM range({TOTAL}) t(i) WHERE i % 2 = {index}"""
            )
    (root / "FEDERATION.toml").write_text(FEDERATION.format(nodes="".join(NODE.format(id=each) for each in NODES)))
    parties = Parties(root / "federation")
    done = subprocess.run(
        [str(BIN / "insitu-compose"), "up", str(root / "FEDERATION.toml"), "--dir", str(parties.dir), "--detach"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return parties


def stop(parties: Parties) -> None:
    subprocess.run([str(BIN / "insitu-compose"), "down", "--dir", str(parties.dir)], timeout=60, check=True)
