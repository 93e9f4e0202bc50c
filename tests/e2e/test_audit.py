"""The evidence of a real federation: every party's log verifies, all of them agree, and an omission shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from insitu_access.audit.entry import Entry, Party
from insitu_access.keys import load_signing_key

from tests.e2e.world import CANARY, SITES, World
from tests.testkit.audit_logs import entries, lied, texts
from tests.testkit.typed import Done

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SQL = "SELECT sex, COUNT(*) AS n FROM person WHERE birth_year > 1931 GROUP BY sex"


class Audited:
    """The logs of a federation, and what is said of them."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.receipts: list[Path] = []

    def config(self, party: str) -> Path:
        folder = self.world.dir
        return folder / "gateway" / "gateway.toml" if party == "gateway" else folder / "nodes" / party / "node.toml"

    def log(self, party: str) -> Path:
        return self.config(party).parent / "state" / "audit"

    def key(self, party: str) -> Any:
        return load_signing_key(self.config(party).parent / "identity" / "signing.key")

    def ask(self, sql: str, profile: Path, **options: Any) -> dict[str, Any]:
        done = self.world.query(sql, profile=profile, epsilon=options.get("epsilon", 1))
        assert done.code == 0, done.err
        path = self.folder / f"result-{len(self.receipts)}.json"
        path.write_text(done.out)
        self.receipts.append(path)
        return json.loads(done.out)

    def command(self, party: str, *arguments: object) -> Done:
        program = "insitu-gateway" if party == "gateway" else "insitu-node"
        return self.world.typed(program, "audit", *arguments, "--config", self.config(party), "--format", "json")

    def export(self, party: str, *options: object) -> Path:
        out = self.folder / f"{party}.jsonl"
        done = self.command(party, "export", "--out", out, *options)
        assert done.code == 0, done.err
        return out

    def reconcile(self, nodes: dict[str, Path], gateway: Path, *more: object) -> Done:
        options = [part for path in nodes.values() for part in ("--node", path)]
        receipts = [part for path in self.receipts for part in ("--receipt", path)]
        return self.world.typed(
            "insitu-authority", "audit", "reconcile", self.world.dir / "authority", *options, "--gateway", gateway,
            *receipts, "--format", "json", *more,
        )  # fmt: skip


def codes(done: Done) -> set[str]:
    assert done.code == 4, done.err + done.out
    return {found["code"] for found in done.json["discrepancies"]}


