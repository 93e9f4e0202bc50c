"""How a party comes to its certificate, and to a new one: three signed files that travel by mail, and one secret.

    invitation   authority -> party   who the party will be, until when, the authority's key to pin, a one-time secret
    enrolment    party -> authority   the public halves of keys that were made on site
    answer       authority -> party   the certificate, and the CA

The secret of an invitation is a signing key made for this one use; the authority keeps its public half alone. An
enrolment is signed by the party's new key (it holds it) and, around that, by a voucher: the invitation's key, or the
party's present key where it only changes keys. Numbered as in the threat model:

  K3  an invitation is signed by the authority key whose thumbprint a person has compared
  K5  an enrolment is signed by the new key and by its voucher: keys cannot be swapped on the way
  K6  an answer is signed by the authority, and is for the very keys that stand here

Not here: which vouchers count (``ceremonies``, K4), files and directories (``site``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from insitu_privacy.errors import AccessRefused
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from insitu_access import payload
from insitu_access.certificates import ROLES, Role
from insitu_access.invariants import check_moments, check_name, check_text
from insitu_access.jose import refusing_malformed, sign, unverified, unverified_kid, verify
from insitu_access.keys import SigningKey, VerifyingKey, read_verifying_key
from insitu_access.manifest import split_address
from insitu_access.payload import Fields, Malformed

PEM_LIMIT = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a party is sent to enrol with: a secret, to be handed over where nobody else reads it."""

    federation: str
    role: Role
    id: str
    voucher: SigningKey
    authority: VerifyingKey
    address: str | None
    """Of a gateway: where it will be reached."""
    gateways: tuple[str, ...]
    """Where the gateways are reached, for the configuration that the party starts from."""
    datasets: tuple[str, ...]
    """What is served, by name, for the same."""
    expires_at: datetime

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        check_name(self.id, "id")
        for address in (*self.gateways, *((self.address,) if self.address else ())):
            split_address(address)
        for dataset in self.datasets:
            check_name(dataset, "dataset")
        check_moments((self.expires_at,), "expires_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """The public halves of a party's new keys."""

    role: Role
    id: str
    key: VerifyingKey
    csr: str
    issued_at: datetime

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_text(self.csr, "csr", PEM_LIMIT)
        check_moments((self.issued_at,), "issued_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the authority hands back."""

    federation: str
    role: Role
    id: str
    key: VerifyingKey | None
    """The signing key it is for; None for a gateway, which has none that counts, and where only TLS is renewed."""
    certificate_pem: str
    ca_pem: str
    authority: VerifyingKey
    former_until: datetime | None
    """Until when the former signing key counts; None where it counts no longer."""
    issued_at: datetime


def seal_invitation(invitation: Invitation, authority: SigningKey) -> str:
    """K3."""
    with refusing_malformed("invitation"):
        return sign(payload.write(_invitation_as_json(invitation)), authority, "insitu-invitation+jws")


def peek_authority(token: str) -> VerifyingKey:
    """The authority key that an invitation claims, UNVERIFIED: to be shown to a person who compares it."""
    return _read_invitation(unverified(token, "insitu-invitation+jws", "invitation")).authority


def open_invitation(token: str, authority: VerifyingKey, *, now: datetime) -> Invitation:
    """K3: the invitation that ``authority``, compared by a person, has signed. Raises AccessRefused."""
    invitation = _read_invitation(verify(token, [authority], "insitu-invitation+jws", "invitation"))
    if invitation.authority != authority:
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="invitation", reason="it names another authority key")
    if now >= invitation.expires_at:
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="invitation", reason="it has expired")
    return invitation


def seal_enrolment(enrolment: Enrolment, key: SigningKey, voucher: SigningKey) -> str:
    """Signed by the new key, and around that by the voucher (K5)."""
    with refusing_malformed("enrolment"):
        inner = sign(payload.write(_enrolment_as_json(enrolment)), key, "insitu-keys+jws")
        return sign(payload.write({"keys": inner}), voucher, "insitu-enrolment+jws")


def voucher_of(token: str) -> str | None:
    """The thumbprint of the key that an enrolment claims for its voucher, UNVERIFIED."""
    return unverified_kid(token)


def peek_enrolment(token: str) -> Enrolment:
    """What an enrolment says, UNVERIFIED: for a person to compare. Raises AccessRefused."""
    data = unverified(token, "insitu-enrolment+jws", "enrolment")
    with refusing_malformed("enrolment"):
        with payload.read(data) as fields:
            inner = fields.text("keys")
        return _read_enrolment(unverified(inner, "insitu-keys+jws", "enrolment"))


