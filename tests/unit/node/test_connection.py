"""The outbound stream against a small gateway on loopback: real gRPC, real mTLS, the production cycle behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from insitu_access.certificates import CertificateAuthority
from insitu_access.data_profile import open_data_profile
from insitu_access.identity import load_identity
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import seal_manifest
from insitu_access.release import NodeRelease, Refusal
from insitu_access.watched import WatchedIdentity
from insitu_node.connection import Dialer, Renewal
from insitu_node.cycle import Cycle
from insitu_node.policy import Policy
from insitu_node.profile_store import Announcements, ProfileStore
from insitu_node.state import ManifestStore
from insitu_proto.messages import AnnounceProfile, Heartbeat, Hello, Outcome, Progress

from tests.testkit.gateway_stub import GatewayStub, make_ca, make_identity
from tests.testkit.node_world import NODE, NodeWorld
from tests.testkit.profiles import made
from tests.testkit.waiting import until

Scene = Callable[["Stage"], Coroutine[None, None, None]]


class Stage:
    """A gateway and a node that dials it."""

    ca: CertificateAuthority
    profiles: ProfileStore

    def __init__(self, world: NodeWorld, gateway: GatewayStub, store: ManifestStore, cycle: Cycle) -> None:
        self.world, self.gateway, self.store, self.cycle = world, gateway, store, cycle

    def ask(self, sql: str | None = None) -> str:
        request = self.world.query() if sql is None else self.world.query(sql)
        self.gateway.task(request.request_id, self.world.sealed(request), self.world.grant_jwt())
        return request.request_id


@asynccontextmanager
async def staged(
    tmp_path: Path,
    *,
    queue: int = 8,
    answer_every_s: float = 0,
    country: str | None = None,
    policy: Policy | None = None,
    **manifest: Any,
) -> AsyncIterator[Stage]:
    world = NodeWorld(folder=tmp_path, now=datetime.now(UTC))
    ca = make_ca()
    world.manifest_with(ca_pem=ca.certificate_pem.decode(), **manifest)
    world.policy = policy or world.policy
    authority = world.authority.public()
    make_identity(tmp_path / "node", ca, "node", NODE, authority)
    make_identity(tmp_path / "gw", ca, "gateway", "gw", authority, country)
    gateway = GatewayStub(tmp_path / "gw", world.manifest_jws())
    await gateway.start()
    state = tmp_path / "state"
    state.mkdir()
    store = ManifestStore(state, authority)
    cycle = world.cycle()
    profiles = ProfileStore(state, NODE, {"care": world.dataset.digest})
    stopping = asyncio.Event()
    with ThreadPoolExecutor(2) as workers:
        dialer = Dialer(
            keys=WatchedIdentity(tmp_path / "node", lambda: load_identity(tmp_path / "node")),
            changed=Renewal(),
            software="test",
            manifest=store,
            cycle=cycle,
            workers=workers,
            queue=queue,
            answer_every_s=answer_every_s,
            clock=lambda: datetime.now(UTC),
            profiles=Announcements(profiles, lambda: world.node_key),
        )
        keeping = asyncio.create_task(dialer.keep(gateway.address, stopping))
        try:
            stage = Stage(world, gateway, store, cycle)
            stage.ca = ca
            stage.profiles = profiles
            yield stage
        finally:
            stopping.set()
            await asyncio.wait_for(keeping, 10)
            cycle.stop()
            await gateway.stop()


def play(scene: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


def test_says_hello_takes_the_manifest_and_answers(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            request_id = stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            hello = stage.gateway.heard[0]
            assert isinstance(hello, Hello)
            assert (hello.node_id, hello.manifest_version) == (NODE, 0)
            assert stage.store.version == 3
            (outcome,) = stage.gateway.outcomes()
            assert outcome.request_id == request_id
            assert isinstance(stage.world.opened(outcome.outcome_jws), NodeRelease)

    play(scene())


def stages(stage: Stage) -> list[str]:
    return [message.stage for message in stage.gateway.heard if isinstance(message, Progress)]


def test_a_slow_request_tells_how_far_it_is(tmp_path: Path) -> None:
    told_by = {"before-reserve": "admitted", "after-execute": "reserved", "after-noise": "executed"}

    async def scene() -> None:
        async with staged(tmp_path) as stage:

            def hook(place: str) -> None:
                patience = time.monotonic() + 20
                while place in told_by and told_by[place] not in stages(stage) and time.monotonic() < patience:
                    time.sleep(0.005)

            stage.cycle._hook = stage.cycle._runner._hook = hook
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            assert stages(stage) == ["admitted", "reserved", "executed"]

    play(scene())


def test_a_quick_request_tells_its_outcome_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu_node.connection._PACE_SECONDS", 30)

    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            await asyncio.sleep(0.05)
            assert stages(stage) == []

    play(scene())


def test_heartbeats_are_sent(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await stage.gateway.wait_for(2, Heartbeat)

    play(scene())


def test_dials_again_and_sends_what_was_not_confirmed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.gateway.confirm = False
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            stage.gateway.confirm = True
            stage.gateway.say(None)
            await stage.gateway.wait_for(2, Outcome)
            first, second = stage.gateway.outcomes()
            assert first == second
            assert stage.gateway.hellos()[1].manifest_version == 3
            stage.world.manifest_with(version=4)
            stage.gateway.manifest(stage.world.manifest_jws())
            await until(lambda: stage.store.version == 4)  # then it has read the confirmation, which was sent before
            stage.gateway.say(None)
            await stage.gateway.wait_for(3, Hello)
            await asyncio.sleep(0.3)
            assert len(stage.gateway.outcomes()) == 2  # confirmed: not sent a third time

    play(scene())


def test_a_gateway_that_restarts_gets_the_answer_of_what_ran_meanwhile(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.ask()
            await stage.gateway.stop()
            await stage.gateway.start(stage.gateway.port)
            await stage.gateway.wait_for(2, Hello)
            if not stage.gateway.outcomes():  # the task may not have arrived before the end: then it is sent again
                stage.ask()
            await stage.gateway.wait_for(1, Outcome)

    play(scene())


def test_the_same_task_twice_is_one_answer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            request = stage.world.query()
            for _ in range(3):
                stage.gateway.task(request.request_id, stage.world.sealed(request), stage.world.grant_jwt())
            await stage.gateway.wait_for(1, Outcome)
            await asyncio.sleep(0.3)
            assert len({outcome.outcome_jws for outcome in stage.gateway.outcomes()}) == 1
            assert len(stage.world.ledger.entries()) == 1

    play(scene())


def test_too_many_tasks_are_refused_as_busy(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, queue=1, answer_every_s=0) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            for _ in range(6):
                stage.ask()
            await stage.gateway.wait_for(6, Outcome)
            outcomes = [stage.world.opened(outcome.outcome_jws) for outcome in stage.gateway.outcomes()]
            codes = {outcome.code for outcome in outcomes if isinstance(outcome, Refusal)}
            assert codes <= {"INSITU-NODE-BUSY"}
            assert any(isinstance(outcome, NodeRelease) for outcome in outcomes)

    play(scene())


def test_a_newer_manifest_takes_effect_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.world.manifest_with(version=4)
            stage.gateway.manifest(stage.world.manifest_jws())
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            assert stage.store.version == 4

    play(scene())


@pytest.mark.parametrize("kind", ["forged", "old"])
def test_a_bad_manifest_ends_the_stream_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.world.manifest_with(version=9 if kind == "forged" else 2)
            key = generate_signing_key() if kind == "forged" else stage.world.authority
            stage.gateway.manifest(seal_manifest(stage.world.manifest, key))
            await stage.gateway.wait_for(2, Hello)
            assert stage.store.version == 3

    play(scene())


def test_answers_can_be_held_to_a_schedule(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, answer_every_s=0.7) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            started = asyncio.get_running_loop().time()
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            assert asyncio.get_running_loop().time() - started >= 0.69
            assert stages(stage) == ["admitted"]

    play(scene())


def test_a_gateway_of_another_authority_is_not_spoken_to(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            other = GatewayStub(tmp_path / "other", stage.world.manifest_jws())
            make_identity(tmp_path / "other", make_ca(), "gateway", "gw", stage.world.authority.public())
            port = stage.gateway.port
            await stage.gateway.stop()
            await other.start(port)
            await asyncio.sleep(1.5)
            assert other.heard == []
            await other.stop()
            await stage.gateway.start(port)
            await stage.gateway.wait_for(2, Hello)

    play(scene())


def test_an_expired_manifest_is_refused_at_the_door(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            now = datetime.now(UTC)
            stage.world.manifest_with(version=4, expires_at=now - timedelta(seconds=1))
            stage.gateway.manifest(stage.world.manifest_jws())
            await stage.gateway.wait_for(2, Hello)
            assert stage.store.version == 3

    play(scene())


# -- profiles ----------------------------------------------------------------------------------------------------------


def serials(stage: Stage) -> list[int]:
    """Of the profiles that the gateway was told of, each of which the node's present key signed."""
    keys = stage.world.node_key.public()
    return [open_data_profile(one.profile_jws, keys, node=NODE).serial for one in stage.gateway.profiles()]


