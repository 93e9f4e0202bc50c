"""Enrolment and the change of keys: what the authority grants, and what a thief of the mail cannot have (K1 to K11)."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from insitu_access import ceremonies, payload
from insitu_access.authority import certify, init_authority, issue_grant, opened, publish_manifest
from insitu_access.certificates import create_csr, create_tls_key, is_issued_by, serial_of
from insitu_access.drills import KEYS, Scene, drill
from insitu_access.enrolment import (
    Enrolment,
    open_answer,
    open_enrolment,
    peek_authority,
    peek_enrolment,
    seal_answer,
    seal_enrolment,
    seal_invitation,
    voucher_of,
)
from insitu_access.files import write_file
from insitu_access.grant import peek_grant, read_grant, seal_grant
from insitu_access.identity import create_keys, load_identity
from insitu_access.jose import sign, unverified
from insitu_access.keyring import Invited, _as_json
from insitu_access.keys import generate_signing_key, load_signing_key, load_verifying_key
from insitu_access.manifest import GatewayEntry, NodeEntry, open_manifest
from insitu_access.payload import Malformed, write
from insitu_access.pin import Pin
from insitu_access.register import ResearcherEntry
from insitu_access.site import change_keys, enrol_here, install, read_invitation, repin
from insitu_access.watched import WatchedIdentity
from insitu_privacy.errors import AccessRefused, ConfigInvalid

from tests.unit.access.world import DAY, NOW, STRANGER, grant, payload_of

YEAR = 365 * DAY
ASK = lambda _: b"correct horse battery"  # noqa: E731


class Town:
    """An authority, and parties on their own sites."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = NOW
        init_authority(root / "authority", "demo", now=NOW)

    @contextmanager
    def office(self):
        with opened(self.root / "authority", ASK) as authority:
            yield authority

    @property
    def pinned(self):
        return load_verifying_key(self.root / "authority" / "authority.pub")

    def invite(self, role: str, party: str, **changes) -> Path:
        voucher = generate_signing_key()
        values = {
            "key": voucher.public(), "role": role, "id": party, "organisation": "CHU", "operator": "Hub",
            "jurisdiction": "FR", "address": "gw.example.org:7443", "also": (), "expires_at": self.now + 14 * DAY,
        }  # fmt: skip
        with self.office() as authority:
            token = ceremonies.invite(authority, Invited(**(values | changes)), voucher)
        path = self.root / f"{party}-{voucher.thumbprint}.invitation"
        path.touch(0o600)
        path.write_text(token)
        return path

    def read(self, path: Path):
        return read_invitation(path, self.pinned.thumbprint, now=self.now)

    def enrol(self, token: str, overlap: timedelta = 30 * DAY) -> str:
        with self.office() as authority:
            return ceremonies.enrol(authority, token, now=self.now, lifetime=YEAR, overlap=overlap)[0]

    def settle(self, role: str, party: str, passphrase: bytes | None = None) -> Path:
        """A party that has enrolled, and its directory."""
        place = self.root / party
        requested = enrol_here(place, self.read(self.invite(role, party)), now=self.now, passphrase=passphrase)
        install(place, self.enrol(requested.path.read_text().strip()), self.pinned, ASK, now=NOW)
        return place

    def manifest_text(self) -> str:
        with self.office() as authority:
            return publish_manifest(authority, None, now=self.now, lifetime=30 * DAY)[0]

    def manifest(self):
        with self.office() as authority:
            text, made = publish_manifest(authority, None, now=self.now, lifetime=30 * DAY)
        assert open_manifest(text, self.pinned, now=self.now, known_version=0) == made
        return made


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def refused(act, *arguments, code: str = "INSITU-KEY-ENROLMENT", match: str | None = None) -> None:
    with pytest.raises(AccessRefused, match=match) as caught:
        act(*arguments)
    assert caught.value.code == code


# -- enrolment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["node", "gateway", "researcher"])
@pytest.mark.parametrize("passphrase", [None, b"correct horse battery"])
def test_a_party_enrols(town: Town, role: str, passphrase: bytes | None) -> None:
    place = town.settle(role, "new", passphrase)
    identity = load_identity(place, ASK)
    assert (identity.role, identity.id, identity.authority) == (role, "new", town.pinned)
    assert not (place / "request.jws").exists()
    manifest = town.manifest()
    listed = {"node": manifest.nodes, "gateway": manifest.gateways, "researcher": ()}[role]
    assert [each.id for each in listed] == (["new"] if listed else [])


@pytest.mark.attacks("K1")
def test_no_private_key_leaves_the_site(town: Town) -> None:
    """K1: of what travels, nothing holds a private half but the invitation its own."""
    requested = enrol_here(town.root / "n", town.read(town.invite("node", "n")), now=NOW, passphrase=None)
    secret = payload_of_key(town.root / "n" / "signing.key")
    travelled = requested.path.read_text() + town.enrol(requested.path.read_text().strip())
    assert secret not in travelled
    assert "PRIVATE" not in travelled


def payload_of_key(path: Path) -> str:
    return str(load_signing_key(path, ASK).jwk.as_dict(private=True)["d"])