def open_enrolment(token: str, voucher: VerifyingKey) -> Enrolment:
    """K5. Raises AccessRefused."""
    data = verify(token, [voucher], "insitu-enrolment+jws", "enrolment")
    with refusing_malformed("enrolment"):
        with payload.read(data) as fields:
            inner = fields.text("keys")
        enrolment = _read_enrolment(unverified(inner, "insitu-keys+jws", "enrolment"))
        verify(inner, [enrolment.key], "insitu-keys+jws", "enrolment")
    return enrolment


def seal_answer(answer: Answer, authority: SigningKey) -> str:
    with refusing_malformed("answer"):
        return sign(payload.write(_answer_as_json(answer)), authority, "insitu-answer+jws")


def open_answer(token: str, authority: VerifyingKey) -> Answer:
    """K6: what the pinned authority key signed. Raises AccessRefused."""
    return read_answer(verify(token, [authority], "insitu-answer+jws", "answer"))


def _invitation_as_json(invitation: Invitation) -> dict[str, object]:
    voucher = invitation.voucher.jwk.as_dict(private=True)
    return {
        "federation": invitation.federation,
        "role": invitation.role,
        "id": invitation.id,
        "voucher": {name: voucher[name] for name in ("kty", "crv", "x", "d")},
        "authority": invitation.authority.as_json(),
        "address": invitation.address,
        "gateways": list(invitation.gateways),
        "datasets": list(invitation.datasets),
        "expires_at": payload.seconds_up(invitation.expires_at),
    }


def _read_invitation(data: bytes) -> Invitation:
    with refusing_malformed("invitation"), payload.read(data) as fields:
        return Invitation(
            federation=fields.text("federation"),
            role=read_role(fields.text("role")),
            id=fields.text("id"),
            voucher=fields.item("voucher", _read_voucher),
            authority=fields.item("authority", read_verifying_key),
            address=fields.optional_text("address"),
            gateways=fields.texts("gateways"),
            datasets=fields.texts("datasets"),
            expires_at=fields.moment("expires_at"),
        )


def _read_voucher(value: object, path: str) -> SigningKey:
    with Fields(value, path) as fields:
        jwk: dict[str, str | list[str]] = {name: fields.text(name) for name in ("kty", "crv", "x", "d")}
    if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
        raise Malformed(f"{path} must be an Ed25519 key")
    try:
        return SigningKey(jwk=OKPKey.import_key(jwk))
    except (JoseError, ValueError) as error:
        raise Malformed(f"{path} must be an Ed25519 private key") from error


def read_role(text: str) -> Role:
    """The role that ``text`` names. Raises Malformed."""
    found = next((role for role in ROLES if role == text), None)
    if found is None:
        raise Malformed("role must be gateway, node or researcher")
    return found


def _enrolment_as_json(enrolment: Enrolment) -> dict[str, object]:
    return {
        "role": enrolment.role,
        "id": enrolment.id,
        "key": enrolment.key.as_json(),
        "csr": enrolment.csr,
        "issued_at": payload.seconds_down(enrolment.issued_at),
    }


def _read_enrolment(data: bytes) -> Enrolment:
    with payload.read(data) as fields:
        return Enrolment(
            role=read_role(fields.text("role")),
            id=fields.text("id"),
            key=fields.item("key", read_verifying_key),
            csr=fields.text("csr"),
            issued_at=fields.moment("issued_at"),
        )


def _answer_as_json(answer: Answer) -> dict[str, object]:
    return {
        "federation": answer.federation,
        "role": answer.role,
        "id": answer.id,
        "key": None if answer.key is None else answer.key.as_json(),
        "certificate_pem": answer.certificate_pem,
        "ca_pem": answer.ca_pem,
        "authority": answer.authority.as_json(),
        "former_until": None if answer.former_until is None else payload.seconds_up(answer.former_until),
        "issued_at": payload.seconds_down(answer.issued_at),
    }


def read_answer(data: bytes) -> Answer:
    """What payload bytes say, unverified. Raises AccessRefused."""
    with refusing_malformed("answer"), payload.read(data) as fields:
        return Answer(
            federation=fields.text("federation"),
            role=read_role(fields.text("role")),
            id=fields.text("id"),
            key=fields.optional_item("key", read_verifying_key),
            certificate_pem=fields.text("certificate_pem"),
            ca_pem=fields.text("ca_pem"),
            authority=fields.item("authority", read_verifying_key),
            former_until=fields.optional_item("former_until", payload.as_moment),
            issued_at=fields.moment("issued_at"),
        )
