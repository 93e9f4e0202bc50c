"""What the authority remembers of keys that come and go: invitations, certificates, former keys, former CAs.

One JSON file beside the register. It holds no secrets: of an invitation the public half. A file that is not there is
an empty keyring. Like the register it is written before what it allows is signed, so that a crash leaves an
invitation used up rather than usable twice (K4). Not here: deciding (``ceremonies``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

from insitu_access import payload
from insitu_access.certificates import Role, serial_of, validity
from insitu_access.enrolment import read_role
from insitu_access.files import read_file, write_file
from insitu_access.keys import VerifyingKey, read_verifying_key
from insitu_access.manifest import FormerKey, former_as_json, read_former
from insitu_access.payload import Fields, Malformed, as_mapping, as_text

FILE_NAME = "keyring.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """An invitation that was made: who is expected, and the public half of its secret."""

    key: VerifyingKey
    role: Role
    id: str
    organisation: str | None
    operator: str | None
    jurisdiction: str | None
    address: str | None
    also: tuple[str, ...]
    expires_at: datetime
    used: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """The TLS certificate that a party has now."""

    role: Role
    id: str
    pem: str
    key: VerifyingKey | None = None
    """The signing key beside it, which vouches for the next; None where it was never told (a gateway by ``cert``)."""
    also: tuple[str, ...] = ()
    """Further names of a gateway, to be in the next one too."""
    request_sha256: str | None = None
    """Of the enrolment that it answers: where that is handed in again, the answer was cut off, and is given again."""
    former_until: datetime | None = None
    """As that answer says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """What a party had before, and until when it counts."""

    role: Role
    id: str
    key: VerifyingKey | None
    """The signing key; None where it stayed."""
    serial: str
    """Of the TLS certificate."""
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """A frozen value; changes make a new one."""

    invited: tuple[Invited, ...] = ()
    certified: tuple[Certified, ...] = ()
    former: tuple[Former, ...] = ()
    revoked: frozenset[str] = frozenset()
    """Serial numbers."""
    lost_keys: Mapping[str, str] = field(default_factory=dict)
    """Signing keys that were lost or stolen, by thumbprint: whose they were, as "role id"."""
    successions: tuple[str, ...] = ()
    former_authority_keys: tuple[VerifyingKey, ...] = ()
    """Keys whose grants still count."""
    signed_before: tuple[FormerKey, ...] = ()
    """Every key that the authority had before, whether its grants still count or not: for its log and for receipts."""
    former_cas: tuple[str, ...] = ()
    """CAs whose certificates still count, PEM."""

    def certificate_of(self, role: Role, party_id: str) -> Certified | None:
        return next((each for each in self.certified if (each.role, each.id) == (role, party_id)), None)

    def invitation(self, thumbprint: str) -> Invited | None:
        return next((each for each in self.invited if each.key.thumbprint == thumbprint), None)

    def expects(self, role: Role, party_id: str) -> bool:
        """Whether the party was invited and has not enrolled by it, though the invitation may have expired."""
        return any((each.role, each.id) == (role, party_id) and not each.used for each in self.invited)

    def without_invitations(self, role: Role, party_id: str) -> Keyring:
        """The party's invitations that were not used are void."""
        left = (each for each in self.invited if each.used or (each.role, each.id) != (role, party_id))
        return replace(self, invited=tuple(left))

    def with_invitations_expired(self, now: datetime) -> Keyring:
        """No invitation can be used any more; that the parties were invited stays known."""
        moment = now.replace(microsecond=0)  # it is written in whole seconds
        changed = (
            each if each.used else replace(each, expires_at=min(each.expires_at, moment)) for each in self.invited
        )
        return replace(self, invited=tuple(changed))

    def with_certificate(self, new: Certified) -> Keyring:
        """The party's certificate now. The one before is kept as a former one, to be revoked (K10)."""
        others = tuple(each for each in self.certified if (each.role, each.id) != (new.role, new.id))
        before = self.certificate_of(new.role, new.id)
        return replace(self._with_superseded(before) if before else self, certified=(*others, new))

    def _with_superseded(self, before: Certified) -> Keyring:
        pem = before.pem.encode()
        serial = serial_of(pem)
        if serial in self.revoked or any(each.serial == serial for each in self.former):
            return self
        kept = Former(role=before.role, id=before.id, key=None, serial=serial, until=validity(pem)[1])
        return replace(self, former=(*self.former, kept))

    def with_used(self, invited: Invited) -> Keyring:
        changed = (replace(each, used=each.used or each.key == invited.key) for each in self.invited)
        return replace(self, invited=tuple(changed))

    def with_former(self, new: Former) -> Keyring:
        """The party changes its keys: what it had before these ones counts no longer than they do."""
        capped = tuple(
            replace(each, until=min(each.until, new.until)) if (each.role, each.id) == (new.role, new.id) else each
            for each in self.former
        )
        return replace(self, former=(*capped, new))

    def without_former(self, role: Role, party_id: str) -> Keyring:
        """Nothing that the party had before counts any longer: its certificates are revoked (K7, K10)."""
        gone = [each for each in self.former if (each.role, each.id) == (role, party_id)]
        left = tuple(each for each in self.former if each not in gone)
        return replace(self, former=left, revoked=self.revoked | {each.serial for each in gone})

    def with_revoked(self, role: Role, party_id: str) -> Keyring:
        """The party's present certificate and keys are revoked as well."""
        lost = {each.key.thumbprint for each in self.former if (each.role, each.id) == (role, party_id) and each.key}
        present, rest = self.certificate_of(role, party_id), self.without_former(role, party_id)
        if present is None:
            return rest.with_lost(role, party_id, lost)
        lost |= {present.key.thumbprint} if present.key else set()
        serials = rest.revoked | {serial_of(present.pem.encode())}
        return replace(rest, revoked=serials).with_lost(role, party_id, lost)

    def with_lost(self, role: Role, party_id: str, lost: set[str]) -> Keyring:
        return replace(self, lost_keys={**self.lost_keys, **dict.fromkeys(lost, f"{role} {party_id}")})

    def keys_ever_of(self, role: Role, party_id: str) -> frozenset[str]:
        """Thumbprints of all signing keys that this party has had, lost ones among them."""
        entries: tuple[Certified | Former, ...] = (*self.certified, *self.former)
        held = [each for each in entries if (each.role, each.id) == (role, party_id)]
        lost = {thumbprint for thumbprint, whose in self.lost_keys.items() if whose == f"{role} {party_id}"}
        return frozenset(lost | {each.key.thumbprint for each in held if each.key is not None})

    def former_keys(self, role: Role, party_id: str, now: datetime) -> tuple[FormerKey, ...]:
        """The signing keys that a party had before and that still count."""
        return tuple(
            FormerKey(key=each.key, until=each.until)
            for each in self.former
            if (each.role, each.id) == (role, party_id) and each.key is not None and now < each.until
        )

    def with_signed_before(self, key: VerifyingKey, until: datetime) -> Keyring:
        """The authority gives up a key; one that it gave up already keeps its date."""
        if any(each.key == key for each in self.signed_before):
            return self
        return replace(self, signed_before=(FormerKey(key=key, until=until), *self.signed_before))

    def revoked_at(self, now: datetime) -> frozenset[str]:
        """Serial numbers of the certificates that count no longer."""
        return self.revoked | {each.serial for each in self.former if each.until <= now}


