"""``insitu-node check``, ``ledger``, ``projects``, ``halt`` and ``status`` as a custodian runs them, and what keeps ``run`` from starting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from insitu_access.keys import relock
from insitu_access.release import NodeRelease
from insitu_node.commands.main import app
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_node.projects import Projects
from insitu_node.state import lock_state
from insitu_privacy.errors import ConfigInvalid

from tests.testkit.databases import new_duckdb
from tests.testkit.gateway_stub import make_ca, make_identity
from tests.testkit.node_world import CARE, NODE, SITE_SQL, NodeWorld
from tests.testkit.typed import typed

CONFIG = """
[node]
id = "chu-lille"
identity = "identity"
state = "state"

[[gateway]]
address = "localhost:1"

[datasets.care]
contract = "care/dataset.toml"
engine = "duckdb"
database = "site.duckdb"
[datasets.care.tables]
person = "person"
visit = "visit"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    world = NodeWorld(folder=tmp_path)
    make_identity(tmp_path / "identity", make_ca(), "node", NODE, world.authority.public())
    (tmp_path / "care").mkdir()
    (tmp_path / "care" / "dataset.toml").write_bytes(CARE)
    (tmp_path / "node.toml").write_text(CONFIG)
    new_duckdb(tmp_path / "site.duckdb", *SITE_SQL)
    return tmp_path


