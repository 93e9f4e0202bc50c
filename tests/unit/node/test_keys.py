"""The node's own keys and its pin: which key signs, which authority is believed, and the file it starts from."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from insitu_access.enrolment import Invitation
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import FormerKey, seal_manifest
from insitu_access.succession import Succession, seal_succession
from insitu_gateway.config import load_config as load_gateway
from insitu_gateway.starter import write_starter as write_gateway
from insitu_node.admission import admit
from insitu_node.config import load_config
from insitu_node.starter import write_starter
from insitu_node.state import ManifestStore
from insitu_privacy.errors import AccessRefused, ConfigInvalid

from tests.testkit.node_world import NOW, NodeWorld

DAY = timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld(folder=tmp_path)


@pytest.mark.attacks("A2", "K7")
def test_a_former_key_counts_until_its_day(world: NodeWorld) -> None:
    """K7, A2."""
    (entry,) = world.manifest.nodes
    new, site = generate_signing_key(), world.site
    request, grant = world.sealed(world.query()), world.grant_jwt()
    for until, holds in ((world.now + DAY, True), (world.now, False)):
        former = (FormerKey(key=entry.key, until=until),)
        manifest = replace(world.manifest, nodes=(replace(entry, key=new.public(), former=former),))
        if holds:
            assert admit(request, grant, site=site, manifest=manifest, now=world.now)
        else:
            with pytest.raises(AccessRefused) as caught:
                admit(request, grant, site=site, manifest=manifest, now=world.now)
            assert caught.value.code == "INSITU-ACCESS-MANIFEST"


@pytest.mark.attacks("K8")
def test_a_succession_is_followed_across_restarts(world: NodeWorld, tmp_path: Path) -> None:
    """K8."""
    old, new = world.authority, generate_signing_key()
    store = ManifestStore(tmp_path, old.public())
    assert store.offer(world.manifest_jws(), world.now)
    step = Succession(federation="demo", former=old.public(), key=new.public(), issued_at=world.now)
    world.manifest_with(version=world.manifest.version + 1)
    text = f"{seal_succession(step, old, new)}\n{seal_manifest(world.manifest, new)}"
    assert store.offer(text, world.now)
    assert store.authority == new.public()
    (tmp_path / "manifest.jws").write_text(text.split("\n")[1])  # as if it had come without the way
    for again in (store, ManifestStore(tmp_path, old.public())):
        assert (again.authority, again.version) == (new.public(), world.manifest.version)
        with pytest.raises(AccessRefused):  # the key that was left behind
            again.offer(seal_manifest(replace(world.manifest, version=99), old), world.now)


def test_a_crash_between_succession_and_manifest_stops_nobody(world: NodeWorld, tmp_path: Path) -> None:
    old, new = world.authority, generate_signing_key()
    ManifestStore(tmp_path, old.public()).offer(world.manifest_jws(), world.now)
    step = Succession(federation="demo", former=old.public(), key=new.public(), issued_at=world.now)
    (tmp_path / "successions.jws").write_text(seal_succession(step, old, new) + "\n")
    store = ManifestStore(tmp_path, old.public())
    assert (store.authority, store.version) == (new.public(), world.manifest.version)


@pytest.mark.attacks("K9")
def test_a_pin_by_hand_starts_again(world: NodeWorld, tmp_path: Path) -> None:
    """K9: what the stolen key signed, with whatever version, is no floor for the new one."""
    stolen, new = world.authority, generate_signing_key()
    store = ManifestStore(tmp_path, stolen.public())
    store.offer(seal_manifest(replace(world.manifest, version=2**40), stolen), world.now)
    (tmp_path / "manifest.jws").unlink()  # as `trust` does
    store.repin(new.public())
    assert (store.authority, store.version, store.latest) == (new.public(), 0, None)
    assert store.offer(seal_manifest(world.manifest, new), world.now)
    with pytest.raises(AccessRefused):
        store.offer(seal_manifest(replace(world.manifest, version=2**41), stolen), world.now)


def invitation(role: str, **changes: object) -> Invitation:
    values = {
        "federation": "demo", "role": role, "id": "chu-lille", "voucher": generate_signing_key(),
        "authority": generate_signing_key().public(), "address": "gw.example.org:7443" if role == "gateway" else None,
        "gateways": ("gw.example.org:7443",), "datasets": ("care", "claims"),
        "expires_at": NOW,
    }  # fmt: skip
    return Invitation(**(values | changes))


@pytest.mark.parametrize("changes", [{}, {"gateways": (), "datasets": ()}])
def test_the_starting_files_can_be_read(tmp_path: Path, changes: dict[str, object]) -> None:
    config = load_config(write_starter(tmp_path, invitation("node", **changes)))
    assert (config.node_id, config.identity) == ("chu-lille", tmp_path / "identity")
    assert sorted(config.datasets) == (["example"] if changes else ["care", "claims"])
    gateway = load_gateway(write_gateway(tmp_path, invitation("gateway", **changes)))
    assert (gateway.id, gateway.listen) == ("chu-lille", "0.0.0.0:7443")
    for write in (write_starter, write_gateway):
        with pytest.raises(ConfigInvalid, match="not overwritten"):
            write(tmp_path, invitation("node"))
