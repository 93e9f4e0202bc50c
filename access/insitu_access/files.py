"""Files of keys and documents: read with a limit, written whole or not at all, private ones for their owner alone.

Raises ConfigInvalid (INSITU-CONFIG-FILE) with the path and what the operating system said. What is in the files is
for ``keys``, ``certificates`` and the domain modules.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

DOCUMENT_LIMIT = 64 * 2**20
KEY_LIMIT = 64 * 2**10


def read_file(path: Path, limit: int = DOCUMENT_LIMIT) -> bytes:
    """The bytes of a file of at most ``limit`` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be opened") from error
    if len(data) > limit:
        raise unreadable(path, f"it is larger than {limit} bytes")
    return data


def read_private_file(path: Path) -> bytes:
    """The bytes of a key file. Refuses one that the group or others can read or write."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(KEY_LIMIT + 1)
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be opened") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise unreadable(path, f"a private key must have mode 0600, this has {stat.S_IMODE(mode):04o}")
    if len(data) > KEY_LIMIT:
        raise unreadable(path, f"it is larger than {KEY_LIMIT} bytes")
    return data


def write_private_file(path: Path, data: bytes) -> None:
    """Create a key file with mode 0600. Never overwrites: a key that is gone cannot be had again."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            _write_out(file.fileno(), data)
    except FileExistsError as error:
        raise unreadable(path, "it exists and is not overwritten") from error
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be written") from error


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write or replace a file so that a reader, or a crash, sees the old one or the new one whole."""
    part: str | None = None
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            _write_out(file.fileno(), data)
        Path(part).replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise unreadable(path, error.strerror or "it cannot be written") from error


def check_writable(path: Path, *, new: bool = False) -> None:
    """Refuses what could not be written: asked before an act that cannot be taken back. ``new``: not over another."""
    try:
        if path.is_dir() or (new and path.exists()):
            raise unreadable(path, "it is a directory" if path.is_dir() else "it exists and is not overwritten")
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".part", dir=path.parent):
            pass
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be written") from error


def make_directory(path: Path, mode: int = 0o700) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be made") from error


def unreadable(path: Path, reason: str) -> ConfigInvalid:
    return ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=reason)


def _write_out(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    # without it a power cut may bring the replaced file back, and with it a manifest version that was used
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