def node(site: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command; ``run`` and ``--version`` as a process, and all that is told from outside it."""
    if arguments[0] not in ("run", "--version") and env is None:
        done = typed(["insitu-node", *arguments], cwd=site.parent)
        return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)
    command = [sys.executable, "-m", "insitu_node.commands.main", *arguments]
    whole = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=site.parent, env=whole)


@pytest.fixture(autouse=True)
def _absolute_python_path(monkeypatch: pytest.MonkeyPatch) -> None:
    if path := os.environ.get("PYTHONPATH"):
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(Path(part).absolute()) for part in path.split(os.pathsep)))


def facts(result: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(result.stdout)


def test_check_of_a_site_that_fits(site: Path) -> None:
    result = node(site, "check", "--config", str(site / "node.toml"), "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    assert facts(result)["fits"] is True
    assert facts(result)["findings"] == []
    assert facts(result)["jurisdictions"]["note"].endswith("a gateway in any is accepted")


def test_check_tells_what_does_not_fit(site: Path) -> None:
    (site / "site.duckdb").unlink()
    new_duckdb(
        site / "site.duckdb",
        "CREATE TABLE person AS SELECT * FROM (VALUES (1, 'F', 1950), (1, 'X', 1800), (NULL, 'M', 1960),"
        " (2, NULL, 1960)) t(person_id, sex, birth_year)",
        "CREATE TABLE visit AS SELECT 1 AS person_id, '2' AS visit_id, DATE '2020-01-01' AS day",
    )
    result = node(site, "check", "--config", str(site / "node.toml"), "--format", "json")
    assert result.returncode == 2
    found = {(f["level"], f["table"], f["column"]): f["text"] for f in facts(result)["findings"]}
    assert found[("error", "visit", "amount")] == "no such column"
    assert "VARCHAR" in found[("error", "visit", "visit_id")]
    assert found[("warning", "person", "sex")].startswith("1 values")
    assert ("warning", "person", "birth_year") in found
    assert ("warning", "person", "person_id") in found
    assert "1 privacy units" in found[("warning", "person", None)] or "1 rows" in found[("warning", "person", None)]


def test_check_names_a_broken_mapping(site: Path) -> None:
    (site / "node.toml").write_text(CONFIG.replace('visit = "visit"', 'visit = "stays"'))
    result = node(site, "check", "--config", str(site / "node.toml"))
    assert result.returncode == 2
    assert "stays" in result.stdout


@pytest.mark.parametrize(
    ("command", "old", "new", "code"),
    [
        ("check", 'id = "chu-lille"', 'id = "chu-rennes"', "INSITU-CONFIG-STATE"),
        ("run", "[datasets.care", "[datasets.claims", "INSITU-CONFIG-INVALID"),
        ("check", 'person = "person"', 'persons = "person"', "INSITU-CONFIG-INVALID"),
        ("run", "care/dataset.toml", "none/dataset.toml", "INSITU-CONFIG-FILE"),
        ("ledger", "[node]", "[node", "INSITU-CONFIG-INVALID"),
    ],
)
def test_mistakes_are_one_line(site: Path, command: str, old: str, new: str, code: str) -> None:
    (site / "node.toml").write_text(CONFIG.replace(old, new))
    result = node(site, command, "--config", str(site / "node.toml"))
    assert (result.returncode, result.stdout) == (2, "")
    assert [line.split(":")[0] for line in result.stderr.splitlines() if line.startswith("INSITU")] == [code]
    assert "Traceback" not in result.stderr


def test_run_refuses_a_state_directory_in_use_and_unwanted_hooks(site: Path) -> None:
    with lock_state(site / "state"):
        result = node(site, "run", "--config", str(site / "node.toml"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("INSITU-CONFIG-STATE")
    hooked = node(site, "run", "--config", str(site / "node.toml"), env={"INSITU_TEST_CRASH_AT": "after-commit"})
    assert hooked.returncode == 2
    assert hooked.stderr.startswith("INSITU-CONFIG-USAGE")


def test_ledger_shows_accounts_and_charges_without_opendp(site: Path) -> None:
    missing = node(site, "ledger", "--config", str(site / "node.toml"))
    assert (missing.returncode, missing.stderr[:18]) == (2, "INSITU-CONFIG-FILE")
    world = NodeWorld(folder=site, now=datetime.now(UTC))
    (site / "state").mkdir()
    world.ledger = SqliteLedger(site / "state" / "ledger.sqlite")
    cycle = world.cycle()
    assert isinstance(world.ask(cycle, world.query()), NodeRelease)
    cycle.stop()
    world.ledger.close()
    code = (
        "import sys; from insitu_node.commands.main import app;"
        f"app(['ledger', '--config', {str(site / 'node.toml')!r}, '--format', 'json'], standalone_mode=False);"
        "assert 'opendp' not in sys.modules and 'duckdb' not in sys.modules, sorted(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    shown = facts(result)
    assert shown["accounts"] == [
        {
            "grant": "grant-1",
            "profile": False,
            "dataset": "care",
            "epsilon_spent": 1.0,
            "delta_spent": 0.0,
            "rho_spent": 0.5,
            "pure_epsilon_spent": 1.0,
        }
    ]
    (charge,) = shown["charges"]
    assert (charge["state"], charge["epsilon"]) == ("released", 1.0)
    told = node(site, "ledger", "--config", str(site / "node.toml"))
    assert told.returncode == 0
    assert "grant-1" in told.stdout
    assert f"{charge['plan'][:12]}" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 200


@pytest.mark.parametrize("command", ["check", "run", "ledger"])
def test_help_has_an_example(tmp_path: Path, command: str) -> None:
    result = node(tmp_path, command, "--help")
    assert result.returncode == 0
    assert "Example: insitu-node" in result.stdout


def test_version(tmp_path: Path) -> None:
    assert node(tmp_path, "--version").stdout == "insitu-node 0.1.0\n"


# -- projects, halt, status ------------------------------------------------------------------------------------------


def told_by(site: Path, *arguments: str) -> Any:
    done = node(site, *arguments, "--config", str(site / "node.toml"), "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_project_is_decided_on_from_its_file_and_by_its_name(site: Path) -> None:
    world = NodeWorld(folder=site)
    (site / "grant.jwt").write_text(world.grant_jwt())
    assert told_by(site, "projects", "list")["projects"] == []
    made = told_by(site, "projects", "approve", str(site / "grant.jwt"), "--max-epsilon", "1/2", "--reason", "board")
    assert (made["status"], made["epsilon"]) == ("approved", 0.5)
    (site / "state").mkdir(exist_ok=True)
    store = Projects(site / "state")
    store.see(world.grant, world.grant_jwt(), world.now)
    store.close()
    assert told_by(site, "projects", "withdraw", "stays")["status"] == "withdrawn"
    assert told_by(site, "projects", "deny", world.grant.id[:5], "--by", "dr")["status"] == "denied"
    shown = told_by(site, "projects", "show", world.grant.id)
    assert [one["verdict"] for one in shown["decisions"]] == ["approved", "withdrawn", "denied"]
    assert shown["decisions"][0]["max_epsilon"] == 0.5
    assert shown["grant"]["reference"] == "CEREES-1"
    assert told_by(site, "status")["projects"] == {"denied": 1}


def test_halt_and_status(site: Path) -> None:
    assert told_by(site, "halt", "--reason", "incident 17") == {"node": NODE, "halted": True}
    told = told_by(site, "status")
    assert (told["halted"], told["halt_reason"], told["running"], told["manifest"]) == (
        True,
        "incident 17",
        False,
        None,
    )
    with lock_state(site / "state"):
        assert told_by(site, "status")["running"] is True
    assert told_by(site, "resume")["halted"] is False
    assert told_by(site, "status")["halted"] is False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("projects", "show", "nobody"), "no project of this name"),
        (("projects", "approve", "nobody", "--max-epsilon", "lots"), "--max-epsilon is not a number"),
    ],
)
def test_mistakes_about_projects_are_one_line(site: Path, arguments: tuple[str, ...], says: str) -> None:
    done = node(site, *arguments, "--config", str(site / "node.toml"))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [("halt",), ("resume",), ("status",), ("projects", "list"), ("projects", "approve")]
)
def test_every_command_explains_itself(site: Path, command: tuple[str, ...]) -> None:
    done = node(site, *command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


# -- profiles ----------------------------------------------------------------------------------------------------------


def budget(site: Path, text: str) -> None:
    (site / "node.toml").write_text(CONFIG.replace('engine = "duckdb"\n', f'engine = "duckdb"\n{text}\n'))


@pytest.mark.attacks("H7")
def test_without_a_budget_of_the_custodians_own_no_profile_is_made(site: Path) -> None:
    config = ("--config", str(site / "node.toml"))
    refused = node(site, "profile", "care", "--epsilon", "1", *config)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("INSITU-PROFILE-NONE")
    assert "[datasets.care]" in refused.stderr
    assert not (site / "state").exists(), "no ledger, no log, no profile"


@pytest.mark.attacks("H8", "L4")
@pytest.mark.parametrize("place", ["after-reserve", "after-commit"])
def test_a_profile_that_was_killed_is_finished_under_its_charge(site: Path, place: str) -> None:
    budget(site, "profile_epsilon = 1.0")
    command = ("profile", "care", "--epsilon", "1", "--config", str(site / "node.toml"), "--format", "json")
    killed = node(site, *command, env={"INSITU_TEST_CRASH_AT": place, "INSITU_ALLOW_TEST_HOOKS": "1"})
    assert (killed.returncode, killed.stdout) == (-9, "")
    made = facts(node(site, *command))
    assert (made["how"], made["charged"], made["serial"], made["epsilon"]) == ("finished", False, 1, 1.0)
    assert (made["epsilon_spent"], made["epsilon_budget"]) == (1.0, 1.0)
    verified = node(site, "audit", "verify", "--config", str(site / "node.toml"))
    assert verified.returncode == 0, verified.stdout
    audit = node(site, "audit", "show", "--config", str(site / "node.toml"), "--format", "json").stdout
    assert audit.count('"profile-made"') == audit.count('"charge-reserved"') == 1


def test_a_profile_and_its_charge_are_shown_to_people(site: Path) -> None:
    budget(site, 'profile_epsilon = "1/2"')
    config = ("--config", str(site / "node.toml"))
    made = node(site, "profile", "care", "--epsilon", "0.5", "--table", "visit", *config)
    assert (made.returncode, made.stderr) == (0, "")
    lines = made.stdout.splitlines()
    assert lines[0].startswith("Profile of care at chu-lille: number 1, made ")
    assert lines[1] == "It was charged now, before data was read."
    assert "ε = 0.5 in all, of 0.5 in node.toml" in lines[2]
    rows = {tuple(line.split()[:3]): line for line in lines}
    assert "█" in rows["visit", "rows", "per"]
    assert "2019-" in rows["visit", "values", "day"] or "2020-" in rows["visit", "values", "day"]
    again = node(site, "profile", "care", *config)
    assert again.stdout.splitlines()[1].startswith("It was made before: nothing was charged now")
    assert again.stdout.splitlines()[2:] == lines[2:]
    refused = node(site, "profile", "care", "--refresh", "--epsilon", "0.1", *config)
    assert [line.split(":")[0] for line in refused.stderr.splitlines()] == ["INSITU-PROFILE-BUDGET"]
    shown = node(site, "ledger", *config).stdout
    assert "What profiles have spent (insitu-node profile)" in shown
    assert "(profile)" in shown


def test_one_profile_is_made_at_a_time(site: Path) -> None:
    budget(site, "profile_epsilon = 1")
    (site / "state").mkdir()
    command = ["profile", "care", "--epsilon", "1", "--config", str(site / "node.toml")]
    with lock_state(site / "state" / "profiles"), pytest.raises(ConfigInvalid, match="INSITU-CONFIG-STATE"):
        app(command, standalone_mode=False)


def test_a_locked_key_is_asked_for_before_anything_is_charged(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit log is sealed with it, and what cannot be recorded is not done (E10)."""
    budget(site, "profile_epsilon = 1")
    keys = sorted((site / "identity").glob("*.key"))
    relock(keys, lambda _: b"", lambda: b"a long passphrase")
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE", raising=False)
    command = ["profile", "care", "--epsilon", "1", "--config", str(site / "node.toml")]
    with pytest.raises(ConfigInvalid, match="INSITU-KEY-LOCKED"):
        app(command, standalone_mode=False)
    ledger = SqliteLedger(site / "state" / "ledger.sqlite")
    assert ledger.entries() == ()
    ledger.close()
    (site / "passphrase").write_text("a long passphrase")
    (site / "passphrase").chmod(0o600)
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(site / "passphrase"))
    app(command, standalone_mode=False)
    assert list((site / "state" / "profiles").glob("*.json"))


@pytest.mark.parametrize(
    ("text", "arguments", "code"),
    [
        ("profile_epsilon = 1", ("nothing",), "INSITU-CONFIG-USAGE"),
        ("profile_epsilon = 1", ("care", "--epsilon", "0"), "INSITU-CONFIG-USAGE"),
        ("profile_epsilon = 1", ("care", "--epsilon", "x"), "INSITU-CONFIG-USAGE"),
        ("profile_epsilon = 1", ("care", "--table", "icd"), "INSITU-CONFIG-USAGE"),
        ("profile_epsilon = 1", ("care",), "INSITU-CONFIG-USAGE"),
        ('profile_epsilon = "many"', ("care",), "INSITU-CONFIG-INVALID"),
        ("profile_epsilon = -1", ("care",), "INSITU-CONFIG-INVALID"),
        ("profile_epsilon = true", ("care",), "INSITU-CONFIG-INVALID"),
    ],
)
def test_mistakes_about_profiles_are_told(site: Path, text: str, arguments: tuple[str, ...], code: str) -> None:
    budget(site, text)
    with pytest.raises(ConfigInvalid, match=code):
        app(["profile", *arguments, "--config", str(site / "node.toml")], standalone_mode=False)
