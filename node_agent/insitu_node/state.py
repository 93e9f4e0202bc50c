"""The node's state directory: what must outlive the process, and the lock that keeps it to one process.

    ledger.sqlite     the privacy ledger (``ledger_sqlite``)
    manifest.jws      the newest manifest that verified; an older one is never believed again
    successions.jws   how the authority's key came to be another than the pinned one (``insitu_access.pin``)
    cap.key           the node's secret for choosing which groups of a person count
    lock              held while ``insitu-node run`` runs

What is not here: a second copy. The directory is to be backed up, and never to be rolled back: a ledger of yesterday
forgets what today has spent.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from datetime import datetime
from pathlib import Path
from typing import IO

from insitu_access.files import make_directory, read_file, read_private_file, write_file, write_private_file
from insitu_access.keys import VerifyingKey
from insitu_access.manifest import Manifest, open_root
from insitu_access.pin import Pin
from insitu_privacy.errors import AccessRefused, ConfigInvalid


def lock_state(directory: Path) -> IO[bytes]:
    """Holds the directory for this process until the file returned is closed. Raises ConfigInvalid where it is held."""
    make_directory(directory)
    file = (directory / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigInvalid(
            "INSITU-CONFIG-STATE",
            reason=f"another process runs on {directory}",
            hint="Stop it first, or give this node a state directory of its own.",
        ) from None
    return file


def cap_key(directory: Path) -> str:
    """The node's secret for choosing groups, made on first use."""
    path = directory / "cap.key"
    if not path.exists():
        write_private_file(path, secrets.token_hex(32).encode())
    text = read_private_file(path).decode(errors="replace").strip()
    if len(text) != 64 or not all(c in "0123456789abcdef" for c in text):
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason="it does not hold 32 bytes in hexadecimal")
    return text


class ManifestStore:
    """The newest verified manifest, kept on disk, with the authority key it led to. Safe from several threads."""

    def __init__(self, directory: Path, pinned: VerifyingKey) -> None:
        self._path = directory / "manifest.jws"
        self._pin = Pin(directory, pinned)
        self._lock = threading.Lock()
        self._manifest = self._load()

    def repin(self, pinned: VerifyingKey) -> None:
        """The custodian has pinned another authority key (K9): what the one before had signed is forgotten."""
        with self._lock:
            self._pin.reset(pinned)
            self._manifest = self._load()

    def _load(self) -> Manifest | None:
        """What was kept may have expired: it still says which versions are too old."""
        if not self._path.exists():
            return None
        try:
            return self._pin.reopen(read_file(self._path).decode("ascii", errors="replace"))
        except AccessRefused as error:
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=self._path, reason=error.text) from None

    @property
    def latest(self) -> Manifest | None:
        """The newest one, expired or not."""
        return self._manifest

    @property
    def authority(self) -> VerifyingKey:
        """The authority key that is believed now."""
        return self._pin.key

    @property
    def version(self) -> int:
        """The newest version seen; 0 for none."""
        manifest = self._manifest
        return 0 if manifest is None else manifest.version

    @property
    def newest(self) -> Manifest | None:
        """The newest that verified, expired or not."""
        return self._manifest

    def current(self, now: datetime) -> Manifest:
        """The manifest, if it is valid now. Raises AccessRefused (INSITU-ACCESS-MANIFEST)."""
        manifest = self._manifest
        if manifest is None:
            raise AccessRefused("INSITU-ACCESS-MANIFEST", reason="this node has not received one yet")
        if now >= manifest.expires_at:
            expired = f"it expired at {manifest.expires_at:%Y-%m-%d %H:%M} UTC"
            raise AccessRefused("INSITU-ACCESS-MANIFEST", reason=expired)
        return manifest

    def offer(self, token: str, now: datetime) -> bool:
        """Verifies a manifest that a gateway sent and keeps it if it is newer, on disk before in memory.

        Returns whether it is newer. Raises AccessRefused where it does not verify, is expired or older.
        """
        with self._lock:
            opened = open_root(token, self._pin.key, now=now, known_version=self.version)
            manifest = opened.manifest
            if manifest.version == self.version:
                return False
            self._pin.advance(opened)
            write_file(self._path, token.encode())
            _sync_directory(self._path.parent)
            self._manifest = manifest
            return True


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
