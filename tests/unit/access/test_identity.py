"""Identity directories: whole, private, and of one party."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from insitu_access.certificates import create_authority, create_tls_key, issue_certificate
from insitu_access.identity import create_keys, load_identity, write_certificate
from insitu_access.keys import load_verifying_key, save_verifying_key
from insitu_privacy.errors import ConfigInvalid

from tests.unit.access.world import AUTHORITY, DAY, NOW, STRANGER

VALID = {"not_before": NOW - DAY, "not_after": NOW + DAY}
CA = create_authority("demo", **VALID)


def made(directory: Path, *, role="node", addresses=()) -> Path:
    create_keys(directory)
    csr = (directory / "tls.csr").read_bytes()
    certificate = issue_certificate(CA, role, "chu-lille", csr, addresses=addresses, **VALID)
    write_certificate(directory, certificate=certificate, ca=CA.certificate_pem, authority=AUTHORITY.public())
    return directory


def test_an_identity_is_read_back(tmp_path: Path) -> None:
    directory = made(tmp_path / "id")
    identity = load_identity(directory)
    assert (identity.role, identity.id) == ("node", "chu-lille")
    assert identity.signing.public() == load_verifying_key(directory / "signing.pub")
    assert identity.authority == AUTHORITY.public()
    assert identity.tls_cert_pem == (directory / "tls.pem").read_bytes()
    assert "PRIVATE" not in repr(identity)
    for name in ("signing.key", "tls.key"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_keys_are_made_once(tmp_path: Path) -> None:
    create_keys(tmp_path / "id")
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        create_keys(tmp_path / "id")


@pytest.mark.parametrize("name", ["signing.key", "signing.pub", "tls.key", "tls.pem", "ca.pem", "authority.pub"])
def test_every_part_is_needed(tmp_path: Path, name: str) -> None:
    directory = made(tmp_path / "id")
    (directory / name).unlink()
    with pytest.raises(ConfigInvalid, match=f"INSITU-CONFIG-FILE.*{name}"):
        load_identity(directory)


@pytest.mark.parametrize("name", ["signing.key", "tls.key"])
def test_exposed_private_keys_are_refused(tmp_path: Path, name: str) -> None:
    directory = made(tmp_path / "id")
    (directory / name).chmod(0o644)
    with pytest.raises(ConfigInvalid, match="0600"):
        load_identity(directory)


@pytest.mark.parametrize("name", ["signing.pub", "tls.pem", "ca.pem", "tls.key"])
def test_parts_of_another_party_are_refused(tmp_path: Path, name: str) -> None:
    directory, other = made(tmp_path / "id"), made(tmp_path / "other")
    if name == "ca.pem":
        (other / name).write_bytes(create_authority("demo", **VALID).certificate_pem)
    if name == "signing.pub":
        save_verifying_key(STRANGER.public(), other / name)
    if name == "tls.key":
        (other / name).write_bytes(create_tls_key())
    shutil.copy(other / name, directory / name)
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        load_identity(directory)


def test_a_foreign_certificate_is_no_identity(tmp_path: Path) -> None:
    directory = made(tmp_path / "id")
    # the CA's own certificate is signed by the CA but names no party
    (directory / "tls.pem").write_bytes(CA.certificate_pem)
    (directory / "tls.key").write_bytes(CA.key_pem)
    with pytest.raises(ConfigInvalid, match="does not name a party"):
        load_identity(directory)
