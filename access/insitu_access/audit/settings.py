"""The ``[audit]`` table of ``node.toml`` and ``gateway.toml``: how often the log is sealed, how long it is kept.

[audit]
seal_every_hours = 24          # at most a day; a seal is also made at start, at a clean stop and on export
retention_days = 3650          # without it, days are kept for ever
former_keys = ["old.pub"]      # public keys that sealed this log before the party's key was replaced
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from insitu_access.keys import VerifyingKey, load_verifying_key


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """How a party keeps its log."""

    seal_every: timedelta = timedelta(days=1)
    retention: timedelta | None = None
    former_keys: tuple[Path, ...] = ()

    def former(self) -> tuple[VerifyingKey, ...]:
        """The former keys, read. Raises ConfigInvalid."""
        return tuple(load_verifying_key(path) for path in self.former_keys)


AS_DEFAULT = AuditSettings()


class AuditFile(BaseModel):
    """The table as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seal_every_hours: Annotated[StrictInt, Field(ge=1, le=24)] = 24
    retention_days: Annotated[StrictInt, Field(ge=1, le=36_500)] | None = None
    former_keys: list[Annotated[StrictStr, Field(min_length=1)]] = []

    def settings(self, base: Path) -> AuditSettings:
        """The settings, paths relative to ``base``."""
        return AuditSettings(
            seal_every=timedelta(hours=self.seal_every_hours),
            retention=None if self.retention_days is None else timedelta(days=self.retention_days),
            former_keys=tuple(base / path for path in self.former_keys),
        )
