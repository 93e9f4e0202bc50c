"""What bad input gets: one line with its code and remedy, exit code not 0, nothing spent, nothing private logged."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.world import CANARY, World

pytestmark = pytest.mark.e2e

REFUSED = [
    ("SELECT COUNT(* FROM visit", "INSITU-SQL-SYNTAX", "FROM"),
    ("SELECT COUNT(*) FROM visits", "INSITU-SQL-UNKNOWN-TABLE", "visits"),
    ("SELECT COUNT(colour) FROM visit", "INSITU-SQL-UNKNOWN-COLUMN", "colour"),
    ("SELECT SUM(note) FROM visit", "INSITU-SQL-UNBOUNDED", "note"),
    ("SELECT pg_sleep(10), COUNT(*) FROM visit", "INSITU-SQL-FORBIDDEN-FUNCTION", "pg_sleep"),
    ("SELECT COUNT(*) FROM visit WHERE pg_sleep(10) IS NULL", "INSITU-SQL-FORBIDDEN-FUNCTION", "pg_sleep"),
    ("SELECT COUNT(*) FROM read_csv('/etc/passwd')", "INSITU-SQL-FORBIDDEN-CONSTRUCT", "read_csv"),
    ("SELECT person_id, COUNT(*) FROM visit GROUP BY person_id", "INSITU-SQL-GROUP-BY-UNIT", "person_id"),
    ("SELECT COUNT(*) FROM visit GROUP BY visit_id", "INSITU-SQL-GROUP-BY-UNIT", "visit_id"),
    ("SELECT COUNT(*) FROM visit; SELECT COUNT(*) FROM person", "INSITU-SQL-NOT-ONE", None),
    ("SELECT name FROM person", "INSITU-SQL-UNGROUPED", "name"),
    ("SELECT * FROM person", "INSITU-SQL-ROW-OUTPUT", "*"),
    ("DELETE FROM person", "INSITU-SQL-NOT-SELECT", None),
    ("SELECT COUNT(*) FROM visit v JOIN person p ON p.birth_year = v.visit_id", "INSITU-SQL-JOIN", "person"),
]


@pytest.mark.parametrize(("sql", "code", "clause"), REFUSED)
def test_sql_is_refused_with_the_clause_underlined(world: World, sql: str, code: str, clause: str | None) -> None:
    before = world.budget()
    done = world.query(sql)
    lines = done.err.strip().splitlines()
    assert done.code != 0
    assert done.out == ""
    assert lines[0].startswith(f"{code}: "), done.err
    assert "Traceback" not in done.err
    if clause is not None:
        assert "^" in lines[2]
        start, end = lines[2].index("^"), lines[2].rindex("^") + 1
        assert clause in lines[1][start:end]
    assert world.budget() == before


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--epsilon", "-1"], "INSITU-PARAM-EPSILON"),
        (["--epsilon", "0"], "INSITU-PARAM-EPSILON"),
        (["--epsilon", "much"], "INSITU-"),
        (["--epsilon", "1", "--delta", "1.5"], "INSITU-PARAM-DELTA"),
        (["--epsilon", "1", "--max-groups", "0"], "INSITU-PARAM-BOUND"),
        (["--epsilon", "1", "--mechanism", "magic"], "INSITU-"),
        (["--epsilon", "1", "--nodes", "alpha,delta"], "INSITU-PARAM-NODES"),
        (["--epsilon", "1", "--dialect", "klingon"], "INSITU-SQL-UNKNOWN-DIALECT"),
        (["--epsilon", "1", "--dataset", "other"], "INSITU-PARAM-DATASET"),
        ([], "INSITU-"),
        (["--no-such-flag"], "INSITU-CONFIG-USAGE"),
    ],
)
def test_parameters_out_of_range_are_refused(world: World, options: list[str], code: str) -> None:
    before = world.budget()
    done = world.run("insitu", "query", "SELECT COUNT(*) FROM visit", "--profile", world.profile, *options)
    assert done.code != 0
    assert done.out == ""
    assert done.err.splitlines()[0].startswith(code), done.err
    assert "Traceback" not in done.err
    assert world.budget() == before


def test_an_epsilon_over_the_budget_is_refused_and_leaves_it_unchanged_to_the_last_digit(world: World) -> None:
    profile = world.new_profile(epsilon=2)
    assert world.query("SELECT COUNT(*) AS n FROM visit", profile=profile, epsilon="1.5").code == 0
    before = world.budget(profile)
    done = world.query("SELECT COUNT(*) AS n FROM person", profile=profile, epsilon=1)
    assert done.code != 0
    assert done.err.splitlines()[-1].startswith("INSITU-BUDGET-EXCEEDED") or "INSITU-BUDGET-EXCEEDED" in done.err
    assert done.out == ""
    assert world.budget(profile) == before


def test_an_expired_grant_is_refused(world: World) -> None:
    now = datetime.now(UTC)
    window = ["--not-before", (now - timedelta(days=2)).isoformat(), "--expires", (now - timedelta(days=1)).isoformat()]
    grant = world.new_profile(*window, connect=False)
    profile = world.root / "profile-expired"
    done = world.connect(profile, grant, world.dir / "researcher" / "identity")
    if done.code == 0:
        done = world.query("SELECT COUNT(*) FROM visit", profile=profile)
    assert done.code != 0
    assert "INSITU-ACCESS-GRANT-EXPIRED" in done.err


def test_a_grant_for_other_tables_or_columns_is_refused(world: World) -> None:
    profile = world.new_profile("--table", "care.person:person_id,sex")
    before = world.budget(profile)
    for sql in ("SELECT COUNT(*) FROM visit", "SELECT AVG(birth_year) FROM person"):
        done = world.query(sql, profile=profile)
        assert done.code != 0
        assert "INSITU-ACCESS-NOT-GRANTED" in done.err
    assert world.query("SELECT sex, COUNT(*) FROM person GROUP BY sex", profile=profile).code == 0
    assert world.budget(profile) != before


@pytest.mark.attacks("A5")
def test_a_request_signed_by_another_key_is_refused(world: World, tmp_path: Path) -> None:
    """The stranger holds a certificate of the federation and a copy of the grant, but not its key."""
    stranger = tmp_path / "stranger"
    made = world.run(
        "insitu-authority",
        "cert",
        world.dir / "authority",
        "--role",
        "researcher",
        "--id",
        "stranger",
        "--out",
        stranger,
    )
    assert made.code == 0, made.err
    profile = tmp_path / "profile"
    shutil.copytree(world.profile, profile)
    for name in ("signing.key", "signing.pub", "tls.key", "tls.pem"):
        target = next(profile.rglob(name))
        target.unlink()
        shutil.copy(stranger / name, target)
    done = world.query("SELECT COUNT(*) FROM visit", profile=profile)
    assert done.code != 0
    assert "INSITU-ACCESS-WRONG-KEY" in done.err


@pytest.mark.attacks("T2")
@pytest.mark.parametrize("process", ["node-alpha", "gateway"])
def test_who_looks_for_a_port_of_a_node_finds_none(world: World, process: str) -> None:
    """The gateway has one, so that this search is seen to find what is there."""
    pid = world.pid(process)
    sockets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    tables = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    lines = [line.split() for line in tables.splitlines()]
    listening = [line for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    assert bool(listening) == (process == "gateway")


@pytest.mark.attacks("P5")
def test_nothing_that_any_process_logs_depends_on_private_rows(world: World) -> None:
    assert world.query("SELECT sex, COUNT(*) FROM person WHERE name LIKE 'C%' GROUP BY sex").code == 0
    logs = world.logs()
    assert logs
    assert CANARY not in logs
    exact = world.exact.execute("SELECT COUNT(*) FROM person WHERE person_id % 3 = 0").fetchone()
    assert f" {exact[0]}" not in logs  # type: ignore[index]
    assert f":{exact[0]}" not in logs  # type: ignore[index]


def test_a_statement_that_runs_into_trouble_in_a_missing_profile_says_so(world: World, tmp_path: Path) -> None:
    done = world.run("insitu", "query", "SELECT 1", "--epsilon", 1, "--profile", tmp_path / "none")
    assert done.code != 0
    assert done.err.startswith("INSITU-CONFIG-")
