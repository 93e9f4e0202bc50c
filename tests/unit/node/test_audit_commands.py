"""``insitu-node audit`` as a custodian runs it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from insitu_access.audit import files
from insitu_access.audit.chain import check_lines
from insitu_access.identity import load_identity
from insitu_access.release import NodeRelease
from insitu_node.config import load_config
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_node.projects import Projects

from tests.testkit.audit_logs import chained, entries, kinds
from tests.testkit.gateway_stub import make_ca, make_identity
from tests.testkit.node_world import BY_SEX, CARE, NODE, PARTY, NodeWorld
from tests.unit.node.test_commands import CONFIG, node


class Site:
    """A node that has answered one query."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        world = NodeWorld(folder=folder, now=datetime.now(UTC))
        make_identity(folder / "identity", make_ca(), "node", NODE, world.authority.public())
        world.node_key = load_identity(folder / "identity").signing
        world.__post_init__()
        (folder / "care").mkdir()
        (folder / "care" / "dataset.toml").write_bytes(CARE)
        (folder / "node.toml").write_text(CONFIG)
        (folder / "state").mkdir()
        world.ledger = SqliteLedger(folder / "state" / "ledger.sqlite")
        world.audit_folder = folder / "state" / "audit"
        world.projects.close()
        world.projects = Projects(folder / "state")
        cycle = world.cycle()
        self.request = world.query()
        assert isinstance(world.ask(cycle, self.request), NodeRelease)
        cycle.stop()
        world.ledger.close()
        self.key = world.node_key
        self.log = world.audit_folder

    def run(self, *arguments: object, code: int = 0) -> Any:
        done = node(self.folder, "audit", *map(str, arguments), "--config", str(self.folder / "node.toml"),
                    "--format", "json")  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_show_takes_kinds_times_and_names(site: Site) -> None:
    shown = site.run("show", "--kind", "request-admitted", "--kind", "answered")
    assert [entry["kind"] for entry in shown["entries"]] == ["request-admitted", "answered"]
    assert "detail" not in shown["entries"][0]
    named = site.run("show", "--about", site.request.request_id, "--details")
    assert len(named["entries"]) == 5
    assert BY_SEX in {(entry["detail"] or {}).get("sql") for entry in named["entries"]}
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert site.run("show", "--since", tomorrow)["entries"] == []
    assert [entry["kind"] for entry in site.run("show", "--last", 1)["entries"]] == ["answered"]
    done = node(site.folder, "audit", "show", "--config", str(site.folder / "node.toml"), "--details")
    assert (done.returncode, done.stderr) == (0, "")
    assert "purpose=Length of stay" in done.stdout
    assert BY_SEX in done.stdout


def test_verify_holds_the_log_against_itself_the_ledger_and_a_kept_seal(site: Site) -> None:
    found = site.run("verify")
    assert (found["holds"], found["findings"], found["sealed_to"]) == (True, [], 0)
    seal = site.folder / "seal.jws"
    assert site.run("seal", "--out", seal)["entries"] == 7
    assert site.run("verify", "--seal", seal)["sealed_to"] == 8
    (path,) = files.days(site.log)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:-1]))
    found = site.run("verify", "--seal", seal, code=4)
    assert "the log is cut" in found["findings"][0]["reason"]
    path.write_bytes(b"".join([*whole[:3], *whole[4:]]))
    found = site.run("verify", code=4)
    assert found["holds"] is False
    assert {finding["reason"] for finding in found["findings"]} == {
        "entry 4 should stand here: cut, inserted or reordered",
        "charge 1 of the ledger is not in the log",
    }
    assert "does NOT verify" in node(site.folder, "audit", "show", "--config", str(site.folder / "node.toml")).stderr


@pytest.mark.attacks("E9")
def test_a_charge_that_the_custodian_left_out_is_found_by_the_ledger(site: Site) -> None:
    (path,) = files.days(site.log)
    told = [entry for entry in entries(site.log) if entry.kind != "charge-reserved"]
    path.write_bytes(b"".join(chained(PARTY, site.key, told)))
    assert [one["reason"] for one in site.run("verify", code=4)["findings"]] == [
        "charge 1 of the ledger is not in the log"
    ]


def test_export_is_sealed_recorded_and_whole(site: Site) -> None:
    out = site.folder / "copy.jsonl"
    assert site.run("export", "--out", out)["entries"] == 9
    assert kinds(out)[-2:] == ["exported", "seal"]
    assert "SELECT" in out.read_text()
    site.run("export", "--withhold", "--out", out)
    assert "SELECT" not in out.read_text()
    report, _ = check_lines(files.lines(out), PARTY, [site.key.public()])
    assert report.holds
    assert report.withheld == 2
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_broken_log_is_one_line(site: Site) -> None:
    (path,) = files.days(site.log)
    path.write_bytes(path.read_bytes().replace(b"stays", b"other"))
    for arguments in (("export", "--out", site.folder / "copy.jsonl"), ("seal",)):
        text = site.run(*arguments, code=4)
        assert text.startswith("INSITU-AUDIT-BROKEN: ")
        assert text.count("\n") == 1
    done = node(site.folder, "run", "--config", str(site.folder / "node.toml"))
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("INSITU-AUDIT-BROKEN: ")


@pytest.mark.parametrize("table", ["retention_days = 0", "seal_every_hours = 48", "keep = 3", 'former_keys = [""]'])
def test_the_table_is_strict(site: Site, table: str) -> None:
    (site.folder / "node.toml").write_text(f"{CONFIG}\n[audit]\n{table}\n")
    text = site.run("show", code=2)
    assert text.startswith("INSITU-CONFIG-INVALID")
    assert "audit" in text


def test_the_table_is_read(site: Site) -> None:
    text = '[audit]\nretention_days = 400\nseal_every_hours = 6\nformer_keys = ["old.pub"]\n'
    (site.folder / "node.toml").write_text(f"{CONFIG}\n{text}")
    read = load_config(site.folder / "node.toml").audit
    assert (read.retention, read.seal_every) == (timedelta(days=400), timedelta(hours=6))
    assert read.former_keys == (site.folder / "old.pub",)


def test_acts_of_administration_name_their_doer(site: Site) -> None:
    config = ("--config", str(site.folder / "node.toml"))
    for command in (
        ("projects", "approve", "stays", "--max-epsilon", "1/2", "--reason", "board 7"),
        ("halt", "--reason", "incident 17"),
        ("resume", "--by", "Dr. Roux"),
    ):
        done = node(site.folder, *command, *config)
        assert done.returncode == 0, done.stderr
    told = [entry.fields for entry in entries(site.log) if entry.kind == "administered"]
    assert [one["command"] for one in told] == ["projects approved", "halt", "resume"]
    assert told[0]["about"] == {"grant": "grant-1", "revision": "1", "reason": "board 7", "max_epsilon": "1/2"}
    assert [one["about"] for one in told[1:]] == [{"reason": "incident 17"}, {"decided_by": "Dr. Roux"}]
    assert all(one["by"] for one in told)


@pytest.mark.parametrize("name", ["show", "verify", "export", "seal"])
def test_help_has_an_example(tmp_path: Path, name: str) -> None:
    shown = node(tmp_path, "audit", name, "--help")
    assert shown.returncode == 0
    assert f"Example: insitu-node audit {name}" in shown.stdout
