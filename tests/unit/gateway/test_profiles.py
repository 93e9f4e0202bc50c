"""Profiles at a gateway: what nodes announce is verified and kept, what is none hurts nobody, researchers may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from insitu_access.data_profile import read_data_profile
from insitu_access.jose import unverified
from insitu_access.manifest import DatasetEntry, FormerKey, NodeEntry, seal_manifest
from insitu_gateway.profiles import MOST_IGNORED
from insitu_gateway.server import Gateway
from insitu_privacy.errors import InsituError, Unavailable
from insitu_proto import messages as m
from insitu_proto import wire_profiles
from insitu_proto.status import from_rpc
from insitu_proto.v1 import insitu_pb2 as pb

from tests.testkit.profiles import sealed
from tests.unit.gateway.world import BUNDLE, NODES, ONE_YEAR, Node, World, now, run

DIGEST = BUNDLE.digest()
OTHER = "0" * 64


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def profile(world: World, node: str, serial: int, digest: str = DIGEST, *, by: str | None = None) -> str:
    return sealed(node, world.identities[by or node].signing, digest, serial=serial)


async def announce(node: Node, token: str) -> None:
    await node.say(m.AnnounceProfile(profile_jws=token))


async def fetch(world: World, gateway: Gateway, digest: str = DIGEST, who: str = "ada") -> tuple[str, ...]:
    async with world.researcher(gateway, who) as party:
        wanted = wire_profiles.to_get_profiles(m.GetProfiles(dataset="care", dataset_digest=digest))
        try:
            pieces = [piece async for piece in party.stub.GetProfiles(wanted)]
        except grpc.RpcError as error:
            raise from_rpc(error, party.address) from error
        return wire_profiles.from_profiles(pieces).profile_jws


async def serials(world: World, gateway: Gateway) -> dict[str, int]:
    tokens = await fetch(world, gateway)
    found = [read_data_profile(unverified(one, "insitu-profile+jws", "profile")) for one in tokens]
    return {one.node: one.serial for one in found}


async def until_served(world: World, gateway: Gateway, expected: Mapping[str, int]) -> None:
    for _ in range(500):
        if await serials(world, gateway) == expected:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass in time")


def test_what_nodes_announce_is_kept_through_a_restart_and_served(world: World) -> None:
    one, two, _ = NODES

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as (first, second, _):
            assert await fetch(world, gateway) == ()
            await announce(first, profile(world, one, 1))
            await announce(first, profile(world, one, 3))
            await announce(second, profile(world, two, 2))
            await until_served(world, gateway, {one: 3, two: 2})
            await announce(first, profile(world, one, 2))  # an older one changes nothing
            await announce(first, profile(world, one, 3))
            await announce(first, profile(world, one, 4))
            await until_served(world, gateway, {one: 4, two: 2})
        async with world.gateway() as gateway:
            assert await serials(world, gateway) == {one: 4, two: 2}

    run(work)


def test_nobody_but_researchers_asks_and_only_for_what_the_manifest_has(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway:
            assert await fetch(world, gateway, who="bob") == ()
            with pytest.raises(InsituError, match="INSITU-ACCESS-PEER"):
                await fetch(world, gateway, who=NODES[0])
            with pytest.raises(InsituError, match="INSITU-ACCESS-DATASET"):
                await fetch(world, gateway, digest=OTHER)
            async with world.researcher(gateway) as ada:
                with pytest.raises(grpc.RpcError) as refused:
                    await ada.stub.GetProfiles(pb.GetProfilesRequest(dataset="care")).read()
                assert from_rpc(refused.value, "").code == "INSITU-ACCESS-MALFORMED"

    run(work)


@pytest.mark.attacks("H1", "H2", "H3", "H4")
def test_what_is_no_profile_of_its_node_is_not_kept_and_costs_the_node_nothing(world: World) -> None:
    node, other = NODES[0], NODES[1]
    good = profile(world, node, 1)
    header, body, signature = good.split(".")
    rubbish = [
        "not a token",
        "é" * 100,
        "x" * m.MAX_TOKEN_CHARS,
        f"{header}.{body[:-8]}AAAAAAAA.{signature}",
        world.grant_jwt,
        profile(world, node, 9, by="stranger"),
        profile(world, other, 9),
        profile(world, other, 9, by=node),
        profile(world, node, 9, OTHER),
        sealed(node, world.identities[node].signing, DIGEST, dataset="other"),
    ]

    async def work() -> None:
        async with world.gateway() as gateway, world.node(gateway, node) as hostile, world.researcher(gateway) as ada:
            for token in rubbish:
                await announce(hostile, token)
            await announce(hostile, good)
            await until_served(world, gateway, {node: 1})
            assert await fetch(world, gateway) == (good,)
            finished = await ada.finished(world.ask(world.query(nodes=(node,))))
            assert finished.outcomes[0].status == "released"

    run(work)


def test_an_announcement_that_is_no_message_ends_that_stream(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as (hostile, other, _):
            await announce(hostile, "x" * (m.MAX_TOKEN_CHARS + 1))
            await hostile.until(hostile.ended.is_set)
            assert not other.ended.is_set()

    run(work)


def test_of_one_who_announces_rubbish_without_end_no_more_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insitu_gateway.server.MANIFEST_LOOK_S", 0.02)
    read: list[str] = []

    async def work() -> None:
        async with world.gateway() as gateway:
            true = gateway._profiles.announced

            async def announced(node: str, token: str) -> bool:
                read.append(token)
                return await true(node, token)

            monkeypatch.setattr(gateway._profiles, "announced", announced)
            async with world.node(gateway, NODES[0]) as hostile, world.researcher(gateway) as ada:
                for number in range(MOST_IGNORED + 5):
                    await announce(hostile, f"rubbish {number}")
                await announce(hostile, profile(world, NODES[0], 1))
                finished = await ada.finished(world.ask(world.query(nodes=(NODES[0],))))
                assert finished.outcomes[0].status == "released"  # it is heard in all else
                assert len(read) == MOST_IGNORED
                world.publish()
                await hostile.until(lambda: len(hostile.manifests) == 2)
                await announce(hostile, profile(world, NODES[0], 1))
                await until_served(world, gateway, {NODES[0]: 1})
            async with world.node(gateway, NODES[0]) as again:
                await announce(again, profile(world, NODES[0], 2))
                await until_served(world, gateway, {NODES[0]: 2})

    run(work)


def test_a_store_that_fails_is_not_the_nodes_fault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with world.gateway() as gateway:

            async def failing(*_: object) -> frozenset[str]:
                raise Unavailable("INSITU-GATEWAY-FAILED", reason="its store failed")

            with monkeypatch.context() as patched:
                patched.setattr(gateway._journal, "write", failing)
                assert await gateway._profiles.announced(NODES[0], profile(world, NODES[0], 1))
            assert await gateway._profiles.announced(NODES[0], profile(world, NODES[0], 1))
            assert await serials(world, gateway) == {NODES[0]: 1}

    run(work)


def publish(world: World, **changes: Any) -> None:
    """The present manifest with changes, as the next one."""
    world.version += 1
    world.manifest = replace(world.manifest, version=world.version, **changes)
    world.manifest_jws = seal_manifest(world.manifest, world.authority)
    (world.folder / "manifest.jws").write_text(world.manifest_jws)


def entry(world: World, name: str, key: str, former: str | None = None) -> NodeEntry:
    keys = () if former is None else (FormerKey(key=world.identities[former].signing.public(), until=now() + ONE_YEAR),)
    public = world.identities[key].signing.public()
    return NodeEntry(id=name, organisation=name, jurisdiction="FR", key=public, former=keys)


def test_a_manifest_takes_away_what_it_no_longer_covers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lost key signed goes, whatever its serial; a key with an overlap still counts (K7)."""
    monkeypatch.setattr("insitu_gateway.server.MANIFEST_LOOK_S", 0.02)
    lost, changed, _ = NODES
    for name in ("new-lost", "new-changed"):
        world.identity("node", name)

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as nodes:
            for node in nodes:
                await announce(node, profile(world, node.name, 7))
            await until_served(world, gateway, dict.fromkeys(NODES, 7))
            publish(world, nodes=(entry(world, lost, "new-lost"), entry(world, changed, "new-changed", changed)))
            await nodes[2].until(nodes[2].ended.is_set)
            await until_served(world, gateway, {changed: 7})
            await announce(nodes[0], profile(world, lost, 1, by="new-lost"))
            await announce(nodes[1], profile(world, changed, 7, by="new-changed"))  # the same one, signed again
            await until_served(world, gateway, {lost: 1, changed: 7})
            publish(world, datasets=(DatasetEntry(name="care", version=2, digest=OTHER),))
            await nodes[0].until(lambda: len(nodes[0].manifests) == 3)
            with pytest.raises(InsituError, match="INSITU-ACCESS-DATASET"):
                await fetch(world, gateway)
        async with world.gateway() as gateway:
            await gateway._profiles.tidy()
            assert await gateway._journal.profiled() == ()

    run(work)
