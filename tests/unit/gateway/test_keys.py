"""The gateway's keys while it runs: new ones are taken up, revoked certificates are let go, nothing is started again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from insitu_access.audit import files
from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Party
from insitu_access.certificates import create_authority, create_csr, create_tls_key, issue_certificate, serial_of
from insitu_access.files import write_file
from insitu_access.identity import give_up, load_identity, sealers
from insitu_access.jose import token_sha256
from insitu_access.keys import generate_signing_key, save_verifying_key, signing_key_pem
from insitu_gateway import server
from insitu_privacy.errors import InsituError
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1 import insitu_pb2_grpc as stubs

from tests.testkit.audit_logs import entries
from tests.unit.gateway.world import NODES, RELEASED, World, now, run, statuses


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(server, "MANIFEST_LOOK_S", 0.1)
    return World(tmp_path)


def serial(world: World, name: str) -> str:
    return serial_of((world.folder / name / "tls.pem").read_bytes())


@pytest.mark.attacks("K10")
def test_a_revoked_certificate_is_let_go_and_refused(world: World) -> None:
    """K10: a stream that is open already is ended too."""

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as nodes, world.researcher(gateway) as ada:
            assert statuses(await ada.finished(world.ask(world.query()))) == RELEASED
            world.publish(revoked_certificates=frozenset({serial(world, NODES[0]), serial(world, "ada")}))
            await asyncio.wait_for(nodes[0].ended.wait(), 10)
            with pytest.raises(InsituError) as caught:
                await ada.finished(world.ask(world.query()))
            assert caught.value.code == "INSITU-ACCESS-PEER"

    run(work)


def test_a_new_certificate_of_a_new_ca_is_taken_up(world: World) -> None:
    """K11: connections that are open go on, new ones are met with the new certificate."""

    async def work() -> None:
        async with world.gateway() as gateway, world.nodes(gateway) as nodes, world.researcher(gateway) as ada:
            assert statuses(await ada.finished(world.ask(world.query()))) == RELEASED
            other = create_authority("demo", not_before=now() - timedelta(1), not_after=now() + timedelta(9))
            key, place = create_tls_key(), world.folder / "gw"
            certificate = issue_certificate(
                other, "gateway", "gw", create_csr(key), addresses=["127.0.0.1"],
                not_before=now() - timedelta(1), not_after=now() + timedelta(9),
            )  # fmt: skip
            both = world.ca.certificate_pem + other.certificate_pem
            world.publish(ca_pem=both.decode())
            write_file(place / "tls.key", key, 0o600)
            write_file(place / "tls.pem", certificate)
            write_file(place / "ca.pem", both)
            await asyncio.sleep(0.6)
            assert statuses(await ada.finished(world.ask(world.query()))) == RELEASED  # by streams from before
            async with world.channel("ada", gateway.address, root=world.ca.certificate_pem) as channel:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(channel.channel_ready(), 1)
            async with world.channel("ada", gateway.address, root=other.certificate_pem) as channel:
                await asyncio.wait_for(channel.channel_ready(), 5)
            assert len(nodes) == len(NODES)

    run(work)


@pytest.mark.attacks("K11", "T1")
def test_a_certificate_of_a_ca_that_was_dropped_gets_nowhere(world: World) -> None:
    """Whoever kept, or made with its stolen key, a certificate of the former CA; while both count it is welcome."""
    other = create_authority("demo", not_before=now() - timedelta(1), not_after=now() + timedelta(9))
    world.identity("researcher", "ada", ca=other, at="renewed")
    both = world.ca.certificate_pem + other.certificate_pem

    async def reached(address: str, who: str) -> bool:
        async with world.channel(who, address, root=world.ca.certificate_pem) as channel:
            call = stubs.ResearchStub(channel).GetManifest(pb.GetManifestRequest(), timeout=5)
            code = await call.code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
            return code is grpc.StatusCode.OK

    async def work() -> None:
        async with world.gateway() as gateway:
            for believed, welcome in ((both, {"ada", "renewed"}), (other.certificate_pem, {"renewed"})):
                world.publish(ca_pem=believed.decode())
                await asyncio.sleep(0.6)
                assert {who for who in ("ada", "renewed") if await reached(gateway.address, who)} == welcome

    run(work)


def test_new_keys_and_a_new_manifest_are_taken_up_and_told_in_the_audit_log(world: World) -> None:
    """E12: seals of before go on verifying."""
    place, folder = world.folder / "gw", world.folder / "state" / "audit"
    old = load_identity(place).signing

    async def work() -> None:
        async with world.gateway():
            new = generate_signing_key()
            give_up(place, old.public(), now())
            write_file(place / "signing.key", signing_key_pem(new), 0o600)
            write_file(place / "signing.pub", new.public().pem())
            world.publish()
            await asyncio.sleep(1)
            world.publish()
            await asyncio.sleep(1)

    run(work)
    report, _ = check_lines(files.lines(folder), Party(role="gateway", id="gw"), sealers(place))
    assert report.findings == ()
    (changed,) = [entry for entry in entries(folder) if entry.kind == "key-changed"]
    assert changed.fields == {"former": old.thumbprint, "key": load_identity(place).signing.thumbprint}
    told = [entry.fields for entry in entries(folder) if entry.kind == "manifest-changed"]
    assert [one["version"] for one in told] == [2, 3]
    assert told[-1]["sha256"] == token_sha256(world.manifest_jws)


def test_parts_that_do_not_belong_together_change_nothing(world: World) -> None:
    async def work() -> None:
        async with world.gateway() as gateway:
            write_file(world.folder / "gw" / "tls.key", create_tls_key(), 0o600)  # and then the power failed
            await asyncio.sleep(0.4)
            async with world.nodes(gateway), world.researcher(gateway) as ada:
                assert statuses(await ada.finished(world.ask(world.query()))) == RELEASED

    run(work)


def test_a_pin_by_hand_takes_effect_while_it_runs(world: World) -> None:
    """K9: whatever version the stolen key had signed."""

    async def work() -> None:
        async with world.gateway() as gateway:
            before = gateway._current().manifest.version
            world.authority = generate_signing_key()
            world.version = 0
            world.publish()
            await asyncio.sleep(0.3)
            assert gateway._current().manifest.authority_keys != (world.authority.public(),)
            save_verifying_key(world.authority.public(), world.folder / "gw" / "authority.pub")
            await asyncio.sleep(0.4)
            assert gateway._current().manifest.authority_keys == (world.authority.public(),)
            assert gateway._current().manifest.version <= before

    run(work)
