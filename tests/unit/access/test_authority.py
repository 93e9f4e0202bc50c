"""The authority's acts: register first, sign after, and nobody takes over a name by accident."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from insitu_access import authority as acts
from insitu_access.certificates import create_csr, create_tls_key, peer_identity
from insitu_access.grant import GrantedDataset, open_grant
from insitu_access.keys import load_verifying_key
from insitu_access.manifest import GatewayEntry, open_manifest
from insitu_access.payload import Malformed
from insitu_access.register import FILE_NAME, Register, ResearcherEntry, load_register, locked, save_register
from insitu_privacy.errors import AccessRefused, ConfigInvalid

from tests.unit.access.world import DAY, NOW, RESEARCHER, STRANGER, grant, node

DATASET = """
[dataset]
name = "care"
version = 3
[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    acts.init_authority(tmp_path / "authority", "demo", now=NOW)
    (tmp_path / "dataset.toml").write_text(DATASET)
    return tmp_path / "authority"


def certify(home: Path, party, **options) -> bytes:
    with acts.opened(home) as authority:
        return acts.certify(authority, party, create_csr(create_tls_key()), now=NOW, lifetime=DAY, **options)


def publish(home: Path):
    with acts.opened(home) as authority:
        return acts.publish_manifest(authority, [home.parent / "dataset.toml"], now=NOW, lifetime=30 * DAY)


def test_from_nothing_to_a_grant(home: Path) -> None:
    certify(home, node("chu-lille"))
    certify(home, GatewayEntry(id="gw", address="gw.example.org:7443", operator="Hub", jurisdiction="FR"))
    token, made = publish(home)
    pinned = load_verifying_key(home / "authority.pub")
    manifest = open_manifest(token, pinned, now=NOW, known_version=0)
    assert manifest == made
    assert manifest.node("chu-lille") == node("chu-lille")
    assert [(each.name, each.version) for each in manifest.datasets] == [("care", 3)]
    assert manifest.ca_pem == (home / "ca.pem").read_text()
    with acts.opened(home) as authority:
        sealed = acts.issue_grant(authority, grant(nodes=("chu-lille",)))
    assert open_grant(sealed, manifest, now=NOW) == grant(nodes=("chu-lille",))


def test_an_authority_is_never_overwritten(home: Path) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    with pytest.raises(ConfigInvalid, match="not overwritten"):
        acts.init_authority(home, "other", now=NOW)
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_bad_name_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        acts.init_authority(tmp_path / "authority", "no good", now=NOW)
    assert not (tmp_path / "authority").exists()


def test_versions_only_grow_and_are_never_used_twice(home: Path) -> None:
    assert [publish(home)[1].version for _ in range(3)] == [1, 2, 3]
    assert load_register(home).manifest_version == 3


def test_a_version_is_used_up_before_it_is_signed(home: Path, monkeypatch) -> None:
    def fails(*_) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(acts, "seal_manifest", fails)
    with pytest.raises(KeyboardInterrupt):
        publish(home)
    monkeypatch.undo()
    assert publish(home)[1].version == 2


def test_a_revoked_grant_stands_in_the_next_manifest(home: Path) -> None:
    certify(home, node("chu-lille"))
    publish(home)
    with acts.opened(home) as authority:
        acts.issue_grant(authority, grant(nodes=("chu-lille",)))
    assert publish(home)[1].revoked_grants == frozenset()
    for _ in range(2):  # revoking twice is revoking
        with acts.opened(home) as authority:
            acts.revoke_grant(authority, "grant-1")
    assert publish(home)[1].revoked_grants == {"grant-1"}


def test_only_issued_grants_are_revoked(home: Path) -> None:
    with pytest.raises(Malformed), acts.opened(home) as authority:
        acts.revoke_grant(authority, "grant-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": ("elsewhere",)}, {"nodes": ("chu-lille", "elsewhere")}, {"federation": "other"},
        {"datasets": (GrantedDataset(name="other"),)},
    ],
)  # fmt: skip
def test_a_grant_names_what_exists(home: Path, changes: dict) -> None:
    certify(home, node("chu-lille"))
    publish(home)
    with pytest.raises(Malformed), acts.opened(home) as authority:
        acts.issue_grant(authority, grant(**({"nodes": ("chu-lille",)} | changes)))
    assert load_register(home).grants == ()


def test_a_grant_id_is_used_once(home: Path) -> None:
    certify(home, node("chu-lille"))
    with acts.opened(home) as authority:
        acts.issue_grant(authority, grant(nodes=("chu-lille",)))
    with pytest.raises(Malformed), acts.opened(home) as authority:
        acts.issue_grant(authority, grant(nodes=("chu-lille",)))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (node("a"), node("a", STRANGER)),
        (ResearcherEntry(id="a", key=RESEARCHER.public()), ResearcherEntry(id="a", key=STRANGER.public())),
    ],
)
def test_a_name_keeps_its_key(home: Path, mine, theirs) -> None:
    certify(home, mine)
    before = load_register(home)
    with pytest.raises(Malformed, match="--replace"):
        certify(home, theirs)
    assert load_register(home) == before
    certify(home, mine)  # renewal
    assert load_register(home) == before
    certify(home, theirs, replace_key=True)
    assert theirs in load_register(home).nodes + load_register(home).researchers


def test_two_nodes_never_share_a_key(home: Path) -> None:
    certify(home, node("a"))
    with pytest.raises(AccessRefused, match="enrolled before"):
        certify(home, node("b"))
    with pytest.raises(Malformed):
        certify(home, node("A", STRANGER))
    assert [each.id for each in load_register(home).nodes] == ["a"]


def test_a_gateways_further_names_are_certified(home: Path) -> None:
    gateway = GatewayEntry(id="gw", address="[::1]:7443", operator="Hub", jurisdiction="FR")
    assert peer_identity(certify(home, gateway, also=["localhost"])) == ("gateway", "gw")


@pytest.mark.parametrize("name", ["authority.key", "ca.key"])
def test_exposed_keys_of_the_authority_are_refused(home: Path, name: str) -> None:
    (home / name).chmod(0o644)
    with pytest.raises(ConfigInvalid, match="0600"), acts.opened(home):
        pass


def test_the_register_is_read_as_strictly_as_what_is_signed(home: Path) -> None:
    path = home / FILE_NAME
    text = json.loads(path.read_text())
    for wrong in (text | {"extra": 1}, text | {"manifest_version": -1}, {"federation": "demo"}, []):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-INVALID"):
            load_register(home)


def test_two_commands_do_not_lose_each_others_change(home: Path) -> None:
    def bump() -> None:
        for _ in range(20):
            with locked(home):
                register = load_register(home)
                save_register(replace(register, manifest_version=register.manifest_version + 1), home)

    threads = [threading.Thread(target=bump) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load_register(home).manifest_version == 60


def test_lifetimes_are_as_asked(home: Path) -> None:
    assert publish(home)[1].expires_at - NOW == timedelta(days=30)
    assert Register(federation="demo").manifest_version == 0
