"""The gateway's audit log: before the store, signed, without SQL or values, and never continued when it was changed."""

# ruff: noqa: SIM117 - contexts are nested where one begins after something has happened in the other

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from insitu_access.audit import files
from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Entry, Party
from insitu_access.audit.log import AuditLog
from insitu_access.jose import token_sha256
from insitu_access.keys import generate_signing_key
from insitu_access.request import request_sha256
from insitu_gateway.audit import AuditedStore, GatewayAudit
from insitu_gateway.server import Gateway
from insitu_gateway.store import AddRequest, Finish
from insitu_privacy.errors import InsituError, IntegrityFailed
from insitu_proto import messages as m

from tests.testkit.audit_logs import entries, kinds, texts
from tests.testkit.typed import typed
from tests.unit.gateway.world import NODES, Node, World, run, silent


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def logged(world: World) -> list[Entry]:
    """What stands in the log, checked."""
    folder, party = world.folder / "state" / "audit", Party(role="gateway", id="gw")
    report, _ = check_lines(files.lines(folder), party, [world.identities["gw"].signing.public()])
    assert report.findings == ()
    return entries(folder)


def of(world: World, kind: str) -> list[Any]:
    return [entry.fields for entry in logged(world) if entry.kind == kind]


def test_a_request_is_told_from_its_coming_to_its_delivery(world: World) -> None:
    request = world.query()
    ask = world.ask(request)
    sent: dict[str, str] = {}

    async def keep(node: Node, task: m.Task) -> None:
        jws = world.sealed(node.name, world.outcome(node.name, task))
        sent[node.name] = token_sha256(jws)
        await node.say(m.Outcome(request_id=task.request_id, outcome_jws=jws))

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway, keep), world.researcher(gateway) as ada:
            await ada.finished(ask)
            await ada.finished(m.Follow(request_id=request.request_id))

    run(work)
    (accepted,) = of(world, "request-accepted")
    assert (accepted["request_id"], accepted["request_sha256"]) == (request.request_id, request_sha256(ask.request_jws))
    assert (accepted["owner"], accepted["grant_id"], accepted["nodes"]) == ("ada", "grant-1", list(NODES))
    assert accepted["grant_sha256"] == token_sha256(world.grant_jwt)
    assert {one["node"] for one in of(world, "task-sent")} == set(NODES)
    assert {one["node"]: one["outcome_sha256"] for one in of(world, "outcome-received")} == sent
    (finished,) = of(world, "request-finished")
    assert finished["outcomes"] == dict.fromkeys(NODES, "released")
    assert [one["fetched"] for one in of(world, "result-delivered")] == [False, True]
    assert {one["node"] for one in of(world, "node-connected")} == set(NODES)
    assert [entry.kind for entry in logged(world)][:3] == ["log-begun", "gateway-started", "seal"]
    assert [entry.kind for entry in logged(world)][-2:] == ["gateway-stopped", "seal"]
    words = texts(logged(world))
    assert "SELECT" not in words
    assert "300" not in {str(value) for entry in logged(world) for value in entry.fields.values()}


def test_a_request_that_is_refused_is_told(world: World) -> None:
    ask = world.ask(key=generate_signing_key())

    async def work() -> None:
        async with world.gateway() as gateway, world.researcher(gateway, "bob") as bob:
            with pytest.raises(InsituError):
                await bob.finished(ask)

    run(work)
    (refused,) = of(world, "request-refused")
    assert refused == {
        "request_sha256": token_sha256(ask.request_jws), "owner": "bob", "code": "INSITU-ACCESS-WRONG-KEY"
    }  # fmt: skip


def test_absence_and_lateness_are_told(world: World) -> None:
    asked: list[str] = []

    async def work() -> None:
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.node(gateway, NODES[0], silent) as node:
                request = world.query(nodes=NODES[:1], timeout=3)
                asked.append(request.request_id)
                await ada.finished(world.ask(request))
                await node.release(node.tasks[0])
                await node.until(lambda: bool(node.taken))

    run(work)
    (finished,) = of(world, "request-finished")
    assert finished["outcomes"] == {NODES[0]: "absent"}
    (outcome,) = of(world, "outcome-received")
    assert [outcome["request_id"], outcome["status"]] == [*asked, "late"]