def load_keyring(directory: Path) -> Keyring:
    """The keyring in the authority's directory. Raises ConfigInvalid."""
    path = directory / FILE_NAME
    if not path.exists():
        return Keyring()
    try:
        with payload.read(read_file(path)) as fields:
            return _read(fields)
    except Malformed as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=error.reason) from error


def save_keyring(keyring: Keyring, directory: Path) -> None:
    write_file(directory / FILE_NAME, payload.write(_as_json(keyring)))


def _read(fields: Fields) -> Keyring:
    return Keyring(
        invited=fields.items("invited", _read_invited),
        certified=fields.items("certified", _read_certified),
        former=fields.items("former", _read_former),
        revoked=frozenset(fields.texts("revoked")),
        lost_keys=fields.item("lost_keys", lambda value, path: as_mapping(value, path, as_text)),
        successions=fields.texts("successions"),
        former_authority_keys=fields.items("former_authority_keys", read_verifying_key),
        signed_before=fields.items("signed_before", read_former),
        former_cas=fields.texts("former_cas"),
    )


def _read_invited(value: object, path: str) -> Invited:
    with Fields(value, path) as fields:
        return Invited(
            key=fields.item("key", read_verifying_key),
            role=read_role(fields.text("role")),
            id=fields.text("id"),
            organisation=fields.optional_text("organisation"),
            operator=fields.optional_text("operator"),
            jurisdiction=fields.optional_text("jurisdiction"),
            address=fields.optional_text("address"),
            also=fields.texts("also"),
            expires_at=fields.moment("expires_at"),
            used=fields.flag("used"),
        )


