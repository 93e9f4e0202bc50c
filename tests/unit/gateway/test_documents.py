"""The manifest file and the datasets: only what verifies and is listed is served."""

from __future__ import annotations

from datetime import timedelta

import pytest
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import seal_manifest
from insitu_access.pin import Pin
from insitu_gateway.documents import Datasets, ManifestFile
from insitu_privacy.errors import AccessRefused, ConfigInvalid

from tests.unit.gateway.world import BUNDLE, World, now


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def opened(world: World) -> ManifestFile:
    return ManifestFile(world.folder / "manifest.jws", Pin(world.folder, world.authority.public()), now())


def test_a_newer_manifest_is_taken_and_an_unchanged_file_is_not_read(world: World) -> None:
    manifest = opened(world)
    assert not manifest.refresh(now())
    world.publish()
    assert manifest.refresh(now())
    assert manifest.current.jws == world.manifest_jws
    assert manifest.current.manifest.version == world.version


@pytest.mark.parametrize("wrong", ["nothing", "forged", "old", "expired", "bytes", "empty"])
def test_what_does_not_verify_leaves_the_one_before(world: World, wrong: str) -> None:
    old = world.manifest_jws
    world.publish()
    manifest = opened(world)
    before = manifest.current
    path = world.folder / "manifest.jws"
    contents = {
        "forged": seal_manifest(world.manifest, generate_signing_key()).encode(),
        "old": old.encode(),
        "bytes": b"\xff\x00" * 100,
        "empty": b"",
    }
    if wrong == "nothing":
        path.unlink()
    elif wrong == "expired":
        world.publish(expires_at=now() - timedelta(seconds=1))
    else:
        path.write_bytes(contents[wrong])
    with pytest.raises((AccessRefused, ConfigInvalid)):
        manifest.refresh(now())
    assert manifest.current is before
    assert not manifest.refresh(now())  # reported once
    world.publish()
    assert manifest.refresh(now())


def test_datasets_are_served_by_the_digest_that_the_manifest_lists(world: World) -> None:
    datasets = Datasets([world.folder / "care/dataset.toml"])
    digest = BUNDLE.digest()
    assert datasets.bundle("care", digest, world.manifest) == BUNDLE
    assert [dataset.name for dataset in datasets.all()] == ["care"]
    assert datasets.dataset("0" * 64) is None
    for name, wanted in (("care", "0" * 64), ("other", digest)):
        with pytest.raises(AccessRefused, match="INSITU-ACCESS-DATASET"):
            datasets.bundle(name, wanted, world.manifest)
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-DATASET"):  # listed, and not here
        Datasets([]).bundle("care", digest, world.manifest)