@pytest.mark.attacks("E1")
def test_what_a_node_says_is_not_copied_into_the_log(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0]) as node:
            await node.say(m.Outcome(request_id="DUPONT 17", outcome_jws="DUPONT 18"))
            await node.until(lambda: bool(node.taken))

    run(work)
    assert "DUPONT" not in texts(logged(world))
    assert of(world, "outcome-received")[0]["request_id"] == "-"


def test_open_requests_are_taken_up_and_that_is_told(world: World) -> None:
    request = world.query(nodes=NODES[:1])

    async def work() -> None:
        async with world.gateway() as gateway, world.researcher(gateway) as ada, world.node(gateway, NODES[0], silent):
            async for event in ada.events(world.ask(request)):
                if isinstance(event, m.NodeProgress):
                    break
        async with world.gateway() as gateway, world.node(gateway, NODES[0]), world.researcher(gateway) as ada:
            await ada.finished(m.Follow(request_id=request.request_id))

    run(work)
    assert [one["resumed"] for one in of(world, "request-accepted")] == [False, True]


@pytest.mark.attacks("E7")
def test_a_log_that_was_changed_keeps_the_gateway_from_starting(world: World) -> None:
    async def once() -> None:
        async with world.gateway():
            pass

    async def again() -> None:
        with pytest.raises(IntegrityFailed, match="INSITU-AUDIT-BROKEN"):
            await Gateway(world.config, clock=lambda: datetime.now(UTC)).__aenter__()

    run(once)
    (path,) = files.days(world.folder / "state" / "audit")
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:1], *whole[2:]]))
    run(again)


class Failing:
    """A store that cannot write."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def write(self, batch: Any) -> frozenset[str]:
        self.batches.append(batch)
        raise OSError

    def close(self) -> None:
        pass


@pytest.mark.attacks("E10")
def test_the_log_has_it_before_the_store_and_without_the_log_nothing_is_stored(world: World) -> None:
    def now() -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC)

    folder = world.folder / "log"
    log = AuditLog(folder, Party(role="gateway", id="gw"), generate_signing_key(), clock=now)
    inner = Failing()
    store = AuditedStore(inner, GatewayAudit(log, clock=now), clock=now)  # type: ignore[arg-type]
    ask, request = world.ask(), world.query()
    add = AddRequest(
        request_id=request.request_id, request_sha256="0" * 64, owner="ada", request_jws=ask.request_jws,
        grant_jwt=ask.grant_jwt, nodes=NODES, deadline=now(), accepted_at=now(),
    )  # fmt: skip
    with pytest.raises(OSError):
        store.write([add])
    assert kinds(folder) == ["log-begun", "request-accepted"]
    for path in files.days(folder):
        path.unlink()
    with pytest.raises(IntegrityFailed):
        store.write([Finish(request_id=request.request_id, outcomes=(), result_json=None, finished_at=now())])
    assert len(inner.batches) == 1


def done(world: World, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = ["insitu-gateway", "audit", *map(str, arguments), "--config", str(world.write_config())]
    found = typed(words)
    return subprocess.CompletedProcess(words, found.code, found.out, found.err)


def test_the_operators_commands(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway), world.researcher(gateway) as ada:
            await ada.finished(world.ask())

    run(work)
    verified = json.loads(done(world, "verify", "--format", "json").stdout)
    assert (verified["holds"], verified["party"]) == (True, "gateway gw")
    shown = done(world, "show", "--kind", "request-accepted")
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 1)
    assert "owner=ada" in shown.stdout
    seal = world.folder / "seal.jws"
    assert done(world, "seal", "--out", seal).returncode == 0
    assert done(world, "verify", "--seal", seal).returncode == 0
    assert done(world, "export", "--out", world.folder / "gw.jsonl").returncode == 0
    assert kinds(world.folder / "gw.jsonl") == kinds(world.folder / "state" / "audit")


@pytest.mark.parametrize("name", ["show", "verify", "export", "seal"])
def test_help_has_an_example(name: str) -> None:
    shown = typed(["insitu-gateway", "audit", name, "--help"])
    assert shown.code == 0
    assert f"insitu-gateway audit {name}" in shown.out.split("Example")[1]
