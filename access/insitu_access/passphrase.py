"""Where the passphrase of a key comes from: a file that ``INSITU_PASSPHRASE_FILE`` names, else the terminal.

Never an argument or the variable itself: both stand in the list of processes. A process asks once and remembers, for
it reads its keys again when they change. Not here: ssh-agent and PKCS #11, for which no library is among those that
insitu installs; an agent's key would be one more way to ask (``Ask``).
"""

from __future__ import annotations

import getpass
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

from insitu_access.files import read_private_file

Ask = Callable[[Path], bytes]
"""Gives the passphrase of a key file."""
_FIRST = ("signing.key", "authority.key")
"""The key that stands for all those of its directory, which are under one passphrase."""
VARIABLE = "INSITU_PASSPHRASE_FILE"


def asking() -> Ask:
    """Asks where it must, once for each set of keys, also where it is copied to another directory."""
    known: dict[bytes, bytes] = {}

    def ask(path: Path) -> bytes:
        first = next((each for name in _FIRST if (each := path.parent / name).exists()), path)
        keys = hashlib.sha256(read_private_file(first)).digest()
        if keys not in known:
            known[keys] = _obtain(path)
        return known[keys]

    return ask


def from_file(path: Path) -> bytes:
    """The first line of a passphrase file, which must be private to its owner."""
    lines = read_private_file(path).splitlines()
    return lines[0] if lines else b""


def choose(file: Path | None, *, none: bool, variable: bool = False) -> bytes | None:
    """A new passphrase: from a file, typed twice, or none where that is spelled out. Raises ConfigInvalid.

    From the file of ``INSITU_PASSPHRASE_FILE`` only where ``variable`` says so, for the first keys of a directory:
    where there are keys already it holds their passphrase, which is no new one.
    """
    if file is not None and none:
        raise _usage("--passphrase-file and --no-passphrase exclude each other", "Pass one of them.")
    if none:
        return None
    named = file or (_named() if variable else None)
    if named is not None:
        return from_file(named)
    if not sys.stdin.isatty():
        ways = f"--passphrase-file FILE, set {VARIABLE}," if variable else "--passphrase-file FILE"
        hint = f"Pass {ways} or spell out --no-passphrase."
        raise _usage("a new key needs a passphrase, and there is no terminal to type one", hint)
    first = getpass.getpass("New passphrase: ")
    if getpass.getpass("Again: ") != first:
        raise _usage("the two passphrases differ", "Type them again.")
    return first.encode()


def _obtain(path: Path) -> bytes:
    named = _named()
    if named is not None:
        return from_file(named)
    if not sys.stdin.isatty():
        raise ConfigInvalid("INSITU-KEY-LOCKED", path=path)
    return getpass.getpass(f"Passphrase of {path}: ").encode()


def _named() -> Path | None:
    value = os.environ.get(VARIABLE)
    return Path(value) if value else None


def _usage(reason: str, hint: str) -> ConfigInvalid:
    return ConfigInvalid("INSITU-CONFIG-USAGE", reason=reason, hint=hint)
