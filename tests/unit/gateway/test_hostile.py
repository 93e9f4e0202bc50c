"""Peers that are not who they say, or say what they should not: each hurts itself alone."""

# ruff: noqa: PT012, SIM117 - contexts are nested where one begins after something has happened in the other

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from insitu_access.certificates import create_authority
from insitu_access.grant import seal_grant
from insitu_access.keys import generate_signing_key
from insitu_privacy.errors import BudgetRefused, InsituError
from insitu_proto import messages as m
from insitu_proto import wire
from insitu_proto.status import from_rpc
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1 import insitu_pb2_grpc as stubs

from tests.unit.gateway.world import NODES, ONE_YEAR, RELEASED, Node, Told, World, now, run, silent, statuses


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def attach_code(channel: grpc.aio.Channel, *said: pb.NodeMessage) -> str:
    """The code with which the gateway ends an Attach that says ``said``."""
    call = stubs.FederationStub(channel).Attach()
    try:
        for message in said:
            await call.write(message)
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.RpcError as error:
        return from_rpc(error, "gateway").code
    return "ended"


def hello(name: str) -> pb.NodeMessage:
    return wire.to_node_message(m.Hello(node_id=name, manifest_version=0, software="test"))


async def ask_code(world: World, gateway: Any, ask: m.Ask, who: str = "ada") -> str:
    async with world.researcher(gateway, who) as party:
        try:
            await party.ask(ask)
        except InsituError as error:
            return error.code
    return "accepted"


# ------------------------------------------------------------------------------------------------------ certificates


@pytest.mark.attacks("T1")
def test_peers_without_a_certificate_of_the_federation_get_nowhere(world: World) -> None:
    other = create_authority("demo", not_before=now() - ONE_YEAR, not_after=now() + ONE_YEAR)
    world.identity("node", NODES[0], ca=other, at="forged")

    async def work() -> None:
        async with world.gateway() as gateway:
            for who in (None, "forged"):
                async with world.channel(who, gateway.address) as channel:
                    assert await attach_code(channel, hello(NODES[0])) == "INSITU-GATEWAY-UNREACHABLE"
            # neither does a peer that expects another federation
            async with world.channel(NODES[0], gateway.address, root=other.certificate_pem) as channel:
                assert await attach_code(channel, hello(NODES[0])) == "INSITU-GATEWAY-UNREACHABLE"

    run(work)


@pytest.mark.attacks("T3")
@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        (NODES[0], NODES[1]),  # another node's name
        ("stranger", "stranger"),  # certified, and not in the manifest
        ("ada", "ada"),  # a researcher
        ("ada", NODES[0]),
    ],
)
def test_only_nodes_of_the_manifest_attach_and_only_as_themselves(world: World, certificate: str, says: str) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.channel(certificate, gateway.address) as channel:
            assert await attach_code(channel, hello(says)) == "INSITU-ACCESS-PEER"

    run(work)


