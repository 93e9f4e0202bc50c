"""The gateway is stopped, or killed at any instant, in the middle of requests: nothing is lost."""

# ruff: noqa: SIM117 - contexts are nested where one begins after something has happened in the other

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from insitu_gateway.server import Gateway
from insitu_gateway.store import AddRequest, Finish, Write
from insitu_gateway.store_sqlite import SqliteStore
from insitu_privacy.errors import ConfigInvalid, InsituError
from insitu_proto import messages as m

from tests.unit.gateway.world import NODES, RELEASED, Node, Researcher, World, now, process, run, silent, statuses


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_open_request_goes_on_after_a_restart(world: World) -> None:
    async def work() -> None:
        request = world.query()
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.node(gateway, NODES[0]) as quick, world.node(gateway, NODES[1], silent):
                asking = asyncio.ensure_future(ada.finished(world.ask(request)))
                await quick.until(lambda: quick.taken == [request.request_id])  # stored while others are at work
                await gateway.__aexit__()
                with pytest.raises(InsituError):
                    await asking
        async with world.gateway() as gateway, world.nodes(gateway) as nodes, world.researcher(gateway) as ada:
            finished = await ada.finished(m.Follow(request_id=request.request_id))
            assert statuses(finished) == RELEASED
            assert finished.result_json
            assert [len(node.tasks) for node in nodes] == [0, 1, 1]  # what is durable is not asked again

    run(work)


def test_nodes_have_until_the_deadline_to_find_the_restarted_gateway(tmp_path: Path) -> None:
    world = World(tmp_path, grace_s=0.1, lost_grace_s=0.01)

    async def work() -> None:
        request = world.query()
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.nodes(gateway, silent) as nodes:
                asking = asyncio.ensure_future(ada.finished(world.ask(request)))
                await nodes[2].until(lambda: len(nodes[2].tasks) == 1)
                await gateway.__aexit__()
                with pytest.raises(InsituError):
                    await asking
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            following = asyncio.ensure_future(ada.finished(m.Follow(request_id=request.request_id)))
            await asyncio.sleep(0.6)
            async with world.nodes(gateway):
                assert statuses(await following) == RELEASED

    run(work)


def test_a_request_whose_deadline_passed_meanwhile_ends_at_once(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.node(gateway, NODES[0]) as quick, world.node(gateway, NODES[1], silent):
                request = world.query(timeout=4, min_nodes=1)
                asking = asyncio.ensure_future(ada.finished(world.ask(request)))
                await quick.until(lambda: quick.taken == [request.request_id])
                await gateway.__aexit__()
                with pytest.raises(InsituError):
                    await asking
        await asyncio.sleep((request.deadline - now()).total_seconds() + 1)  # deadlines travel as whole seconds
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            finished = await ada.finished(world.ask(request))  # asked again after the deadline: the stored end
            assert statuses(finished) == {
                NODES[0]: ("released", None),
                NODES[1]: ("absent", "INSITU-NODE-ABSENT"),
                NODES[2]: ("absent", "INSITU-NODE-ABSENT"),
            }
            assert finished.result_json

    run(work)


def test_a_request_under_a_grant_that_was_revoked_meanwhile_is_given_up(world: World) -> None:
    async def work() -> None:
        request = world.query()
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.nodes(gateway, silent) as nodes:
                asking = asyncio.ensure_future(ada.finished(world.ask(request)))
                await nodes[2].until(lambda: len(nodes[2].tasks) == 1)
                await gateway.__aexit__()
                with pytest.raises(InsituError):
                    await asking
        world.publish(revoked_grants=frozenset({world.grant.id}))
        async with world.gateway() as gateway, world.nodes(gateway) as nodes, world.researcher(gateway) as ada:
            finished = await ada.finished(m.Follow(request_id=request.request_id))
            assert statuses(finished) == dict.fromkeys(NODES, ("absent", "INSITU-NODE-ABSENT"))
            assert not any(node.tasks for node in nodes)

    run(work)


def test_a_node_answers_the_restarted_gateway_before_it_is_asked_again(world: World) -> None:
    async def work() -> None:
        request = world.query(nodes=(NODES[0],))
        async with world.gateway() as gateway, world.researcher(gateway) as ada:
            async with world.node(gateway, NODES[0], silent) as node:
                asking = asyncio.ensure_future(ada.finished(world.ask(request)))
                await node.until(lambda: len(node.tasks) == 1)
                await gateway.__aexit__()
                with pytest.raises(InsituError):
                    await asking
        async with world.gateway() as gateway, world.node(gateway, NODES[0], silent) as again:
            await again.release(node.tasks[0])
            async with world.researcher(gateway) as ada:
                finished = await ada.finished(m.Follow(request_id=request.request_id))
                assert statuses(finished) == {NODES[0]: ("released", None)}

    run(work)


@pytest.mark.parametrize("failing", [AddRequest, Finish])
def test_when_the_store_fails_the_same_request_can_be_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, failing: type[Write]
) -> None:
    original, failures = SqliteStore.write, [1]

    def write(self: SqliteStore, batch: Sequence[Write]) -> frozenset[str]:
        if any(isinstance(each, failing) for each in batch) and failures and failures.pop():
            raise sqlite3.OperationalError("disk I/O error")
        return original(self, batch)

    monkeypatch.setattr(SqliteStore, "write", write)

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway), world.researcher(gateway) as ada:
            ask = world.ask()
            with pytest.raises(InsituError, match="INSITU-GATEWAY-FAILED"):
                await ada.finished(ask)
            finished = await ada.finished(ask)
            assert statuses(finished) == RELEASED
            assert await ada.finished(ask) == finished

    run(work)


