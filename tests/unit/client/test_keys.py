"""The researcher's keys: under a passphrase, changed with overlap; and the authority's key, followed or pinned by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from insitu.commands.main import app
from insitu_access.cli import run
from insitu_access.enrolment import Invitation, seal_invitation
from insitu_access.files import write_private_file
from insitu_access.identity import load_identity
from insitu_access.jose import unverified_kid
from insitu_access.keys import generate_signing_key, load_signing_key, save_signing_key, save_verifying_key
from insitu_access.manifest import FormerKey, seal_manifest
from insitu_access.succession import Succession, seal_succession
from insitu_privacy.errors import AccessRefused, IntegrityFailed

from tests.unit.client.world import BY_SEX, World

DAY = timedelta(days=1)
Run = Callable[..., tuple[int, str, str]]
GOOD = b"correct horse battery"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, now=datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def insitu(world: World, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    monkeypatch.setattr("insitu.client.GrpcTransport", lambda addresses, identity: world)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE", raising=False)
    monkeypatch.setenv("INSITU_PROFILE", str(world.profile().folder))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["insitu", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            run(app, "insitu")
        out, err = capsysbinary.readouterr()
        return int(exit_.value.code or 0), out.decode(), err.decode()

    return call


def secret(folder: Path, text: bytes = GOOD) -> Path:
    path = folder / f"pass-{text[:3].decode()}"
    if not path.exists():
        write_private_file(path, text)
    return path


# -- under a passphrase --------------------------------------------------------------------------------------------


@pytest.mark.attacks("K2")
def test_a_new_key_is_under_a_passphrase(insitu: Run, tmp_path: Path) -> None:
    code, out, err = insitu("key", "new", tmp_path / "me")
    assert (code, out) == (2, "")
    assert err.startswith("INSITU-CONFIG-USAGE")
    ways = "Pass --passphrase-file FILE, set INSITU_PASSPHRASE_FILE, or spell out --no-passphrase."
    assert err == f"INSITU-CONFIG-USAGE: a new key needs a passphrase, and there is no terminal to type one. {ways}\n"
    assert not (tmp_path / "me").exists()
    code, out, _ = insitu("key", "new", tmp_path / "me", "--passphrase-file", secret(tmp_path), "--format", "json")
    assert code == 0
    made = json.loads(out)
    assert made["passphrase"] is True
    assert made["send"] == [str(tmp_path / "me" / "signing.pub"), str(tmp_path / "me" / "tls.csr")]
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in (tmp_path / "me").glob("*.key"))
    assert insitu("key", "new", tmp_path / "me", "--no-passphrase")[0] == 2  # never overwritten
    assert insitu("key", "new", tmp_path / "plain", "--no-passphrase")[0] == 0
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "plain").glob("*.key")} == {0o600}


def test_a_locked_profile_asks_and_answers(insitu: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world.folder / "profile"
    assert insitu("key", "change-passphrase", "--passphrase-file", secret(world.folder))[0] == 0
    assert json.loads(insitu("key", "show", "--format", "json")[1])["passphrase"] is True  # and asks for none
    code, out, err = insitu("query", BY_SEX, "--epsilon", "1")
    assert (code, out) == (2, "")
    assert err.startswith("INSITU-KEY-LOCKED")
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(secret(world.folder)))
    assert insitu("query", BY_SEX, "--epsilon", "1")[0] == 0
    new = secret(world.folder, b"another passphrase")
    assert insitu("key", "change-passphrase", "--passphrase-file", new)[0] == 0
    from insitu.profile import _ask

    _ask.cache_clear()  # as a new process
    assert insitu("query", BY_SEX, "--epsilon", "1")[2].startswith("INSITU-KEY-PASSPHRASE")
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(new))
    _ask.cache_clear()
    assert insitu("query", BY_SEX, "--epsilon", "1")[0] == 0
    assert insitu("key", "change-passphrase", "--no-passphrase")[0] == 0
    assert load_identity(folder).signing.public() == world.researcher
    assert insitu("key", "change-passphrase", "--keys", world.folder / "nothing", "--no-passphrase")[0] == 2


@pytest.mark.attacks("K2")
def test_keys_in_place_of_lost_ones_are_under_a_new_passphrase(
    insitu: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never plain because the lost ones are gone, never under the passphrase that was stolen with them."""
    authority, place = generate_signing_key(), tmp_path / "me"
    invitation = Invitation(
        federation="demo", role="researcher", id="alice", voucher=generate_signing_key(), authority=authority.public(),
        address=None, gateways=(), datasets=(), expires_at=datetime.now(UTC).replace(microsecond=0) + DAY,
    )  # fmt: skip
    write_private_file(tmp_path / "token", seal_invitation(invitation, authority).encode())
    rotate = ("key", "rotate", "--keys", place, "--token", tmp_path / "token", "--fingerprint", authority.thumbprint)
    place.mkdir()
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(secret(tmp_path, b"the stolen passphrase")))
    code, _, err = insitu(*rotate)
    assert (code, err.startswith("INSITU-CONFIG-USAGE: a new key needs a passphrase")) == (2, True)
    assert not (place / "next").exists()
    assert insitu(*rotate, "--passphrase-file", secret(tmp_path))[0] == 0
    assert load_signing_key(place / "next" / "signing.key", lambda _: GOOD)
    assert insitu("key", "rotate", "--keys", place, "--no-passphrase")[0] == 2