@pytest.mark.attacks("T1", "T3")
def test_nodes_are_no_researchers_and_operators_are_local(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway:
            assert await ask_code(world, gateway, world.ask(), NODES[0]) == "INSITU-ACCESS-PEER"
            async with world.channel(NODES[0], gateway.address) as channel:
                with pytest.raises(grpc.RpcError) as refused:
                    await stubs.ResearchStub(channel).GetManifest(pb.GetManifestRequest())
                assert from_rpc(refused.value, "").code == "INSITU-ACCESS-PEER"
            async with world.channel("ada", gateway.address) as channel:
                with pytest.raises(grpc.RpcError) as unknown:
                    await stubs.OperationsStub(channel).Status(pb.StatusRequest())
                assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(work)


# ------------------------------------------------------------------------------------------------------------- nodes


@pytest.mark.parametrize(
    "said",
    [
        pb.NodeMessage(),
        pb.NodeMessage(hello=pb.Hello(node_id=NODES[0])),
        pb.NodeMessage(heartbeat=pb.Heartbeat()),
    ],
)
def test_a_first_message_that_is_no_hello_ends_the_stream(world: World, said: pb.NodeMessage) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.channel(NODES[0], gateway.address) as channel:
            assert await attach_code(channel, said) in ("INSITU-ACCESS-MALFORMED", "INSITU-ACCESS-PEER")

    run(work)


def test_bytes_that_are_no_message_end_that_stream_alone(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0]) as good:
            async with world.channel(NODES[1], gateway.address) as channel:
                raw = channel.stream_stream("/insitu.v1.Federation/Attach")
                for welcomed in (False, True):
                    call = raw()
                    if welcomed:
                        await call.write(hello(NODES[1]).SerializeToString())
                        await call.read()
                    await call.write(b"\xff" * 100)
                    with pytest.raises(grpc.RpcError):
                        while await call.read() is not grpc.aio.EOF:
                            pass
                ask = channel.unary_stream("/insitu.v1.Research/Ask")
                with pytest.raises(grpc.RpcError):
                    async for _ in ask(b"\xff" * 100):
                        pass
            async with world.researcher(gateway) as ada:
                finished = await ada.finished(world.ask(world.query(nodes=(NODES[0],))))
                assert statuses(finished) == {NODES[0]: ("released", None)}
            assert not good.ended.is_set()

    run(work)


def test_a_message_above_the_limit_ends_that_stream_alone(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0]) as good:
            async with world.node(gateway, NODES[1]) as bad:
                with pytest.raises(grpc.RpcError):
                    await bad.say(m.Outcome(request_id="f" * 32, outcome_jws="x" * m.MAX_MESSAGE_BYTES))
                    await bad.call.read()
            assert not good.ended.is_set()

    run(work)


def liar(**fields: Any) -> Any:
    async def behave(node: Node, task: m.Task) -> None:
        await node.release(task, **fields)

    return behave


async def forge(node: Node, task: m.Task) -> None:
    jws = node.world.sealed("stranger", node.world.outcome(node.name, task))
    await node.say(m.Outcome(request_id=task.request_id, outcome_jws=jws))


async def impersonate(node: Node, task: m.Task) -> None:
    jws = node.world.sealed(NODES[1], node.world.outcome(NODES[1], task))
    await node.say(m.Outcome(request_id=task.request_id, outcome_jws=jws))


async def babble(node: Node, task: m.Task) -> None:
    await node.say(m.Outcome(request_id=task.request_id, outcome_jws="not a token"))


@pytest.mark.parametrize(
    "behave",
    [
        forge,
        impersonate,
        babble,
        liar(plan_digest="0" * 64),
        liar(dataset_digest="0" * 64),
        liar(request_sha256="0" * 64),
        liar(request_id="0" * 32),
        liar(grant_id="grant-2"),
    ],
)
def test_an_outcome_that_does_not_verify_fails_its_node_alone(world: World, behave: Any) -> None:
    async def work() -> None:
        async with (
            world.gateway() as gateway,
            world.node(gateway, NODES[0], behave),
            world.node(gateway, NODES[1]),
            world.node(gateway, NODES[2]),
            world.researcher(gateway) as ada,
        ):
            finished = await ada.finished(world.ask(world.query(min_nodes=2)))
            assert statuses(finished) == {**RELEASED, NODES[0]: ("failed", "INSITU-VERIFY-RELEASE")}
            assert finished.outcomes[0].outcome_jws is None
            assert finished.result_json

    run(work)


def test_values_of_another_shape_cost_the_result_and_nothing_else(world: World) -> None:
    async def work() -> None:
        async with (
            world.gateway() as gateway,
            world.nodes(gateway, liar(values=())),
            world.researcher(gateway) as ada,
        ):
            finished = await ada.finished(world.ask())
            assert statuses(finished) == RELEASED  # the researcher's own check names the node
            assert finished.result_json is None

    run(work)


