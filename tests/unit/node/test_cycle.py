"""One query's life: what is answered, what is charged, and in which order it happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import sqlglot
import structlog
from insitu_access.keys import generate_signing_key
from insitu_access.release import BudgetStatement, NodeRelease, Refusal
from insitu_node.cycle import Cycle
from insitu_node.engines.base import Row, Session
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_node.noise import Mechanisms
from insitu_node.running import Stopped
from insitu_privacy.errors import ExecutionFailed, Unavailable

from tests.testkit.node_world import ExactNoise, NodeWorld, care_engine


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld(folder=tmp_path)


@pytest.fixture
def cycle(world: NodeWorld) -> Iterator[Cycle]:
    cycle = world.cycle()
    yield cycle
    cycle.stop()


class Broken:
    """An engine with a knob for each way to fail."""

    dialect = "duckdb"

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.tables = inner.tables
        self.away = False
        self.fails: Exception | None = None
        self.executed = 0
        self.statements: list[str] = []
        self.gate: threading.Event | None = None

    @contextmanager
    def session(self) -> Iterator[Session]:
        if self.away:
            raise Unavailable("INSITU-NODE-DATABASE")
        with self.inner.session() as session:
            self._session = session
            yield self

    def execute(self, sql: str) -> list[Row]:
        self.executed += 1
        self.statements.append(sql)
        if self.gate is not None:
            self.gate.wait(10)
        if self.fails is not None:
            raise self.fails
        return list(self._session.execute(sql))

    def describe(self, table: str) -> Any:
        return self.inner.describe(table)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def broken(world: NodeWorld, tmp_path: Path) -> Broken:
    engine = Broken(care_engine(tmp_path))
    world.engine = engine
    return engine


def spent(world: NodeWorld) -> Fraction:
    return sum((account.epsilon for account in world.ledger.statement("grant-1")), Fraction(0))


def test_a_query_is_released_and_charged(world: NodeWorld, cycle: Cycle) -> None:
    stages: list[str] = []
    request = world.query()
    outcome = world.ask(cycle, request, stages)
    assert isinstance(outcome, NodeRelease)
    assert stages == ["admitted", "reserved", "executed"]
    assert outcome.values[0].statistics[0] == (1300, 1600)
    assert (outcome.request_id, outcome.plan_digest) == (request.request_id, request.plan_digest)
    assert (outcome.spent_epsilon, outcome.spent_delta, outcome.replayed) == (1, 0, False)
    assert spent(world) == 1


def test_the_same_request_again_gets_the_same_answer(world: NodeWorld, cycle: Cycle) -> None:
    request = world.query()
    first, second = world.ask(cycle, request), world.ask(cycle, request)
    assert first == second
    assert spent(world) == 1


def test_the_same_query_again_is_replayed_free(world: NodeWorld, cycle: Cycle) -> None:
    first, second = world.ask(cycle, world.query()), world.ask(cycle, world.query())
    assert isinstance(first, NodeRelease)
    assert isinstance(second, NodeRelease)
    assert second.values == first.values
    assert (second.replayed, second.spent_epsilon, second.spent_delta) == (True, 0, 0)
    assert spent(world) == 1


def test_a_query_of_other_parameters_is_another_charge(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    other = world.ask(cycle, world.query(epsilon="1/2"))
    assert isinstance(other, NodeRelease)
    assert not other.replayed
    assert spent(world) == Fraction(3, 2)


@pytest.mark.attacks("L4")
def test_the_budget_refuses_and_stays_as_it_was(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    before = world.ledger.entries()
    outcome = world.ask(cycle, world.query(epsilon="3/2"))
    assert isinstance(outcome, Refusal)
    assert outcome.code == "INSITU-BUDGET-EXCEEDED"
    assert world.ledger.entries() == before


def test_a_refusal_carries_the_place_in_the_sql(world: NodeWorld, cycle: Cycle) -> None:
    outcome = world.ask(cycle, world.query("SELECT person_id FROM visit", plan_digest="0" * 64))
    assert isinstance(outcome, Refusal)
    assert outcome.code.startswith("INSITU-SQL-")
    assert outcome.span is not None
    assert world.ledger.entries() == ()


def test_bytes_that_are_no_request_are_refused_under_the_gateways_id(world: NodeWorld, cycle: Cycle) -> None:
    jws = cycle.answer("ab" * 16, "nonsense", world.grant_jwt(), lambda _: None)
    outcome = world.opened(jws)
    assert isinstance(outcome, Refusal)
    assert (outcome.code, outcome.request_id) == ("INSITU-ACCESS-MALFORMED", "ab" * 16)


EVIL = "'; DROP TABLE person; --"
INNOCENT = """SELECT sex AS "x""; DROP TABLE person", COUNT(*) AS n /* DROP TABLE person */ FROM person -- DROP TABLE person
    WHERE sex <> '\''; DROP TABLE person; --' GROUP BY sex"""