@pytest.mark.attacks("K4")
def test_the_authority_keeps_no_secret_of_an_invitation(town: Town) -> None:
    path = town.invite("node", "n")
    voucher = town.read(path).voucher
    for file in (path for path in (town.root / "authority").rglob("*") if path.is_file()):
        assert str(voucher.jwk.as_dict(private=True)["d"]) not in file.read_bytes().decode("latin-1")


@pytest.mark.attacks("K3")
def test_nothing_is_believed_before_the_authority_key_is_compared(town: Town) -> None:
    """K3: an invitation that was swapped on the way names another authority, or is not signed by this one."""
    path = town.invite("node", "n")
    for confirmed in (None, "", STRANGER.thumbprint):
        refused(lambda c=confirmed: read_invitation(path, c, now=NOW), code="INSITU-KEY-FINGERPRINT")
    genuine = town.read(path)
    swapped = seal_invitation(replace(genuine, authority=STRANGER.public()), STRANGER)
    path.write_text(swapped)
    assert peek_authority(swapped) == STRANGER.public()
    refused(town.read, path, code="INSITU-KEY-FINGERPRINT")
    path.write_text(seal_invitation(genuine, STRANGER))  # names the right authority, signed by a stranger
    refused(town.read, path, code="INSITU-ACCESS-SIGNATURE")
    path.write_text(seal_invitation(replace(genuine, authority=town.pinned), STRANGER))
    refused(town.read, path, code="INSITU-ACCESS-SIGNATURE")


@pytest.mark.attacks("K4")
def test_an_invitation_is_private_and_expires(town: Town) -> None:
    path = town.invite("node", "n")
    path.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="only you may read"):
        town.read(path)
    path.chmod(0o600)
    invitation = town.read(path)
    requested = enrol_here(town.root / "n", invitation, now=NOW, passphrase=None)
    town.now = NOW + 15 * DAY
    refused(town.read, path, match="expired")
    refused(town.enrol, requested.path.read_text().strip(), match="expired")


@pytest.mark.attacks("K4")
def test_an_invitation_is_used_once(town: Town) -> None:
    invitation = town.read(town.invite("node", "n"))
    first = enrol_here(town.root / "n", invitation, now=NOW, passphrase=None)
    thief = enrol_here(town.root / "thief", invitation, now=NOW, passphrase=None)
    seen = first.path.read_text().strip()
    town.enrol(seen)
    refused(town.enrol, thief.path.read_text().strip(), match="used before")
    # the very request is answered again, with the certificate it has: it uses nothing
    again = [open_answer(town.enrol(first.path.read_text().strip()), town.pinned) for _ in range(2)]
    assert again[0].certificate_pem == again[1].certificate_pem
    install(town.root / "n", town.enrol(first.path.read_text().strip()), town.pinned, ASK, now=NOW)
    town.enrol(lost_keys(town, town.root / "n", "node"))
    refused(town.enrol, first.path.read_text().strip() if first.path.exists() else seen, match="used before")


@pytest.mark.attacks("K4")
def test_a_party_has_one_invitation_at_a_time(town: Town) -> None:
    """K4: a copy of an earlier invitation is worth nothing, before the party has enrolled and after."""
    copied, invitation = town.read(town.invite("node", "n")), town.read(town.invite("node", "n"))
    other = town.read(town.invite("node", "m"))
    thief = enrol_here(town.root / "thief", copied, now=NOW, passphrase=None).path.read_text().strip()
    refused(town.enrol, thief, match="neither an invitation")
    town.enrol(enrol_here(town.root / "n", invitation, now=NOW, passphrase=None).path.read_text().strip())
    refused(town.enrol, thief, match="neither an invitation")
    town.enrol(enrol_here(town.root / "m", other, now=NOW, passphrase=None).path.read_text().strip())


@pytest.mark.attacks("K4")
@pytest.mark.parametrize("role", ["node", "gateway", "researcher"])
def test_a_party_that_was_certified_has_no_open_invitation(town: Town, role: str) -> None:
    copied = town.read(town.invite(role, "p"))
    certified_anew(town, role)
    refused(town.enrol, enrol_here(town.root / "thief", copied, now=NOW, passphrase=None).path.read_text().strip())


@pytest.mark.attacks("K4")
def test_after_a_theft_of_the_authority_no_invitation_is_open(town: Town) -> None:
    town.settle("node", "n")
    thief = Path(shutil.copytree(town.root / "n", town.root / "thief"))
    requests = [lost_keys(town, town.root / "n", "node"), change_keys(thief, now=NOW, ask=ASK).path.read_text().strip()]
    with town.office() as authority:
        ceremonies.rotate_key(authority, now=NOW, stolen=True)
    refused(town.enrol, requests[0], match="expired")
    refused(town.enrol, requests[1], match="invited anew")


@pytest.mark.attacks("K5")
@pytest.mark.parametrize("role", ["node", "gateway", "researcher"])
def test_a_key_that_was_reported_lost_vouches_for_nothing(town: Town, role: str) -> None:
    """K5: from the new invitation on, also once that has expired."""
    place = town.settle(role, "p")
    thief = change_keys(Path(shutil.copytree(place, town.root / "thief")), now=NOW, ask=ASK).path.read_text().strip()
    anew = lost_keys(town, place, role)
    refused(town.enrol, thief, match="invited anew")
    town.now = NOW + 15 * DAY
    refused(town.enrol, thief, match="invited anew")
    town.now = NOW
    town.enrol(anew)
    refused(town.enrol, thief, match="neither")