# -- overlap -------------------------------------------------------------------------------------------------------


def test_a_grant_of_the_former_key_is_signed_for_with_it(world: World) -> None:
    """K7."""
    profile = world.profile()
    (profile.folder / "former").mkdir()
    (profile.folder / "signing.key").rename(profile.folder / "former" / "signing.key")
    new = generate_signing_key()
    save_signing_key(new, profile.folder / "signing.key")
    save_verifying_key(new.public(), profile.folder / "signing.pub")
    identity = load_identity(profile.folder)
    assert identity.former is not None
    for grant, key in (
        ((world.researcher,), identity.former), ((new.public(), world.researcher), new), ((new.public(),), new)
    ):  # fmt: skip
        world.grant = replace(world.grant, researchers=grant)
        world.seal()
        (profile.folder / "grant.jwt").write_text(world.grant_token)
        from insitu.client import Federation
        from insitu.profile import read_profile

        with Federation(read_profile(profile.folder), world, clock=lambda: world.now) as federation:
            assert federation.query(BY_SEX, epsilon=1).rows
        assert unverified_kid(next(reversed(world.requests.values()))[0]) == key.thumbprint


@pytest.mark.attacks("K10", "G8")
def test_a_revoked_key_is_refused_before_anything_is_sent(world: World) -> None:
    """K10."""
    world.publish(revoked_keys=frozenset({world.researcher.thumbprint}))
    with world.federation() as federation, pytest.raises(AccessRefused) as caught:
        federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-ACCESS-WRONG-KEY"
    assert world.requests == {}


def test_a_node_that_has_changed_its_key_is_no_forger(world: World) -> None:
    """Its new key is in a manifest that this process has not fetched yet."""
    node, *others = world.nodes
    with world.federation() as federation:
        federation.query(BY_SEX, epsilon=1)
        before, world.keys[node] = world.keys[node], generate_signing_key()
        with pytest.raises(IntegrityFailed):  # no manifest knows that key
            federation.query(BY_SEX, epsilon="0.5")
        entries = {each.id: each for each in world.manifest.nodes}
        former = (FormerKey(key=before.public(), until=world.now + DAY),)
        entries[node] = replace(entries[node], key=world.keys[node].public(), former=former)
        world.publish(nodes=tuple(entries.values()))
        result = federation.query(BY_SEX, epsilon="0.25")
        assert {each.status for each in result.nodes} == {"released"}
        # and the evidence says by which manifest
        from insitu.evidence import verify_document

        document = json.loads(json.dumps(result.to_json()))
        verify_document(document, world.authority.public())
    assert others


@pytest.mark.attacks("K7", "V2")
def test_a_former_key_answers_no_later_request(world: World) -> None:
    node = world.nodes[0]
    entries = {each.id: each for each in world.manifest.nodes}
    for until, holds in ((world.now + DAY, True), (world.now, False)):
        former = (FormerKey(key=world.keys[node].public(), until=until),)
        entries[node] = replace(entries[node], key=generate_signing_key().public(), former=former)
        world.publish(nodes=tuple(entries.values()))
        with world.federation() as federation:
            if holds:
                assert federation.query(BY_SEX, epsilon=1).rows
            else:
                with pytest.raises(IntegrityFailed):
                    federation.query(BY_SEX, epsilon=1)


# -- the authority's key -------------------------------------------------------------------------------------------


