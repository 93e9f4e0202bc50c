"""The command line: facts on standard output, one-line errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from insitu_compose import processes
from insitu_compose.layout import GATEWAY, Layout
from insitu_compose.record import Record, write_record


def compose(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "insitu_compose", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def refused(done: subprocess.CompletedProcess[str], code: str) -> str:
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{code}: ")
    return lines[0]


@pytest.fixture
def stopped(tmp_path: Path) -> Layout:
    """The directory of a federation of which nothing runs."""
    layout = Layout(tmp_path / "dir")
    layout.root.mkdir()
    layout.run.mkdir()
    record = Record(federation="small", file="F", fingerprint="0", gateway="g", nodes=("north",), address="127.0.0.1:1",
                    ready=True)  # fmt: skip
    write_record(layout, record)
    return layout


@pytest.mark.parametrize("command", [[], ["up"], ["down"], ["status"]])
def test_help_has_an_example(command: list[str]) -> None:
    done = compose(*command, "--help")
    assert done.returncode == 0
    assert command == [] or f"insitu-compose {command[0]}" in done.stdout


def test_version() -> None:
    assert compose("--version").stdout.startswith("insitu-compose 0.")


def test_a_mistake_is_one_line(write, tmp_path: Path) -> None:
    refused(compose("up", tmp_path / "none.toml"), "INSITU-CONFIG-FILE")
    refused(compose("up", write('"duckdb"', '"dbase"')), "INSITU-CONFIG-INVALID")
    refused(compose("up", write("[grant]", "[grant")), "INSITU-CONFIG-INVALID")
    assert "dbase" not in refused(compose("up"), "INSITU-CONFIG-USAGE")
    refused(compose("up", write(), "--detached"), "INSITU-CONFIG-USAGE")
    refused(compose("down"), "INSITU-CONFIG-USAGE")
    refused(compose("down", "--dir", tmp_path), "INSITU-CONFIG-STATE")
    refused(compose("status", "--dir", tmp_path / "none"), "INSITU-CONFIG-STATE")


def test_up_leaves_a_foreign_directory_alone(write, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    refused(compose("up", write(), "--dir", tmp_path / "thesis"), "INSITU-CONFIG-STATE")
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter"]


def test_up_refuses_what_was_made_from_another_file(write, stopped: Layout) -> None:
    line = refused(compose("up", write(), "--dir", stopped.root), "INSITU-CONFIG-STATE")
    assert "another FEDERATION.toml" in line


def test_status_of_what_does_not_run(stopped: Layout) -> None:
    done = compose("status", "--dir", stopped.root, "--format", "json")
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (facts["federation"], facts["state"], facts["processes"]) == ("small", "down", [])
    assert facts["nodes"] == [{"id": "north", "connected": False}]
    assert "state: down" in compose("status", "--dir", stopped.root).stdout


def test_down_twice_is_no_mistake(stopped: Layout) -> None:
    done = compose("down", "--dir", stopped.root)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing was running" in done.stderr


def test_down_ends_its_own_and_spares_a_recycled_id(stopped: Layout) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = processes.start(GATEWAY, sleep, log=stopped.log(GATEWAY), record=stopped.run / f"{GATEWAY}.json",
                            cwd=stopped.root)  # fmt: skip
    bystander = subprocess.Popen(sleep)
    recycled = {"name": "node-north", "pid": bystander.pid, "started": "long ago"}
    (stopped.run / "node-north.json").write_text(json.dumps(recycled))
    try:
        done = compose("down", "--dir", stopped.root)
        assert done.returncode == 0
        assert done.stderr.strip() == "stopped gateway"
        assert child.wait(timeout=10) == -15
        assert bystander.poll() is None
        assert list(stopped.run.iterdir()) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_a_missing_command_is_named(write, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": str(bare), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [bare / "python", "-m", "insitu_compose", "up", write(), "--dir", tmp_path / "dir"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "INSITU-CONFIG-STATE: the command insitu-authority is not installed here" in done.stderr
