"""What outlives the node's process: the newest manifest, the cap key, the lock; and the test hooks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from insitu_access.keys import generate_signing_key
from insitu_node.hooks import hook_from, no_hook
from insitu_node.state import ManifestStore, cap_key, lock_state
from insitu_privacy.errors import AccessRefused, ConfigInvalid

from tests.testkit.node_world import NodeWorld


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld(folder=tmp_path)


def code(error: pytest.ExceptionInfo[AccessRefused]) -> str:
    return error.value.code


@pytest.mark.attacks("M3")
def test_a_newer_manifest_is_kept_and_an_older_one_never_believed(world: NodeWorld, tmp_path: Path) -> None:
    store = ManifestStore(tmp_path, world.authority.public())
    with pytest.raises(AccessRefused) as caught:
        store.current(world.now)
    assert code(caught) == "INSITU-ACCESS-MANIFEST"
    old = world.manifest_jws()
    assert store.offer(old, world.now)
    assert not store.offer(old, world.now)
    world.manifest_with(version=4, revoked_grants=frozenset({"grant-1"}))
    assert store.offer(world.manifest_jws(), world.now)
    for again in (store, ManifestStore(tmp_path, world.authority.public())):
        with pytest.raises(AccessRefused) as caught:
            again.offer(old, world.now)
        assert code(caught) == "INSITU-ACCESS-MANIFEST-OLD"
        assert again.current(world.now).revoked_grants == {"grant-1"}


@pytest.mark.attacks("M1")
def test_a_manifest_of_somebody_else_is_refused(world: NodeWorld, tmp_path: Path) -> None:
    store = ManifestStore(tmp_path, generate_signing_key().public())
    with pytest.raises(AccessRefused) as caught:
        store.offer(world.manifest_jws(), world.now)
    assert code(caught) == "INSITU-ACCESS-SIGNATURE"
    assert not (tmp_path / "manifest.jws").exists()


@pytest.mark.attacks("M5", "A2")
def test_an_expired_manifest_is_not_current_but_still_a_floor(world: NodeWorld, tmp_path: Path) -> None:
    ManifestStore(tmp_path, world.authority.public()).offer(world.manifest_jws(), world.now)
    later = world.now + timedelta(days=31)
    store = ManifestStore(tmp_path, world.authority.public())
    with pytest.raises(AccessRefused):
        store.current(later)
    assert store.version == 3


def test_a_manifest_file_that_was_tampered_with(world: NodeWorld, tmp_path: Path) -> None:
    (tmp_path / "manifest.jws").write_text(world.manifest_jws()[:-3] + "AAA")
    with pytest.raises(ConfigInvalid):
        ManifestStore(tmp_path, world.authority.public())


def test_the_cap_key_is_made_once_and_private(tmp_path: Path) -> None:
    key = cap_key(tmp_path)
    assert cap_key(tmp_path) == key
    assert len(key) == 64
    assert (tmp_path / "cap.key").stat().st_mode & 0o077 == 0
    (tmp_path / "cap.key").write_text("short")
    with pytest.raises(ConfigInvalid):
        cap_key(tmp_path)


def test_one_process_a_state_directory(tmp_path: Path) -> None:
    with lock_state(tmp_path):
        with pytest.raises(ConfigInvalid) as caught:
            lock_state(tmp_path)
        assert caught.value.code == "INSITU-CONFIG-STATE"
    lock_state(tmp_path).close()


@pytest.mark.parametrize(
    "environment",
    [
        {"INSITU_TEST_CRASH_AT": "after-commit"},
        {"INSITU_TEST_CRASH_AT": "nowhere", "INSITU_ALLOW_TEST_HOOKS": "1"},
    ],
)
def test_hooks_need_leave_and_a_known_place(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigInvalid):
        hook_from(environment)


def test_without_hooks_nothing_happens() -> None:
    assert hook_from({"INSITU_ALLOW_TEST_HOOKS": "1"}) is no_hook