@pytest.fixture(scope="module")
def audited(world: World, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    found = Audited(world, tmp_path_factory.mktemp("audited"))
    profile = world.new_profile(epsilon=100)
    found.ask(SQL, profile)
    found.ask(SQL, profile)  # the same again: charged once
    found.ask("SELECT COUNT(*) AS n FROM visit", profile, epsilon=2)
    assert world.query("SELECT COUNT(*) AS n FROM visit WHERE amount > 3", profile=profile, epsilon=400).code != 0
    world.budget(profile)
    return found


def test_every_log_verifies_and_all_agree(audited: Audited) -> None:
    for party in (*SITES, "gateway"):
        done = audited.command(party, "verify")
        assert done.code == 0, done.out
        assert done.json["holds"] is True
    done = audited.world.typed(
        "insitu-authority", "audit", "verify", audited.world.dir / "authority", "--format", "json"
    )
    assert done.json["holds"] is True
    live = {node: audited.config(node).parent for node in SITES}
    done = audited.reconcile(live, audited.config("gateway").parent)
    assert done.code == 0, done.out
    assert (done.json["agree"], done.json["receipts"]) == (True, 3)
    assert done.json["compared"] > 20


def test_a_nodes_log_tells_who_asked_what_and_why_and_nothing_of_the_data(audited: Audited) -> None:
    done = audited.command("alpha", "show", "--details")
    assert done.code == 0, done.err
    told = done.json["entries"]
    admitted = [entry for entry in told if entry["kind"] == "request-admitted"]
    assert SQL in {entry["detail"]["sql"] for entry in admitted if entry["detail"]}
    for name in ("purpose", "reference", "project", "researcher", "grant_id"):
        assert all(entry["fields"][name] for entry in admitted)
    charged = [entry["fields"]["epsilon"] for entry in told if entry["kind"] == "charge-reserved"]
    assert charged == ["1", "2"]
    refused = [entry["fields"]["code"] for entry in told if entry["fields"].get("outcome") == "refused"]
    assert refused == ["INSITU-BUDGET-EXCEEDED"]
    (first, *_) = [entry for entry in told if entry["kind"] == "sql-run"]
    assert "person" in first["detail"]["statements"][0]
    secret = (audited.config("alpha").parent / "state" / "cap.key").read_text().strip()
    words = texts(entries(audited.log("alpha")))
    assert secret not in words
    assert CANARY not in words


def test_exports_agree_also_without_the_sql(audited: Audited) -> None:
    nodes = {node: audited.export(node, "--withhold") for node in SITES}
    assert "SELECT" not in nodes["alpha"].read_text()
    done = audited.reconcile(nodes, audited.export("gateway"))
    assert done.code == 0, done.out


@pytest.mark.attacks("E2")
def test_a_copy_that_was_changed_does_not_verify(audited: Audited) -> None:
    nodes = {node: audited.export(node) for node in SITES}
    whole = nodes["beta"].read_bytes().splitlines(keepends=True)
    nodes["beta"].write_bytes(b"".join(whole[:7] + whole[8:]))
    done = audited.reconcile(nodes, audited.export("gateway"))
    assert codes(done) == {"log-broken"}
    assert {found["party"] for found in done.json["discrepancies"]} == {"beta"}


@pytest.mark.attacks("E11")
def test_a_node_that_leaves_a_request_out_is_found(audited: Audited) -> None:
    hidden = json.loads(audited.receipts[2].read_text())["query_id"]
    nodes = {node: audited.export(node) for node in SITES}
    party = Party(role="node", id="beta")
    lied(audited.log("beta"), nodes["beta"], party, audited.key("beta"), _about(hidden))
    done = audited.reconcile(nodes, audited.export("gateway"))
    assert codes(done) == {"receipt-not-at-node", "outcome-not-at-node"}
    assert {(found["about"], found["party"]) for found in done.json["discrepancies"]} == {(hidden, "beta")}


@pytest.mark.attacks("E11")
def test_a_gateway_that_leaves_a_request_out_is_found(audited: Audited) -> None:
    hidden = json.loads(audited.receipts[0].read_text())["query_id"]
    nodes = {node: audited.export(node) for node in SITES}
    gateway = audited.export("gateway")
    party = Party(role="gateway", id=str(entries(audited.log("gateway"))[0].fields["id"]))
    lied(audited.log("gateway"), gateway, party, audited.key("gateway"), _about(hidden))
    assert codes(audited.reconcile(nodes, gateway)) == {"receipt-not-at-gateway", "request-not-at-gateway"}


def test_after_kills_the_logs_still_verify_and_agree(audited: Audited) -> None:
    world = audited.world
    world.kill("gateway")
    world.kill("node-alpha")
    gateway = world.restart("gateway", "insitu-gateway", audited.config("gateway"))
    alpha = world.restart("node-alpha", "insitu-node", audited.config("alpha"))
    try:
        world.wait_connected(*SITES)
        audited.ask("SELECT COUNT(*) AS n FROM person", world.new_profile(epsilon=10))
        for party in (*SITES, "gateway"):
            done = audited.command(party, "verify")
            assert done.code == 0, done.out
        live = {node: audited.config(node).parent for node in SITES}
        done = audited.reconcile(live, audited.config("gateway").parent)
        assert done.code == 0, done.out
    finally:
        for process in (alpha, gateway):
            process.terminate()
            process.wait(20)


def _about(request_id: str) -> Any:
    def omit(entry: Entry) -> bool:
        charges.update(
            entry.fields["charge"]
            for _ in (1,)
            if entry.fields.get("request_id") == request_id and "charge" in entry.fields
        )
        own = entry.fields.get("request_id") == request_id
        return own or (entry.kind == "charge-settled" and entry.fields["charge"] in charges)

    charges: set[object] = set()
    return omit
