"""What the gateway serves as others made it: the signed manifest, and datasets by their digest.

The manifest is verified with the pinned authority key, though nobody relies on that: a node or a researcher that is
sent a wrong one refuses it. The file is read again when it changes; one that does not verify, or is older, is reported
and the one before stays. A dataset whose digest the manifest does not list is not served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from insitu_access.bundle import read_bundle
from insitu_access.files import DOCUMENT_LIMIT, read_file
from insitu_access.keys import VerifyingKey
from insitu_access.manifest import Manifest, open_root
from insitu_access.pin import Pin
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import AccessRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """A verified manifest and the text it was signed as."""

    manifest: Manifest
    jws: str


class ManifestFile:
    """The manifest on disk; ``current`` is the newest that verified."""

    def __init__(self, path: Path, pin: Pin, now: datetime) -> None:
        self._path = path
        self._pin = pin
        self._repinned = False
        self._stamp = self._stamp_now()
        self.current = self._read(now, known_version=0)

    def repin(self, pinned: VerifyingKey, now: datetime) -> None:
        """The operator has pinned another authority key (K9): the file is believed by that key, whatever its version.

        Raises InsituError where it is not signed by it yet; the next change of the file is then read so.
        """
        self._pin.reset(pinned)
        self._repinned = True
        self.current = self._read(now, known_version=0)
        self._repinned = False

    def refresh(self, now: datetime) -> bool:
        """Read the file again if it changed; True where a newer manifest was in it. Raises InsituError."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before = self.current
        self.current = self._read(now, known_version=0 if self._repinned else before.manifest.version)
        self._repinned = False
        return self.current.jws != before.jws

    def _read(self, now: datetime, known_version: int) -> SignedManifest:
        # undecodable bytes become characters that no token holds: the signature check then names the manifest
        jws = read_file(self._path, DOCUMENT_LIMIT).decode(errors="replace").strip()
        opened = open_root(jws, self._pin.key, now=now, known_version=known_version)
        self._pin.advance(opened)
        return SignedManifest(manifest=opened.manifest, jws=jws)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class Datasets:
    """The datasets this gateway has a copy of, by digest."""

    def __init__(self, paths: Sequence[Path]) -> None:
        bundles = [read_bundle(path) for path in paths]
        self._served = {bundle.digest(): (parse_dataset(bundle), bundle) for bundle in bundles}

    def bundle(self, name: str, digest: str, manifest: Manifest) -> DatasetBundle:
        """The files of one dataset. Raises AccessRefused where the manifest, or this gateway, has another."""
        entry = manifest.dataset(name)
        if entry is None or entry.digest != digest or digest not in self._served:
            raise AccessRefused("INSITU-ACCESS-DATASET", name=name)
        return self._served[digest][1]

    def dataset(self, digest: str) -> Dataset | None:
        """The contract to plan with, None where this gateway has no copy."""
        found = self._served.get(digest)
        return found[0] if found else None

    def all(self) -> tuple[Dataset, ...]:
        """Every dataset there is a copy of."""
        return tuple(dataset for dataset, _ in self._served.values())
