"""A hostile gateway against researchers, on the way: it delays, drops, reorders and invents, and serves false documents.

The real SDK over mTLS, asking real nodes. What nodes sign is attacked in ``test_hostile_answers.py``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from insitu.progress import Reporter
from insitu_access.jose import unverified, unverified_typ
from insitu_privacy.errors import AccessRefused, IntegrityFailed, Unavailable
from insitu_proto import messages as m
from insitu_proto.v1 import insitu_pb2 as pb

from tests.e2e.small import NODES
from tests.testkit.hostile_gateway import Attack, Said, jws, outcomes
from tests.testkit.hostile_world import HostileWorld, altered, new_sql

pytestmark = pytest.mark.e2e
RELEASE, STATEMENT = "insitu-release+jws", "insitu-statement+jws"


# ------------------------------------------------------------------------------------------------ progress, events


def test_progress_that_was_invented_changes_nothing(world: HostileWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """Denial of service only: stages are the gateway's word. Nothing in them moves a terminal."""

    def event(true: m.Event) -> list[m.Event]:
        if not isinstance(true, m.Answered):
            return [true]
        names = ["gamma", "\x1b[2J\x1b]0;x\x07", "alpha"]
        stages: list[Any] = ["released", "failed", "queued", "lost"]
        return [*(m.NodeProgress(node_id=name, stage=stage) for name in names for stage in stages), true]

    sql = new_sql()
    with Reporter() as reporter:
        result = world.ask(Attack(event=event), sql, progress=reporter)
    assert "\x1b" not in capsys.readouterr().err
    assert result.rows == world.ask(Attack(), sql).rows


def test_events_out_of_order_are_refused_or_do_no_harm(world: HostileWorld) -> None:
    """The end before its outcomes, outcomes twice, an acceptance of another request."""
    end = pb.Event(finished=pb.Finished(result_json=b""))

    def end_first(true: m.Event) -> list[Said]:
        return [end, true] if isinstance(true, m.Answered) else [true]

    with pytest.raises(AccessRefused, match="INSITU-ACCESS-MALFORMED"):
        world.ask(Attack(event=end_first))

    def twice(true: m.Event) -> list[Said]:
        return [true, m.Accepted(request_id="0" * 32), true] if isinstance(true, m.Answered) else [true]

    assert len(world.ask(Attack(event=twice)).rows) == 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu.delivery.SLACK", timedelta(seconds=0.2))
    monkeypatch.setattr("insitu.delivery.PATIENCE_S", 0.5)
    monkeypatch.setattr("insitu.standing._FETCH_TIMEOUT_S", 0.5)


DROPPED: dict[str, Callable[[m.Event], list[Said]]] = {
    "all events": lambda _: [],
    "all after the acceptance": lambda true: [true] if isinstance(true, m.Accepted) else [],
    "silence": lambda _: [60.0],
    "silence after the acceptance": lambda true: [true] if isinstance(true, m.Accepted) else [60.0],
    "too large": lambda _: [pb.Event(accepted=pb.Accepted(request_id="x" * 70_000_000))],
}


@pytest.mark.parametrize("kind", DROPPED)
def test_what_is_withheld_ends_at_the_deadline(world: HostileWorld, impatient: None, kind: str) -> None:
    """Denial of service only, with a code, and in time; what nodes have released meanwhile is not charged again."""
    sql, started = new_sql(), time.monotonic()
    with pytest.raises(Unavailable, match=r"INSITU-GATEWAY-(FAILED|UNREACHABLE)"):
        world.ask(Attack(event=DROPPED[kind]), sql, timeout=1)
    assert time.monotonic() - started < 10
    world.ask(Attack(), sql)
    with world.nothing_charged():
        assert world.ask(Attack(), sql).replayed


