"""Processes are known by id and start time, and no other process is ever signalled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from insitu_compose import processes
from insitu_compose.processes import Running

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]


class Started:
    """Starts real processes, and ends them whatever the test does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []

    def __call__(self, name: str, command: list[str]) -> Running:
        log = self.folder / f"{name}.log"
        child = processes.start(name, command, log=log, record=self.folder / "run" / f"{name}.json", cwd=self.folder)
        self.children.append(child)
        deadline = time.monotonic() + 20
        while "ready" not in "".join(processes.last_lines(log)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return next(one for one in processes.remembered(self.folder / "run") if one.name == name)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    one = Started(tmp_path)
    yield one
    for child in one.children:
        child.kill()
        child.wait()


def test_remembers_what_it_started(started: Started, tmp_path: Path) -> None:
    running = started("node-a", SLEEP)
    assert processes.remembered(tmp_path / "run") == [running]
    assert running.alive()
    assert os.getsid(running.pid) == running.pid


def test_ends_exactly_what_it_is_given(started: Started) -> None:
    first, second = started("node-a", SLEEP), started("node-b", SLEEP)
    assert processes.end([first]) == []
    assert not first.alive()
    assert second.alive()


def test_kills_what_does_not_listen(started: Started) -> None:
    stubborn = started("node-a", STUBBORN)
    assert processes.end([stubborn], grace_s=0.2) == []
    assert not stubborn.alive()


def test_never_signals_a_recycled_id(started: Started) -> None:
    running = started("node-a", SLEEP)
    before = replace(running, started="another boot:12345")
    assert not before.alive()
    assert processes.end([before]) == []
    processes._signal(before, processes.signal.SIGKILL)
    assert running.alive()


def test_an_ended_process_is_gone_even_before_it_is_reaped(started: Started) -> None:
    running = started("node-a", SLEEP)
    child = started.children[0]
    child.kill()
    deadline = time.monotonic() + 10
    while running.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running.alive()
    assert child.returncode is None
    assert processes.end([running]) == []


def test_no_process_has_no_mark() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert processes.start_mark(child.pid) is None
    assert processes.start_mark(os.getpid()) == processes.start_mark(os.getpid()) is not None


def test_a_file_that_is_not_whole_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "a", "pid": 1')
    (tmp_path / "b.json").write_text('{"name": "b"}')
    (tmp_path / "c.json").write_text("[]")
    assert processes.remembered(tmp_path) == []


def test_the_log_is_for_its_owner(started: Started, tmp_path: Path) -> None:
    started("node-a", SLEEP)
    assert (tmp_path / "node-a.log").stat().st_mode & 0o077 == 0
