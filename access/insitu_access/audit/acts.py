"""Acts of administration, as every party records them: which command, by whom, about what."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path

from insitu_access.audit.entry import Party
from insitu_access.audit.log import AuditLog, Note
from insitu_access.keys import SigningKey


def administered(log: AuditLog, command: str, **about: str) -> None:
    """Records a command. Raises where it cannot be recorded."""
    log.record(Note(kind="administered", fields={"by": operator(), "command": command, "about": about}))


def begin(directory: Path, party: Party, key: SigningKey, command: str) -> None:
    """The log of a party begins with the command that made its keys. It has no certificate yet."""
    log = AuditLog(directory, party, key, clock=lambda: datetime.now(UTC))
    administered(log, command, key=key.thumbprint)
    log.seal()
    log.close()


def operator() -> str:
    """Who runs this command, by the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"uid {os.getuid()}"