def test_an_answer_without_its_end_is_an_answer(world: HostileWorld, impatient: None) -> None:
    """Nothing depends on the gateway's own result."""

    def stall(true: m.Event) -> list[Said]:
        return [60.0] if isinstance(true, m.Finished) else [true]

    assert len(world.ask(Attack(event=stall), timeout=1).rows) == 2


def test_requests_that_are_withheld_from_nodes_cost_nothing(world: HostileWorld) -> None:
    """Denial of service only: the nodes are said to be absent, and their ledgers do not know of it."""

    def lose(_: str, message: m.GatewayMessage) -> list[m.GatewayMessage]:
        return [] if isinstance(message, m.Task) else [message]

    with world.nothing_charged(), pytest.raises(Unavailable, match="INSITU-NODES-TOO-FEW"):
        world.ask(Attack(to_node=lose), timeout=1)


# ------------------------------------------------------------------------------------------------ budget, documents


@pytest.mark.attacks("V2", "V3")
def test_a_budget_statement_is_the_nodes_own(world: HostileWorld) -> None:
    """V2 to V4: altered, kept from before, of the other node, and a release in its place."""
    kept: list[str] = []

    def keep(token: str) -> str:
        kept.append(token)
        return token

    def richer(token: str) -> str:
        rows = json.loads(unverified(token, STATEMENT, "statement"))["rows"]
        return altered(token, STATEMENT, rows=[{**row, "epsilon_left": "1e9"} for row in rows])

    world.ask(jws(keep))
    with world.researcher() as federation:
        with world.attacking(jws(keep)):
            federation.budget()
        assert [unverified_typ(token) for token in kept] == [RELEASE, STATEMENT]
        beta = outcomes(lambda true: [replace(one, outcome_jws=true[1].outcome_jws) for one in true])
        for attack in (jws(richer), jws(lambda _: kept[1]), jws(lambda _: kept[0]), beta):
            with world.attacking(attack), pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
                federation.budget()
    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):  # and the other way round
        world.ask(jws(lambda _: kept[1]))


@pytest.mark.attacks("S1")
def test_a_researcher_believes_no_manifest_but_the_authoritys(world: HostileWorld, impatient: None) -> None:
    """S1 (M1 to M5), and a manifest that is withheld: the one that was seen serves until it expires."""
    with world.researcher() as federation, world.nothing_charged():
        federation.refresh()
        for token, code in world.false_manifests().values():
            other = Attack(manifest=lambda _, it=token: it)  # type: ignore[misc]
            with world.attacking(other), pytest.raises(AccessRefused, match=code):
                federation.refresh()
        with world.attacking(Attack(manifest_after_s=60)):
            assert federation.refresh().manifest == world.manifest


@pytest.mark.attacks("S4")
def test_a_dataset_that_was_changed_is_not_planned_with(world: HostileWorld) -> None:
    """S4: wider bounds, and a file that would stand elsewhere."""

    def wider(chunks: list[pb.DatasetChunk]) -> list[pb.DatasetChunk]:
        return [pb.DatasetChunk(file=one.file, data=one.data.replace(b"2026", b"2027")) for one in chunks]

    def elsewhere(chunks: list[pb.DatasetChunk]) -> list[pb.DatasetChunk]:
        return [*chunks, pb.DatasetChunk(file="../../../grant.jwt", data=b"x")]

    for change in (wider, elsewhere, lambda chunks: chunks[1:]):
        with world.researcher(fresh=True) as federation, world.attacking(Attack(chunks=change)):
            with world.nothing_charged(), pytest.raises(AccessRefused, match=r"INSITU-ACCESS-(DATASET|MALFORMED)"):
                federation.query(new_sql(), epsilon=1)
            assert (federation._profile.folder / "grant.jwt").read_text().strip() == world.grant_token


def test_every_node_is_honest_again(world: HostileWorld) -> None:
    """All that was done has left nothing behind: the same federation answers."""
    assert [node.id for node in world.ask(Attack()).nodes if node.status == "released"] == list(NODES)