def _read_certified(value: object, path: str) -> Certified:
    if isinstance(value, dict):  # keyrings of before do not say these
        value = {"request_sha256": None, "former_until": None, **value}
    with Fields(value, path) as fields:
        return Certified(
            role=read_role(fields.text("role")),
            id=fields.text("id"),
            pem=fields.text("pem"),
            key=fields.optional_item("key", read_verifying_key),
            also=fields.texts("also"),
            request_sha256=fields.optional_text("request_sha256"),
            former_until=fields.optional_item("former_until", payload.as_moment),
        )


def _read_former(value: object, path: str) -> Former:
    with Fields(value, path) as fields:
        return Former(
            role=read_role(fields.text("role")),
            id=fields.text("id"),
            key=fields.optional_item("key", read_verifying_key),
            serial=fields.text("serial"),
            until=fields.moment("until"),
        )


def _as_json(keyring: Keyring) -> dict[str, object]:
    return {
        "invited": [_invited_as_json(each) for each in keyring.invited],
        "certified": [_certified_as_json(each) for each in keyring.certified],
        "former": [_former_as_json(each) for each in keyring.former],
        "revoked": sorted(keyring.revoked),
        "lost_keys": dict(keyring.lost_keys),
        "successions": list(keyring.successions),
        "former_authority_keys": [key.as_json() for key in keyring.former_authority_keys],
        "signed_before": [former_as_json(each) for each in keyring.signed_before],
        "former_cas": list(keyring.former_cas),
    }


def _invited_as_json(invited: Invited) -> dict[str, object]:
    return {
        "key": invited.key.as_json(),
        "role": invited.role,
        "id": invited.id,
        "organisation": invited.organisation,
        "operator": invited.operator,
        "jurisdiction": invited.jurisdiction,
        "address": invited.address,
        "also": list(invited.also),
        "expires_at": payload.seconds_up(invited.expires_at),
        "used": invited.used,
    }


def _certified_as_json(certified: Certified) -> dict[str, object]:
    return {
        "role": certified.role,
        "id": certified.id,
        "pem": certified.pem,
        "key": None if certified.key is None else certified.key.as_json(),
        "also": list(certified.also),
        "request_sha256": certified.request_sha256,
        "former_until": None if certified.former_until is None else payload.seconds_up(certified.former_until),
    }


def _former_as_json(former: Former) -> dict[str, object]:
    return {
        "role": former.role,
        "id": former.id,
        "key": None if former.key is None else former.key.as_json(),
        "serial": former.serial,
        "until": payload.seconds_up(former.until),
    }
