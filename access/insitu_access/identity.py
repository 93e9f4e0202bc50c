"""The identity directory of a party: its signing key, its TLS key and certificate, and what it pins.

    signing.key  signing.pub    Ed25519: signs requests (researcher) or releases (node)
    tls.key      tls.pem        P-256 key and certificate of the federation's CA, for mTLS
    ca.pem                      that CA
    authority.pub               the pinned key of the access authority
    answer.jws                  what the authority answered last, where the keys were enrolled (``enrolment``)
    former/signing.key          the signing key before this one, while it still counts (K7)
    former-keys.json            public halves of all signing keys before this one, and when each was given up (E12)
    next/                       new keys that the authority has not answered yet (``site``)

Private keys are made where they are used (``create_keys``) and need never leave (K1); the authority sees ``tls.csr``
and ``signing.pub``. ``load_identity`` checks that the parts belong together. Not here: whether the certificate is still
valid, which the TLS handshake decides.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from insitu_privacy.errors import AccessRefused

from insitu_access import payload
from insitu_access.certificates import (
    Role,
    create_csr,
    create_tls_key,
    is_issued_by,
    key_matches,
    peer_identity,
)
from insitu_access.enrolment import read_answer
from insitu_access.files import (
    KEY_LIMIT,
    make_directory,
    read_file,
    unreadable,
    write_file,
    write_private_file,
)
from insitu_access.jose import unverified
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    generate_signing_key,
    load_private_pem,
    load_signing_key,
    load_verifying_key,
    locked_pem,
    save_signing_key,
    save_verifying_key,
)
from insitu_access.manifest import FormerKey, Manifest, former_as_json, read_former
from insitu_access.passphrase import Ask, asking
from insitu_access.payload import Malformed

FORMER, NEXT, SIGNED_BEFORE = "former", "next", "former-keys.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A party's own keys and what it pins."""

    role: Role
    id: str
    signing: SigningKey
    tls_key_pem: bytes = field(repr=False)
    tls_cert_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)
    authority: VerifyingKey
    former: SigningKey | None = None
    """The signing key before this one."""
    signed_before: tuple[FormerKey, ...] = ()
    """Every signing key that the party had before: its audit log is sealed with them."""
    answered_at: datetime | None = None
    """When the authority answered with these CAs; None where they were handed over without an answer."""

    def signing_for(self, known: Collection[VerifyingKey]) -> SigningKey:
        """The key to sign with for those who know ``known``: the present one, or else the former one (K7)."""
        if self.former is not None and self.signing.public() not in known and self.former.public() in known:
            return self.former
        return self.signing

    def anchors(self, manifest: Manifest | None) -> bytes:
        """The CAs to believe: those of the manifest, or of an answer that the authority gave after it (K11)."""
        if manifest is None or (self.answered_at is not None and self.answered_at > manifest.issued_at):
            return self.ca_pem
        return manifest.ca_pem.encode()


def create_keys(directory: Path, passphrase: bytes | None = None) -> VerifyingKey:
    """Make the private keys of a party in ``directory``, and ``signing.pub`` and ``tls.csr`` for the authority.

    Both private keys are put under the passphrase, if there is one. Raises ConfigInvalid where keys are there already.
    """
    make_directory(directory)
    signing, tls_key = generate_signing_key(), create_tls_key()
    save_signing_key(signing, directory / "signing.key", passphrase)
    save_verifying_key(signing.public(), directory / "signing.pub")
    write_private_file(directory / "tls.key", locked_pem(tls_key, passphrase))
    write_file(directory / "tls.csr", create_csr(tls_key))
    return signing.public()


def write_certificate(directory: Path, *, certificate: bytes, ca: bytes, authority: VerifyingKey) -> None:
    """Add what the authority hands back: the certificate, the CA and the key to pin."""
    make_directory(directory)
    write_file(directory / "tls.pem", certificate)
    write_file(directory / "ca.pem", ca)
    save_verifying_key(authority, directory / "authority.pub")


def load_identity(directory: Path, ask: Ask | None = None) -> Identity:
    """The identity in ``directory``, unlocked with what ``ask`` gives.

    Raises ConfigInvalid where a part is missing, exposed or of another party, or stays locked.
    """
    ask = ask or asking()
    signing = load_signing_key(directory / "signing.key", ask)
    if load_verifying_key(directory / "signing.pub") != signing.public():
        raise unreadable(directory / "signing.pub", "it is not the public half of signing.key")
    tls_key = load_private_pem(directory / "tls.key", ask)
    certificate = read_file(directory / "tls.pem", KEY_LIMIT)
    ca = read_file(directory / "ca.pem", KEY_LIMIT)
    if not key_matches(tls_key, certificate):
        raise unreadable(directory / "tls.pem", "it is not the certificate of tls.key")
    if not is_issued_by(certificate, ca):
        raise unreadable(directory / "tls.pem", "it was not issued by ca.pem")
    role, party_id = _party(directory / "tls.pem", certificate)
    return Identity(
        role=role,
        id=party_id,
        signing=signing,
        tls_key_pem=tls_key,
        tls_cert_pem=certificate,
        ca_pem=ca,
        authority=load_verifying_key(directory / "authority.pub"),
        former=_former(directory / FORMER / "signing.key", lambda _: ask(directory / "signing.key")),
        signed_before=load_signed_before(directory),
        answered_at=answered_at(directory / "answer.jws"),
    )


def sealers(directory: Path) -> tuple[VerifyingKey | FormerKey, ...]:
    """Public halves of the party's keys, the present one first: no passphrase is asked for. Raises ConfigInvalid."""
    return load_verifying_key(directory / "signing.pub"), *load_signed_before(directory)


def load_signed_before(directory: Path) -> tuple[FormerKey, ...]:
    """The keys that were given up, the last one first. Raises ConfigInvalid."""
    path = directory / SIGNED_BEFORE
    if not path.exists():
        return ()
    try:
        with payload.read(read_file(path)) as fields:
            return fields.items("keys", read_former)
    except Malformed as error:
        raise unreadable(path, error.reason) from error


def give_up(directory: Path, key: VerifyingKey, now: datetime) -> None:
    """Keep the public half of a key that another is about to take the place of. A second time changes nothing."""
    known = load_signed_before(directory)
    if not any(each.key == key for each in known):
        keys = (FormerKey(key=key, until=now), *known)
        write_file(directory / SIGNED_BEFORE, payload.write({"keys": [former_as_json(each) for each in keys]}))


def _former(path: Path, ask: Ask) -> SigningKey | None:
    return load_signing_key(path, ask) if path.exists() else None


def answered_at(path: Path) -> datetime | None:
    """When the authority gave the answer in this file, which was verified when it was put there; None without one."""
    if not path.exists():
        return None
    token = read_file(path, KEY_LIMIT * 4).decode("ascii", "replace").strip()
    try:
        return read_answer(unverified(token, "insitu-answer+jws", "answer")).issued_at
    except AccessRefused as error:
        raise unreadable(path, "it is not an answer of the access authority") from error


def _party(path: Path, certificate: bytes) -> tuple[Role, str]:
    try:
        return peer_identity(certificate)
    except AccessRefused as error:
        raise unreadable(path, "it does not name a party of a federation") from error
