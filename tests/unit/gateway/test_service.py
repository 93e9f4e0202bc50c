"""A real gateway on loopback with mTLS: what it does for honest parties."""

# ruff: noqa: SIM117 - contexts are nested where one begins after something has happened in the other

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from insitu_privacy.errors import BudgetRefused, InsituError
from insitu_proto import messages as m
from insitu_proto import wire
from insitu_proto.v1 import insitu_pb2 as pb

from tests.unit.gateway.world import BUNDLE, NODES, RELEASED, Node, Told, World, run, silent, statuses


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_query_goes_round(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as nodes, world.researcher(gateway) as ada:
            request = world.query()
            events = await ada.ask(world.ask(request))
            assert events[0] == m.Accepted(request_id=request.request_id)
            finished = events[-1]
            assert isinstance(finished, m.Finished)
            assert statuses(finished) == RELEASED
            result = json.loads(finished.result_json or b"")
            assert result["rows"] == [["F", 300], ["M", 300]]
            assert result["nodes"] == [{"id": name, "status": "released", "code": None} for name in NODES]
            assert result["query_id"] == request.request_id
            assert result["spent"] == {"epsilon": 1.0, "delta": 0.0}
            assert not result["replayed"]
            assert "verified" not in result
            for node in nodes:
                await node.until(lambda node=node: node.taken == [request.request_id])

    run(work)


def test_a_budget_request_goes_the_same_way(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway), world.researcher(gateway) as ada:
            finished = await ada.finished(world.ask(world.budget()))
            assert statuses(finished) == RELEASED
            assert finished.result_json is None

    run(work)


def test_progress_is_told_to_who_waits(world: World) -> None:
    async def work() -> None:
        told = Told()

        async def slow(node: Node, task: m.Task) -> None:
            await told.until(m.NodeProgress(node_id=node.name, stage="sent"))
            for stage in ("admitted", "reserved", "executed"):
                await node.say(m.Progress(request_id=task.request_id, stage=stage))
                await told.until(m.NodeProgress(node_id=node.name, stage=stage))
            await node.release(task)

        async with world.gateway() as gateway, world.nodes(gateway, slow), world.researcher(gateway) as ada:
            await ada.finished(world.ask(), told)
            for name in NODES:
                stages = [e.stage for e in told.events if isinstance(e, m.NodeProgress) and e.node_id == name]
                assert stages[:4] == ["sent", "admitted", "reserved", "executed"]

    run(work)


def test_a_refusal_is_passed_on_with_its_code(world: World) -> None:
    async def refuse(node: Node, task: m.Task) -> None:
        error = BudgetRefused("INSITU-BUDGET-EXCEEDED")
        jws = world.sealed(node.name, world.refusal(node.name, task, error))
        await node.say(m.Outcome(request_id=task.request_id, outcome_jws=jws))

    async def work() -> None:
        async with (
            world.gateway() as gateway,
            world.node(gateway, NODES[0], refuse),
            world.node(gateway, NODES[1]),
            world.node(gateway, NODES[2]),
            world.researcher(gateway) as ada,
        ):
            finished = await ada.finished(world.ask(world.query(min_nodes=2)))
            assert statuses(finished) == {**RELEASED, NODES[0]: ("refused", "INSITU-BUDGET-EXCEEDED")}
            assert json.loads(finished.result_json or b"")["rows"] == [["F", 200], ["M", 200]]
            too_few = await ada.finished(world.ask(world.query(min_nodes=3)))
            assert too_few.result_json is None

    run(work)


def test_an_absent_node_is_not_waited_for_until_the_deadline(world: World) -> None:
    async def work() -> None:
        async with (
            world.gateway() as gateway,
            world.node(gateway, NODES[0]),
            world.node(gateway, NODES[1]),
            world.researcher(gateway) as ada,
        ):
            async with asyncio.timeout(30):
                finished = await ada.finished(world.ask(world.query(timeout=60, min_nodes=1)))
            assert statuses(finished) == {**RELEASED, NODES[2]: ("absent", "INSITU-NODE-ABSENT")}

    run(work)


def test_a_node_that_comes_in_time_is_sent_its_task(tmp_path: Path) -> None:
    world = World(tmp_path, grace_s=15)

    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0]) as first, world.node(gateway, NODES[1]):
            async with world.researcher(gateway) as ada:
                request = world.query()
                asking = asyncio.ensure_future(ada.finished(world.ask(request)))
                await first.until(lambda: first.taken == [request.request_id])  # the others' answers are in
                async with world.node(gateway, NODES[2]):
                    assert statuses(await asking) == RELEASED

    run(work)


def test_a_silent_node_is_absent_at_the_deadline_and_its_late_answer_is_taken(world: World) -> None:
    async def work() -> None:
        async with (
            world.gateway() as gateway,
            world.node(gateway, NODES[0], silent) as late,
            world.researcher(gateway) as ada,
        ):
            request = world.query(nodes=(NODES[0],), timeout=2)
            finished = await ada.finished(world.ask(request))
            assert statuses(finished) == {NODES[0]: ("absent", "INSITU-NODE-ABSENT")}
            await late.release(late.tasks[0])
            await late.until(lambda: late.taken == [request.request_id])
            again = await ada.finished(m.Follow(request_id=request.request_id))
            assert again == finished

    run(work)


