"""Projects at a node: who may ask, as the custodian decides while it runs. Every refusal is free."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from insitu_access.release import BudgetStatement, NodeRelease, Refusal
from insitu_node.cycle import Cycle
from insitu_node.policy import Cap, Decision, Policy, QuietHours, Rule
from insitu_node.projects import Halt, Projects

from tests.testkit.node_world import NodeWorld


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld(folder=tmp_path, policy=Policy())


@pytest.fixture
def cycle(world: NodeWorld) -> Iterator[Cycle]:
    cycle = world.cycle()
    yield cycle
    cycle.stop()


def refusal(world: NodeWorld, cycle: Cycle, request: Any = None) -> str:
    """The code of a refusal; it charges nothing."""
    before = world.ledger.entries()
    outcome = world.ask(cycle, request or world.query())
    assert isinstance(outcome, Refusal), outcome
    assert world.ledger.entries() == before
    return outcome.code


def decide(world: NodeWorld, verdict: Any, **changes: Any) -> None:
    said = {"revision": 1, "cap": Cap(), "reason": "board", "by": "dr", "at": world.now} | changes
    world.projects.decide(Decision(grant_id=world.grant.id, verdict=verdict, **said))


@pytest.mark.attacks("C2")
def test_a_project_waits_is_seen_and_answered_once_approved(world: NodeWorld, cycle: Cycle) -> None:
    request = world.query()
    assert refusal(world, cycle, request) == "INSITU-NODE-APPROVAL"
    assert refusal(world, cycle, world.budget_request()) == "INSITU-NODE-APPROVAL"
    (project,) = world.projects.all()
    assert (project.grant, project.decision) == (world.grant, None)
    decide(world, "approved")
    assert isinstance(world.ask(cycle, request), NodeRelease)


@pytest.mark.attacks("C2")
def test_a_withdrawal_counts_from_the_next_request_on_even_for_what_was_released(
    world: NodeWorld, cycle: Cycle
) -> None:
    decide(world, "approved")
    request = world.query()
    assert isinstance(world.ask(cycle, request), NodeRelease)
    decide(world, "withdrawn")
    assert refusal(world, cycle, request) == "INSITU-NODE-WITHDRAWN"
    decide(world, "denied")
    assert refusal(world, cycle) == "INSITU-NODE-DENIED"
    (project,) = world.projects.all()
    assert [one.verdict for one in project.decisions] == ["approved", "withdrawn", "denied"]


@pytest.mark.attacks("C2")
def test_an_amended_grant_waits_again(world: NodeWorld, cycle: Cycle) -> None:
    decide(world, "approved")
    world.grant_with(revision=2, epsilon=Fraction(9))
    assert refusal(world, cycle) == "INSITU-NODE-APPROVAL"
    (project,) = world.projects.all()
    assert project.grant.revision == 2
    decide(world, "approved", revision=2)
    assert isinstance(world.ask(cycle, world.query()), NodeRelease)


def test_only_a_verified_grant_is_seen(world: NodeWorld, cycle: Cycle) -> None:
    from insitu_access.keys import generate_signing_key

    request = world.query()
    forged = world.grant_jwt(generate_signing_key())
    outcome = world.opened(cycle.answer(request.request_id, world.sealed(request), forged, lambda _: None))
    assert isinstance(outcome, Refusal)
    assert world.projects.all() == ()


@pytest.mark.attacks("C5")
def test_the_custodians_cap_is_the_budget(world: NodeWorld, cycle: Cycle) -> None:
    decide(world, "approved", cap=Cap(epsilon=Fraction(1)))
    statement = world.ask(cycle, world.budget_request())
    assert isinstance(statement, BudgetStatement)
    assert statement.rows[0].epsilon_left == 1
    assert refusal(world, cycle, world.query(epsilon="1.5")) == "INSITU-BUDGET-EXCEEDED"
    assert isinstance(world.ask(cycle, world.query(epsilon="0.5")), NodeRelease)


@pytest.mark.attacks("C1")
def test_a_halted_node_answers_nothing_and_resumes(world: NodeWorld, cycle: Cycle) -> None:
    decide(world, "approved")
    world.projects.set_halt(Halt(halted=True, reason="incident", by="dr", at=world.now))
    assert refusal(world, cycle) == "INSITU-NODE-HALTED"
    assert refusal(world, cycle, world.budget_request()) == "INSITU-NODE-HALTED"
    world.projects.set_halt(Halt(halted=False, reason="", by="dr", at=world.now))
    assert isinstance(world.ask(cycle, world.query()), NodeRelease)


@pytest.mark.attacks("C1")
def test_what_runs_when_the_node_is_halted_is_not_released_and_goes_on_later(world: NodeWorld) -> None:
    def halt(point: str) -> None:
        if point == "after-noise" and not world.projects.halted():
            world.projects.set_halt(Halt(halted=True, reason="incident", by="dr", at=world.now))

    decide(world, "approved")
    world.hook = halt
    cycle = world.cycle()
    request = world.query()
    outcome = world.ask(cycle, request)
    assert isinstance(outcome, Refusal)
    assert outcome.code == "INSITU-NODE-HALTED"
    assert [entry.state for entry in world.ledger.entries()] == ["reserved"]
    world.hook = lambda _: None
    cycle.stop()
    world.engine = None
    again = world.cycle()
    world.projects.set_halt(Halt(halted=False, reason="", by="dr", at=world.now))
    assert isinstance(world.ask(again, request), NodeRelease)
    assert [entry.state for entry in world.ledger.entries()] == ["released"]
    again.stop()


@pytest.mark.attacks("C3", "C4")
def test_quiet_hours_and_rate(tmp_path: Path) -> None:
    quiet = QuietHours(start=datetime(2026, 1, 1, 22).time(), end=datetime(2026, 1, 1, 6).time(), zone=UTC)
    rules = (Rule(every_grant=True),)
    world = NodeWorld(folder=tmp_path, policy=Policy(rules=rules, quiet=(quiet,), queries_per_hour=2))
    at = world.now.replace(hour=12)
    cycle = world.cycle(lambda: at)
    world.now = at
    first = world.query()
    assert isinstance(world.ask(cycle, first), NodeRelease)
    assert isinstance(world.ask(cycle, world.query("SELECT COUNT(*) AS n FROM person")), NodeRelease)
    third = world.query("SELECT COUNT(*) AS n FROM visit")
    assert refusal(world, cycle, third) == "INSITU-NODE-RATE"
    assert isinstance(world.ask(cycle, first), NodeRelease)  # a replay is free of it
    at += timedelta(hours=11)
    world.now = at
    assert refusal(world, cycle) == "INSITU-NODE-QUIET"
    cycle.stop()


@pytest.mark.attacks("C6")
def test_an_old_manifest_is_not_believed_for_longer_than_the_policy_says(tmp_path: Path) -> None:
    rules = (Rule(every_grant=True),)
    world = NodeWorld(folder=tmp_path, policy=Policy(rules=rules, manifest_max_age=timedelta(hours=25)))
    cycle = world.cycle()
    assert isinstance(world.ask(cycle, world.query()), NodeRelease)
    world.manifest_with(issued_at=world.now - timedelta(hours=26))
    assert refusal(world, cycle) == "INSITU-ACCESS-MANIFEST"
    cycle.stop()


@pytest.mark.attacks("G6", "G7")
def test_suspended_and_amended_grants_are_refused(world: NodeWorld, cycle: Cycle) -> None:
    decide(world, "approved")
    world.manifest_with(suspended_grants=frozenset({world.grant.id}))
    assert refusal(world, cycle) == "INSITU-ACCESS-GRANT-SUSPENDED"
    world.manifest_with(suspended_grants=frozenset(), grant_revisions={world.grant.id: 2})
    assert refusal(world, cycle) == "INSITU-ACCESS-GRANT-AMENDED"


def test_results_and_nodes_are_held_to_the_grant(world: NodeWorld, cycle: Cycle) -> None:
    decide(world, "approved")
    world.grant_with(results=frozenset({"sums"}))
    assert refusal(world, cycle) == "INSITU-ACCESS-RESULTS"
    world.grant_with(results=None, nodes=(*world.grant.nodes, "other"), min_nodes=2)
    assert refusal(world, cycle) == "INSITU-ACCESS-MIN-NODES"


def test_decisions_outlive_the_process_and_are_seen_by_others(tmp_path: Path) -> None:
    world = NodeWorld(folder=tmp_path, policy=Policy())
    decide(world, "approved", cap=Cap(epsilon=Fraction(1, 3)))
    other = Projects(tmp_path)
    found = other.decision(world.grant.id)
    assert found is not None
    assert (found.verdict, found.cap.epsilon, found.by) == ("approved", Fraction(1, 3), "dr")
    other.close()