def hand_over(world: World) -> None:
    former, grant, world.authority = world.authority, world.grant_token, generate_signing_key()
    step = Succession(
        federation="demo", former=former.public(), key=world.authority.public(), issued_at=world.now - DAY
    )
    world.publish(authority_keys=(world.authority.public(), former.public()))
    world.grant_token = grant  # signed by the former key, which still counts for that
    world.manifest_token = f"{seal_succession(step, former, world.authority)}\n{world.manifest_token}"


def test_a_succession_is_followed_and_kept(insitu: Run, world: World) -> None:
    """K8."""
    folder, pinned = world.folder / "profile", world.authority
    assert insitu("query", BY_SEX, "--epsilon", "1", "-o", world.folder / "before.json")[0] == 0
    hand_over(world)
    assert insitu("query", BY_SEX, "--epsilon", "1", "-o", world.folder / "after.json")[0] == 0
    shown = json.loads(insitu("key", "show", "--format", "json")[1])
    assert shown["pinned_authority_key"] == pinned.thumbprint
    assert shown["authority_key"] == world.authority.thumbprint
    world.manifest_token = seal_manifest(world.manifest, world.authority)  # the way is no longer published
    assert insitu("query", BY_SEX, "--epsilon", "1")[0] == 0
    world.manifest_token = seal_manifest(replace(world.manifest, version=99), pinned)  # the key that was left behind
    assert insitu("query", BY_SEX, "--epsilon", "1")[2].startswith("INSITU-ACCESS-SIGNATURE")
    for name in ("before", "after"):
        assert insitu("verify", world.folder / f"{name}.json", "--profile", folder)[0] == 0


@pytest.mark.attacks("K8")
@pytest.mark.parametrize("place", ["of the profile", "over the profile"])
def test_a_profile_made_of_another_is_not_led_by_a_key_that_was_left_behind(
    insitu: Run, world: World, place: str
) -> None:
    """The former key is stolen long after it handed over, and hands over again, to the thief."""
    folder, former = world.folder / "profile", world.authority
    hand_over(world)
    assert insitu("query", BY_SEX, "--epsilon", "1")[0] == 0
    thief = generate_signing_key()
    step = Succession(federation="demo", former=former.public(), key=thief.public(), issued_at=world.now)
    forged = f"{seal_succession(step, former, thief)}\n{seal_manifest(replace(world.manifest, version=99), thief)}"
    from insitu.profile import create_profile, pin_of

    over = place == "over the profile"
    made = create_profile(
        world.folder / "new",
        federation="demo",
        gateways=("gw.test:8443",),
        identity=world.identity if over else folder,
        grant=folder / "grant.jwt",
        before=folder if over else None,
    )
    assert pin_of(made).key == world.authority.public()
    world.manifest_token = forged
    code, _, err = insitu("query", BY_SEX, "--epsilon", "1", "--profile", made.folder)
    assert (code, err.split(":")[0]) == (2, "INSITU-ACCESS-SIGNATURE")


@pytest.mark.attacks("K9")
def test_after_a_theft_the_new_key_is_pinned_by_hand(insitu: Run, world: World) -> None:
    """K9."""
    pinned = world.authority
    assert insitu("query", BY_SEX, "--epsilon", "1")[0] == 0
    world.authority = generate_signing_key()
    world.manifest = replace(world.manifest, version=1)  # the thief may have used up every version
    world.publish(authority_keys=(world.authority.public(),))
    assert insitu("query", BY_SEX, "--epsilon", "1")[2].startswith("INSITU-ACCESS-SIGNATURE")
    new = world.folder / "new.pub"
    save_verifying_key(world.authority.public(), new)
    assert insitu("trust", new)[2].startswith("INSITU-CONFIG-USAGE")  # nobody has compared it
    assert insitu("trust", new, "--fingerprint", pinned.thumbprint)[2].startswith("INSITU-KEY-FINGERPRINT")
    assert insitu("trust", new, "--fingerprint", world.authority.thumbprint)[0] == 0
    (world.folder / "profile" / "grant.jwt").write_text(world.grant_token)
    assert insitu("query", BY_SEX, "--epsilon", "1")[0] == 0


def test_the_cas_of_a_new_manifest_are_believed(world: World) -> None:
    """K11."""
    with world.federation() as federation:
        federation.query(BY_SEX, epsilon=1)
        assert world.believed == world.manifest.ca_pem.encode()
        world.publish(ca_pem=world.manifest.ca_pem * 2)
        federation.refresh()
        assert world.believed == world.manifest.ca_pem.encode()