@pytest.mark.attacks("P1")
def test_nothing_that_a_researcher_wrote_reaches_the_database(world: NodeWorld, broken: Broken) -> None:
    """Comments and names of its own stay behind; of a text that it compares with, no quote can be left."""
    cycle = world.cycle()
    assert isinstance(world.ask(cycle, world.query(INNOCENT)), NodeRelease)
    (statement,) = broken.statements
    assert "DROP" not in statement.replace(EVIL.replace("'", "''"), "")
    (parsed,) = sqlglot.parse(statement, dialect="duckdb")
    assert isinstance(parsed, sqlglot.exp.Select)
    assert isinstance(world.ask(cycle, world.query("SELECT COUNT(*) AS n FROM person")), NodeRelease)  # still there


@pytest.mark.attacks("P1")
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM person; DROP TABLE person",
        "DROP TABLE person",
        "SELECT COUNT(*) FROM read_csv('/etc/passwd')",
        "SELECT COUNT(*) FROM 'site.duckdb'",
        "SELECT COUNT(*) FROM information_schema.tables",
        "SELECT COUNT(*) FROM person WHERE pg_sleep(9) IS NULL",
        "SELECT COUNT(*) FROM person WHERE getenv('HOME') = 'x'",
        "SELECT COUNT(*) FROM person WHERE sex = (SELECT content FROM read_text('/etc/passwd'))",
        "SELECT COUNT(*) FROM person WHERE error(sex) IS NULL",
        "INSERT INTO person SELECT * FROM person",
        "COPY person TO 'out.csv'",
    ],
)
def test_no_operation_outside_the_closed_set_is_run(world: NodeWorld, broken: Broken, sql: str) -> None:
    """Signed as it is by a researcher whose own planner was not asked."""
    outcome = world.ask(world.cycle(), world.query(sql, plan_digest="0" * 64))
    assert isinstance(outcome, Refusal)
    assert outcome.code.startswith("INSITU-SQL-")
    assert (broken.executed, world.ledger.entries()) == (0, ())


@pytest.mark.attacks("L1")
def test_a_request_id_used_for_other_bytes_is_refused(world: NodeWorld, cycle: Cycle) -> None:
    request = world.query()
    world.ask(cycle, request)
    outcome = world.ask(cycle, world.query(epsilon="1/2", request_id=request.request_id))
    assert isinstance(outcome, Refusal)
    assert outcome.code == "INSITU-ACCESS-REPLAY"
    assert spent(world) == 1


def test_a_stranger_spends_nothing(world: NodeWorld, cycle: Cycle) -> None:
    request = world.query()
    jws = cycle.answer(
        request.request_id, world.sealed(request, generate_signing_key()), world.grant_jwt(), lambda _: None
    )
    outcome = world.opened(jws)
    assert isinstance(outcome, Refusal)
    assert outcome.code == "INSITU-ACCESS-WRONG-KEY"
    assert world.ledger.entries() == ()


def test_a_database_that_is_away_costs_nothing(world: NodeWorld, broken: Broken) -> None:
    broken.away = True
    cycle = world.cycle()
    outcome = world.ask(cycle, world.query())
    assert isinstance(outcome, Refusal)
    assert outcome.code == "INSITU-NODE-DATABASE"
    assert world.ledger.entries() == ()


@pytest.mark.parametrize(
    "visit", ["SELECT person_id, visit_id, day FROM visit", "SELECT * REPLACE (day::TEXT AS amount) FROM visit"]
)
def test_a_table_that_cannot_serve_the_query_is_refused_before_anything_is_spent(world: NodeWorld, visit: str) -> None:
    world.engine = care_engine(world.folder, visit=visit)
    cycle = world.cycle()
    assert isinstance(world.ask(cycle, world.query()), NodeRelease), "what it can serve, it serves"
    refused = world.ask(cycle, world.query("SELECT AVG(amount) AS a FROM visit"))
    assert isinstance(refused, Refusal)
    assert refused.code == "INSITU-NODE-TABLE"
    assert [entry.state for entry in world.ledger.entries()] == ["released"]
    cycle.stop()


def test_a_stored_release_needs_no_database(world: NodeWorld, broken: Broken) -> None:
    cycle = world.cycle()
    request = world.query()
    first = world.ask(cycle, request)
    broken.away = True
    assert world.ask(cycle, request) == first


