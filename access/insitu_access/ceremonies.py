"""How keys come and go at the authority: invitations, enrolments, renewals, and the change of its own keys.

Everything is decided from the register and the keyring, written there first, and signed after. Numbered as in the
threat model:

  K4   an invitation names its party, expires, and is used once; a party has one at a time, and none once it enrolled
  K5   an enrolment counts by its voucher: an unused invitation, or the present key of the very party; a party that was
       invited anew has lost that key, which vouches for nothing from then on
  K7   who changes keys by the present one keeps the former one for a while; who enrols by a new invitation has lost the
       former one, or was robbed of it: nothing that was there before counts any longer
  K8   the authority's own key hands over by a succession; after a theft it publishes none
  K11  a new CA issues at once, and the one before is believed until it is retired

Not here: what parties do (``site``), and who tells them (``drills``).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from insitu_privacy.errors import AccessRefused, ConfigInvalid

from insitu_access import certificates
from insitu_access.audit import of_authority as audit
from insitu_access.audit.acts import administered
from insitu_access.authority import (
    CA_LIFETIME,
    Authority,
    Party,
    addresses_of,
    certificate_for,
    country_of_party,
    known_party,
    party_of,
    refuse_known,
    with_party,
)
from insitu_access.certificates import BACKDATED, Role, serial_of
from insitu_access.enrolment import (
    Answer,
    Enrolment,
    Invitation,
    open_enrolment,
    seal_answer,
    seal_invitation,
    voucher_of,
)
from insitu_access.files import write_file
from insitu_access.grant import Grant, grant_sha256, peek_grant, seal_grant
from insitu_access.invariants import check
from insitu_access.jose import token_sha256, unverified_kid
from insitu_access.keyring import Certified, Former, Invited, Keyring, save_keyring
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    generate_signing_key,
    load_signing_key,
    locked_pem,
    save_signing_key,
    save_verifying_key,
)
from insitu_access.manifest import GatewayEntry
from insitu_access.payload import Malformed
from insitu_access.register import save_register
from insitu_access.succession import Succession, open_succession, seal_succession


def invite(authority: Authority, invited: Invited, voucher: SigningKey) -> str:
    """An invitation for a party, known or new (K4): the only one. ``invited`` holds the public half of ``voucher``.

    From here on the present key of a party that is known vouches for nothing any more (K5).
    """
    party_of(invited, invited.key)  # refuses what could not be registered
    keyring = authority.keyring.without_invitations(invited.role, invited.id)
    save_keyring(replace(keyring, invited=(*keyring.invited, invited)), authority.directory)
    administered(authority.log, "invite", role=invited.role, id=invited.id)
    invitation = Invitation(
        federation=authority.register.federation,
        role=invited.role,
        id=invited.id,
        voucher=voucher,
        authority=authority.public,
        address=invited.address,
        gateways=tuple(gateway.address for gateway in authority.register.gateways),
        datasets=tuple(dataset.name for dataset in authority.register.datasets),
        expires_at=invited.expires_at,
    )
    return seal_invitation(invitation, authority.key)


def enrol(
    authority: Authority, token: str, *, now: datetime, lifetime: timedelta, overlap: timedelta
) -> tuple[str, Answer]:
    """The answer to an enrolment: a certificate, and the new key in the register. Raises AccessRefused (K4, K5)."""
    invited = authority.keyring.invitation(voucher_of(token) or "")
    digest = token_sha256(token)
    answered = next((each for each in authority.keyring.certified if each.request_sha256 == digest), None)
    if answered is not None and answered.key is not None:
        return _answered_again(authority, answered, answered.key, invited, now=now)
    if invited is not None:
        return _enrol_invited(authority, token, invited, now=now, lifetime=lifetime)
    return _enrol_changed(authority, token, now=now, lifetime=lifetime, until=now + overlap)


def renew(authority: Authority, role: Role, party_id: str, *, now: datetime, lifetime: timedelta) -> str:
    """A new certificate for the keys that a party has. Raises Malformed where it has none."""
    present, party = authority.keyring.certificate_of(role, party_id), known_party(authority.register, role, party_id)
    if present is None or party is None:
        raise Malformed(f"no {role} of this id has a certificate; see `insitu-authority keys`")
    pem = certificates.renew_certificate(
        authority.ca,
        role,
        party_id,
        present.pem.encode(),
        addresses=addresses_of(party, present.also),
        country=country_of_party(party),
        not_before=now - BACKDATED,
        not_after=now + lifetime,
    )
    save_keyring(authority.keyring.with_certificate(replace(present, pem=pem.decode())), authority.directory)
    audit.certified(authority.log, role, party_id, present.key, certificate=pem, replaced=False)
    return _sealed(authority, _answer(authority, role, party_id, present.key, pem=pem, until=None, now=now))


def rotate_key(authority: Authority, *, now: datetime, stolen: bool) -> VerifyingKey:
    """The authority's next signing key. ``stolen``: nothing that the present one signed counts any longer (K8)."""
    path, waiting = authority.directory / "authority.key", authority.directory / "authority.key.next"
    handed_over = any(each.key == authority.public for each in authority.keyring.signed_before)
    # a theft is not forgotten because the last try was cut off
    stolen = stolen or (handed_over and _last_step(authority) is None)
    key = None if stolen else _waiting_key(authority, waiting)
    if key is None:  # else the last try was cut off after it had made one
        waiting.unlink(missing_ok=True)  # not readable, or the thief's as well
        key = generate_signing_key()
        save_signing_key(key, waiting, authority.passphrase)
    keyring = _handed_over(authority, key, now=now, stolen=stolen).with_signed_before(authority.public, now)
    save_keyring(keyring, authority.directory)
    administered(authority.log, "rotate --key --stolen" if stolen else "rotate --key", key=key.thumbprint)
    save_verifying_key(key.public(), authority.directory / "authority.pub")
    waiting.replace(path)
    authority.log.renew()
    return key.public()


