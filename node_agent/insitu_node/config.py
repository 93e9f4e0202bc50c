"""Reads ``node.toml``: who this node is, which gateways it dials, and where each dataset lies at this site.

    [node]
    id = "chu-lille"
    identity = "identity"               # the node's keys and certificate
    state = "state"                     # its ledger, the manifest last seen, its cap key: back this folder up

    [[gateway]]
    address = "gateway.example.org:8443"

    [datasets.care]
    contract = "care/dataset.toml"
    engine = "duckdb"                   # duckdb | postgres
    database = "lille.duckdb"           # a file, or a connection URL; none where the tables are files
    schema = "omop"                     # where names are looked up; optional
    profile_epsilon = 2.0               # what profiles of it may cost each person in all; without it none is made
    [datasets.care.tables]
    person = "SELECT * FROM read_parquet('lille/person.parquet')"

    [limits]
    workers = 2

    [audit]
    retention_days = 3650               # how long the audit log is kept; without it, for ever

    [policy]                            # ``policy_file``; without it every project waits for approval

Paths are relative to the file. Unknown keys are refused: a misspelt limit must not be silently without effect.
What is not here: whether the files and databases exist and fit (``runtime``, ``commands.check``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Self

from insitu_access.audit.settings import AuditFile, AuditSettings
from insitu_access.files import read_file
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.untrusted import Refusable, read_toml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from insitu_node.amounts import Amount, exact
from insitu_node.policy import Policy
from insitu_node.policy_file import PolicyFile

_LIMIT = 2**20
_Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Address = Annotated[str, Field(strict=True, pattern=r"^[^\s/]+:[0-9]{1,5}$")]
_Text = Annotated[str, Field(strict=True, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _NodeFile(_Strict):
    id: _Name
    identity: _Text
    state: _Text


class _GatewayFile(_Strict):
    address: _Address


class _DatasetFile(_Strict):
    contract: _Text
    engine: Literal["duckdb", "postgres"]
    database: _Text | None = None
    schema_: StrictStr | None = Field(default=None, alias="schema", min_length=1)
    profile_epsilon: Amount | None = None
    tables: dict[StrictStr, _Text] = {}

    @model_validator(mode="after")
    def _amounts_are_exact(self) -> Self:
        exact(self.profile_epsilon)
        return self

    @model_validator(mode="after")
    def _postgres_has_a_url(self) -> Self:
        if self.engine == "postgres" and self.database is None:
            raise ValueError("engine postgres needs a database URL")
        return self


class _LimitsFile(_Strict):
    workers: Annotated[StrictInt, Field(ge=1, le=64)] = 2
    queue: Annotated[StrictInt, Field(ge=1, le=10_000)] = 64
    statement_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 60
    memory_limit_mb: Annotated[StrictInt, Field(ge=64)] | None = None
    answer_every_s: Annotated[float, Field(ge=0, le=3_600)] = 0


class _File(_Strict):
    node: _NodeFile
    gateway: Annotated[list[_GatewayFile], Field(min_length=1)]
    datasets: Annotated[dict[_Name, _DatasetFile], Field(min_length=1)]
    limits: _LimitsFile = _LimitsFile()
    audit: AuditFile = AuditFile()
    policy: PolicyFile = PolicyFile()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Where a dataset lies at this site."""

    contract: Path
    engine: Literal["duckdb", "postgres"]
    database: str | None
    """An absolute path (duckdb) or a URL (postgres)."""
    schema: str | None
    tables: Mapping[str, str]
    profile_epsilon: Fraction | None = None
    """What profiles of the dataset, over all its versions, may cost each person; None where none may be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What requests may use of this node."""

    workers: int
    """Requests that run at once."""
    queue: int
    """Requests that may wait; more are refused as busy."""
    statement_timeout_s: float
    memory_limit_mb: int | None
    """Of each database engine; None for its own default."""
    answer_every_s: float
    """Answers leave at whole multiples of this after their request came; 0 sends them when they are ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The configuration of one node. All paths are absolute."""

    path: Path
    node_id: str
    identity: Path
    state: Path
    gateways: tuple[str, ...]
    datasets: Mapping[str, DatasetConfig]
    limits: Limits
    audit: AuditSettings
    policy: Policy

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self.path.parent


def load_config(path: Path) -> NodeConfig:
    """The configuration in a file. Raises ConfigInvalid."""
    whole = path.absolute()
    file = _read(whole)
    return NodeConfig(
        path=whole,
        node_id=file.node.id,
        identity=whole.parent / file.node.identity,
        state=whole.parent / file.node.state,
        gateways=tuple(dict.fromkeys(gateway.address for gateway in file.gateway)),
        datasets={name: _dataset(dataset, whole.parent) for name, dataset in file.datasets.items()},
        limits=Limits(**file.limits.model_dump()),
        audit=file.audit.settings(whole.parent),
        policy=file.policy.policy(),
    )


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(read_toml(read_file(path, _LIMIT)))
    except Refusable as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=error) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason) from None


def _dataset(file: _DatasetFile, base: Path) -> DatasetConfig:
    database = file.database
    if file.engine == "duckdb" and database is not None:
        database = str(base / database)
    return DatasetConfig(
        contract=base / file.contract,
        engine=file.engine,
        database=database,
        schema=file.schema_,
        tables=dict(file.tables),
        profile_epsilon=exact(file.profile_epsilon),
    )
