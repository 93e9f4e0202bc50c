"""A seal: the party's signature over its log so far; who, from which entry to which, the hash of the last, when.

Whoever holds a seal can prove what the log said then: a log that was cut below it, or rewritten, does not lead to
its hash. A seal stands in the log itself, right after the last entry it covers, and may be handed out by itself.

Not here: when seals are made (``log``), whether the log leads to them and its key counted then (``chain``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from insitu_access import payload
from insitu_access.audit.entry import Party
from insitu_access.invariants import check, check_moments, check_sha256
from insitu_access.jose import Typ, refusing_malformed, sign, unverified_kid, verify
from insitu_access.keys import SigningKey, VerifyingKey
from insitu_access.manifest import FormerKey

Sealers = Sequence[VerifyingKey | FormerKey]
"""Keys of one party, the present one first. A former one counts until its date; one without a date, at any time."""
TYP: Typ = "insitu-audit-seal+jws"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is signed."""

    party: Party
    first: int
    """The first entry after the seal before."""
    last: int
    head: str
    """The digest of entry ``last``."""
    at: datetime

    def __post_init__(self) -> None:
        check(1 <= self.first <= self.last, "a seal must cover at least one entry")
        check_sha256(self.head, "head")
        check_moments((self.at,), "at")


def make_seal(seal: Seal, key: SigningKey) -> str:
    """The seal, signed."""
    return sign(payload.write(_as_json(seal)), key, TYP)


def key_of(sealer: VerifyingKey | FormerKey) -> VerifyingKey:
    return sealer.key if isinstance(sealer, FormerKey) else sealer


def open_seal(token: str, sealers: Sealers) -> Seal:
    """The seal that one of ``sealers`` signed, at whatever time. Raises AccessRefused."""
    data = verify(token, [key_of(each) for each in sealers], TYP, "seal")
    with refusing_malformed("seal"), payload.read(data) as fields:
        return Seal(
            party=Party(role=fields.text("role"), id=fields.text("id")),
            first=fields.integer("first"),
            last=fields.integer("last"),
            head=fields.text("head"),
            at=fields.moment("at"),
        )


def given_up(token: str, sealers: Sealers) -> datetime | None:
    """When the party gave up the key that signed a verified seal; None for a key that counts at any time."""
    own = [each for each in sealers if key_of(each).thumbprint == unverified_kid(token)]
    ends = [each.until for each in own if isinstance(each, FormerKey)]
    return max(ends) if len(ends) == len(own) else None


def _as_json(seal: Seal) -> dict[str, object]:
    return {
        "role": seal.party.role,
        "id": seal.party.id,
        "first": seal.first,
        "last": seal.last,
        "head": seal.head,
        "at": payload.seconds_down(seal.at),
    }
