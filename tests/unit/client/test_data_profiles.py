"""Profiles in the SDK: verified, kept, added up; a gateway that forges, swaps, replays or withholds them gains nothing."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import insitu
import pytest
from insitu import aio, data_profiles
from insitu.client import Federation
from insitu.connecting import write_profile
from insitu.profile import read_profile
from insitu.standing import MANIFEST_AGE
from insitu_access import payload
from insitu_access.jose import sign, unverified
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import DatasetEntry, FormerKey
from insitu_privacy.data_profile import DataProfile
from insitu_privacy.errors import AccessRefused, ExecutionFailed, ParameterRefused, Unavailable
from insitu_proto.messages import MAX_TOKEN_CHARS, Ask, GetProfiles

from tests.testkit.profiles import made, sealed
from tests.unit.client.served import serving
from tests.unit.client.world import BUNDLE, BY_SEX, NODES, NOW, World

DIGEST = BUNDLE.digest()
LILLE, RENNES, BREST = NODES


def profile(world: World, node: str, serial: int = 1, digest: str = DIGEST, *, by: str | None = None) -> str:
    return sealed(node, world.keys[by or node], digest, serial=serial)


def serials(federation: Federation) -> dict[str, int]:
    return {node: one.serial for node, one in federation.profiles().items()}


def again(world: World) -> Federation:
    """Another process with the same profile folder."""
    return Federation(read_profile(world.folder / "profile"), world, clock=lambda: world.now)


def fetches(world: World) -> int:
    return sum(isinstance(call, GetProfiles) for call in world.calls)


def total(federation: Federation, nodes: tuple[str, ...]) -> DataProfile | None:
    return federation._data_profile(federation._trust().manifest.datasets[0], nodes)


# ------------------------------------------------------------------------------------------------------ what is there


def test_profiles_are_those_of_the_nodes_and_spend_nothing(world: World) -> None:
    with world.federation() as federation:
        assert federation.profiles() == {}
    world.profiles = [profile(world, BREST, 3), profile(world, LILLE, 2)]
    with world.federation() as federation:
        assert federation.profiles("care") == {
            LILLE: made(LILLE, DIGEST, serial=2),
            BREST: made(BREST, DIGEST, serial=3),
        }
        assert list(federation.profiles()) == [LILLE, BREST]  # in the order of the grant
        with pytest.raises(ParameterRefused, match="INSITU-PARAM-DATASET"):
            federation.profiles("claims")
    assert not any(isinstance(call, Ask) for call in world.calls)


def test_only_nodes_of_the_grant_are_shown(world: World) -> None:
    world.grant = replace(world.grant, nodes=(LILLE, RENNES))
    world.seal()
    world.profiles = [profile(world, node) for node in NODES]
    with world.federation() as federation:
        assert list(federation.profiles()) == [LILLE, RENNES]


def test_the_sum_is_of_all_the_nodes_asked_or_there_is_none(world: World) -> None:
    world.profiles = [profile(world, LILLE), profile(world, RENNES)]
    with world.federation() as federation:
        assert total(federation, NODES) is None
        both = total(federation, (LILLE, RENNES))
        assert both is not None
        assert both.histograms[0].counts == (21.0, 23.0, 10.5)
        assert both.histograms[0].deviation == pytest.approx(2.5 * 2**0.5)
        assert total(federation, (LILLE, RENNES)) is both
        one = total(federation, (LILLE,))
        assert one is not None
        assert one.histograms[0].deviation == 2.5


def test_profiles_are_fetched_once_for_each_manifest(world: World) -> None:
    world.profiles = [profile(world, LILLE, 1)]
    with world.federation() as federation:
        for _ in range(3):
            assert serials(federation) == {LILLE: 1}
            assert total(federation, (LILLE,)) is not None
        assert fetches(world) == 1
        world.profiles = [profile(world, LILLE, 2), profile(world, RENNES, 1)]
        world.now += MANIFEST_AGE + timedelta(seconds=1)
        assert serials(federation) == {LILLE: 2, RENNES: 1}
        assert total(federation, (LILLE, RENNES)) is not None
        assert fetches(world) == 2


def test_they_are_kept_for_the_next_process_and_for_the_owner_alone(world: World) -> None:
    world.profiles = [profile(world, LILLE, 2)]
    with world.federation() as federation:
        federation.profiles()
    (kept,) = (world.folder / "profile" / "profiles").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    world.profiles = []
    with again(world) as federation:
        assert serials(federation) == {LILLE: 2}


def test_a_folder_that_cannot_be_written_does_without(world: World) -> None:
    world.profiles = [profile(world, LILLE, 2)]
    federation = world.federation()
    (world.folder / "profile" / "profiles").write_text("in the way")
    with federation:
        assert serials(federation) == {LILLE: 2}
        world.profiles = []
        federation.refresh()
        assert serials(federation) == {LILLE: 2}


def test_a_new_dataset_version_has_profiles_of_its_own(world: World) -> None:
    world.profiles = [profile(world, LILLE, 5)]
    with world.federation() as federation:
        assert serials(federation) == {LILLE: 5}
        world.publish(datasets=(DatasetEntry(name="care", version=2, digest="0" * 64),))
        world.profiles = [profile(world, LILLE, 1, "0" * 64)]
        federation.refresh()
        assert serials(federation) == {LILLE: 1}


def test_the_async_twin_has_them_too(world: World) -> None:
    async def work() -> None:
        world.profiles = [profile(world, LILLE, 2)]
        async with aio.Federation(world.federation()) as federation:
            assert list(await federation.profiles()) == [LILLE]

    asyncio.run(work())


# ------------------------------------------------------------------------------------------- a gateway that is hostile


def changed(world: World, **changes: Any) -> str:
    """Signed by the node, and of another form."""
    body = json.loads(unverified(profile(world, LILLE), "insitu-profile+jws", "profile"))
    return sign(payload.write({**body, **changes}), world.keys[LILLE], "insitu-profile+jws")


def altered(world: World) -> str:
    header, _, signature = profile(world, LILLE).split(".")
    return ".".join((header, profile(world, LILLE, 9).split(".")[1], signature))


def nested(world: World) -> str:
    return sign(b'{"histograms":' + b"[" * 30_000 + b"]" * 30_000 + b"}", world.keys[LILLE], "insitu-profile+jws")


FALSE: dict[str, Callable[[World], str]] = {
    "its own": lambda world: sealed(LILLE, generate_signing_key(), DIGEST, serial=9),
    "altered": altered,
    "another node's": lambda world: profile(world, LILLE, 9, by=RENNES),
    "in another's name": lambda world: profile(world, RENNES, 9, by=LILLE),
    "of another dataset version": lambda world: profile(world, LILLE, 9, "0" * 64),
    "of another dataset": lambda world: sealed(LILLE, world.keys[LILLE], DIGEST, dataset="claims", serial=9),
    "another kind of token": lambda world: world.grant_token,
    "too large": lambda world: "x" * MAX_TOKEN_CHARS,
    "no token": lambda world: "é.é.é",
    "nested": nested,
    "numbers that are too large": lambda world: changed(world, serial=10**30),
    "no histograms": lambda world: changed(world, histograms="none"),
    "more than there is": lambda world: changed(world, more=1),
}


@pytest.mark.attacks("H1", "H2", "H3", "H4", "H5", "B2")
@pytest.mark.parametrize("name", FALSE)
@pytest.mark.parametrize("place", ["served", "kept"])
def test_a_false_profile_is_no_profile(world: World, name: str, place: str) -> None:
    """Wherever it comes from, and whatever true ones stand beside it."""
    false, true = FALSE[name](world), profile(world, BREST, 2)
    world.profiles = [false, true] if place == "served" else [true]
    federation = world.federation()
    if place == "kept":
        (world.folder / "profile" / "profiles").mkdir()
        (world.folder / "profile" / "profiles" / f"{DIGEST}.jws").write_text(f"{false}\n")
    with federation:
        assert serials(federation) == {BREST: 2}
        assert total(federation, (LILLE, BREST)) is None
        assert federation.query(BY_SEX, epsilon=1).verified


@pytest.mark.attacks("H6")
def test_an_older_profile_never_takes_the_place_of_a_newer_one(world: World) -> None:
    old = profile(world, LILLE, 3)
    world.profiles = [profile(world, LILLE, 4)]
    with world.federation() as federation:
        assert serials(federation) == {LILLE: 4}
        world.profiles = [old]
        federation.refresh()
        assert serials(federation) == {LILLE: 4}
    with again(world) as federation:
        assert serials(federation) == {LILLE: 4}
    folder, grant = world.folder / "profile", world.folder / "grant.jwt"  # nor where the folder is written anew
    write_profile(folder, gateways=("gw.test:8443",), identity=world.identity, grant=grant, dial=lambda _: world)
    with again(world) as federation:
        assert serials(federation) == {LILLE: 4}


@pytest.mark.attacks("H6")
def test_profiles_that_are_withheld_are_those_kept_before(world: World) -> None:
    world.profiles = [profile(world, node) for node in NODES]
    with world.federation() as federation:
        before = total(federation, NODES)
        assert before is not None
        for error in (
            Unavailable("INSITU-GATEWAY-UNREACHABLE", address="gw"),
            Unavailable("INSITU-GATEWAY-FAILED", reason="gRPC status UNIMPLEMENTED"),
            AccessRefused("INSITU-ACCESS-DATASET", name="care"),
            ExecutionFailed("INSITU-NODE-FAILED"),
        ):
            world.refuse_profiles = error
            federation.refresh()
            assert total(federation, NODES) == before
            assert federation.query(BY_SEX, epsilon=1).verified
        world.profiles, world.refuse_profiles = [], None
        federation.refresh()
        assert total(federation, NODES) == before
    assert fetches(world) >= 6


def test_where_there_never_was_a_profile_its_absence_fails_nothing(world: World) -> None:
    world.refuse_profiles = Unavailable("INSITU-GATEWAY-FAILED", reason="gRPC status UNIMPLEMENTED")
    with world.federation() as federation:
        assert total(federation, NODES) is None
        assert federation.catalog().datasets[0].profiles == {}
        assert total(federation, NODES) is None
        assert fetches(world) == 2  # one for each manifest, however it ended


@pytest.mark.attacks("B3")
def test_of_a_thousand_old_profiles_one_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.profiles = [profile(world, LILLE, serial) for serial in range(200)]
    opened = []
    true = data_profiles._opened
    monkeypatch.setattr(data_profiles, "_opened", lambda *args: opened.append(args) or true(*args))
    with world.federation() as federation:
        federation.profiles()
        federation.refresh()
        federation.profiles()
    assert fetches(world) == 2
    assert len(opened) == 1


# -------------------------------------------------------------------------------------------------- keys that change


@pytest.mark.attacks("H2", "K7")
def test_a_former_key_counts_until_its_date_and_a_lost_one_not_at_all(world: World) -> None:
    entry, key = world.manifest.nodes[0], generate_signing_key()
    lost = world.manifest.nodes[1]
    old = profile(world, LILLE, 7)
    world.profiles = [old, profile(world, RENNES, 7)]
    with world.federation() as federation:
        assert serials(federation) == {LILLE: 7, RENNES: 7}
        former = FormerKey(key=entry.key, until=NOW + timedelta(days=1))
        renewed = replace(entry, key=key.public(), former=(former,))
        replaced = replace(lost, key=generate_signing_key().public())
        world.publish(nodes=(renewed, replaced, world.manifest.nodes[2]))
        federation.refresh()
        assert serials(federation) == {LILLE: 7}  # nor does a thief's serial bar the way of what comes after
        world.now = NOW + timedelta(days=2)
        federation.refresh()
        assert serials(federation) == {}
        world.profiles = [old, sealed(LILLE, key, DIGEST, serial=7)]  # the same one, signed again
        federation.refresh()
        assert serials(federation) == {LILLE: 7}
        world.profiles = [sealed(LILLE, key, DIGEST, serial=8), old]
        federation.refresh()
        assert serials(federation) == {LILLE: 8}


# ------------------------------------------------------------------------------------------------- catalog, transport


def test_the_catalog_says_which_nodes_have_a_profile(world: World) -> None:
    world.profiles = [profile(world, LILLE, 2), profile(world, BREST, 1)]
    with world.federation() as federation:
        catalog = federation.catalog()
        (dataset,) = catalog.to_json()["datasets"]
        assert dataset["profiles"][0] == {
            "node": LILLE,
            "serial": 2,
            "issued_at": "2026-11-02T09:30:00+00:00",
            "epsilon": 0.5,
        }
        text = " ".join(str(catalog).split())
        assert f"profiles of {LILLE} (number 2, 2026-11-02, ε 0.5), {BREST} (number 1" in text
        assert f"; no profile of {RENNES}" in text
        world.profiles = [profile(world, RENNES, 1)]
        text = " ".join(str(federation.catalog()).split())
        assert "no profile" not in text


def test_over_grpc(tmp_path: Path) -> None:
    world = World(tmp_path, now=datetime.now(UTC))
    world.profiles = [profile(world, node) for node in NODES]
    with serving(world) as address:
        folder = write_profile(
            tmp_path / "mine", gateways=(address,), identity=world.identity, grant=tmp_path / "grant.jwt"
        )
        with insitu.connect(folder) as federation:
            assert serials(federation) == dict.fromkeys(NODES, 1)
            world.profiles = ["x" * (MAX_TOKEN_CHARS + 1)]
            federation.refresh()
            assert serials(federation) == dict.fromkeys(NODES, 1)
            world.profiles, world.refuse_profiles = [], Unavailable("INSITU-GATEWAY-UNREACHABLE", address="gw")
            federation.refresh()
            assert serials(federation) == dict.fromkeys(NODES, 1)
