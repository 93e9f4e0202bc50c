"""Puts a node together from its configuration, and checks on the way that its parts belong to each other.

What is not here: the event loop (``commands.run``) and what a custodian is told of the data (``commands.check``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from insitu_access.audit.entry import Party
from insitu_access.audit.log import AuditLog, Keys
from insitu_access.bundle import read_bundle
from insitu_access.files import make_directory, read_file
from insitu_access.identity import Identity, load_identity
from insitu_access.jose import token_sha256
from insitu_access.keys import SigningKey
from insitu_access.manifest import Manifest
from insitu_access.passphrase import Ask, asking
from insitu_access.watched import WatchedIdentity
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import ConfigInvalid

from insitu_node import __version__
from insitu_node.admission import Site
from insitu_node.audit import NodeAudit, agreed_now
from insitu_node.config import DatasetConfig, Limits, NodeConfig
from insitu_node.custody import Custody
from insitu_node.cycle import Cycle
from insitu_node.engines.base import Engine, EngineLimits, cores
from insitu_node.hooks import Hook
from insitu_node.ledger import Ledger
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_node.noise import Mechanisms
from insitu_node.profile_store import Announcements, ProfileStore
from insitu_node.projects import Projects
from insitu_node.state import ManifestStore, cap_key, lock_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that is ready to answer."""

    config: NodeConfig
    keys: WatchedIdentity
    manifest: ManifestStore
    cycle: Cycle
    ledger: Ledger
    log: AuditLog
    profiles: Announcements


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A dataset of this node: its contract, and its public files."""

    config: DatasetConfig
    dataset: Dataset
    bundle: DatasetBundle


def utc_now() -> datetime:
    """The clock of a running node."""
    return datetime.now(UTC)


def signing_key(identity: Identity, manifest: Manifest | None, now: datetime) -> SigningKey:
    """The key to sign with: the present one, or the former one until the manifest knows the present one (K7)."""
    entry = None if manifest is None else manifest.node(identity.id)
    return identity.signing_for(() if entry is None else entry.keys_at(now))


def identity_of(config: NodeConfig, ask: Ask | None = None) -> Identity:
    """The node's identity. Raises ConfigInvalid where it is another party's, or stays locked."""
    identity = load_identity(config.identity, ask)
    if (identity.role, identity.id) != ("node", config.node_id):
        reason = f"{config.identity} is the identity of {identity.role} {identity.id}, not of node {config.node_id}"
        raise ConfigInvalid("INSITU-CONFIG-STATE", reason=reason, hint="Correct node.id or node.identity.")
    return identity


def served(config: NodeConfig) -> dict[str, Served]:
    """The datasets of a configuration, read and parsed. Raises ConfigInvalid."""
    found = {}
    for name, own in config.datasets.items():
        bundle = read_bundle(own.contract)
        dataset = parse_dataset(bundle)
        if dataset.name != name:
            reason = f"datasets.{name}: its contract is of dataset {dataset.name}"
            raise ConfigInvalid("INSITU-CONFIG-INVALID", path=config.path, reason=reason)
        unknown = sorted(own.tables.keys() - dataset.tables.keys())
        if unknown:
            reason = f"datasets.{name}.tables: {unknown[0]} is not a table of the dataset"
            raise ConfigInvalid("INSITU-CONFIG-INVALID", path=config.path, reason=reason)
        found[name] = Served(config=own, dataset=dataset, bundle=bundle)
    return found


def open_engine(own: Served, *, base: Path, limits: Limits, temporary: Path | None) -> Engine:
    """The engine of one dataset. Raises ConfigInvalid where the mapping does not fit."""
    engine_limits = EngineLimits(
        statement_timeout_s=limits.statement_timeout_s,
        memory_limit_mb=limits.memory_limit_mb,
        workers=limits.workers,
        threads=cores(),
        temporary=temporary,
    )
    config = own.config
    if config.engine == "duckdb":
        from insitu_node.engines.duckdb import DuckDBEngine

        return DuckDBEngine(
            dataset=own.dataset,
            bundle=own.bundle,
            database=None if config.database is None else Path(config.database),
            schema=config.schema,
            mapping=config.tables,
            base=base,
            limits=engine_limits,
        )
    from insitu_node.engines.postgres import PostgresEngine

    assert config.database is not None  # config requires it
    return PostgresEngine(
        dataset=own.dataset,
        bundle=own.bundle,
        database=config.database,
        schema=config.schema,
        mapping=config.tables,
        limits=engine_limits,
    )


@contextmanager
def open_node(config: NodeConfig, *, hook: Hook) -> Iterator[Node]:
    """A node, alone on its state directory until the context ends."""
    with ExitStack() as stack:
        ask = asking()
        keys = WatchedIdentity(config.identity, lambda: identity_of(config, ask))
        identity = keys.current
        stack.enter_context(lock_state(config.state))
        datasets = served(config)
        engines = _engines(config, datasets, stack)
        ledger = SqliteLedger(config.state / "ledger.sqlite")
        stack.callback(ledger.close)
        projects = Projects(config.state)
        stack.callback(projects.close)
        custody = Custody(config.policy, projects)
        custody.announce()
        manifest = ManifestStore(config.state, identity.authority)
        secret = cap_key(config.state)
        log = open_log(config, ask)
        stack.callback(log.close)
        audit = NodeAudit(log, clock=utc_now, cap_key=secret)
        audit.agree(ledger)
        audit.started(_started(config, identity, datasets, manifest, ledger))
        stack.callback(audit.stopped)

        def signing() -> SigningKey:
            return signing_key(keys.current, manifest.latest, utc_now())

        cycle = Cycle(
            site=Site(
                node_id=config.node_id,
                key=identity.signing.public(),
                datasets={name: own.dataset for name, own in datasets.items()},
            ),
            signing=signing,
            manifest=manifest.current,
            ledger=ledger,
            custody=custody,
            engines=engines,
            noise=Mechanisms(),
            cap_key=secret,
            clock=utc_now,
            audit=audit,
            hook=hook,
        )
        store = ProfileStore(config.state, config.node_id, {name: own.dataset.digest for name, own in datasets.items()})
        profiles = Announcements(store, signing, projects.halted)
        yield Node(config=config, keys=keys, manifest=manifest, cycle=cycle, ledger=ledger, log=log, profiles=profiles)


def open_log(config: NodeConfig, ask: Ask | None = None) -> AuditLog:
    """The node's audit log. Raises IntegrityFailed where it does not verify: then nothing is answered."""

    def keys() -> Keys:
        identity = identity_of(config, ask)
        return identity.signing, (*identity.signed_before, *config.audit.former())

    return AuditLog.kept(config.state / "audit", Party(role="node", id=config.node_id), keys, clock=utc_now)


def _started(
    config: NodeConfig,
    identity: Identity,
    datasets: Mapping[str, Served],
    manifest: ManifestStore,
    ledger: SqliteLedger,
) -> dict[str, object]:
    token = read_file(config.state / "manifest.jws").decode("ascii", "replace") if manifest.version else None
    return {
        "software": f"insitu-node {__version__}",
        "config_sha256": hashlib.sha256(read_file(config.path)).hexdigest(),
        "key": identity.signing.thumbprint,
        "manifest_version": manifest.version,
        "manifest_sha256": None if token is None else token_sha256(token),
        "datasets": {name: own.dataset.digest for name, own in datasets.items()},
        **agreed_now(ledger.entries()),
    }


def _engines(config: NodeConfig, datasets: Mapping[str, Served], stack: ExitStack) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    for name, own in datasets.items():
        temporary = config.state / "tmp" / name
        make_directory(temporary)
        engines[name] = open_engine(own, base=config.base, limits=config.limits, temporary=temporary)
        stack.callback(engines[name].close)
    return engines
