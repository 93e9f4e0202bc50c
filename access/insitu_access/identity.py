"""The identity directory of a party: its signing key, its TLS key and certificate, and what it pins.

    signing.key  signing.pub    Ed25519: signs requests (researcher) or releases (node)
    tls.key      tls.pem        P-256 key and certificate of the federation's CA, for mTLS
    ca.pem                      that CA
    authority.pub               the pinned key of the access authority

Private keys are made where they are used (``create_keys``) and need never leave; the authority sees ``tls.csr`` and
``signing.pub``. ``load_identity`` checks that the parts belong together. Not here: whether the certificate is still
valid, which the TLS handshake decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from insitu_privacy.errors import AccessRefused

from insitu_access.certificates import (
    Role,
    create_csr,
    create_tls_key,
    is_issued_by,
    key_matches,
    peer_identity,
)
from insitu_access.files import (
    KEY_LIMIT,
    make_directory,
    read_file,
    read_private_file,
    unreadable,
    write_file,
    write_private_file,
)
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    generate_signing_key,
    load_signing_key,
    load_verifying_key,
    save_signing_key,
    save_verifying_key,
)


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


def create_keys(directory: Path) -> VerifyingKey:
    """Make the private keys of a party in ``directory``, and ``signing.pub`` and ``tls.csr`` for the authority.

    Raises ConfigInvalid where keys are there already.
    """
    make_directory(directory)
    signing, tls_key = generate_signing_key(), create_tls_key()
    save_signing_key(signing, directory / "signing.key")
    save_verifying_key(signing.public(), directory / "signing.pub")
    write_private_file(directory / "tls.key", tls_key)
    write_file(directory / "tls.csr", create_csr(tls_key))
    return signing.public()


def write_certificate(directory: Path, *, certificate: bytes, ca: bytes, authority: VerifyingKey) -> None:
    """Add what the authority hands back: the certificate, the CA and the key to pin."""
    make_directory(directory)
    write_file(directory / "tls.pem", certificate)
    write_file(directory / "ca.pem", ca)
    save_verifying_key(authority, directory / "authority.pub")


def load_identity(directory: Path) -> Identity:
    """The identity in ``directory``. Raises ConfigInvalid where a part is missing, exposed or of another party."""
    signing = load_signing_key(directory / "signing.key")
    if load_verifying_key(directory / "signing.pub") != signing.public():
        raise unreadable(directory / "signing.pub", "it is not the public half of signing.key")
    tls_key = read_private_file(directory / "tls.key")
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
    )


def _party(path: Path, certificate: bytes) -> tuple[Role, str]:
    try:
        return peer_identity(certificate)
    except AccessRefused as error:
        raise unreadable(path, "it does not name a party of a federation") from error