def test_two_gateways_do_not_share_a_state_directory(world: World) -> None:
    async def work() -> None:
        async with world.gateway():
            with pytest.raises(ConfigInvalid, match="another gateway"):
                async with world.gateway():
                    pass
        async with world.gateway():
            pass

    run(work)


def test_an_address_in_use_is_an_error_of_one_line(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway:
            config = replace(world.config, listen=gateway.address, state=world.folder / "other")
            with pytest.raises(ConfigInvalid, match="cannot listen"):
                async with Gateway(config, clock=now):
                    pass

    run(work)


async def keep_attached(world: World, address: str, name: str) -> None:
    """A node that reconnects for ever, and answers what it is asked."""

    async def answer(node: Node, task: m.Task) -> None:
        await asyncio.sleep(random.random() / 10)
        await node.release(task)

    while True:
        try:
            async with world.node(address, name, answer) as node:
                await node.ended.wait()
        except Exception:
            await asyncio.sleep(0.02)


async def insist(ada: Researcher, ask: m.Ask) -> m.Finished:
    """A researcher that asks until there is an end."""
    while True:
        try:
            return await ada.finished(ask)
        except (InsituError, AssertionError):
            await asyncio.sleep(0.02)


def test_killed_at_any_instant_it_finishes_what_it_accepted(tmp_path: Path) -> None:
    world = World(tmp_path, lost_grace_s=30, grace_s=30)
    config = world.write_config()

    async def work() -> None:
        address = "127.0.0.1:0"
        async with process(config, address):
            address = (tmp_path / "state/address").read_text().strip()
            config.write_text(config.read_text().replace("127.0.0.1:0", address))
        nodes = [asyncio.ensure_future(keep_attached(world, address, name)) for name in NODES]
        try:
            async with world.researcher(address) as ada:
                asks = [world.ask(world.query(timeout=50)) for _ in range(8)]
                asking = [asyncio.ensure_future(insist(ada, ask)) for ask in asks]
                for _ in range(4):
                    async with process(config, address) as gateway:
                        await asyncio.sleep(random.random() / 4)
                        gateway.send_signal(signal.SIGKILL)
                        await gateway.wait()
                async with process(config, address) as gateway:
                    answers = await asyncio.gather(*asking)
                    again = [await ada.finished(ask) for ask in asks]
                    gateway.terminate()
                    assert await gateway.wait() == 0
        finally:
            for node in nodes:
                node.cancel()
            await asyncio.gather(*nodes, return_exceptions=True)
        assert [statuses(finished) for finished in answers] == [RELEASED] * len(asks)
        assert again == answers

    run(work)
