"""The gRPC transport against a real server over mTLS, and writing a profile through it."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

import insitu
import pytest
from insitu.connecting import write_profile
from insitu.profile import create_profile
from insitu.transport import GetManifest, GrpcTransport, receive
from insitu_access.manifest import GatewayEntry
from insitu_privacy.errors import AccessRefused, BudgetRefused, ConfigInvalid, RemoteError, Unavailable
from insitu_proto.messages import DatasetRef, Follow, ManifestUpdate

from tests.unit.client.served import serving
from tests.unit.client.world import BY_SEX, NODES, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, now=datetime.now(UTC))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_connect_writes_a_profile_that_answers(world: World) -> None:
    with serving(world) as address:
        folder = write_profile(
            world.folder / "mine", gateways=(address,), identity=world.identity, grant=world.folder / "grant.jwt"
        )
        with insitu.connect(folder) as federation:
            assert federation.query(BY_SEX, epsilon=1).rows[0][1] == 3000
            assert len(federation.budget().lines) == 3
            assert federation.catalog().federation == "demo"
    assert (folder / "profile.toml").read_text().count('federation = "demo"') == 1
    assert {path.stat().st_mode & 0o077 for path in folder.glob("*") if path.is_file()} == {0}


def test_a_profile_that_does_not_verify_is_not_left_behind(world: World) -> None:
    with serving(world) as address:
        world.publish(revoked_grants=frozenset({"grant-1"}))
        with pytest.raises(insitu.AccessRefused):
            write_profile(
                world.folder / "mine", gateways=(address,), identity=world.identity, grant=world.folder / "grant.jwt"
            )
    assert not (world.folder / "mine").exists()
    assert not list(world.folder.glob(".mine*"))


def test_connecting_again_keeps_what_is_there_until_it_verifies(world: World) -> None:
    with serving(world) as address:
        arguments = {"gateways": (address,), "identity": world.identity, "grant": world.folder / "grant.jwt"}
        folder = write_profile(world.folder / "mine", **arguments)
        before = (folder / "profile.toml").read_bytes()
        world.refuse_call = None
        with pytest.raises(insitu.ParameterRefused):
            write_profile(folder, **arguments, dataset="claims")
        assert (folder / "profile.toml").read_bytes() == before
        write_profile(folder, **arguments, dataset="care")
    assert 'dataset = "care"' in (folder / "profile.toml").read_text()


@pytest.mark.parametrize("address", ["gw", ":1", "gw:0", "gw:x", "gw:70000"])
def test_an_address_is_host_and_port(world: World, address: str) -> None:
    with pytest.raises(ConfigInvalid):
        write_profile(
            world.folder / "m", gateways=(address,), identity=world.identity, grant=world.folder / "grant.jwt"
        )


def test_the_next_address_is_tried_and_then_kept(world: World) -> None:
    profile = world.profile()
    dead = f"127.0.0.1:{_free_port()}"
    with serving(world) as address:
        transport = GrpcTransport((dead, address), profile.identity)
        for _ in range(2):
            assert receive(transport.call(GetManifest(), timeout_s=5), ManifestUpdate).manifest_jws
        transport.close()
    assert transport._addresses == [address, dead]


def test_no_gateway_is_unreachable(world: World) -> None:
    transport = GrpcTransport((f"127.0.0.1:{_free_port()}",), world.profile().identity)
    with pytest.raises(Unavailable) as caught:
        receive(transport.call(GetManifest(), timeout_s=5), ManifestUpdate)
    assert caught.value.code == "INSITU-GATEWAY-UNREACHABLE"
    transport.close()


def test_a_server_of_another_federation_is_not_spoken_to(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other", now=world.now)
    with serving(other) as address:
        transport = GrpcTransport((address,), world.profile().identity)
        with pytest.raises(Unavailable):
            receive(transport.call(GetManifest(), timeout_s=5), ManifestUpdate)
        transport.close()


def _entry(jurisdiction: str) -> tuple[GatewayEntry, ...]:
    return (GatewayEntry(id="gw", address="gw.test:8443", operator="Op", jurisdiction=jurisdiction),)


@pytest.mark.attacks("W1", "W2")
@pytest.mark.parametrize(
    ("country", "entry", "accepted"), [("US", "US", "EU"), ("FR", "US", "EU"), (None, "FR", "FR"), ("FR", "BE", "EU")]
)
def test_a_gateway_outside_the_manifest_is_asked_for_the_manifest_alone(
    world: World, country: str | None, entry: str, accepted: str
) -> None:
    world.publish(gateways=_entry(entry), jurisdictions=frozenset({accepted}))
    with (
        serving(world, country=country) as address,
        insitu.connect(_connected(world, address)) as federation,
        pytest.raises(insitu.AccessRefused) as caught,
    ):
        federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-TRUST-JURISDICTION"
    assert {type(call) for call in world.calls} == {GetManifest}


def test_of_several_gateways_one_that_is_accepted_is_asked(world: World) -> None:
    world.publish(gateways=_entry("FR"), jurisdictions=frozenset({"EU"}))
    with (
        serving(world, country="US") as abroad,
        serving(world, country="FR") as here,
        insitu.connect(_connected(world, abroad, here)) as federation,
    ):
        assert federation.query(BY_SEX, epsilon=1).verified


@pytest.mark.attacks("W1", "W5")
def test_a_gateway_with_another_certificate_is_looked_at_again(world: World) -> None:
    """W5: a channel reaches whom it was opened to; who comes after is judged anew."""
    world.publish(gateways=_entry("FR"), jurisdictions=frozenset({"EU"}))
    port = _free_port()
    with serving(world, country="FR", port=port) as address:
        federation = insitu.connect(_connected(world, address))
        assert federation.query(BY_SEX, epsilon=1).verified
    with serving(world, country="US", port=port), pytest.raises(insitu.AccessRefused) as caught:
        federation.query(BY_SEX, epsilon=0.5, timeout=10)
    assert caught.value.code == "INSITU-TRUST-JURISDICTION"
    with serving(world, country="FR", port=port):
        assert federation.query(BY_SEX, epsilon=0.25, timeout=10).verified
    federation.close()


def _connected(world: World, *addresses: str) -> Path:
    return create_profile(
        world.folder / "asking",
        federation="demo",
        gateways=addresses,
        identity=world.identity,
        grant=world.folder / "grant.jwt",
    ).folder


def test_errors_of_the_gateway_arrive_whole(world: World) -> None:
    world.refuse_call = AccessRefused("INSITU-ACCESS-GRANT-REVOKED")
    with serving(world) as address:
        transport = GrpcTransport((address,), world.profile().identity)
        with pytest.raises(RemoteError) as caught:
            list(transport.call(Follow(request_id="0" * 32), timeout_s=5))
        transport.close()
    assert caught.value.line() == world.refuse_call.line()


def test_a_dataset_arrives_as_it_was_sent(world: World) -> None:
    with serving(world) as address:
        transport = GrpcTransport((address,), world.profile().identity)
        (bundle,) = transport.call(DatasetRef(name="care", digest="x"), timeout_s=5)
        transport.close()
    assert bundle == world.bundle


def test_a_query_survives_cuts_and_refusals_over_the_wire(world: World) -> None:
    world.cuts = 2
    with serving(world) as address:
        folder = write_profile(
            world.folder / "mine", gateways=(address,), identity=world.identity, grant=world.folder / "grant.jwt"
        )
        with insitu.connect(folder) as federation:
            assert federation.query(BY_SEX, epsilon=1).verified
            world.refusing = dict.fromkeys(NODES, BudgetRefused("INSITU-BUDGET-EXCEEDED"))
            with pytest.raises(RemoteError) as caught:
                federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-BUDGET-EXCEEDED"
