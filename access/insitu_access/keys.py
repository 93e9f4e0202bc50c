"""Ed25519 signing keys: made, kept in PEM files, named by their RFC 7638 thumbprint.

Private keys are PKCS #8 PEM in files of mode 0600, plain or under a passphrase (``sealed_key``); a file that others
can read is refused either way (K2). Public keys are SubjectPublicKeyInfo PEM, or a JWK of exactly ``kty``, ``crv`` and
``x`` inside signed objects. A key's ``repr`` shows its thumbprint alone. Not here: TLS keys (``certificates``), an HSM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from insitu_privacy.errors import ConfigInvalid
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from insitu_access.files import KEY_LIMIT, read_file, read_private_file, unreadable, write_file, write_private_file
from insitu_access.passphrase import Ask, asking
from insitu_access.payload import Fields, Malformed
from insitu_access.relocking import finish, replace_together
from insitu_access.sealed_key import WrongPassphrase, is_sealed, seal, unseal

_BELOW = ("former", "next")
"""Directories of keys below those of a party, under one passphrase with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A public key. Two are equal when their thumbprints are."""

    jwk: OKPKey = field(compare=False, repr=False)
    thumbprint: str = field(init=False)
    """RFC 7638: base64url SHA-256 of the canonical JWK."""

    def __post_init__(self) -> None:
        if self.jwk.is_private or self.jwk.curve_name != "Ed25519":
            raise Malformed("a verifying key must be an Ed25519 public key")
        object.__setattr__(self, "thumbprint", self.jwk.thumbprint())

    def pem(self) -> bytes:
        """SubjectPublicKeyInfo PEM."""
        return self.jwk.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def as_json(self) -> dict[str, str]:
        """The JWK of exactly ``kty``, ``crv`` and ``x``."""
        value = self.jwk.as_dict(private=False)
        return {name: str(value[name]) for name in ("kty", "crv", "x")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key, with its public half."""

    jwk: OKPKey = field(compare=False, repr=False)
    thumbprint: str = field(init=False)
    """The thumbprint of the public half."""

    def __post_init__(self) -> None:
        if not self.jwk.is_private or self.jwk.curve_name != "Ed25519":
            raise Malformed("a signing key must be an Ed25519 private key")
        object.__setattr__(self, "thumbprint", self.jwk.thumbprint())

    def public(self) -> VerifyingKey:
        return VerifyingKey(jwk=OKPKey.import_key(self.jwk.public_key))


def generate_signing_key() -> SigningKey:
    return SigningKey(jwk=OKPKey.generate_key("Ed25519"))


def thumbprint(key: VerifyingKey | SigningKey) -> str:
    """RFC 7638 thumbprint, by joserfc."""
    return key.thumbprint


def save_signing_key(key: SigningKey, path: Path, passphrase: bytes | None = None) -> None:
    """Write a new private key file, mode 0600, under the passphrase if there is one. Refuses to overwrite."""
    write_private_file(path, locked_pem(signing_key_pem(key), passphrase))


def signing_key_pem(key: SigningKey) -> bytes:
    """PKCS #8 PEM, not encrypted: for ``locked_pem``."""
    raw = key.jwk.private_key
    if raw is None:  # excluded by SigningKey itself
        raise TypeError("not a private key")
    return raw.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def locked_pem(pem: bytes, passphrase: bytes | None) -> bytes:
    """What stands in a key file: the PEM, under the passphrase if there is one."""
    return pem if passphrase is None else seal(pem, passphrase)


def load_signing_key(path: Path, ask: Ask | None = None) -> SigningKey:
    """Raises ConfigInvalid where the file is not an Ed25519 private key, others can read it, or it stays locked."""
    data = load_private_pem(path, ask)
    try:
        raw = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise unreadable(path, "it is not a private key in PEM, plain or under a passphrase of insitu") from error
    if not isinstance(raw, Ed25519PrivateKey):
        raise unreadable(path, "it is not an Ed25519 private key")
    return SigningKey(jwk=OKPKey.import_key(raw))


def load_private_pem(path: Path, ask: Ask | None = None) -> bytes:
    """A private key file as PEM, unlocked with the passphrase that ``ask`` gives. Raises ConfigInvalid.

    A change of passphrase that was cut off is finished first (``relocking``).
    """
    finish(path.parent.parent if path.parent.name in _BELOW else path.parent)
    data = read_private_file(path)
    if not is_sealed(data):
        return data
    try:
        return unseal(data, (ask or asking())(path))
    except WrongPassphrase as error:
        raise ConfigInvalid("INSITU-KEY-PASSPHRASE", path=path) from error
    except Malformed as error:
        raise unreadable(path, error.reason) from error


def relock(paths: Sequence[Path], ask: Ask, choose: Callable[[], bytes | None]) -> None:
    """Put key files under another passphrase, or under none: all of them or none, wherever it is cut off.

    The first is in the directory of the keys, the others in it or below. A key that waits to take the place of one of
    them (``authority.key.next``) goes with it.
    """
    waiting = (path.with_name(f"{path.name}.next") for path in paths)
    every = dict.fromkeys([*paths, *(path for path in waiting if path.exists())])
    opened = {path: load_private_pem(path, ask) for path in every}
    passphrase = choose()
    if passphrase is not None and is_sealed(read_private_file(paths[0])) and ask(paths[0]) == passphrase:
        hint = "Type another one, or pass --passphrase-file with another file."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="the new passphrase is the present one", hint=hint)
    replace_together(paths[0].parent, {path: locked_pem(pem, passphrase) for path, pem in opened.items()})


def save_verifying_key(key: VerifyingKey, path: Path) -> None:
    write_file(path, key.pem())


def load_verifying_key(path: Path) -> VerifyingKey:
    """Raises ConfigInvalid where the file is not an Ed25519 public key."""
    try:
        raw = load_pem_public_key(read_file(path, KEY_LIMIT))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unreadable(path, "it is not a public key in PEM") from error
    if not isinstance(raw, Ed25519PublicKey):
        raise unreadable(path, "it is not an Ed25519 public key")
    return VerifyingKey(jwk=OKPKey.import_key(raw))


def read_verifying_key(value: object, path: str) -> VerifyingKey:
    """A key from a signed object: a JWK of exactly ``kty``, ``crv`` and ``x``."""
    with Fields(value, path) as fields:
        text = {name: fields.text(name) for name in ("kty", "crv", "x")}
    if text["kty"] != "OKP" or text["crv"] != "Ed25519":
        raise Malformed(f"{path} must be an Ed25519 key")
    try:
        return VerifyingKey(jwk=OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": text["x"]}))
    except (JoseError, ValueError) as error:
        raise Malformed(f"{path}.x must be an Ed25519 public key in base64url") from error