@pytest.mark.attacks("K5")
def test_keys_cannot_be_swapped_on_the_way(town: Town) -> None:
    """K5: whoever holds the mail but not the invitation cannot put another key into an enrolment."""
    requested = enrol_here(town.root / "n", town.read(town.invite("node", "n")), now=NOW, passphrase=None)
    genuine = requested.path.read_text().strip()
    create_keys(town.root / "thief")
    csr = (town.root / "thief" / "tls.csr").read_text()
    own = Enrolment(role="node", id="n", key=STRANGER.public(), csr=csr, issued_at=NOW)
    refused(town.enrol, seal_enrolment(own, STRANGER, STRANGER), match="neither an invitation")
    # under the invitation's name, but signed by the thief
    forged = seal_enrolment(own, STRANGER, STRANGER).split(".")
    refused(town.enrol, ".".join([genuine.split(".")[0], *forged[1:]]), code="INSITU-ACCESS-SIGNATURE")
    # the genuine outside around keys of the thief
    inner = payload_of(seal_enrolment(own, STRANGER, STRANGER))["keys"]
    refused(town.enrol, sign(write({"keys": inner}), STRANGER, "insitu-enrolment+jws"), match="neither")
    assert town.enrol(genuine)


@pytest.mark.attacks("K5")
def test_the_new_key_must_be_held(town: Town) -> None:
    """K5: who is invited cannot enrol the key of somebody else."""
    invitation = town.read(town.invite("node", "n"))
    create_keys(town.root / "n")
    csr = (town.root / "n" / "tls.csr").read_text()
    others = Enrolment(role="node", id="n", key=STRANGER.public(), csr=csr, issued_at=NOW)
    held = load_signing_key(town.root / "n" / "signing.key")
    token = seal_enrolment(others, held, invitation.voucher)
    refused(town.enrol, token, code="INSITU-ACCESS-SIGNATURE")
    assert peek_enrolment(token).key == STRANGER.public()
    with pytest.raises(AccessRefused):
        open_enrolment(token, invitation.voucher.public())


@pytest.mark.attacks("K4")
@pytest.mark.parametrize("change", [{"id": "other"}, {"role": "researcher"}])
def test_an_invitation_is_for_its_party(town: Town, change: dict[str, str]) -> None:
    invitation = town.read(town.invite("node", "n"))
    requested = enrol_here(town.root / "n", replace(invitation, **change), now=NOW, passphrase=None)
    refused(town.enrol, requested.path.read_text().strip(), match="another party")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é"])
def test_what_is_no_enrolment(town: Town, token: str) -> None:
    assert voucher_of(token) is None
    refused(town.enrol, token)


@pytest.mark.attacks("K6")
def test_an_answer_is_the_authority_s_and_for_keys_that_are_here(town: Town) -> None:
    """K6."""
    requested = enrol_here(town.root / "n", town.read(town.invite("node", "n")), now=NOW, passphrase=None)
    answer = town.enrol(requested.path.read_text().strip())
    opened_answer = open_answer(answer, town.pinned)
    refused(partial(install, now=NOW), town.root / "n", seal_answer(opened_answer, STRANGER), town.pinned, ASK,
            code="INSITU-ACCESS-SIGNATURE")  # fmt: skip
    other = town.root / "other"
    enrol_here(other, town.read(town.invite("node", "m")), now=NOW, passphrase=None)
    refused(partial(install, now=NOW), other, answer, town.pinned, ASK, match="not here")
    assert not (other / "tls.pem").exists()
    assert install(town.root / "n", answer, town.pinned, ASK, now=NOW).id == "n"


# -- change of keys ------------------------------------------------------------------------------------------------


def test_a_node_changes_its_key_with_overlap(town: Town) -> None:
    """K7."""
    place = town.settle("node", "n")
    before = load_identity(place)
    requested = change_keys(place, now=NOW, ask=ASK)
    assert load_identity(place) == before  # the present keys are used until the answer is there
    with pytest.raises(ConfigInvalid, match="not answered yet"):
        change_keys(place, now=NOW, ask=ASK)
    answer = town.enrol(requested.path.read_text().strip())
    install(place, answer, town.pinned, ASK, now=NOW)
    after = load_identity(place)
    assert (after.signing.public(), after.former) == (requested.key, before.signing)
    entry = town.manifest().node("n")
    assert entry is not None
    assert entry.keys_at(NOW) == (after.signing.public(), before.signing.public())
    assert entry.keys_at(NOW + 30 * DAY) == (after.signing.public(),)
    assert after.signing_for(entry.keys_at(NOW)) == after.signing
    assert after.signing_for([before.signing.public()]) == before.signing  # before the manifest is there
    # the certificate before ends with the overlap
    serial = serial_of(before.tls_cert_pem)
    assert serial not in town.manifest().revoked_certificates
    town.now = NOW + 31 * DAY
    manifest = town.manifest()
    assert serial in manifest.revoked_certificates
    assert manifest.node("n") == replace(entry, former=())