def keep(stage: Stage, serial: int) -> None:
    stage.profiles.keep(made(NODE, stage.world.dataset.digest, serial=serial))


def test_a_profile_is_announced_as_soon_as_it_is_made_and_to_every_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insitu_node.connection._PROFILES_LOOK_S", 0.02)

    async def scene() -> None:
        async with staged(tmp_path) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            await asyncio.sleep(0.1)
            assert stage.gateway.profiles() == []
            keep(stage, 1)
            await stage.gateway.wait_for(1, AnnounceProfile)
            await asyncio.sleep(0.1)
            keep(stage, 2)
            await stage.gateway.wait_for(2, AnnounceProfile)
            assert serials(stage) == [1, 2]
            stage.gateway.say(None)
            await stage.gateway.wait_for(3, AnnounceProfile)
            assert serials(stage) == [1, 2, 2]
            newer = seal_manifest(replace(stage.world.manifest, version=9), stage.world.authority)
            stage.gateway.manifest(newer)  # a gateway lets go of what a manifest before did not cover
            await stage.gateway.wait_for(4, AnnounceProfile)
            stage.world.node_key = generate_signing_key()
            await stage.gateway.wait_for(5, AnnounceProfile)
            signed_last = stage.gateway.profiles()[-1].profile_jws
            assert open_data_profile(signed_last, stage.world.node_key.public(), node=NODE).serial == 2

    play(scene())


def test_a_gateway_that_does_not_know_profiles_is_told_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu_node.connection._PROFILES_LOOK_S", 0.02)

    async def scene() -> None:
        async with staged(tmp_path) as stage:
            keep(stage, 1)
            stage.gateway.takes_profiles = False
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.gateway.say(None)
            await stage.gateway.wait_for(2, Hello)
            before = len(stage.gateway.profiles())
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            assert len(stage.gateway.profiles()) == before <= 1

    play(scene())