def rotate_ca(authority: Authority, *, now: datetime) -> bytes:
    """The CA that issues from now on; the one before is believed until ``retire_cas`` (K11)."""
    ca = certificates.create_authority(
        authority.register.federation, not_before=now - BACKDATED, not_after=now + CA_LIFETIME
    )
    before = authority.ca.certificate_pem.decode()
    former = tuple(dict.fromkeys((before, *authority.keyring.former_cas)))
    save_keyring(replace(authority.keyring, former_cas=former), authority.directory)
    administered(authority.log, "rotate --ca")
    write_file(authority.directory / "ca.key", locked_pem(ca.key_pem, authority.passphrase), 0o600)
    write_file(authority.directory / "ca.pem", ca.certificate_pem)
    return ca.certificate_pem


def retire(authority: Authority, *, cas: bool, keys: bool, anyway: bool = False) -> None:
    """From the next manifest on, former CAs, or grants that former authority keys signed, count no longer.

    Raises Malformed where a party would be left without a certificate that counts, unless ``anyway``.
    """
    keyring = authority.keyring
    if cas:
        if not anyway:
            _refuse_where_left_behind(authority)
        keyring = replace(keyring, former_cas=())
    if keys:
        keyring = replace(keyring, former_authority_keys=())
    save_keyring(keyring, authority.directory)
    administered(authority.log, "retire --ca" if cas else "retire --key", **({"anyway": "yes"} if anyway else {}))


def reseal(authority: Authority, token: str, *, researcher: str | None = None) -> str:
    """A grant under the authority's present key: the same id, so that its budget goes on.

    It names no lost key any more, and with ``researcher`` the present key of one who is named by a former one.

    Raises Malformed for one that was not issued here: it is known by its digest, whoever could sign it meanwhile. Where
    the register has the very text that this makes of it, the last try was cut off, and the text is given again.
    """
    register, digest = authority.register, grant_sha256(token)
    known = next((each for each in register.grants if each.sha256 == digest), None)
    grant = _peeked(token)
    if known is None and grant is not None:
        known = next((each for each in register.grants if each.id == grant.id), None)
    if grant is None or known is None or known.revoked:
        raise _not_issued()
    grant = replace(grant, researchers=_researchers(authority, grant, researcher))
    again = seal_grant(grant, authority.key)  # the same key gives the same text
    if known.sha256 == grant_sha256(again):
        return again
    if known.sha256 != digest:
        raise _not_issued()
    changed = replace(known, sha256=grant_sha256(again))
    save_register(register.with_grant(changed), authority.directory)
    audit.issued(authority.log, grant, again)
    return again


