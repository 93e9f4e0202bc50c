"""Compact JWS over Ed25519: how everything insitu signs is signed and verified. Cryptography is joserfc's.

One algorithm (``Ed25519``, RFC 9864), one form of header. A token is accepted only if its protected header is exactly
``{"alg": "Ed25519", "kid": <thumbprint of an expected key>, "typ": <expected type>}``: no ``alg`` of the sender's
choice, no embedded or remote key, no ``crit``, no detached payload. ``typ`` separates the domains: a release can never
pass as a grant. The keys that may have signed are always the verifier's own list.

Numbered checks of ``verify``:
  J1  the token is ASCII text within the size limit of its type
  J2  it is three base64url parts; the first is a JSON header of exactly alg, kid and typ, and alg is Ed25519
  J3  typ is the expected one
  J4  kid is the thumbprint of one of the expected keys
  J5  the signature over the exact received bytes verifies with that key

Not here: what the payload says (``payload`` and the domain modules), time, revocation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Literal

from insitu_privacy.errors import AccessRefused
from joserfc import jws
from joserfc.errors import JoseError

from insitu_access.keys import SigningKey, VerifyingKey
from insitu_access.payload import Malformed

ALGORITHM = "Ed25519"
Typ = Literal[
    "insitu-manifest+jws",
    "insitu-grant+jwt",
    "insitu-request+jws",
    "insitu-release+jws",
    "insitu-refusal+jws",
    "insitu-statement+jws",
    "insitu-profile+jws",
    "insitu-audit-seal+jws",
    "insitu-invitation+jws",
    "insitu-keys+jws",
    "insitu-enrolment+jws",
    "insitu-answer+jws",
    "insitu-consent+jws",
    "insitu-succession+jws",
]
SIZE_LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "insitu-manifest+jws": 4 * 2**20,
        "insitu-grant+jwt": 2**20,
        "insitu-request+jws": 2**20,
        "insitu-release+jws": 48 * 2**20,
        "insitu-refusal+jws": 2**18,
        "insitu-statement+jws": 2**20,
        "insitu-profile+jws": 4 * 2**20,
        "insitu-audit-seal+jws": 2**12,
        "insitu-invitation+jws": 2**16,
        "insitu-keys+jws": 2**17,
        "insitu-enrolment+jws": 2**18,
        "insitu-answer+jws": 2**18,
        "insitu-consent+jws": 2**14,
        "insitu-succession+jws": 2**15,
    }
)
"""Bytes of a token of each type, base64url included."""


class _Registry(jws.JWSRegistry):
    """joserfc's registry with one algorithm; sizes are limited per type in ``_parse``."""

    max_payload_length = max(SIZE_LIMITS.values())


_REGISTRY = _Registry(algorithms=[ALGORITHM])


def sign(payload: bytes, key: SigningKey, typ: Typ) -> str:
    """The compact JWS of ``payload``."""
    header = {"alg": ALGORITHM, "kid": key.thumbprint, "typ": typ}
    token = jws.serialize_compact(header, payload, key.jwk, registry=_REGISTRY)
    if len(token) > SIZE_LIMITS[typ]:
        raise Malformed(f"it is larger than {SIZE_LIMITS[typ]} bytes")
    return token


def verify(
    token: str, keys: Sequence[VerifyingKey], typ: Typ, what: str, *, stranger: str = "INSITU-ACCESS-SIGNATURE"
) -> bytes:
    """The payload of a token that one of ``keys`` signed.

    Raises AccessRefused: INSITU-ACCESS-MALFORMED (J1 to J3), ``stranger`` (J4), INSITU-ACCESS-SIGNATURE (J5).
    """
    parsed = _parse(token, typ, what)  # J1
    header = parsed.headers()
    if header.keys() != {"alg", "kid", "typ"} or header["alg"] != ALGORITHM or header["typ"] != typ:  # J2, J3
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason=f"its header is not that of {typ}")
    key = next((key for key in keys if key.thumbprint == header["kid"]), None)
    if key is None:  # J4
        raise AccessRefused(stranger, what=what)
    try:
        holds = jws.validate_compact(parsed, key.jwk, registry=_REGISTRY)
    except (JoseError, ValueError) as error:
        raise AccessRefused("INSITU-ACCESS-SIGNATURE", what=what) from error
    if not holds:  # J5
        raise AccessRefused("INSITU-ACCESS-SIGNATURE", what=what)
    return _payload(parsed, what)


def unverified(token: str, typ: Typ, what: str) -> bytes:
    """The payload of a token, its signature NOT checked: for routing hints and for people to look at."""
    return _payload(_parse(token, typ, what), what)


def unverified_typ(token: str) -> str | None:
    """The type a token claims to have, its signature NOT checked; None where it is not a token."""
    return _claimed(token, "typ")


def unverified_kid(token: str) -> str | None:
    """The thumbprint of the key a token claims to be signed by; of a verified token, of the key that signed it."""
    return _claimed(token, "kid")


def _claimed(token: str, name: str) -> str | None:
    try:
        value = jws.extract_compact(token.encode(), registry=_REGISTRY).headers().get(name)
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def token_sha256(token: str) -> str:
    """Hex SHA-256 of the token's exact text: how one signed object names another."""
    return hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def refusing_malformed(what: str) -> Iterator[None]:
    """Turns ``Malformed`` into INSITU-ACCESS-MALFORMED of the ``what``."""
    try:
        yield
    except Malformed as error:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason=error.reason) from error


def _parse(token: str, typ: Typ, what: str) -> jws.CompactSignature:
    if not token.isascii() or len(token) > SIZE_LIMITS[typ]:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason="it is too long or not ASCII text")
    try:
        parsed = jws.extract_compact(token.encode(), registry=_REGISTRY)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason="it is not a compact JWS") from error
    if not isinstance(parsed.protected, dict):
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason="its header is not an object")
    return parsed


def _payload(parsed: jws.CompactSignature, what: str) -> bytes:
    if not isinstance(parsed.payload, bytes):
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason="it has no payload")
    return parsed.payload