def test_what_a_node_says_of_requests_that_are_not_its_own_changes_nothing(world: World) -> None:
    async def work() -> None:
        async with (
            world.gateway() as gateway,
            world.node(gateway, NODES[0], silent) as asked,
            world.node(gateway, NODES[1]) as other,
            world.researcher(gateway) as ada,
        ):
            request = world.query(nodes=(NODES[0],))
            asking = asyncio.ensure_future(ada.finished(world.ask(request)))
            await asked.until(lambda: len(asked.tasks) == 1)
            task = asked.tasks[0]
            await other.release(task)
            await other.say(m.Progress(request_id=request.request_id, stage="executed"))
            await other.say(m.Progress(request_id="0" * 32, stage="executed"))
            for stage in ("executed", "admitted", "queued", "released", "absent", "lost", "executed"):
                await asked.say(m.Progress(request_id=request.request_id, stage=stage))  # type: ignore[arg-type]
            await asked.release(replace(task, request_id="0" * 32))
            await asked.until(lambda: asked.taken == ["0" * 32])  # unknown here: it may forget
            await asyncio.sleep(0.1)
            assert not asking.done()
            await asked.release(task)
            await asked.release(task, number=999)  # a second answer is not a second release
            assert statuses(await asking) == {NODES[0]: ("released", None)}
            assert not other.ended.is_set()
            assert not asked.ended.is_set()

    run(work)


# ------------------------------------------------------------------------------------------------------- researchers


def test_requests_that_a_node_would_refuse_are_not_taken(world: World) -> None:
    outsider = generate_signing_key()
    other_grant = seal_grant(world.make_grant(id="grant-2"), world.authority)
    forged_grant = seal_grant(world.grant, outsider)
    expired = seal_grant(world.make_grant(expires_at=now() - timedelta(hours=1)), world.authority)
    ask = world.ask()
    cases = {
        "INSITU-ACCESS-WRONG-KEY": world.ask(key=outsider),
        "INSITU-ACCESS-SIGNATURE": replace(ask, grant_jwt=forged_grant),
        "INSITU-ACCESS-GRANT-EXPIRED": replace(ask, grant_jwt=expired),
        "INSITU-ACCESS-STALE": world.ask(world.query(issued_at=now() - timedelta(hours=1), timeout=-1)),
        "INSITU-PARAM-TIMEOUT": world.ask(world.query(timeout=10**6)),
        "INSITU-ACCESS-NOT-GRANTED": world.ask(world.query(nodes=("stranger",))),
        "INSITU-ACCESS-MALFORMED": replace(ask, grant_jwt=other_grant),
    }
    malformed = [
        replace(ask, request_jws=ask.request_jws[:-10]),
        replace(ask, request_jws=ask.grant_jwt),
        replace(ask, request_jws="x" * m.MAX_TOKEN_CHARS),
        replace(ask, grant_jwt="é"),
        replace(ask, grant_jwt=""),
        world.ask(world.query(grant_sha256="0" * 64)),
    ]

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as nodes:
            for code, wrong in cases.items():
                assert await ask_code(world, gateway, wrong) == code
            for wrong in malformed:
                assert await ask_code(world, gateway, wrong) in ("INSITU-ACCESS-MALFORMED", "INSITU-ACCESS-SIGNATURE")
            assert not any(node.tasks for node in nodes)

    run(work)


def test_a_revoked_grant_and_an_expired_manifest_end_all_asking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu_gateway.server.MANIFEST_LOOK_S", 0.02)

    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0]) as node:
            world.publish(revoked_grants=frozenset({world.grant.id}))
            await node.until(lambda: len(node.manifests) == 2)
            assert await ask_code(world, gateway, world.ask()) == "INSITU-ACCESS-GRANT-REVOKED"
            world.publish(expires_at=now() + timedelta(seconds=1))
            await node.until(lambda: len(node.manifests) == 3)
            await asyncio.sleep(2.1)
            assert await ask_code(world, gateway, world.ask()) == "INSITU-ACCESS-MANIFEST"

    run(work)


