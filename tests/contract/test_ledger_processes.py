"""The durable ledger between processes: shared by several, and killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_privacy.errors import BudgetRefused, ConfigInvalid

from tests.testkit.asks import NOW, ask, values


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.testkit.ledger_worker", str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines(output: str) -> list[list[Any]]:
    """Complete lines only: the last one may have been cut by the kill."""
    return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]


def finish(workers: list[subprocess.Popen[str]]) -> list[list[Any]]:
    said = [lines(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    return [line for output in said for line in output]


@pytest.mark.attacks("L4")
def test_processes_never_take_the_last_of_the_budget_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    said = finish([start(path, "drain", f"w{index}", 40) for index in range(4)])
    assert sum(line[0] == "reserved" for line in said) == 100
    assert sum(line[0] == "refused" for line in said) == 60
    ledger = SqliteLedger(path)
    assert ledger.statement("grant-1")[0].epsilon == 1
    ledger.close()


@pytest.mark.attacks("L3", "L5")
def test_processes_with_the_same_queries_give_the_same_answers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    said = finish([start(path, "shared", f"w{index}", 25) for index in range(4)])
    assert len({(number, answer) for _, number, answer in said}) == 25
    ledger = SqliteLedger(path)
    assert ledger.statement("grant-1")[0].epsilon == Fraction(25, 100)
    ledger.close()


@pytest.mark.parametrize(
    ("step", "kind", "epsilon"),
    [("open", "new", Fraction(0)), ("reserve", "resumed", Fraction(1, 10)), ("commit", "replayed", Fraction(1, 10))],
)
def test_killed_between_two_steps(tmp_path: Path, step: str, kind: str, epsilon: Fraction) -> None:
    path = tmp_path / "ledger.sqlite"
    worker = start(path, "stop", step)
    assert worker.stdout is not None
    assert json.loads(worker.stdout.readline()) == ["stopped", step]
    worker.kill()
    worker.communicate(timeout=30)
    ledger = SqliteLedger(path)
    assert sum((account.epsilon for account in ledger.statement("grant-1")), Fraction(0)) == epsilon
    again = ledger.reserve(ask("r1", plan="p"), NOW)
    assert again.kind == kind
    assert again.values == (values(1) if kind == "replayed" else None)
    assert ledger.statement("grant-1")[0].epsilon == Fraction(1, 10)
    ledger.close()


@pytest.mark.attacks("L5")
@pytest.mark.parametrize("milliseconds", [0, 3, 10, 30, 80])
def test_killed_at_any_moment_nothing_promised_is_lost(tmp_path: Path, milliseconds: int) -> None:
    path = tmp_path / "ledger.sqlite"
    said: list[list[Any]] = []
    for attempt in range(3):
        worker = start(path, "drain", f"a{attempt}", 1000)
        assert worker.stdout is not None
        head = worker.stdout.readline()
        time.sleep(milliseconds / 1000)
        os.kill(worker.pid, signal.SIGKILL)
        said += lines(head + worker.communicate(timeout=30)[0])
    ledger = SqliteLedger(path)  # opening adds everything up again
    states = {entry.request_ids[0]: entry.state for entry in ledger.entries()}
    for what, request_id, *rest in said:
        if what == "reserved":
            assert request_id in states
        if what == "released":
            assert states[request_id] == "released"
            assert ledger.reserve(ask(request_id, epsilon="1/100"), NOW).values == values(rest[0])
    total = ledger.statement("grant-1")[0].epsilon
    assert total == Fraction(len(states), 100)
    assert total <= 1
    if total == 1:
        with pytest.raises(BudgetRefused):
            ledger.reserve(ask("one more", epsilon="1/100"), NOW)
    ledger.close()


def test_a_new_file_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    letting_go = threading.Timer(0.3, holder.close)
    letting_go.start()
    ledger = SqliteLedger(path)
    assert letting_go.finished.is_set()
    assert ledger.reserve(ask("r1"), NOW).kind == "new"
    ledger.close()


def test_a_ledger_that_does_not_add_up_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SqliteLedger(path)
    ledger.reserve(ask("r1"), NOW)
    ledger.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE accounts SET rho = '0/1'")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigInvalid) as caught:
        SqliteLedger(path)
    assert caught.value.code == "INSITU-CONFIG-STATE"


def test_a_file_that_is_no_ledger_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is no database, but it is longer than a header is" * 50)
    with pytest.raises(ConfigInvalid):
        SqliteLedger(path)
    with pytest.raises(ConfigInvalid) as caught:
        SqliteLedger(tmp_path / "missing" / "ledger.sqlite")
    assert caught.value.code == "INSITU-CONFIG-FILE"


def test_a_ledger_of_another_version_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    SqliteLedger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigInvalid):
        SqliteLedger(path)


def test_only_the_owner_may_read_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    SqliteLedger(path).close()
    assert path.stat().st_mode & 0o077 == 0