def test_a_key_that_is_no_longer_the_present_one_vouches_for_nothing(town: Town) -> None:
    place = town.settle("node", "n")
    thief = Path(shutil.copytree(place, town.root / "thief"))
    requested = change_keys(place, now=NOW, ask=ASK)
    install(place, town.enrol(requested.path.read_text().strip()), town.pinned, ASK, now=NOW)
    refused(town.enrol, requested.path.read_text().strip() if requested.path.exists() else "x", match="neither")
    refused(town.enrol, change_keys(thief, now=NOW, ask=ASK).path.read_text().strip(), match="neither")


def test_a_key_that_stood_for_something_before_is_not_enrolled_again(town: Town) -> None:
    """A node that went back to a former key, or took another's, would stop the manifest for everybody."""
    place = town.settle("node", "n")
    other = load_identity(town.settle("researcher", "alice")).signing
    before = load_identity(place).signing
    install(place, town.enrol(change_keys(place, now=NOW, ask=ASK).path.read_text().strip()), town.pinned, ASK, now=NOW)
    present, csr = load_identity(place).signing, (place / "tls.csr").read_text()
    for key in (before, present, other):
        enrolment = Enrolment(role="node", id="n", key=key.public(), csr=csr, issued_at=NOW)
        refused(town.enrol, seal_enrolment(enrolment, key, present), match="enrolled before")
    town.manifest()


@pytest.mark.attacks("K10")
@pytest.mark.parametrize("role", ["node", "researcher"])
def test_a_key_that_was_lost_is_not_certified_again(town: Town, role: str) -> None:
    place = town.settle(role, "p")
    lost = load_identity(place).signing.public()
    town.enrol(lost_keys(town, place, role))
    for party in ("p", "another"):
        refused(partial(certified_anew, town, role, key=lost, party=party, replace_key=True), match="enrolled before")
    assert lost.thumbprint in town.manifest().revoked_keys


def test_one_key_is_not_certified_for_two(town: Town) -> None:
    present = load_identity(town.settle("node", "n")).signing.public()
    refused(partial(certified_anew, town, "node", key=present, party="m"), match="enrolled before")
    certified_anew(town, "node", key=present, party="n")
    assert town.manifest().node("n") is not None


@pytest.mark.attacks("K5")
def test_a_party_vouches_for_itself_alone(town: Town) -> None:
    place = town.settle("node", "n")
    town.settle("node", "m")
    create_keys(town.root / "thief")
    csr = (town.root / "thief" / "tls.csr").read_text()
    own = generate_signing_key()
    enrolment = Enrolment(role="node", id="m", key=own.public(), csr=csr, issued_at=NOW)
    refused(town.enrol, seal_enrolment(enrolment, own, load_identity(place).signing), match="another party")


@pytest.mark.attacks("K7", "K10")
@pytest.mark.parametrize("role", ["node", "gateway", "researcher"])
def test_a_new_invitation_ends_what_was_before(town: Town, role: str) -> None:
    """K7, K10: lost keys have no overlap."""
    place = town.settle(role, "p")
    changed = change_keys(place, now=NOW, ask=ASK)
    install(place, town.enrol(changed.path.read_text().strip()), town.pinned, ASK, now=NOW)
    before = load_identity(place)
    assert before.former is not None
    requested = change_keys(place, now=NOW, ask=ASK, invitation=town.read(town.invite(role, "p")))
    install(place, town.enrol(requested.path.read_text().strip()), town.pinned, ASK, now=NOW)
    after, manifest = load_identity(place), town.manifest()
    assert after.former is None
    assert serial_of(before.tls_cert_pem) in manifest.revoked_certificates
    lost = {before.signing.thumbprint, before.former.thumbprint}
    assert role == "gateway" or lost <= manifest.revoked_keys  # a gateway's signing key counts for nothing anyway
    assert after.signing.thumbprint not in manifest.revoked_keys
    assert all(node.former == () for node in manifest.nodes)


@pytest.mark.attacks("K10")
@pytest.mark.parametrize("role", ["node", "gateway", "researcher"])
@pytest.mark.parametrize("how", ["enrol", "certify"])
def test_every_certificate_of_a_lost_key_is_revoked(town: Town, role: str, how: str) -> None:
    """K10: a renewal does not make the certificate before it invalid, so the authority remembers that one too."""
    place = town.settle(role, "p")
    serials = {serial_of(load_identity(place).tls_cert_pem)}
    for days in (1, 2):
        with town.office() as authority:
            answer = ceremonies.renew(authority, role, "p", now=NOW + days * DAY, lifetime=YEAR)
        install(place, answer, town.pinned, ASK, now=NOW + days * DAY)
        serials.add(serial_of(load_identity(place).tls_cert_pem))
    assert len(serials) == 3
    assert not town.manifest().revoked_certificates & serials
    if how == "enrol":
        town.enrol(lost_keys(town, place, role))
    else:
        certified_anew(town, role, replace_key=True)
    assert serials <= town.manifest().revoked_certificates


def test_earlier_certificates_end_with_the_overlap(town: Town) -> None:
    """K7: they are for the TLS key that was changed."""
    place = town.settle("node", "n")
    first = serial_of(load_identity(place).tls_cert_pem)
    with town.office() as authority:
        answer = ceremonies.renew(authority, "node", "n", now=NOW, lifetime=YEAR)
    install(place, answer, town.pinned, ASK, now=NOW)
    town.enrol(change_keys(place, now=NOW, ask=ASK).path.read_text().strip())
    assert first not in town.manifest().revoked_certificates
    town.now = NOW + 31 * DAY
    assert first in town.manifest().revoked_certificates