def _peeked(token: str) -> Grant | None:
    try:
        return peek_grant(token)
    except AccessRefused:
        return None


def _not_issued() -> Malformed:
    return Malformed("this grant was not issued here in this form, or is revoked")


def _researchers(authority: Authority, grant: Grant, researcher: str | None) -> tuple[VerifyingKey, ...]:
    keys = [key for key in grant.researchers if key.thumbprint not in authority.keyring.lost_keys]
    if researcher is not None:
        had = authority.keyring.keys_ever_of("researcher", researcher)
        present = authority.register.key_of("researcher", researcher)
        # another person is an amendment, which custodians approve anew; another key of the same person is not
        named = any(key.thumbprint in had for key in grant.researchers)
        if present is None or not named:
            raise Malformed("the grant names no key of this researcher; `insitu-authority amend` adds a person")
        keys += [] if present in keys else [present]
    return tuple(keys)


def _enrol_invited(
    authority: Authority, token: str, invited: Invited, *, now: datetime, lifetime: timedelta
) -> tuple[str, Answer]:
    if invited.used:
        raise _refused("its invitation was used before")
    if now >= invited.expires_at:
        raise _refused("its invitation has expired")
    enrolment = open_enrolment(token, invited.key)
    if (enrolment.role, enrolment.id) != (invited.role, invited.id):
        raise _refused("it is of another party than was invited")
    keyring = authority.keyring.with_revoked(invited.role, invited.id).with_used(invited)
    keyring = keyring.without_invitations(invited.role, invited.id)
    party = party_of(invited, enrolment.key)
    return _enter(
        authority, party, enrolment, token, keyring, also=invited.also, until=None, now=now, lifetime=lifetime
    )


def _answered_again(
    authority: Authority, answered: Certified, key: VerifyingKey, invited: Invited | None, *, now: datetime
) -> tuple[str, Answer]:
    """The very enrolment that the party's present certificate answers: the last try may have been cut off."""
    if invited is not None:
        save_register(with_party(authority.register, party_of(invited, key)), authority.directory)
    until, pem = answered.former_until, answered.pem.encode()
    answer = _answer(authority, answered.role, answered.id, key, pem=pem, until=until, now=now)
    return _sealed(authority, answer), answer


def _enrol_changed(
    authority: Authority, token: str, *, now: datetime, lifetime: timedelta, until: datetime
) -> tuple[str, Answer]:
    voucher = voucher_of(token)
    present = next((e for e in authority.keyring.certified if e.key is not None and e.key.thumbprint == voucher), None)
    party = None if present is None else known_party(authority.register, present.role, present.id)
    if present is None or present.key is None or party is None:
        raise _refused("neither an invitation nor the present key of a party vouches for it")
    enrolment = open_enrolment(token, present.key)
    if (enrolment.role, enrolment.id) != (present.role, present.id):
        raise _refused("it is of another party than the one whose key vouches for it")
    if authority.keyring.expects(present.role, present.id):
        raise _refused("the party was invited anew, so its present key counts as lost; invite it again if need be")
    key = None if present.role == "gateway" else present.key
    serial = serial_of(present.pem.encode())
    former = Former(role=present.role, id=present.id, key=key, serial=serial, until=until)
    if not isinstance(party, GatewayEntry):
        party = replace(party, key=enrolment.key)
    keyring = authority.keyring.with_former(former)
    return _enter(
        authority, party, enrolment, token, keyring, also=present.also, until=until, now=now, lifetime=lifetime
    )


