"""``insitu-gateway`` as a process: help, check, run and status, and mistakes on one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.gateway.world import BUNDLE, NODES, RELEASED, World, process, run, statuses


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-m", "insitu_gateway.commands.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def one_line(done: subprocess.CompletedProcess[str], code: str, exit_code: int) -> None:
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{code}: ")


@pytest.mark.parametrize("name", [(), ("run",), ("check",), ("status",)])
def test_help_has_an_example(name: tuple[str, ...]) -> None:
    done = command(*name, "--help")
    assert done.returncode == 0
    assert "insitu-gateway" in done.stdout.split("Example")[1]


def test_version() -> None:
    assert command("--version").stdout == "insitu-gateway 0.1.0\n"


def test_check_says_what_is_configured(tmp_path: Path) -> None:
    world = World(tmp_path)
    config = world.write_config()
    done = command("check", "--config", config, "--format", "json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["nodes"] == list(NODES)
    assert facts["datasets"] == [{"name": "care", "version": 1, "digest": BUNDLE.digest(), "in_manifest": True}]
    assert facts["warnings"] == []
    config.write_text(config.read_text().replace('["care/dataset.toml"]', "[]"))
    assert "care" in json.loads(command("check", "--config", config, "--format", "json").stdout)["warnings"][0]


def test_mistakes_are_one_line_with_a_code(tmp_path: Path) -> None:
    world = World(tmp_path)
    config = world.write_config()
    good = config.read_text()
    one_line(command("check", "--config", tmp_path / "nowhere.toml"), "INSITU-CONFIG-FILE", 2)
    one_line(command("check", "--cofnig", config), "INSITU-CONFIG-USAGE", 2)
    one_line(command("status", "--config", config), "INSITU-GATEWAY-UNREACHABLE", 3)
    config.write_text(good.replace('identity = "gw"', f'identity = "{NODES[0]}"'))
    one_line(command("run", "--config", config), "INSITU-CONFIG-INVALID", 2)
    config.write_text(good.replace('"manifest.jws"', '"gateway.toml"'))
    one_line(command("run", "--config", config), "INSITU-ACCESS-MALFORMED", 2)


def test_status_of_a_running_gateway_and_of_one_that_was_killed(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)  # too deep for a Unix socket: it is then made elsewhere
    deep.mkdir()
    world = World(deep)
    config = world.write_config()

    async def work() -> None:
        async with process(config, "127.0.0.1:0"):
            address = (deep / "state/address").read_text().strip()
            async with world.node(address, NODES[0]), world.researcher(address) as ada:
                finished = await ada.finished(world.ask(world.query(nodes=NODES[:1])))
                assert statuses(finished) == {NODES[0]: RELEASED[NODES[0]]}
                done = command("status", "--config", config, "--format", "json")
                assert "connected: yes" in command("status", "--config", config).stdout
            assert done.returncode == 0, done.stderr
            facts = json.loads(done.stdout)
            assert facts["requests"] == {"open": 0, "finished": 1}
            assert {node["id"]: node["connected"] for node in facts["nodes"]} == {
                NODES[0]: True,
                NODES[1]: False,
                NODES[2]: False,
            }
        one_line(command("status", "--config", config), "INSITU-GATEWAY-UNREACHABLE", 3)

    run(work)


def test_the_log_is_json_and_holds_neither_sql_nor_values(tmp_path: Path) -> None:
    world = World(tmp_path)
    config = world.write_config()

    async def work() -> None:
        async with process(config, "127.0.0.1:0") as gateway:
            address = (tmp_path / "state/address").read_text().strip()
            async with world.nodes(address), world.researcher(address) as ada:
                await ada.finished(world.ask())
            gateway.terminate()
            assert await gateway.wait() == 0

    run(work)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.pop("event") for line in lines] == ["listening", "finished"]
    text = json.dumps([{name: value for name, value in line.items() if name != "timestamp"} for line in lines])
    assert "SELECT" not in text
    assert "300" not in text