def lost_keys(town: Town, place: Path, role: str) -> str:
    """The request for new keys by a new invitation."""
    invitation = town.read(town.invite(role, place.name))
    return change_keys(place, now=NOW, ask=ASK, invitation=invitation).path.read_text().strip()


def certified_anew(town: Town, role: str, *, key=None, party: str = "p", replace_key: bool = False) -> None:
    """By ``insitu-authority cert``, with a new TLS key."""
    key = key or generate_signing_key().public()
    entry = {
        "node": NodeEntry(id=party, organisation="CHU", jurisdiction="FR", key=key),
        "gateway": GatewayEntry(id=party, address="gw.example.org:7443", operator="Hub", jurisdiction="FR"),
        "researcher": ResearcherEntry(id=party, key=key),
    }[role]
    with town.office() as authority:
        certify(
            authority, entry, create_csr(create_tls_key()), now=town.now, lifetime=YEAR, key=key,
            replace_key=replace_key,
        )  # fmt: skip


def test_a_lost_directory_is_no_hindrance(town: Town) -> None:
    place = town.settle("node", "n")
    (place / "signing.key").unlink()
    (place / "tls.key").unlink()
    requested = change_keys(place, now=NOW, ask=ASK, invitation=town.read(town.invite("node", "n")))
    install(place, town.enrol(requested.path.read_text().strip()), town.pinned, ASK, now=NOW)
    assert load_identity(place).signing.public() == requested.key


def test_an_invitation_for_another_party_changes_nothing_here(town: Town) -> None:
    place = town.settle("node", "n")
    refused(
        lambda: change_keys(place, now=NOW, ask=ASK, invitation=town.read(town.invite("node", "m"))), match="invites"
    )


def test_the_next_keys_are_under_the_same_passphrase(town: Town) -> None:
    place = town.settle("researcher", "alice", b"correct horse battery")
    requested = change_keys(place, now=NOW, ask=ASK)
    install(place, town.enrol(requested.path.read_text().strip()), town.pinned, ASK, now=NOW)
    assert load_identity(place, ASK).former is not None
    for name in ("signing.key", "tls.key", "former/signing.key"):
        assert (place / name).read_bytes().startswith(b"eyJ")


