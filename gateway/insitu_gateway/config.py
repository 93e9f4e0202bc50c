"""``gateway.toml``: pydantic checks the text, frozen values come out. Paths are relative to the file.

[gateway]
id = "gw"                          # as in the certificate and the manifest
listen = "0.0.0.0:7443"            # port 0: a free one, written to state/address
identity = "identity"              # tls.key, tls.pem, ca.pem, authority.pub
state = "state"
manifest = "manifest.jws"          # read again when it changes
datasets = ["care/dataset.toml"]

[limits]                           # all have defaults

[audit]                            # insitu_access.audit.settings
retention_days = 3650
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from insitu_access.audit.settings import AS_DEFAULT, AuditFile, AuditSettings
from insitu_access.files import read_file
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.untrusted import Refusable, read_toml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

_FILE_LIMIT = 2**20
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Address = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Limits(BaseModel):
    """What one party can make the gateway do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heartbeat_s: Annotated[int, Field(strict=True, ge=1, le=3600)] = 10
    """A node is dropped when nothing came from it for three of these."""
    grace_s: _Seconds = 2.0
    """How long a request waits for a node that is not connected and never had it."""
    lost_grace_s: _Seconds = 15.0
    """How long a request waits for a node that had it when its stream broke: its budget may be spent already."""
    open_requests: _Count = 2000
    open_requests_per_researcher: _Count = 64
    streams_per_researcher: _Count = 256
    node_queue: _Count = 4096
    """Messages that wait for one node; beyond that its stream is closed."""
    workers: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    """Threads that plan, merge and post-process."""
    result_memory_mb: Annotated[int, Field(strict=True, ge=16, le=65536)] = 512
    result_timeout_s: _Seconds = 10.0
    """A result that takes longer is left out: the researcher computes it anyway."""


class _Gateway(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Id
    listen: _Address
    identity: _Path
    state: _Path
    manifest: _Path
    datasets: list[_Path] = Field(default_factory=list)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    gateway: _Gateway
    limits: Limits = Limits()
    audit: AuditFile = AuditFile()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration with its paths resolved."""

    id: str
    listen: str
    identity: Path
    state: Path
    manifest: Path
    datasets: tuple[Path, ...]
    limits: Limits
    path: Path | None = None
    """The file it was read from."""
    audit: AuditSettings = AS_DEFAULT


def load_config(path: Path) -> Config:
    """Raises ConfigInvalid."""
    data = read_file(path, _FILE_LIMIT)
    try:
        file = _File.model_validate(read_toml(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=f"{place}: {first['msg']}") from None
    except Refusable as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=str(error)) from None
    return _resolved(file, path.absolute())


def _resolved(file: _File, path: Path) -> Config:
    base = path.parent
    head = file.gateway
    return Config(
        id=head.id,
        listen=head.listen,
        identity=base / head.identity,
        state=base / head.state,
        manifest=base / head.manifest,
        datasets=tuple(base / item for item in head.datasets),
        limits=file.limits,
        path=path,
        audit=file.audit.settings(base),
    )
