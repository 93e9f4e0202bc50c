"""Opens what the access authority signed: the manifest and the grant, against the pinned authority key.

S1 the manifest is signed by the pinned key or its successor, is in force, and is not older than the last one seen;
S2 the grant is signed by a key of that manifest, is in force and not revoked;
S3 the grant names this researcher's key;
S4 a dataset's bytes have the digest of the manifest;
S5 the gateway is in a jurisdiction that the manifest accepts (W1, W2).

What is not here: requests, and what nodes sign (``verification``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.errors import AccessRefused

if TYPE_CHECKING:
    from insitu_access.grant import Grant
    from insitu_access.identity import Identity
    from insitu_access.keys import SigningKey, VerifyingKey
    from insitu_access.manifest import DatasetEntry, Manifest, Opened
    from insitu_access.pin import Pin


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """The manifest and the grant, verified, with the tokens they came in."""

    manifest: Manifest
    manifest_token: str
    grant: Grant
    grant_token: str
    grant_sha256: str
    """What requests bind the grant by."""
    opened: Opened
    """How the manifest was come to from the pinned key."""


def open_trusted(
    manifest_token: str, grant_token: str, *, authority: VerifyingKey, now: datetime, known_version: int = 0
) -> Trusted:
    """S1 and S2. Raises AccessRefused."""
    from insitu_access.grant import grant_sha256, open_grant
    from insitu_access.manifest import open_root

    opened = open_root(manifest_token, authority, now=now, known_version=known_version)
    manifest = opened.manifest
    grant = open_grant(grant_token, manifest, now=now)
    return Trusted(
        manifest=manifest,
        manifest_token=manifest_token,
        grant=grant,
        grant_token=grant_token,
        grant_sha256=grant_sha256(grant_token),
        opened=opened,
    )


def seen_before(manifest_token: str | None, pin: Pin) -> Manifest | None:
    """A manifest that was kept, expired or not; None if there is none, or it does not verify any more."""
    try:
        return None if manifest_token is None else pin.reopen(manifest_token)
    except AccessRefused:
        return None


def check_researcher(grant: Grant, identity: Identity) -> SigningKey:
    """S3: the key to sign with. Nodes would refuse any that the grant does not name: say so before anything is sent."""
    key = identity.signing_for(grant.researchers)
    if key.public() not in grant.researchers:
        raise AccessRefused("INSITU-ACCESS-WRONG-KEY")
    return key


def check_gateway(certificate: bytes, manifest: Manifest) -> None:
    """S5. Raises AccessRefused."""
    from insitu_access.jurisdiction import check_gateway as check

    check(certificate, manifest)


def open_bundle(bundle: DatasetBundle, entry: DatasetEntry) -> Dataset:
    """S4: the dataset of ``entry``, parsed from bytes that have its digest."""
    from insitu_privacy.dataset_file import parse_dataset

    if bundle.digest() != entry.digest:
        raise AccessRefused("INSITU-ACCESS-DATASET", name=entry.name)
    return parse_dataset(bundle)