@pytest.mark.attacks("P4")
@pytest.mark.parametrize("error", [ExecutionFailed("INSITU-NODE-FAILED"), ValueError("Ann has 3 stays")])
def test_a_failure_is_constant_and_stays_spent(
    world: NodeWorld, broken: Broken, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    broken.fails = error
    cycle = world.cycle()
    request = world.query()
    outcome = world.ask(cycle, request)
    assert isinstance(outcome, Refusal)
    constant = ExecutionFailed("INSITU-NODE-FAILED")
    assert (outcome.code, outcome.text, outcome.remedy) == (constant.code, constant.text, constant.remedy)
    assert spent(world) == 1
    assert "Ann" not in "".join(capsys.readouterr())
    broken.fails = None
    again = world.ask(cycle, request)
    assert isinstance(again, Refusal)  # the same request: the same answer
    assert spent(world) == 1
    fresh = world.ask(cycle, world.query())
    assert isinstance(fresh, NodeRelease)
    assert (fresh.replayed, spent(world)) == (False, 2)


@pytest.mark.attacks("P4")
def test_a_failure_of_the_mechanism_is_as_constant(world: NodeWorld, broken: Broken) -> None:
    assert isinstance(world.noise, ExactNoise)
    world.noise.fails = ArithmeticError("1312 overflows")
    outcome = world.ask(world.cycle(), world.query())
    assert isinstance(outcome, Refusal)
    assert (outcome.code, spent(world)) == ("INSITU-NODE-FAILED", 1)


@pytest.mark.attacks("P3")
def test_a_claim_that_does_not_hold_is_found_before_anything_is_spent(world: NodeWorld, broken: Broken) -> None:
    assert isinstance(world.noise, ExactNoise)
    world.noise.claims = ExecutionFailed("INSITU-MECHANISM-CLAIM")
    outcome = world.ask(world.cycle(), world.query())
    assert isinstance(outcome, Refusal)
    assert (outcome.code, broken.executed) == ("INSITU-MECHANISM-CLAIM", 0)
    assert world.ledger.entries() == ()


def test_identical_queries_at_once_run_once(world: NodeWorld, broken: Broken) -> None:
    broken.gate = threading.Event()
    cycle = world.cycle()
    requests = [world.query() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(world.ask, cycle, request) for request in requests]
        threading.Timer(0.2, broken.gate.set).start()
        outcomes = [answer.result(20) for answer in answers]
    assert all(isinstance(outcome, NodeRelease) for outcome in outcomes)
    assert len({outcome.values for outcome in outcomes if isinstance(outcome, NodeRelease)}) == 1
    assert (broken.executed, spent(world)) == (1, 1)


def test_stopping_answers_nothing_and_keeps_the_charge(world: NodeWorld, broken: Broken) -> None:
    broken.gate = threading.Event()
    cycle = world.cycle()
    request = world.query()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.ask, cycle, request)
        while not broken.executed:
            pass
        cycle.stop()
        broken.gate.set()
        with pytest.raises(Stopped):
            running.result(20)
    assert [entry.state for entry in world.ledger.entries()] == ["reserved"]
    world.engine = None
    again = NodeWorld.cycle(world)
    assert isinstance(world.ask(again, request), NodeRelease)
    assert spent(world) == 1
    again.stop()


def test_the_order_of_the_steps(world: NodeWorld) -> None:
    """Durable before irreversible: at each place, what the ledger holds."""
    seen: list[tuple[str, list[str]]] = []
    world.hook = lambda place: seen.append((place, [entry.state for entry in world.ledger.entries()]))
    cycle = world.cycle()
    world.ask(cycle, world.query())
    cycle.stop()
    assert seen == [
        ("before-reserve", []),
        ("after-reserve", ["reserved"]),
        ("after-execute", ["reserved"]),
        ("after-noise", ["reserved"]),
        ("before-commit", ["reserved"]),
        ("after-commit", ["released"]),
        ("after-seal", ["released"]),
        ("after-audit", ["released"]),
    ]


def test_a_statement_of_the_budget(world: NodeWorld, cycle: Cycle) -> None:
    before = world.ask(cycle, world.budget_request())
    assert isinstance(before, BudgetStatement)
    assert [(row.epsilon_spent, row.epsilon_left) for row in before.rows] == [(0, 2)]
    world.ask(cycle, world.query())
    after = world.ask(cycle, world.budget_request())
    assert isinstance(after, BudgetStatement)
    (row,) = after.rows
    assert (row.dataset, row.epsilon_spent, row.epsilon_left) == ("care", 1, 1)
    assert (row.delta_spent, row.delta_left) == (0, Fraction(1, 10**6))


@pytest.mark.attacks("P5")
def test_nothing_of_the_data_is_logged(world: NodeWorld, cycle: Cycle) -> None:
    request = world.query()
    with structlog.testing.capture_logs() as said:
        world.ask(cycle, request)
    assert said == [
        {"event": "request released", "log_level": "info", "request_id": request.request_id, "replayed": False}
    ]


def test_with_the_real_mechanisms_and_the_durable_ledger(world: NodeWorld, tmp_path: Path) -> None:
    world.noise = Mechanisms()
    world.ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    cycle = world.cycle()
    first, second = world.ask(cycle, world.query()), world.ask(cycle, world.query())
    assert isinstance(first, NodeRelease)
    assert isinstance(second, NodeRelease)
    assert first.values == second.values
    assert all(abs(noisy - true) < 60 for noisy, true in zip(first.values[0].statistics[0], (300, 600), strict=True))
    assert spent(world) == 1
    cycle.stop()
    world.ledger.close()