def test_a_node_that_lost_its_stream_gets_its_task_again(tmp_path: Path) -> None:
    world = World(tmp_path, lost_grace_s=15)

    async def work() -> None:
        told = Told()
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.node(gateway, NODES[0], silent) as node:
                asking = asyncio.ensure_future(ada.finished(world.ask(world.query(nodes=(NODES[0],))), told))
                await node.until(lambda: len(node.tasks) == 1)
            await told.until(m.NodeProgress(node_id=NODES[0], stage="lost"))
            await asyncio.sleep(0.5)  # more than the grace of a node that never had it
            assert not asking.done()
            async with world.node(gateway, NODES[0]) as node:
                assert statuses(await asking) == {NODES[0]: ("released", None)}
                assert len(node.tasks) == 1

    run(work)


def test_a_newer_stream_of_a_node_takes_the_place_of_the_older(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.node(gateway, NODES[0], silent) as old:
                asking = asyncio.ensure_future(ada.finished(world.ask(world.query(nodes=(NODES[0],)))))
                await old.until(lambda: len(old.tasks) == 1)
                async with world.node(gateway, NODES[0]):
                    assert statuses(await asking) == {NODES[0]: ("released", None)}
                    await asyncio.wait_for(old.ended.wait(), 5)

    run(work)


def test_the_same_request_again_is_the_same_execution(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as nodes, world.researcher(gateway) as ada:
            ask = world.ask()
            first, second = await asyncio.gather(ada.finished(ask), ada.finished(ask))
            third = await ada.finished(ask)
            assert first == second == third
            assert [len(node.tasks) for node in nodes] == [1, 1, 1]

    run(work)


def test_a_researcher_that_was_cut_off_follows(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0], silent) as node:
            request = world.query(nodes=(NODES[0],))
            async with world.researcher(gateway) as ada:
                async for event in ada.events(world.ask(request)):
                    assert isinstance(event, m.Accepted)
                    break
            async with world.researcher(gateway) as ada:
                following = asyncio.ensure_future(ada.finished(m.Follow(request_id=request.request_id)))
                await node.until(lambda: len(node.tasks) == 1)
                await node.release(node.tasks[0])
                finished = await following
                assert statuses(finished) == {NODES[0]: ("released", None)}
                assert await ada.finished(m.Follow(request_id=request.request_id)) == finished

    run(work)


def test_manifest_and_dataset_are_served_as_they_are(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            manifest = await ada.stub.GetManifest(pb.GetManifestRequest())
            assert wire.from_manifest(manifest).manifest_jws == world.manifest_jws
            wanted = wire.to_dataset_ref(m.DatasetRef(name="care", digest=BUNDLE.digest()))
            chunks = [chunk async for chunk in ada.stub.GetDataset(wanted)]
            assert wire.from_chunks(chunks) == BUNDLE

    run(work)


def test_a_new_manifest_reaches_connected_nodes_and_drops_those_it_leaves_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insitu_gateway.server.MANIFEST_LOOK_S", 0.05)

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as (first, second, third):
            (world.folder / "manifest.jws").write_text("not a manifest")  # reported, and the one before stays
            await asyncio.sleep(0.2)
            world.publish(NODES[:2])
            await first.until(lambda: len(first.manifests) == 2)
            await second.until(lambda: len(second.manifests) == 2)
            assert first.manifests[1] == world.manifest_jws
            await asyncio.wait_for(third.ended.wait(), 5)
            async with world.researcher(gateway) as ada:
                finished = await ada.finished(world.ask(world.query(min_nodes=1)))
                assert statuses(finished)[NODES[2]] == ("absent", "INSITU-NODE-ABSENT")

    run(work)


def test_heartbeats_go_both_ways_and_silence_ends_a_stream(tmp_path: Path) -> None:
    world = World(tmp_path, heartbeat_s=1)

    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0]) as mute:
            async with world.node(gateway, NODES[1]) as lively:
                for _ in range(10):
                    await lively.say(m.Heartbeat())
                    await asyncio.sleep(0.4)
                assert not lively.ended.is_set()
                assert lively.beats >= 2
            await asyncio.wait_for(mute.ended.wait(), 20)

    run(work)


def test_a_large_release_is_verified_and_delivered(world: World) -> None:
    async def work() -> None:
        async def padded(node: Node, task: m.Task) -> None:
            outcome = world.refusal(node.name, task, BudgetRefused("INSITU-BUDGET-EXCEEDED"))
            jws = world.sealed(node.name, outcome)
            await node.say(m.Outcome(request_id=task.request_id, outcome_jws=jws + "A" * 6_000_000))

        async with world.gateway() as gateway, world.node(gateway, NODES[0], padded), world.researcher(gateway) as ada:
            finished = await ada.finished(world.ask(world.query(nodes=(NODES[0],))))
            assert statuses(finished) == {NODES[0]: ("failed", "INSITU-VERIFY-RELEASE")}

    run(work)


def test_many_researchers_at_once(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway):
            async with world.researcher(gateway) as ada, world.researcher(gateway, "bob") as bob:
                asks = [(who, world.ask()) for who in (ada, bob) for _ in range(25)]
                answers = await asyncio.gather(*(who.finished(ask) for who, ask in asks))
                assert all(statuses(finished) == RELEASED and finished.result_json for finished in answers)

    run(work)


def test_a_stopping_gateway_ends_its_streams(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway:
            async with world.node(gateway, NODES[0], silent) as node, world.researcher(gateway) as ada:
                asking = asyncio.ensure_future(ada.finished(world.ask()))
                await node.until(lambda: len(node.tasks) == 1)
                await gateway.__aexit__()
                with pytest.raises(InsituError, match="INSITU-GATEWAY"):
                    await asking
                await asyncio.wait_for(node.ended.wait(), 5)

    run(work)
