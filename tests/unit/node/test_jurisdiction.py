"""A node and the place of its gateway (W1, W2, W5): whom it greets, when it hangs up, and what its log says of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from insitu_access.manifest import GatewayEntry
from insitu_node.policy import Policy, Rule
from insitu_proto.messages import Hello, Outcome

from tests.testkit.gateway_stub import GatewayStub, make_identity
from tests.testkit.waiting import until
from tests.unit.node.test_connection import Stage, play, staged

CODE = "INSITU-TRUST-JURISDICTION"


def gateway(jurisdiction: str) -> tuple[GatewayEntry, ...]:
    return (GatewayEntry(id="gw", address="localhost:1", operator="Op", jurisdiction=jurisdiction),)


def policy(*accepted: str) -> Policy:
    return Policy(rules=(Rule(every_grant=True),), jurisdictions=frozenset(accepted))


def refusals(stage: Stage) -> list[Any]:
    return [entry.fields for entry in stage.world.logged() if entry.kind == "gateway-refused"]


async def refused(stage: Stage) -> Any:
    """Until the node's log says that the gateway was refused: once, however often it is dialled."""
    await until(lambda: bool(refusals(stage)))
    await asyncio.sleep(0.6)
    (told,) = refusals(stage)
    assert (told["gateway"], told["code"]) == (stage.gateway.address, CODE)
    return told


@pytest.mark.attacks("W1")
@pytest.mark.parametrize("country", ["US", None])
def test_a_gateway_outside_the_policy_is_not_even_greeted(tmp_path: Path, country: str | None) -> None:
    async def scene() -> None:
        async with staged(tmp_path, country=country, policy=policy("FR", "BE")) as stage:
            told = await refused(stage)
            assert told["country"] == country
            assert stage.gateway.heard == []

    play(scene())


@pytest.mark.attacks("W1", "W2")
@pytest.mark.parametrize(
    ("country", "entry", "accepted", "own"),
    [("US", "US", ("EU",), ()), ("FR", "US", ("EU",), ()), ("FR", "BE", (), ()), ("FR", "DE", (), ("FR",))],
)
def test_a_gateway_outside_the_manifest_gets_a_greeting_and_nothing_else(
    tmp_path: Path, country: str, entry: str, accepted: tuple[str, ...], own: tuple[str, ...]
) -> None:
    async def scene() -> None:
        lists: dict[str, Any] = {"gateways": gateway(entry), "jurisdictions": frozenset(accepted)}
        async with staged(tmp_path, country=country, policy=policy(*own), **lists) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.ask()
            await refused(stage)
            assert stage.store.version == 3  # what the authority signed is taken from anybody
            assert {type(message) for message in stage.gateway.heard} <= {Hello}
            assert stage.world.ledger.entries() == ()

    play(scene())


@pytest.mark.attacks("W2")
def test_a_manifest_that_no_longer_accepts_a_gateway_ends_its_stream_and_a_later_one_opens_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with staged(tmp_path, country="FR", gateways=gateway("FR"), jurisdictions=frozenset({"EU"})) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.ask()
            await stage.gateway.wait_for(1, Outcome)
            stage.world.manifest_with(version=4, jurisdictions=frozenset({"BE"}))
            stage.gateway.manifest(stage.world.manifest_jws())
            await refused(stage)
            stage.world.manifest_with(version=5, jurisdictions=frozenset({"FR"}))
            stage.gateway.manifest_jws = stage.world.manifest_jws()
            await until(lambda: stage.store.version == 5)
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            stage.ask("SELECT COUNT(*) AS n FROM person")
            await stage.gateway.wait_for(2, Outcome)

    play(scene())


@pytest.mark.attacks("W2")
def test_a_manifest_that_came_another_way_counts_before_the_next_answer(tmp_path: Path) -> None:
    """Another gateway may have brought it: this stream says nothing more."""

    async def scene() -> None:
        async with staged(tmp_path, country="FR", gateways=gateway("FR"), jurisdictions=frozenset({"EU"})) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            await until(lambda: stage.store.version == 3)
            stage.world.manifest_with(version=4, jurisdictions=frozenset({"BE"}))
            stage.store.offer(stage.world.manifest_jws(), stage.world.now)
            stage.gateway.manifest_jws = stage.world.manifest_jws()
            stage.ask()
            await refused(stage)
            assert stage.gateway.outcomes() == []

    play(scene())


@pytest.mark.attacks("W5")
def test_who_was_looked_at_is_who_is_talked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W5: behind one address, another certificate of the same CA than the one that was looked at."""
    looks = asyncio.Event()

    async def scene() -> None:
        async with staged(tmp_path, country="FR", policy=policy("FR"), gateways=gateway("FR")) as stage:
            await asyncio.wait_for(stage.gateway.attached.wait(), 20)
            seen = (tmp_path / "gw" / "tls.pem").read_bytes()
            monkeypatch.setattr("insitu_node.connection.meet", lambda *_, **__: _looked(seen, looks))
            make_identity(tmp_path / "abroad", stage.ca, "gateway", "gw", stage.world.authority.public(), "US")
            abroad = GatewayStub(tmp_path / "abroad", stage.world.manifest_jws())
            await stage.gateway.stop()
            await abroad.start(stage.gateway.port)
            await asyncio.wait_for(looks.wait(), 20)
            await asyncio.sleep(1)
            assert abroad.heard == []
            await abroad.stop()

    play(scene())


async def _looked(seen: bytes, looks: asyncio.Event) -> bytes:
    looks.set()
    return seen