def _enter(
    authority: Authority,
    party: Party,
    enrolment: Enrolment,
    token: str,
    keyring: Keyring,
    *,
    also: tuple[str, ...],
    until: datetime | None,
    now: datetime,
    lifetime: timedelta,
) -> tuple[str, Answer]:
    refuse_known(authority, enrolment.key)
    pem = certificate_for(authority, party, enrolment.csr.encode(), now=now, lifetime=lifetime, also=also)
    made = Certified(
        role=enrolment.role,
        id=enrolment.id,
        pem=pem.decode(),
        key=enrolment.key,
        also=also,
        request_sha256=token_sha256(token),
        former_until=until,
    )
    register = with_party(authority.register, party)
    save_keyring(keyring.with_certificate(made), authority.directory)
    save_register(register, authority.directory)
    audit.certified(
        authority.log,
        enrolment.role,
        enrolment.id,
        enrolment.key,
        certificate=pem,
        replaced=authority.keyring.certificate_of(enrolment.role, enrolment.id) is not None,
        former_until=until,
    )
    answer = _answer(authority, enrolment.role, enrolment.id, enrolment.key, pem=pem, until=until, now=now)
    return _sealed(authority, answer), answer


def _sealed(authority: Authority, answer: Answer) -> str:
    """As a manifest, an answer is led to by the successions: a party may have pinned a former key (K8)."""
    return "\n".join([*authority.keyring.successions, seal_answer(answer, authority.key)])


def _answer(
    authority: Authority,
    role: Role,
    party_id: str,
    key: VerifyingKey | None,
    *,
    pem: bytes,
    until: datetime | None,
    now: datetime,
) -> Answer:
    return Answer(
        federation=authority.register.federation,
        role=role,
        id=party_id,
        key=key,
        certificate_pem=pem.decode(),
        ca_pem=authority.ca_bundle.decode(),
        authority=authority.public,
        former_until=until,
        issued_at=now,
    )


def _handed_over(authority: Authority, key: SigningKey, *, now: datetime, stolen: bool) -> Keyring:
    keyring = authority.keyring
    if stolen:  # whoever copied the directory may have seen invitations being made too
        keyring = keyring.with_invitations_expired(now)
        return replace(keyring, successions=(), former_authority_keys=())
    last = _last_step(authority)
    if last is not None and last.key == key.public():  # the last try came this far
        return keyring
    # a step to a key that is gone was never published: nothing is signed while a change is cut off
    steps = keyring.successions if last is None else keyring.successions[:-1]
    step = Succession(
        federation=authority.register.federation, former=authority.public, key=key.public(), issued_at=now
    )
    return replace(
        keyring,
        successions=(*steps, seal_succession(step, authority.key, key)),
        former_authority_keys=tuple(dict.fromkeys((authority.public, *keyring.former_authority_keys))),
    )


def _last_step(authority: Authority) -> Succession | None:
    """The succession that leads away from the present key: there is one where a change was cut off."""
    steps = authority.keyring.successions
    if not steps or unverified_kid(steps[-1]) != authority.public.thumbprint:
        return None
    return open_succession(steps[-1], authority.public)


def _waiting_key(authority: Authority, path: Path) -> SigningKey | None:
    """The key that the last try made; None where it made none, or was cut off while it wrote it."""
    try:
        return load_signing_key(path, lambda _: authority.passphrase or b"")
    except ConfigInvalid:
        return None


def _refuse_where_left_behind(authority: Authority) -> None:
    """Whoever still has a certificate of a former CA could not connect any more."""
    own = authority.ca.certificate_pem
    left = [each.id for each in authority.keyring.certified if not certificates.is_issued_by(each.pem.encode(), own)]
    check(not left, f"these have no certificate of the new CA yet: {', '.join(sorted(left))}")


def _refused(reason: str) -> AccessRefused:
    return AccessRefused("INSITU-KEY-ENROLMENT", what="enrolment", reason=reason)
