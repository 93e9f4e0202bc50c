"""Reads ``FEDERATION.toml``: what a federation on one machine consists of.

Bytes come in, frozen values go out, with every path made absolute: paths are relative to the file that names them.
Whatever is wrong with the file is one ``ConfigInvalid`` that names the file and the key. What is not checked here is
what the node checks anyway: whether a database fits its dataset.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

from insitu_access.bundle import read_bundle
from insitu_access.files import read_file
from insitu_access.payload import read_number
from insitu_privacy.dataset import Dataset
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.untrusted import Refusable, read_toml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from insitu_compose.site_paths import absolute_database, absolute_mapping

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
"""ISO 3166; ZZ, which no country has, where the file says none."""

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
"""A country, or EU."""


def _exact(value: Any) -> Fraction:
    """A TOML number or a text such as "1/2", exactly as written: no float in between."""
    text = "" if isinstance(value, bool) else str(value).lower()
    found = read_number(text.removeprefix("-"))  # B3: Fraction("1e999999999") would fill the memory
    if found is None:
        raise ValueError("must be a finite number")
    return -found if text.startswith("-") else found


Exact = Annotated[Fraction, BeforeValidator(_exact)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Head(_Strict):
    """What the federation is called and which dataset contracts it serves."""

    name: Id
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    jurisdictions: tuple[Country, ...] = ()
    """Where the manifest lets a gateway be; empty: anywhere."""


class Gateway(_Strict):
    """The one gateway of the federation: who runs it and where, as the manifest will say."""

    id: Id = "gateway"
    operator: Text = "insitu-compose"
    jurisdiction: Jurisdiction = "ZZ"


class Source(_Strict):
    """How a node reads one dataset: an engine, a database, and its own tables, views or queries."""

    engine: Literal["duckdb", "postgres"]
    database: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    profile: Annotated[Exact, Field(gt=0)] | None = None
    """What a profile of it costs each person at the node; one is made before the node first runs."""
    profile_tables: tuple[str, ...] = ()
    """The tables that it is of; empty for all."""
    tables: dict[str, str] = {}


class Node(_Strict):
    """One custodian and the datasets it serves."""

    id: Id
    organisation: Text | None = None
    jurisdiction: Jurisdiction = "ZZ"
    datasets: Annotated[dict[str, Source], Field(min_length=1)]


class Grant(_Strict):
    """The one grant that the authority gives to the one researcher: for all datasets and nodes."""

    epsilon: Annotated[Exact, Field(gt=0)]
    delta: Annotated[Exact, Field(ge=0, lt=1)]
    accounting: Literal["zcdp", "pure"] = "zcdp"
    project: Text = "evaluation"
    purpose: Text = "evaluation of insitu on one machine"
    purpose_code: Id | None = None
    """For datasets and custodians that list purposes."""
    reference: Text = "insitu-compose"
    tables: tuple[Text, ...] = ()
    """As ``insitu-authority grant --table`` takes them; empty for every table."""
    days: Annotated[int, Field(strict=True, ge=1, le=3650)] = 90


class FederationFile(_Strict):
    """The whole file, as text says it."""

    federation: Head
    gateway: Gateway = Gateway()
    node: Annotated[tuple[Node, ...], Field(min_length=1)]
    grant: Grant

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [node.id.casefold() for node in self.node]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"node id {twice} stands twice")
        return self


class Federation(_Strict):
    """A federation file with what it names: absolute dataset paths, absolute site paths, and a fingerprint."""

    path: Path
    file: FederationFile
    datasets: dict[str, Path]
    """Dataset name to the absolute path of its ``dataset.toml``."""
    fingerprint: str
    """Hex SHA-256 of the file and its datasets, to tell whether a state directory was made from them."""

    @property
    def name(self) -> str:
        return self.file.federation.name


def load_federation(path: Path) -> Federation:
    """Reads and checks a federation file. Raises ConfigInvalid."""
    path = path.absolute()
    content = read_file(path)
    file = _parse(path, content)
    total = hashlib.sha256(str(path.parent).encode() + b"\0" + content)
    datasets: dict[str, Path] = {}
    contracts: dict[str, Dataset] = {}
    for name in file.federation.datasets:
        where = path.parent / name
        dataset = parse_dataset(read_bundle(where))
        if dataset.name in datasets:
            _refuse(path, f"federation.datasets: dataset {dataset.name} stands twice")
        datasets[dataset.name], contracts[dataset.name] = where, dataset
        total.update(dataset.digest.encode())
    nodes = tuple(_node(path, node, contracts) for node in file.node)
    file = file.model_copy(update={"node": nodes})
    return Federation(path=path, file=file, datasets=datasets, fingerprint=total.hexdigest())


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason)


def _parse(path: Path, content: bytes) -> FederationFile:
    try:
        return FederationFile.model_validate(read_toml(content, number=Decimal))
    except Refusable as error:
        _refuse(path, str(error))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        _refuse(path, f"{where}: {message}" if where else message)


def _node(path: Path, node: Node, contracts: dict[str, Dataset]) -> Node:
    """The node with absolute paths, once its mapping names only what its datasets hold."""
    sources: dict[str, Source] = {}
    for name, source in node.datasets.items():
        where = f"node {node.id}: dataset {name}"
        if name not in contracts:
            _refuse(path, f"{where} is not one of federation.datasets ({', '.join(contracts)})")
        unknown = [table for table in source.tables if table not in contracts[name].tables]
        if unknown:
            _refuse(path, f"{where} has no table {unknown[0]}")
        sources[name] = _absolute(path, where, source)
    return node.model_copy(update={"datasets": sources, "organisation": node.organisation or node.id})


def _absolute(path: Path, where: str, source: Source) -> Source:
    folder = path.parent
    if source.engine == "postgres" and not source.database:
        _refuse(path, f"{where}: engine postgres needs a database URL")
    database = source.database if source.engine == "postgres" else absolute_database(source.database, folder)
    if source.engine == "duckdb" and database is not None and not Path(database).is_file():
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=database, reason="no such file")
    tables = source.tables
    if source.engine == "duckdb":
        tables = {name: absolute_mapping(text, folder) for name, text in tables.items()}
    return source.model_copy(update={"database": database, "tables": tables})
