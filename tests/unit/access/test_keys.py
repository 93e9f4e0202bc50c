"""Keys: their files, their names, and what is no key."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    generate_signing_key,
    load_signing_key,
    load_verifying_key,
    read_verifying_key,
    save_signing_key,
    save_verifying_key,
    thumbprint,
)
from insitu_access.payload import Malformed
from insitu_privacy.errors import ConfigInvalid

RFC_8037_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def test_thumbprint_is_that_of_rfc_8037_appendix_a3() -> None:
    assert thumbprint(read_verifying_key(RFC_8037_KEY, "key")) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_files_round_trip_with_owner_only_private_key(tmp_path: Path) -> None:
    key = generate_signing_key()
    previous = os.umask(0)  # the mode must not depend on the user's umask
    try:
        save_signing_key(key, tmp_path / "signing.key")
    finally:
        os.umask(previous)
    save_verifying_key(key.public(), tmp_path / "signing.pub")
    assert stat.S_IMODE((tmp_path / "signing.key").stat().st_mode) == 0o600
    assert load_signing_key(tmp_path / "signing.key") == key
    assert load_verifying_key(tmp_path / "signing.pub") == key.public()
    assert load_signing_key(tmp_path / "signing.key").public() == key.public()


def test_a_private_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    save_signing_key(generate_signing_key(), path)
    before = path.read_bytes()
    with pytest.raises(ConfigInvalid, match=r"INSITU-CONFIG-FILE.*not overwritten"):
        save_signing_key(generate_signing_key(), path)
    assert path.read_bytes() == before


@pytest.mark.attacks("K2")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610])
def test_a_private_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.key"
    save_signing_key(generate_signing_key(), path)
    path.chmod(mode)
    with pytest.raises(ConfigInvalid, match=f"INSITU-CONFIG-FILE.*0600.*{mode:04o}"):
        load_signing_key(path)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("kind", ["garbage", "empty", "p256", "x25519", "public", "encrypted", "large"])
def test_other_files_are_no_signing_key(tmp_path: Path, kind: str) -> None:
    signing = generate_signing_key().jwk.private_key
    assert signing is not None
    pkcs8 = (Encoding.PEM, PrivateFormat.PKCS8)
    data = {
        "garbage": lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "empty": lambda: b"",
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(*pkcs8, NoEncryption()),
        "x25519": lambda: x25519.X25519PrivateKey.generate().private_bytes(*pkcs8, NoEncryption()),
        "public": lambda: signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "encrypted": lambda: signing.private_bytes(*pkcs8, BestAvailableEncryption(b"secret")),
        "large": lambda: b"x" * (64 * 2**10 + 1),
    }[kind]()
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        load_signing_key(_write(tmp_path / "signing.key", data))


@pytest.mark.parametrize("kind", ["missing", "directory", "garbage", "private", "p256"])
def test_other_files_are_no_verifying_key(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "signing.pub"
    if kind == "directory":
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(b"ssh-ed25519 AAAA")
    elif kind == "private":
        save_signing_key(generate_signing_key(), path)
    elif kind == "p256":
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        load_verifying_key(path)


@pytest.mark.parametrize(
    "jwk",
    [
        None, "x", [], {},
        RFC_8037_KEY | {"d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"},
        RFC_8037_KEY | {"kid": "mine"}, RFC_8037_KEY | {"crv": "X25519"}, RFC_8037_KEY | {"crv": "Ed448"},
        RFC_8037_KEY | {"kty": "EC"}, RFC_8037_KEY | {"kty": "oct"}, RFC_8037_KEY | {"x": ""},
        RFC_8037_KEY | {"x": "AAAA"}, RFC_8037_KEY | {"x": "!" * 43}, RFC_8037_KEY | {"x": 7},
        RFC_8037_KEY | {"x": RFC_8037_KEY["x"] + "="}, {"kty": "OKP", "crv": "Ed25519"},
    ],
)  # fmt: skip
def test_only_an_exact_ed25519_jwk_is_a_key(jwk: object) -> None:
    with pytest.raises(Malformed, match="key"):
        read_verifying_key(jwk, "key")


def test_a_key_shows_its_thumbprint_alone() -> None:
    key = generate_signing_key()
    secret = str(key.jwk.as_dict(private=True)["d"])
    assert secret not in repr(key) + str(key)
    assert "d" not in key.public().as_json()
    assert repr(key) == f"SigningKey(thumbprint='{key.thumbprint}')"


def test_private_and_public_are_not_confused() -> None:
    key = generate_signing_key()
    with pytest.raises(Malformed):
        VerifyingKey(jwk=key.jwk)
    with pytest.raises(Malformed):
        SigningKey(jwk=key.public().jwk)
    assert len({key.public(), generate_signing_key().public(), key.public()}) == 2
