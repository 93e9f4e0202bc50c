"""The command: one document on standard output and nothing else, one-line errors with their exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.ipc
import pyarrow.parquet
import pytest
from insitu.commands.main import app
from insitu_access.cli import run
from insitu_privacy.errors import BudgetRefused, Span, SqlRefused
from insitu_proto.messages import Ask

from tests.unit.client.served import serving
from tests.unit.client.world import BY_SEX, NODES, World

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, now=datetime.now(UTC))


@pytest.fixture
def insitu(world: World, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs the command in this process, with ``world`` in place of the network."""
    monkeypatch.setenv("INSITU_PROFILE", str(world.profile().folder))
    monkeypatch.setattr("insitu.client.GrpcTransport", lambda addresses, identity: world)

    def call(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["insitu", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            run(app, "insitu")
        out, err = capsysbinary.readouterr()
        return int(exit_.value.code or 0), out.decode("utf-8", "surrogateescape"), err.decode()

    return call


def test_json_is_one_document_and_progress_goes_elsewhere(insitu: Run) -> None:
    code, out, err = insitu("query", BY_SEX, "--epsilon", "0.5", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert out.count("\n") == 1
    assert document["rows"] == [["F", 3000], ["M", 3030]]
    assert document["verified"] is True
    assert err.splitlines() == [f"{node}: released" for node in NODES]
    assert insitu("query", BY_SEX, "--epsilon", "0.5", "-q")[2] == ""


def test_a_table_shows_intervals(insitu: Run) -> None:
    code, out, _ = insitu("query", BY_SEX, "--epsilon", "1")
    assert code == 0
    assert "3,000 ± 5" in out
    assert "every release verified" in out


def test_sql_comes_from_a_file_or_from_standard_input(insitu: Run, world: World) -> None:
    file = world.folder / "q.sql"
    file.write_text(BY_SEX)
    assert insitu("query", "-f", str(file), "--epsilon", "1")[0] == 0
    assert insitu("query", "-", "--epsilon", "1", stdin=BY_SEX.encode())[0] == 0
    assert insitu("query", "-f", "-", "--epsilon", "1", stdin=BY_SEX.encode())[0] == 0


def test_binary_and_text_formats(insitu: Run, world: World) -> None:
    for form, suffix in (("parquet", ".parquet"), ("arrow", ".arrow"), ("csv", ".csv"), ("json", ".json")):
        target = world.folder / f"out{suffix}"
        assert insitu("query", BY_SEX, "--epsilon", "1", "-o", str(target), "-q") == (0, "", "")
        assert target.stat().st_size > 0
        assert insitu("query", BY_SEX, "--epsilon", "1", "--format", form, "-o", str(target), "-q")[0] == 0
    assert pyarrow.parquet.read_table(world.folder / "out.parquet").column_names == ["sex", "n", "n_low", "n_high"]
    with pyarrow.ipc.open_file(world.folder / "out.arrow") as reader:
        assert reader.read_all().to_pydict()["n"] == [3000, 3030]
    assert (world.folder / "out.csv").read_text().splitlines() == ["sex,n,n_low,n_high", *_csv_rows()]


def _csv_rows() -> list[str]:
    return ["F,3000,2995,3004", "M,3030,3025,3035"]


def test_catalog_budget_and_explain(insitu: Run) -> None:
    catalog = json.loads(insitu("catalog", "--format", "json")[1])
    assert [table["name"] for table in catalog["datasets"][0]["tables"]] == ["chapter", "person", "visit"]
    assert "birth_year" in insitu("catalog")[1]
    budget = json.loads(insitu("budget", "--format", "json", "-q")[1])
    assert budget["grant"] == "grant-1"
    assert budget["nodes"][0] == {
        "id": "chu-lille",
        "dataset": "care",
        "epsilon_spent": 1.5,
        "epsilon_left": 18.5,
        "delta_spent": 0.0,
        "delta_left": 1e-6,
    }
    assert "18.5" in insitu("budget")[1]
    explained = json.loads(insitu("explain", BY_SEX, "--format", "json")[1])
    assert explained["cost"]["epsilon"] == 1
    assert explained["cost"]["person_level"]["epsilon"] == 2
    assert "SELECT" in insitu("explain", BY_SEX)[1]


def test_a_budget_that_a_node_cannot_tell_is_a_warning(insitu: Run, world: World) -> None:
    world.absent = {"chu-brest"}
    code, out, err = insitu("budget", "--format", "json", "-q")
    assert code == 0
    assert json.loads(out)["missing"] == [{"id": "chu-brest", "status": "absent", "code": "INSITU-NODE-ABSENT"}]
    assert "chu-brest" in err


def test_a_saved_result_is_verified_offline(insitu: Run, world: World) -> None:
    target = world.folder / "result.json"
    assert insitu("query", BY_SEX, "--epsilon", "1", "-o", str(target))[0] == 0
    world.unreachable = 1_000_000
    code, out, _ = insitu("verify", str(target), "--format", "json")
    assert code == 0
    assert json.loads(out)["verified"] is True
    assert insitu("verify", str(target), "--authority", str(world.identity / "authority.pub"))[0] == 0
    document = json.loads(target.read_text())
    document["rows"][0][1] += 1
    target.write_text(json.dumps(document))
    code, out, err = insitu("verify", str(target))
    assert (code, out) == (4, "")
    assert err.startswith("INSITU-VERIFY-RESULT: ")
    assert insitu("verify", str(target), "--authority", str(world.folder / "none"))[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["query"], "INSITU-CONFIG-USAGE", 2),
        (["query", "-", "-f", "x.sql"], "INSITU-CONFIG-USAGE", 2),
        (["query", "-f", "/nowhere.sql", "--epsilon", "1"], "INSITU-CONFIG-FILE", 2),
        (["query", BY_SEX], "INSITU-PARAM-EPSILON", 2),
        (["query", BY_SEX, "--epsilon", "lots"], "INSITU-PARAM-EPSILON", 2),
        (["query", BY_SEX, "--epsilon", "-1"], "INSITU-PARAM-EPSILON", 2),
        (["query", BY_SEX, "--epsilon", "1", "--delta", "2"], "INSITU-PARAM-DELTA", 2),
        (["query", BY_SEX, "--accuracy", "±5%", "--epsilon", "1"], "INSITU-CONFIG-USAGE", 2),
        (["query", BY_SEX, "--accuracy", "good"], "INSITU-PARAM-ACCURACY", 2),
        (["query", BY_SEX, "--epsilon", "1", "--improve", "better"], "INSITU-PARAM-IMPROVE", 2),
        (["query", BY_SEX, "--epsilon", "1", "--mechanism", "none"], "INSITU-CONFIG-USAGE", 2),
        (["query", BY_SEX, "--epsilon", "1", "--min-nodes", "x"], "INSITU-CONFIG-USAGE", 2),
        (["query", BY_SEX, "--epsilon", "1", "--min-nodes", "4"], "INSITU-PARAM-BOUND", 2),
        (["query", BY_SEX, "--epsilon", "1", "--nodes", "chu-nantes"], "INSITU-PARAM-NODES", 2),
        (["query", BY_SEX, "--epsilon", "1", "--timeout", "0"], "INSITU-PARAM-TIMEOUT", 2),
        (["query", BY_SEX, "--epsilon", "1", "--dataset", "x"], "INSITU-PARAM-DATASET", 2),
        (["query", BY_SEX, "--epsilon", "1", "--dialect", "klingon"], "INSITU-SQL-UNKNOWN-DIALECT", 2),
        (["query", BY_SEX, "--epsilon", "1", "--format", "xml"], "INSITU-CONFIG-USAGE", 2),
        (["query", BY_SEX, "--epsilon", "1", "-o", "/nowhere/x.json"], "INSITU-CONFIG-FILE", 2),
        (["query", BY_SEX, "--epsilon", "1", "-o", "x.xlsx"], "INSITU-CONFIG-USAGE", 2),
        (["explain", BY_SEX, "-o", "x.csv"], "INSITU-CONFIG-USAGE", 2),
        (["query", BY_SEX, "--epsilon", "1", "--profile", "/nowhere"], "INSITU-CONFIG-STATE", 2),
        (["query", "", "--epsilon", "1"], "INSITU-SQL", 2),
        (["query", "DROP TABLE person", "--epsilon", "1"], "INSITU-SQL", 2),
        (["query", "SELECT 1; SELECT 2", "--epsilon", "1"], "INSITU-SQL", 2),
        (["query", "SELECT " + "x" * 300_000, "--epsilon", "1"], "INSITU-SQL-TOO-LONG", 2),
        (["catalog", "--dataset", "x"], "INSITU-PARAM-DATASET", 2),
        (["verify", "/nowhere.json"], "INSITU-CONFIG-FILE", 2),
        (["frobnicate"], "INSITU-CONFIG-USAGE", 2),
        (["history"], "INSITU-CONFIG-USAGE", 2),
        ([], "INSITU-CONFIG-USAGE", 2),
    ],
)
def test_a_mistake_is_one_line_with_a_code(
    insitu: Run, world: World, arguments: list[str], code: str, exit_code: int
) -> None:
    done, out, err = insitu(*arguments)
    assert (done, out) == (exit_code, "")
    first = err.splitlines()[-1] if "released" in err else err.splitlines()[0]
    assert first.startswith(code)
    assert "Traceback" not in err


def test_an_output_that_cannot_be_written_is_noticed_before_anything_is_spent(insitu: Run, world: World) -> None:
    insitu("query", BY_SEX, "--epsilon", "1", "-o", "/nowhere/x.json")
    assert not any(isinstance(call, Ask) for call in world.calls)


def test_an_error_in_the_sql_is_underlined(insitu: Run) -> None:
    _, out, err = insitu("query", "SELECT sex,\n  COUNT(*) AS n\nFROM persn GROUP BY sex", "--epsilon", "1")
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith("INSITU-SQL-UNKNOWN-TABLE: ")
    assert lines[1:] == ["FROM persn GROUP BY sex", "     ^^^^^"]


def test_a_nodes_sql_error_is_underlined_too(insitu: Run, world: World) -> None:
    error = SqlRefused("INSITU-SQL-TYPE", span=Span(start=0, end=6), name="a", type="b", hint="c.")
    world.refusing = dict.fromkeys(NODES, error)
    code, out, err = insitu("query", BY_SEX, "--epsilon", "1", "-q")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "^^^^^^"


def test_too_few_nodes_and_one_code_for_all(insitu: Run, world: World) -> None:
    world.absent = {"chu-brest"}
    code, out, err = insitu("query", BY_SEX, "--epsilon", "1", "-q")
    assert (code, out) == (3, "")
    assert err.startswith("INSITU-NODES-TOO-FEW: 2 of 3")
    assert "chu-brest absent INSITU-NODE-ABSENT" in err
    assert insitu("query", BY_SEX, "--epsilon", "1", "-q", "--min-nodes", "2")[0] == 0
    world.absent, world.refusing = set(), dict.fromkeys(NODES, BudgetRefused("INSITU-BUDGET-EXCEEDED"))
    code, out, err = insitu("query", BY_SEX, "--epsilon", "1", "-q")
    assert (code, out) == (2, "")
    assert err.startswith("INSITU-BUDGET-EXCEEDED: ")


def test_keys_are_made_and_never_overwritten(insitu: Run, world: World) -> None:
    folder = world.folder / "me"
    code, out, err = insitu("key", "new", str(folder), "--no-passphrase")
    assert (code, out) == (0, f"{folder}\n")
    assert str(folder / "signing.pub") in err  # what to send
    assert {path.name for path in folder.iterdir()} == {"signing.key", "signing.pub", "tls.key", "tls.csr"}
    code, _, err = insitu("key", "new", str(folder), "--no-passphrase")
    assert code == 2
    assert err.startswith("INSITU-CONFIG-")


@pytest.mark.parametrize(
    "command",
    [
        "connect",
        "catalog",
        "explain",
        "query",
        "budget",
        "verify",
        "trust",
        "key new",
        "key rotate",
        "key install",
        "key show",
        "key change-passphrase",
    ],
)
def test_every_command_has_help_with_an_example(insitu: Run, command: str) -> None:
    code, out, _ = insitu(*command.split(), "--help")
    assert code == 0
    assert f"Example: insitu {command}" in out


def test_version(insitu: Run) -> None:
    assert insitu("--version") == (0, "insitu 0.1.0\n", "")


# -- as a process of its own -----------------------------------------------------------------------------------------


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from insitu.commands.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with serving(world) as served:
        yield served


def test_connect_and_query_as_processes(world: World, address: str) -> None:
    folder = str(world.folder / "mine")
    done = _process(
        "connect", folder, "--gateway", address, "--identity", str(world.identity), "--grant",
        str(world.folder / "grant.jwt"),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    done = _process("query", BY_SEX, "--epsilon", "1", "--profile", folder, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is True


def test_importing_is_quick_and_never_brings_opendp() -> None:
    program = (
        "import time, sys; start = time.perf_counter(); import insitu; took = time.perf_counter() - start\n"
        "heavy = {'grpc', 'duckdb', 'sqlglot', 'numpy', 'pyarrow', 'pandas', 'opendp'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert took < 0.7, took\n"
        "import insitu.client, insitu.evidence, insitu.output_facts\n"
        "import insitu_privacy.planner, insitu_privacy.postprocess, insitu_privacy.render\n"
        "assert 'opendp' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
