"""A private key under a passphrase: the PEM inside a compact JWE, by joserfc (RFC 7518, PBES2).

``PBES2-HS512+A256KW`` with ``ROUNDS`` of PBKDF2, then A256GCM. Not the encrypted PKCS #8 of OpenSSL: there the rounds
are 2,048 and cannot be set, which a graphics card guesses through. The header is fixed: a file that asks for another
algorithm, for fewer rounds, or for so many that it would never open, is refused before anything is derived (B3).

Not here: where the passphrase comes from (``passphrase``), files (``keys``, ``identity``).
"""

from __future__ import annotations

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.util import urlsafe_b64decode

from insitu_access import payload
from insitu_access.payload import Malformed

ALGORITHM, ENCRYPTION, TYP = "PBES2-HS512+A256KW", "A256GCM", "insitu-key+jwe"
ROUNDS = 250_000
"""Of PBKDF2 with SHA-512; joserfc takes fewer than 300,000."""
_MOST_ROUNDS = 300_000
_HEADER_LIMIT = 512
SHORTEST = 14
"""Bytes of a passphrase, as many as joserfc asks of a key: shorter ones are guessed, whatever the rounds."""
_REGISTRY = jwe.JWERegistry(algorithms=[ALGORITHM, ENCRYPTION])


class WrongPassphrase(ValueError):
    """The passphrase does not open the key, or the file was altered: the two cannot be told apart."""


def seal(pem: bytes, passphrase: bytes) -> bytes:
    """The key under a passphrase. Raises Malformed where the passphrase is too short."""
    if len(passphrase) < SHORTEST:
        raise Malformed(f"a passphrase must have at least {SHORTEST} bytes (letters without accents are one each)")
    header = {"alg": ALGORITHM, "enc": ENCRYPTION, "typ": TYP, "p2c": ROUNDS}
    return jwe.encrypt_compact(header, pem, OctKey.import_key(passphrase), registry=_REGISTRY).encode() + b"\n"


def is_sealed(data: bytes) -> bool:
    """Whether a key file is under a passphrase."""
    return data.startswith(b"eyJ")


def unseal(data: bytes, passphrase: bytes) -> bytes:
    """The PEM in a sealed key. Raises WrongPassphrase, or Malformed where it is no such file."""
    token = data.strip()
    _check_header(token)
    if len(passphrase) < SHORTEST:
        raise WrongPassphrase
    try:
        plain = jwe.decrypt_compact(token, OctKey.import_key(passphrase), registry=_REGISTRY).plaintext
    except (JoseError, ValueError) as error:
        raise WrongPassphrase from error
    return plain or b""


def _check_header(token: bytes) -> None:
    """B3: exactly these fields and rounds. No ``zip``, which unpacks; no rounds that take a year; no other key."""
    try:
        with payload.read(urlsafe_b64decode(token.split(b".")[0][:_HEADER_LIMIT])) as header:
            kind = tuple(header.text(name) for name in ("alg", "enc", "typ"))
            rounds, _ = header.integer("p2c"), header.text("p2s")
    except ValueError as error:
        raise Malformed("it is not a private key under a passphrase") from error
    if kind != (ALGORITHM, ENCRYPTION, TYP) or not ROUNDS <= rounds <= _MOST_ROUNDS:
        raise Malformed("it is not a private key under a passphrase of this kind")
