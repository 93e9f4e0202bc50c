"""The authority's register: who takes part, what was issued, what is revoked; one JSON file beside its keys.

The manifest is made from it, so nothing is published that is not in it. It holds no secrets. A change is written
whole before what it allows is signed: a manifest version is used up even if the manifest is never written, and a
version is never used twice. ``Register`` is a frozen value; ``locked`` keeps two commands from losing each other's
change. Not here: keys and signing (``authority``).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

from insitu_access import payload
from insitu_access.files import read_file, unreadable, write_file
from insitu_access.invariants import (
    check,
    check_countries,
    check_line,
    check_moments,
    check_name,
    check_sha256,
    check_unique,
)
from insitu_access.keys import VerifyingKey, read_verifying_key
from insitu_access.manifest import (
    DatasetEntry,
    GatewayEntry,
    NodeEntry,
    dataset_as_json,
    gateway_as_json,
    node_as_json,
    read_dataset,
    read_gateway,
    read_node,
)
from insitu_access.payload import Fields, Malformed
from insitu_access.relocking import finish

FILE_NAME = "register.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResearcherEntry:
    """A researcher who has a certificate. What they may ask is in grants alone."""

    id: str
    key: VerifyingKey

    def __post_init__(self) -> None:
        check_name(self.id, "researcher id")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEntry:
    """A grant that was issued."""

    id: str
    project: str
    sha256: str
    expires_at: datetime
    revoked: bool = False
    suspended: bool = False
    revision: int = 1
    accounting: str = ""
    """Which an amendment may not change: the ledgers count by it."""

    def __post_init__(self) -> None:
        check_name(self.id, "grant id")
        check_line(self.project, "project")
        check_sha256(self.sha256, "sha256")
        check_moments((self.expires_at,), "expires_at")
        check(self.revision >= 1, "revision must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """All that the authority remembers."""

    federation: str
    manifest_version: int = 0
    """The version last used."""
    nodes: tuple[NodeEntry, ...] = ()
    gateways: tuple[GatewayEntry, ...] = ()
    researchers: tuple[ResearcherEntry, ...] = ()
    datasets: tuple[DatasetEntry, ...] = ()
    """As the last manifest listed them."""
    grants: tuple[GrantEntry, ...] = ()
    jurisdictions: frozenset[str] = frozenset()
    """As the last manifest accepted them."""

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        check(self.manifest_version >= 0, "manifest_version must not be negative")
        for parties in (self.nodes, self.gateways, self.researchers):
            check_unique([party.id.casefold() for party in parties], "ids of one role")
        check_unique([node.key.thumbprint for node in self.nodes], "node keys")
        check_unique([grant.id for grant in self.grants], "grant ids")
        check_countries(self.jurisdictions, "jurisdictions")

    def with_node(self, node: NodeEntry) -> Register:
        """The register with ``node`` in place of one of the same id."""
        others = tuple(each for each in self.nodes if each.id != node.id)
        return replace(self, nodes=(*others, node))

    def with_gateway(self, gateway: GatewayEntry) -> Register:
        others = tuple(each for each in self.gateways if each.id != gateway.id)
        return replace(self, gateways=(*others, gateway))

    def with_researcher(self, researcher: ResearcherEntry) -> Register:
        others = tuple(each for each in self.researchers if each.id != researcher.id)
        return replace(self, researchers=(*others, researcher))

    def grant(self, grant_id: str) -> GrantEntry:
        """A grant that was issued. Raises Malformed where it never was."""
        found = next((grant for grant in self.grants if grant.id == grant_id), None)
        if found is None:
            raise Malformed("no grant of this id was issued here")
        return found

    def with_grant(self, entry: GrantEntry) -> Register:
        """The register with a grant's entry in place of the one of the same id."""
        grants = tuple(entry if each.id == entry.id else each for each in self.grants)
        return replace(self, grants=grants)

    def key_of(self, role: str, party_id: str) -> VerifyingKey | None:
        """The signing key a node or researcher is registered with."""
        known: Mapping[str, Sequence[NodeEntry | ResearcherEntry]]
        known = {"node": self.nodes, "researcher": self.researchers}
        return next((party.key for party in known.get(role, ()) if party.id == party_id), None)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the authority's directory for one command at a time. Finishes a change of passphrase that was cut off."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise unreadable(directory, error.strerror or "it cannot be opened") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        finish(directory)
        yield
    finally:
        os.close(descriptor)


def load_register(directory: Path) -> Register:
    """The register in ``directory``. Raises ConfigInvalid."""
    path = directory / FILE_NAME
    try:
        with payload.read(read_file(path)) as fields:
            return _read(fields)
    except Malformed as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=error.reason) from error


def save_register(register: Register, directory: Path) -> None:
    write_file(directory / FILE_NAME, payload.write(_as_json(register)))


def _read(fields: Fields) -> Register:
    return Register(
        federation=fields.text("federation"),
        manifest_version=fields.integer("manifest_version"),
        nodes=fields.items("nodes", read_node),
        gateways=fields.items("gateways", read_gateway),
        researchers=fields.items("researchers", _read_researcher),
        datasets=fields.items("datasets", read_dataset),
        grants=fields.items("grants", _read_grant),
        jurisdictions=frozenset(fields.texts("jurisdictions")),
    )


def _read_researcher(value: object, path: str) -> ResearcherEntry:
    with Fields(value, path) as fields:
        return ResearcherEntry(id=fields.text("id"), key=fields.item("key", read_verifying_key))


def _read_grant(value: object, path: str) -> GrantEntry:
    with Fields(value, path) as fields:
        return GrantEntry(
            id=fields.text("id"),
            project=fields.text("project"),
            sha256=fields.text("sha256"),
            expires_at=fields.moment("expires_at"),
            revoked=fields.flag("revoked"),
            suspended=fields.flag("suspended"),
            revision=fields.integer("revision"),
            accounting=fields.text("accounting"),
        )


def _as_json(register: Register) -> dict[str, object]:
    return {
        "federation": register.federation,
        "manifest_version": register.manifest_version,
        "nodes": [node_as_json(node) for node in register.nodes],
        "gateways": [gateway_as_json(gateway) for gateway in register.gateways],
        "researchers": [{"id": each.id, "key": each.key.as_json()} for each in register.researchers],
        "datasets": [dataset_as_json(dataset) for dataset in register.datasets],
        "grants": [_grant_as_json(grant) for grant in register.grants],
        "jurisdictions": sorted(register.jurisdictions),
    }


def _grant_as_json(grant: GrantEntry) -> dict[str, object]:
    return {
        "id": grant.id,
        "project": grant.project,
        "sha256": grant.sha256,
        "expires_at": payload.seconds_up(grant.expires_at),
        "revoked": grant.revoked,
        "suspended": grant.suspended,
        "revision": grant.revision,
        "accounting": grant.accounting,
    }