@pytest.mark.parametrize("last", range(8))
def test_an_installation_that_was_cut_off_is_run_again(town: Town, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    place = town.settle("node", "n")
    watched = WatchedIdentity(place, lambda: load_identity(place))
    before = watched.current
    requested = change_keys(place, now=NOW, ask=ASK)
    answer = town.enrol(requested.path.read_text().strip())
    from insitu_access import site

    written, write_file = [0], site.write_file

    def cut(path: Path, data: bytes, mode: int = 0o644) -> None:
        if written[0] == last:
            raise KeyboardInterrupt
        written[0] += 1
        write_file(path, data, mode)

    monkeypatch.setattr(site, "write_file", cut)
    with pytest.raises(KeyboardInterrupt):
        install(place, answer, town.pinned, ASK, now=NOW)
    try:
        watched.refresh()
    except ConfigInvalid:
        assert watched.current is before  # a process keeps what it had
    monkeypatch.setattr(site, "write_file", write_file)
    install(place, answer, town.pinned, ASK, now=NOW)
    assert watched.refresh()
    assert (watched.current.signing.public(), watched.current.former) == (requested.key, before.signing)
    assert not watched.refresh()


@pytest.mark.attacks("K6")
def test_an_older_answer_does_not_come_back(town: Town) -> None:
    """K6: from an old mail; its CA may be one that was given up since."""
    place = town.settle("node", "n")
    answers = []
    for days in (1, 2):
        with town.office() as authority:
            answers.append(ceremonies.renew(authority, "node", "n", now=NOW + days * DAY, lifetime=YEAR))
    install(place, answers[1], town.pinned, ASK, now=NOW)
    present = load_identity(place)
    refused(lambda: install(place, answers[0], town.pinned, ASK, now=NOW), match="older than the one installed")
    assert load_identity(place) == present
    install(place, answers[1], town.pinned, ASK, now=NOW)  # the same one again


def test_a_certificate_of_another_ca_is_not_installed(town: Town) -> None:
    place = town.settle("node", "n")
    present = load_identity(place)
    with town.office() as authority:
        answer = open_answer(ceremonies.renew(authority, "node", "n", now=NOW + DAY, lifetime=YEAR), town.pinned)
    with town.office() as authority:
        ceremonies.rotate_ca(authority, now=NOW)
    with town.office() as authority:
        other = replace(answer, ca_pem=authority.ca.certificate_pem.decode())
        token = seal_answer(other, authority.key)
    refused(lambda: install(place, token, town.pinned, ASK, now=NOW), match="CA")
    assert load_identity(place) == present


def test_an_installation_that_was_cut_off_while_cleaning_up_is_run_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = town.settle("node", "n")
    requested = change_keys(place, now=NOW, ask=ASK)
    answer = town.enrol(requested.path.read_text().strip())

    def half(folder: Path, **_: object) -> None:
        if folder.exists():
            (folder / "tls.csr").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("insitu_access.site.shutil.rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            install(place, answer, town.pinned, ASK, now=NOW)
    install(place, answer, town.pinned, ASK, now=NOW)
    assert load_identity(place).signing.public() == requested.key
    assert not [each for each in place.rglob("*") if "next" in each.name]


# -- the authority's own keys --------------------------------------------------------------------------------------


def test_the_authority_s_key_hands_over(town: Town) -> None:
    """K8."""
    before = town.pinned
    with town.office() as authority:
        key = ceremonies.rotate_key(authority, now=NOW, stolen=False)
    assert town.pinned == key != before
    with town.office() as authority:
        text, _ = publish_manifest(authority, None, now=NOW, lifetime=DAY)
    assert open_manifest(text, before, now=NOW, known_version=0).authority_keys == (key, before)
    with town.office() as authority:
        ceremonies.retire(authority, cas=False, keys=True)
    assert town.manifest().authority_keys == (key,)


def test_an_answer_finds_who_pinned_the_former_key(town: Town) -> None:
    """K6, K8: the authority's key changed while the enrolment was in the mail."""
    invitation = town.read(town.invite("node", "n"))
    requested = enrol_here(town.root / "n", invitation, now=NOW, passphrase=None)
    with town.office() as authority:
        ceremonies.rotate_key(authority, now=NOW, stolen=False)
    answer = town.enrol(requested.path.read_text().strip())
    refused(
        partial(install, now=NOW),
        town.root / "n",
        answer.split("\n")[-1],
        invitation.authority,
        ASK,
        code="INSITU-ACCESS-SIGNATURE",
    )
    install(town.root / "n", answer, invitation.authority, ASK, now=NOW)
    assert load_identity(town.root / "n").answered_at == NOW


@pytest.mark.parametrize("role", ["node", "gateway", "researcher"])
@pytest.mark.parametrize("by", ["invitation", "new invitation", "present key"])
@pytest.mark.parametrize("repeated", [True, False])
def test_an_enrolment_that_was_cut_off_is_run_again(
    town: Town, monkeypatch, role: str, by: str, repeated: bool
) -> None:
    """Between keyring and register."""
    place = town.root / "p"
    if by == "invitation":
        requested = enrol_here(place, town.read(town.invite(role, "p")), now=NOW, passphrase=None)
    else:
        town.settle(role, "p")
        invitation = town.read(town.invite(role, "p", address="other.example.org:1")) if by != "present key" else None
        requested = change_keys(place, now=NOW, ask=ASK, invitation=invitation)
    token = requested.path.read_text().strip()
    enrol = partial(ceremonies.enrol, token=token, now=NOW, lifetime=YEAR, overlap=30 * DAY)
    cut_off(town, enrol, monkeypatch, "save_register")
    town.manifest()
    if repeated:
        install(place, town.enrol(token), town.pinned, ASK, now=NOW)
        assert load_identity(place).signing.public() == requested.key
        assert (load_identity(place).former is not None) == (by == "present key")
    with town.office() as authority:
        if role != "gateway":
            assert authority.register.key_of(role, "p") == requested.key
        elif repeated:
            assert [each.address for each in authority.register.gateways] == [
                "other.example.org:1" if by == "new invitation" else "gw.example.org:7443"
            ]


@pytest.mark.attacks("K8")
def test_an_answer_keeps_the_way_it_was_come_to(town: Town) -> None:
    """K8: the former key leads nobody who has followed it once, and a kept manifest of a key on the way still opens."""
    first = town.pinned
    place = town.settle("node", "n")
    for _ in range(2):
        kept = town.manifest_text()
        with town.office() as authority:
            ceremonies.rotate_key(authority, now=NOW, stolen=False)
    with town.office() as authority:
        answer = ceremonies.renew(authority, "node", "n", now=NOW + DAY, lifetime=YEAR)
    pin = Pin(place, first)
    install(place, answer, pin.key, ASK, now=NOW, pin=pin)
    again = Pin(place, first)
    assert pin.key == again.key == town.pinned != first
    assert again.reopen(kept.split("\n")[-1])


def cut_off(town: Town, act, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The act, ended before it calls what is named so."""

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with town.office() as authority, monkeypatch.context() as patch:
        patch.setattr(*((ceremonies, name) if "." not in name else (Path, name.removeprefix("Path."))), cut)
        with pytest.raises(KeyboardInterrupt):
            act(authority)


def other_commands_refuse(town: Town, command: str) -> None:
    with pytest.raises(ConfigInvalid, match=command), town.office():
        pass


@pytest.mark.parametrize("stolen", [False, True])
@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("last", ["save_keyring", "administered", "save_verifying_key", "Path.replace"])
def test_a_change_of_the_authority_s_key_that_was_cut_off_is_run_again(
    town: Town, monkeypatch, last: str, gone: bool, stolen: bool
) -> None:
    before, waiting = town.pinned, town.root / "authority" / "authority.key.next"
    if last == "Path.replace":  # which files are written with as well
        monkeypatch.setattr(ceremonies, "save_keyring", lambda k, d: write_in_place(d / "keyring.json", k))
        monkeypatch.setattr(ceremonies, "save_verifying_key", lambda k, path: path.write_bytes(k.pem()))
    cut_off(town, partial(ceremonies.rotate_key, now=NOW, stolen=stolen), monkeypatch, last)
    if last != "save_keyring":
        other_commands_refuse(town, "rotate --key")
    if gone:
        waiting.unlink()
    with opened(town.root / "authority", ASK, finishes="key") as authority:
        # by the command without --stolen: a theft is not forgotten
        key = ceremonies.rotate_key(authority, now=NOW, stolen=stolen and last == "save_keyring")
    assert town.pinned == key != before
    assert not waiting.exists()
    with town.office() as authority:
        assert len(authority.keyring.successions) == (0 if stolen else 1)
        assert authority.public == key
        text, _ = publish_manifest(authority, None, now=NOW, lifetime=DAY)
    if stolen:
        refused(lambda: open_manifest(text, before, now=NOW, known_version=0), code="INSITU-ACCESS-SIGNATURE")
    else:
        assert open_manifest(text, before, now=NOW, known_version=0).authority_keys == (key, before)


def write_in_place(path: Path, keyring) -> None:
    path.write_bytes(payload.write(_as_json(keyring)))


@pytest.mark.parametrize("content", [b"", b"-----BEGIN", b"eyJ.."])
def test_a_next_key_that_was_half_written_is_made_again(town: Town, content: bytes) -> None:
    waiting = town.root / "authority" / "authority.key.next"
    waiting.touch(0o600)
    waiting.write_bytes(content)
    before = town.pinned
    with town.office() as authority:
        ceremonies.rotate_key(authority, now=NOW, stolen=False)
    assert town.pinned != before
    town.manifest()


def test_a_change_of_the_ca_that_was_cut_off_is_run_again(town: Town, monkeypatch) -> None:
    """K11: what a CA key issued without its certificate, nobody could verify."""
    place = town.settle("node", "n")
    written = []

    def cut(path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == "ca.pem":
            raise KeyboardInterrupt
        written.append(path.name)
        write_file(path, data, mode)

    with town.office() as authority, monkeypatch.context() as patch:
        patch.setattr(ceremonies, "write_file", cut)
        with pytest.raises(KeyboardInterrupt):
            ceremonies.rotate_ca(authority, now=NOW)
    assert written == ["ca.key"]
    other_commands_refuse(town, "rotate --ca")
    with opened(town.root / "authority", ASK, finishes="ca") as authority:
        ceremonies.rotate_ca(authority, now=NOW)
    with town.office() as authority:
        answer = ceremonies.renew(authority, "node", "n", now=NOW, lifetime=YEAR)
    install(place, answer, town.pinned, ASK, now=NOW)
    manifest = town.manifest()
    assert manifest.ca_pem.count("BEGIN CERTIFICATE") == 2
    assert is_issued_by(load_identity(place).tls_cert_pem, manifest.ca_pem.encode())


@pytest.mark.attacks("K9")
def test_after_a_theft_nobody_is_led_on(town: Town) -> None:
    """K8, K9."""
    with town.office() as authority:
        ceremonies.rotate_key(authority, now=NOW, stolen=False)
    before = town.pinned
    place = town.settle("node", "n")
    with town.office() as authority:
        key = ceremonies.rotate_key(authority, now=NOW, stolen=True)
    with town.office() as authority:
        text, made = publish_manifest(authority, None, now=NOW, lifetime=DAY)
    assert made.authority_keys == (key,)
    refused(lambda: open_manifest(text, before, now=NOW, known_version=0), code="INSITU-ACCESS-SIGNATURE")
    state = town.root / "state"
    state.mkdir()
    (state / "manifest.jws").write_text("signed by the thief, with an enormous version")
    refused(lambda: repin(place, state, key, before.thumbprint), code="INSITU-KEY-FINGERPRINT")
    refused(lambda: repin(place, state, key, None), code="INSITU-KEY-FINGERPRINT")
    assert load_identity(place).authority == before
    assert (state / "manifest.jws").exists()
    repin(place, state, key, key.thumbprint)
    assert load_identity(place).authority == key
    assert not (state / "manifest.jws").exists()


@pytest.mark.attacks("K9", "M3")
def test_pinning_the_same_key_again_keeps_the_floor(town: Town) -> None:
    """M3: else an older manifest, which a gateway has kept, would be believed again."""
    place = town.settle("node", "n")
    state = town.root / "state"
    state.mkdir()
    (state / "manifest.jws").write_text(town.manifest_text())
    assert not repin(place, state, town.pinned, town.pinned.thumbprint)
    assert (state / "manifest.jws").exists()
    other = generate_signing_key().public()
    assert repin(place, state, other, other.thumbprint)
    assert not (state / "manifest.jws").exists()


def test_a_pin_by_hand_comes_before_the_manifest_is_put_aside(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off before, the former key finds its floor still there; cut off after, it is run again."""
    place, other = town.settle("node", "n"), generate_signing_key().public()
    (place / "manifest.jws").write_text(town.manifest_text())
    with monkeypatch.context() as patch:
        patch.setattr("insitu_access.site.save_verifying_key", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repin(place, place, other, other.thumbprint)
    assert (place / "manifest.jws").exists()
    write_file(place / "authority.pub", other.pem())
    repin(place, place, other, other.thumbprint)
    assert not (place / "manifest.jws").exists()


def test_the_ca_changes_with_overlap(town: Town, tmp_path: Path) -> None:
    """K11."""
    place = town.settle("node", "n")
    before = load_identity(place)
    with town.office() as authority:
        ceremonies.rotate_ca(authority, now=NOW)
    manifest = town.manifest()
    assert manifest.ca_pem.count("BEGIN CERTIFICATE") == 2
    assert is_issued_by(before.tls_cert_pem, manifest.ca_pem.encode())
    assert before.anchors(manifest) == manifest.ca_pem.encode()
    assert before.anchors(None) == before.ca_pem
    with town.office() as authority, pytest.raises(Malformed, match="no certificate of the new CA yet: n"):
        ceremonies.retire(authority, cas=True, keys=False)
    with town.office() as authority:
        ceremonies.retire(replace(authority, directory=tmp_path), cas=True, keys=False, anyway=True)
    with town.office() as authority:
        answer = ceremonies.renew(authority, "node", "n", now=NOW + DAY, lifetime=YEAR)
    install(place, answer, town.pinned, ASK, now=NOW)
    after = load_identity(place)
    assert after.signing == before.signing
    assert after.tls_cert_pem != before.tls_cert_pem
    # an answer that is younger than the manifest knows better
    assert after.anchors(manifest) == after.ca_pem
    with town.office() as authority:
        ceremonies.retire(authority, cas=True, keys=False)
    town.now = NOW + 2 * DAY
    manifest = town.manifest()
    assert manifest.ca_pem.count("BEGIN CERTIFICATE") == 1
    assert not is_issued_by(before.tls_cert_pem, manifest.ca_pem.encode())
    assert is_issued_by(after.tls_cert_pem, manifest.ca_pem.encode())
    assert after.anchors(manifest) == manifest.ca_pem.encode()


def test_a_grant_follows_a_person_to_a_new_key_and_no_other_person(town: Town) -> None:
    """Another person is an amendment, which custodians approve anew."""
    alice, bob = town.settle("researcher", "alice"), town.settle("researcher", "bob")
    town.settle("node", "chu-lille")
    before = load_identity(alice).signing
    with town.office() as authority:
        token = issue_grant(authority, grant(researchers=(before.public(),), nodes=("chu-lille",)))
    install(alice, town.enrol(change_keys(alice, now=NOW, ask=ASK).path.read_text().strip()), town.pinned, ASK, now=NOW)
    with town.office() as authority, pytest.raises(Malformed, match="amend"):
        ceremonies.reseal(authority, token, researcher="bob")
    with town.office() as authority:
        again = read_grant(
            unverified(ceremonies.reseal(authority, token, researcher="alice"), "insitu-grant+jwt", "grant")
        )
    present = load_identity(alice).signing
    assert again.researchers == (before.public(), present.public())
    with town.office() as authority, pytest.raises(Malformed, match="not issued here"):
        ceremonies.reseal(authority, token)  # replaced by the other text
    assert load_identity(bob).signing.public() not in again.researchers


def test_a_grant_that_was_resealed_and_not_written_is_given_again(town: Town) -> None:
    town.settle("node", "chu-lille")
    alice = load_identity(town.settle("researcher", "alice")).signing.public()
    with town.office() as authority:
        token = issue_grant(authority, grant(researchers=(alice,), nodes=("chu-lille",)))
    with town.office() as authority:
        ceremonies.rotate_key(authority, now=NOW, stolen=True)
    with town.office() as authority:
        before = authority.key
    with town.office() as authority:
        resealed = ceremonies.reseal(authority, token)
    for text in (token, resealed):
        with town.office() as authority:
            assert ceremonies.reseal(authority, text) == resealed
    widened = seal_grant(replace(peek_grant(token), purpose="Another"), before)
    with town.office() as authority, pytest.raises(Malformed, match="not issued here"):
        ceremonies.reseal(authority, widened)


def test_who_was_never_certified_is_not_renewed(town: Town) -> None:
    with town.office() as authority, pytest.raises(Malformed, match="no node of this id"):
        ceremonies.renew(authority, "node", "nobody", now=NOW, lifetime=YEAR)


# -- drills --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_drill_names_real_parties_and_hides_nothing(town: Town, key: str) -> None:
    for role, party in (("node", "chu-lille"), ("gateway", "gw"), ("researcher", "alice")):
        town.settle(role, party)
    party = {"node-key": "chu-lille", "gateway-key": "gw", "researcher-key": "alice"}.get(key)
    with town.office() as authority:
        scene = Scene(
            directory=Path("my authority"), register=authority.register, keyring=authority.keyring,
            grants=(Path("stays.jwt"),),
        )  # fmt: skip
        steps = drill(key, scene, party)
        if party is not None:
            for wrong in (None, "nobody"):
                with pytest.raises(Malformed, match=party):
                    drill(key, scene, wrong)
    assert all((step.run is None) != (step.carry is None) and step.why for step in steps)
    assert "'my authority'" in steps[0].run
    assert {step.who for step in steps} <= {"authority", "node chu-lille", "gateway gw", "researcher alice"}
    assert party is None or f"{key.removesuffix('-key')} {party}" in {step.who for step in steps}
    # whatever is carried was written by a step before it, or stands there
    standing = {"my authority/authority.pub", "identity/next/request.jws", "next/request.jws", "stays.jwt"}
    for number, step in enumerate(steps):
        if step.carry is not None and step.carry not in standing:
            before = " ".join(each.run or "" for each in steps[:number])
            assert step.carry.split("/")[0] in before
