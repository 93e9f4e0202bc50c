"""What a node's log says of a request, when it is on the disk, and that it and the ledger agree whatever happens."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from insitu_access.audit.entry import Entry
from insitu_access.audit.log import Note
from insitu_access.jose import token_sha256
from insitu_access.payload import seconds_up
from insitu_access.release import NodeRelease, Refusal
from insitu_node.audit import agreed_now, agreement, charges_that_differ, counts_still, since_agreed
from insitu_node.cycle import Cycle
from insitu_node.hooks import Place
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_privacy.errors import ConfigInvalid, InsituError

from tests.testkit.audit_logs import kinds, texts
from tests.testkit.node_world import BY_SEX, CAP_KEY, NOW, NodeWorld

CAPPED = "SELECT EXTRACT(YEAR FROM day) AS y, COUNT(*) AS n FROM visit GROUP BY 1"
OF_A_QUERY = [
    "log-begun", "request-received", "request-admitted", "charge-reserved", "sql-run", "charge-settled", "answered",
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    return NodeWorld(folder=tmp_path, now=NOW + timedelta(seconds=37), ledger=ledger)


@pytest.fixture
def cycle(world: NodeWorld) -> Iterator[Cycle]:
    cycle = world.cycle()
    yield cycle
    cycle.stop()


def only(world: NodeWorld, kind: str) -> Entry:
    (found,) = [entry for entry in world.logged() if entry.kind == kind]
    return found


def test_a_query_is_told_from_its_coming_to_its_answer(world: NodeWorld, cycle: Cycle) -> None:
    request = world.query()
    jws = cycle.answer(request.request_id, world.sealed(request), world.grant_jwt(), lambda _: None)
    assert [entry.kind for entry in world.logged()] == OF_A_QUERY
    admitted = only(world, "request-admitted")
    asked = {name: admitted.fields[name] for name in ("project", "purpose", "reference", "researcher", "grant_id")}
    assert asked == {
        "project": "stays", "purpose": "Length of stay", "reference": "CEREES-1",
        "researcher": world.researcher.thumbprint, "grant_id": "grant-1",
    }  # fmt: skip
    assert admitted.detail is not None
    assert (admitted.detail["sql"], admitted.detail["dialect"]) == (BY_SEX, "duckdb")
    charged = only(world, "charge-reserved").fields
    assert (charged["epsilon"], charged["delta"], charged["pure"]) == ("1", "0", "1")
    assert charged["grant_expires"] == seconds_up(world.grant.expires_at)
    answered = only(world, "answered").fields
    assert (answered["outcome"], answered["spent_epsilon"], answered["replayed"]) == ("released", "1", False)
    assert answered["outcome_sha256"] == token_sha256(jws)


def test_a_replay_a_refusal_and_nonsense_are_told(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    world.ask(cycle, world.query())
    world.ask(cycle, world.query(epsilon="3/2"))
    cycle.answer("ab" * 16, "nonsense", world.grant_jwt(), lambda _: None)
    world.ask(cycle, world.budget_request())
    logged = world.logged()[7:]
    answered = [(e.fields["outcome"], e.fields["code"], e.fields["replayed"]) for e in logged if e.kind == "answered"]
    assert answered == [
        ("released", None, True),
        ("refused", "INSITU-BUDGET-EXCEEDED", False),
        ("refused", "INSITU-ACCESS-MALFORMED", False),
        ("stated", None, False),
    ]
    assert [entry.kind for entry in logged if entry.kind.startswith("charge")] == ["charge-joined"]


@pytest.mark.attacks("E1", "P4")
def test_a_run_that_fails_is_told_without_its_reason(world: NodeWorld) -> None:
    world.noise.fails = ValueError("17 rows of DUPONT")  # type: ignore[attr-defined]
    cycle = world.cycle()
    assert isinstance(world.ask(cycle, world.query()), Refusal)
    cycle.stop()
    assert only(world, "charge-settled").fields["state"] == "failed"
    assert only(world, "answered").fields["code"] == "INSITU-NODE-FAILED"
    assert "DUPONT" not in texts(world.logged())


def test_the_statement_that_ran_stands_in_it_without_the_nodes_secret(world: NodeWorld, cycle: Cycle) -> None:
    assert isinstance(world.ask(cycle, world.query(CAPPED)), NodeRelease)
    detail = only(world, "sql-run").detail
    assert detail is not None
    (statement,) = detail["statements"]  # type: ignore[misc]
    assert "<the node's secret>" in statement
    assert CAP_KEY not in texts(world.logged())


def test_times_of_a_request_are_minutes(world: NodeWorld, cycle: Cycle) -> None:
    """Two times of one request would tell how long its statement ran."""
    world.ask(cycle, world.query())
    assert {entry.at.second for entry in world.logged() if entry.kind != "log-begun"} == {0}
    assert world.logged()[0].at.second == 37


def test_what_is_on_the_disk_at_each_place(world: NodeWorld) -> None:
    held: dict[Place, list[str]] = {}
    world.hook = lambda place: held.update({place: kinds(world.folder / "audit")})
    cycle = world.cycle()
    world.ask(cycle, world.query())
    cycle.stop()
    assert held["before-reserve"] == OF_A_QUERY[:3]
    assert held["after-execute"] == OF_A_QUERY[:5]  # the statement, before its first row
    assert held["after-seal"] == OF_A_QUERY[:6]
    assert held["after-audit"] == OF_A_QUERY  # the answer, before it leaves


@pytest.mark.attacks("E10")
def test_what_cannot_be_recorded_is_not_done(world: NodeWorld, cycle: Cycle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InsituError):
        world.ask(cycle, world.query())
    monkeypatch.undo()
    assert world.ledger.entries() == ()
    assert isinstance(world.ask(cycle, world.query()), NodeRelease)


@pytest.mark.attacks("E10")
def test_an_answer_that_cannot_be_recorded_does_not_leave(
    world: NodeWorld, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.hook = lambda place: monkeypatch.setattr(os, "pwrite", full) if place == "after-seal" else None
    failing = world.cycle()
    request = world.query()
    with pytest.raises(InsituError):
        world.ask(failing, request)
    monkeypatch.undo()
    again = world.ask(cycle, request)  # charged once, and answered when there is room again
    assert isinstance(again, NodeRelease)
    assert [entry.state for entry in world.ledger.entries()] == ["released"]


def test_charges_stand_in_the_order_of_the_ledger(world: NodeWorld) -> None:
    world.grant_with(epsilon=100)
    cycle = world.cycle()
    queries = [world.query(f"SELECT COUNT(*) AS n FROM visit WHERE amount > {n}") for n in range(12)]
    with ThreadPoolExecutor(4) as threads:
        assert all(isinstance(one, NodeRelease) for one in threads.map(lambda query: world.ask(cycle, query), queries))
    cycle.stop()
    charges = [entry.fields["charge"] for entry in world.logged() if entry.kind == "charge-reserved"]
    assert charges == list(range(1, 13))
    assert list(charges_that_differ(world.logged(), world.ledger.entries(), world.ledger.entries())) == []


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.attacks("E9")
@pytest.mark.parametrize(
    ("place", "missing"),
    [
        ("before-reserve", []),
        ("after-reserve", ["charge-reserved"]),
        ("after-execute", []),
        ("after-commit", ["charge-settled"]),
        ("after-seal", []),
    ],
)
def test_what_a_kill_left_out_is_derived_from_the_ledger(world: NodeWorld, place: Place, missing: list[str]) -> None:
    def kill(where: Place) -> None:
        if where == place:
            raise Killed

    world.hook = kill
    with pytest.raises(Killed):
        world.ask(world.cycle(), world.query())
    notes = agreement(since_agreed(reversed(world.logged())), world.ledger.entries())
    assert [note.kind for note in notes] == missing
    assert all(note.fields["derived"] for note in notes)
    world.log().record(*notes)
    assert agreement(world.logged(), world.ledger.entries()) == []
    assert list(charges_that_differ(world.logged(), world.ledger.entries(), world.ledger.entries())) == []


def started(world: NodeWorld) -> None:
    fields = {"software": "s", "config_sha256": "0" * 64, "key": "k", "manifest_version": 1, "manifest_sha256": None}
    world.log().record(
        Note(kind="node-started", fields={**fields, "datasets": {}, **agreed_now(world.ledger.entries())})
    )


def test_a_start_looks_back_to_the_last_start_alone(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    started(world)
    world.ask(cycle, world.query(epsilon="1/2"))
    since = since_agreed(reversed(world.logged()))
    assert since[0].kind == "node-started"
    assert agreement(since, world.ledger.entries()) == []


def test_a_charge_that_was_open_at_the_last_start_is_settled_once(world: NodeWorld) -> None:
    def kill(where: Place) -> None:
        if where == "after-execute":
            raise Killed

    world.hook = kill
    request = world.query()
    with pytest.raises(Killed):
        world.ask(world.cycle(), request)
    started(world)
    world.hook = lambda _: None
    cycle = world.cycle()
    world.ask(cycle, request)
    cycle.stop()
    assert agreement(since_agreed(reversed(world.logged())), world.ledger.entries()) == []
    assert [e.kind for e in world.logged() if e.kind in ("charge-resumed", "charge-settled")] == [
        "charge-resumed", "charge-settled",
    ]  # fmt: skip


@pytest.mark.attacks("E9")
@pytest.mark.parametrize("kept", [0, 1])
def test_a_ledger_that_was_rolled_back_is_found(world: NodeWorld, cycle: Cycle, kept: int) -> None:
    world.ask(cycle, world.query())
    world.ask(cycle, world.query(epsilon="1/2"))
    yesterday = world.ledger.entries()[:kept]
    with pytest.raises(ConfigInvalid, match=f"the ledger lacks charge {kept + 1}") as caught:
        agreement(since_agreed(reversed(world.logged())), yesterday)
    assert caught.value.code == "INSITU-CONFIG-STATE"
    started(world)
    with pytest.raises(ConfigInvalid):
        agreement(since_agreed(reversed(world.logged())), yesterday)
    reasons = [reason for _, reason in charges_that_differ(world.logged(), yesterday, yesterday)]
    assert reasons == [f"charge {n} is not in the ledger: it was rolled back" for n in range(kept + 1, 3)]


def test_a_day_begins_with_an_agreement_so_that_older_days_may_go(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    cycle.audit.agree(world.ledger)
    since = since_agreed(reversed(world.logged()))
    assert [entry.kind for entry in since] == ["ledger-agreed"]
    assert since[0].fields == {"charges": 1, "open_charges": []}
    world.ask(cycle, world.query(epsilon="1/2"))
    assert agreement(since_agreed(reversed(world.logged())), world.ledger.entries()) == []


@pytest.mark.attacks("E10")
def test_what_could_not_be_written_is_written_when_they_next_agree(
    world: NodeWorld, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    places: list[Place] = []

    def fill(place: Place) -> None:
        places.append(place)
        if place == "after-reserve":
            monkeypatch.setattr(os, "pwrite", full)

    world.hook = fill
    with pytest.raises(InsituError):
        world.ask(world.cycle(), world.query())
    monkeypatch.undo()
    assert places[-1] == "after-reserve"  # its statement is not on the disk: no row was read
    cycle.audit.agree(world.ledger)
    assert only(world, "charge-reserved").fields["derived"] is True


def test_who_a_refused_request_claims_to_be_is_told(world: NodeWorld, cycle: Cycle) -> None:
    world.grant_with(expires_at=world.now)
    world.ask(cycle, world.query())
    received = only(world, "request-received").fields
    assert only(world, "answered").fields["code"] == "INSITU-ACCESS-GRANT-EXPIRED"
    assert (received["claimed_grant"], received["claimed_researcher"]) == ("grant-1", world.researcher.thumbprint)


def test_a_log_begun_anew_is_told_of_every_charge(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    notes = agreement([], world.ledger.entries())
    assert [note.kind for note in notes] == ["charge-reserved", "charge-settled"]


@pytest.mark.attacks("E8")
def test_a_charge_stays_while_its_grant_can_be_used(world: NodeWorld, cycle: Cycle) -> None:
    world.ask(cycle, world.query())
    charge = only(world, "charge-reserved")
    assert counts_still(charge, world.grant.expires_at - timedelta(seconds=1))
    assert not counts_still(charge, world.grant.expires_at)
    assert not counts_still(only(world, "answered"), NOW)
    unknown = replace(charge, fields={**charge.fields, "grant_expires": None})
    assert counts_still(unknown, NOW + timedelta(days=3000))
