"""How the authority's key hands over to the next one, so that nobody has to pin it by hand.

A succession names the former key and the new one. The former key signs it over the new key's own signature: neither
can be made a successor, nor succeed, without having agreed. Successions stand before the manifest, one token a line, in
the one text that gateways carry; ``follow`` walks them from the key that a party pins. Numbered as in the threat model:

  K8   each step is signed by the key before it and agreed to by the key after it; the steps join up; the manifest is
       signed by the last key, so that a key that was left behind signs nothing any more

What a stolen key signs is a good succession to whoever still pins it. After a theft the authority therefore publishes
none, and every party pins the new key by hand (K9, ``insitu trust`` and its twins). Not here: files (``pin``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from insitu_privacy.errors import AccessRefused

from insitu_access import payload
from insitu_access.invariants import check, check_moments, check_name
from insitu_access.jose import refusing_malformed, sign, unverified, unverified_kid, verify
from insitu_access.keys import SigningKey, VerifyingKey, read_verifying_key

LIMIT = 32
"""Successions that a text may carry."""
_WHAT = "succession"


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """One step from a key of the authority to the next."""

    federation: str
    former: VerifyingKey
    key: VerifyingKey
    issued_at: datetime

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        check(self.former != self.key, "a key cannot succeed itself")
        check_moments((self.issued_at,), "issued_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Where the successions of a text lead from a pinned key."""

    key: VerifyingKey
    steps: tuple[str, ...]
    """The successions that were taken, none where the pinned key is the last one."""
    token: str
    """What stands after them."""


def seal_succession(succession: Succession, former: SigningKey, key: SigningKey) -> str:
    """Signed by both keys."""
    with refusing_malformed(_WHAT):
        consent = sign(payload.write(_as_json(succession)), key, "insitu-consent+jws")
        return sign(payload.write({"consent": consent}), former, "insitu-succession+jws")


def open_succession(token: str, former: VerifyingKey) -> Succession:
    """K8: the succession that ``former`` signed and the new key agreed to. Raises AccessRefused."""
    data = verify(token, [former], "insitu-succession+jws", _WHAT)
    with refusing_malformed(_WHAT):
        with payload.read(data) as fields:
            consent = fields.text("consent")
        succession = _read(unverified(consent, "insitu-consent+jws", _WHAT))
        verify(consent, [succession.key], "insitu-consent+jws", _WHAT)
        check(succession.former == former, "it names another former key")
    return succession


def follow(text: str, pinned: VerifyingKey) -> Followed:
    """K8: from the pinned key along the successions before the last line. Raises AccessRefused.

    Steps before the pinned key are passed over: whoever joined later pins a later key.
    """
    *statements, token = text.strip().split("\n")
    if len(statements) > LIMIT:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="manifest", reason="it carries too many successions")
    key, steps = walk(statements, pinned)
    return Followed(key=key, steps=steps, token=token)


def walk(statements: list[str], pinned: VerifyingKey) -> tuple[VerifyingKey, tuple[str, ...]]:
    """The key that the statements lead to, and the steps taken. Raises AccessRefused where they do not join up."""
    key, steps = pinned, list[str]()
    for statement in statements:
        if steps or unverified_kid(statement) == key.thumbprint:
            key = open_succession(statement, key).key
            steps.append(statement)
    return key, tuple(steps)


def _as_json(succession: Succession) -> dict[str, object]:
    return {
        "federation": succession.federation,
        "former": succession.former.as_json(),
        "key": succession.key.as_json(),
        "issued_at": payload.seconds_down(succession.issued_at),
    }


def _read(data: bytes) -> Succession:
    with payload.read(data) as fields:
        return Succession(
            federation=fields.text("federation"),
            former=fields.item("former", read_verifying_key),
            key=fields.item("key", read_verifying_key),
            issued_at=fields.moment("issued_at"),
        )