def test_a_request_id_is_one_request_of_one_researcher(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway), world.node(gateway, NODES[0], silent) as slow:
            request = world.query()
            other = world.query(request_id=request.request_id, timeout=19)
            mine = world.ask(request)
            async with world.researcher(gateway) as ada, world.researcher(gateway, "bob") as bob:
                asking = asyncio.ensure_future(ada.finished(mine))
                await slow.until(lambda: len(slow.tasks) == 1)
                for _ in range(2):  # while it is open, and after it has finished
                    assert await ask_code(world, gateway, world.ask(other)) == "INSITU-ACCESS-REPLAY"
                    assert await ask_code(world, gateway, mine, "bob") == "INSITU-ACCESS-REPLAY"
                    for stranger in (m.Follow(request_id=request.request_id), m.Follow(request_id="0" * 32)):
                        with pytest.raises(InsituError, match="INSITU-REQUEST-UNKNOWN"):
                            await bob.finished(stranger)
                    if not asking.done():
                        await slow.release(slow.tasks[0])
                        await asking

    run(work)


def test_one_researcher_cannot_take_all_the_room(tmp_path: Path) -> None:
    world = World(tmp_path, open_requests_per_researcher=3, streams_per_researcher=5)

    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, NODES[0], silent) as node:
            async with world.researcher(gateway) as ada, world.researcher(gateway, "bob") as bob:
                requests = [world.query(nodes=(NODES[0],)) for _ in range(3)]
                asks = [world.ask(request) for request in requests]
                asking = [asyncio.ensure_future(ada.finished(ask)) for ask in asks]
                await node.until(lambda: len(node.tasks) == 3)
                with pytest.raises(InsituError, match="too many requests are open"):
                    await ada.finished(world.ask(world.query(nodes=(NODES[0],))))
                for request, ask in zip(requests[:2], asks, strict=False):
                    told = Told()
                    asking.append(asyncio.ensure_future(ada.finished(ask, told)))
                    await told.until(m.Accepted(request_id=request.request_id))
                with pytest.raises(InsituError, match="too many streams are open"):
                    await ada.finished(asks[0])
                theirs = asyncio.ensure_future(bob.finished(world.ask(world.query(nodes=(NODES[0],)))))
                await node.until(lambda: len(node.tasks) == 4)
                for task in list(node.tasks):
                    await node.release(task)
                for finished in await asyncio.gather(theirs, *asking):
                    assert statuses(finished) == {NODES[0]: ("released", None)}

    run(work)


def test_a_query_the_gateway_cannot_plan_is_the_nodes_to_judge(world: World) -> None:
    async def refuse(node: Node, task: m.Task) -> None:
        error = BudgetRefused("INSITU-BUDGET-EXCEEDED")
        await node.say(
            m.Outcome(
                request_id=task.request_id, outcome_jws=world.sealed(node.name, world.refusal(node.name, task, error))
            )
        )

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway, refuse), world.researcher(gateway) as ada:
            for sql in ("SELECT * FROM person", "nonsense", "(" * 5000, "SELECT sex FROM person WHERE " + "1+" * 9000):
                finished = await ada.finished(world.ask(world.query(sql, plan_digest="0" * 64)))
                assert statuses(finished) == dict.fromkeys(NODES, ("refused", "INSITU-BUDGET-EXCEEDED"))
                assert finished.result_json is None

    run(work)


def test_a_result_of_another_plan_is_left_out(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway), world.researcher(gateway) as ada:
            other = world.plan(epsilon=Fraction(2)).digest
            finished = await ada.finished(world.ask(world.query(plan_digest=other)))
            assert statuses(finished) == RELEASED
            assert finished.result_json is None

    run(work)
