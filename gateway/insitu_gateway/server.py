"""The running gateway: identity, documents, store and services put together, and taken down in order.

Researchers and nodes reach it by mTLS on one address. The operator's service listens on a Unix socket in the state
directory, for the operating system's user alone; ``state/address`` and ``state/operations`` say where both are. One
gateway per state directory: its lock is held for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import grpc
import grpc.aio
import structlog
from insitu_access.audit.entry import Party
from insitu_access.audit.log import AuditLog, Keys, Note
from insitu_access.files import make_directory, read_file, write_file
from insitu_access.identity import Identity, load_identity
from insitu_access.jose import token_sha256
from insitu_access.passphrase import Ask, asking
from insitu_access.pin import Pin
from insitu_access.watched import WatchedIdentity
from insitu_privacy.errors import ConfigInvalid, InsituError
from insitu_proto.messages import MAX_MESSAGE_BYTES, GatewayStatus
from insitu_proto.v1 import insitu_pb2_grpc as stubs

from insitu_gateway import __version__
from insitu_gateway.audit import AuditedStore, GatewayAudit
from insitu_gateway.compute import Compute
from insitu_gateway.config import Config
from insitu_gateway.documents import Datasets, ManifestFile, SignedManifest
from insitu_gateway.fanout import Fanout
from insitu_gateway.intake import Intake
from insitu_gateway.journal import Journal
from insitu_gateway.profiles import KeptProfiles
from insitu_gateway.registry import Registry
from insitu_gateway.service import FederationService, OperationsService, ResearchService
from insitu_gateway.store_sqlite import SqliteStore
from insitu_gateway.tasks import Tasks

log = structlog.get_logger("insitu.gateway")

MANIFEST_LOOK_S = 1.0
_AUDIT_FLUSH_S = 1.0
_STOP_GRACE_S = 0.5
_UNIX_PATH_LIMIT = 100
"""Bytes of a Unix socket's path, of which Linux allows 107 and others fewer."""
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 512),
    # a peer that vanished without a word is noticed within half a minute
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # two gateways on one port would share its connections at random
    ("grpc.so_reuseport", 0),
)


def load_gateway_identity(config: Config, ask: Ask | None = None) -> Identity:
    """The gateway's identity. Raises ConfigInvalid where it is another party's, or stays locked."""
    identity = load_identity(config.identity, ask)
    if (identity.role, identity.id) != ("gateway", config.id):
        raise ConfigInvalid(
            "INSITU-CONFIG-INVALID",
            path=config.identity,
            reason=f"its certificate is not that of gateway {config.id}",
        )
    return identity


def open_log(config: Config, clock: Callable[[], datetime], ask: Ask | None = None) -> AuditLog:
    """The gateway's audit log. Raises IntegrityFailed where it does not verify: it is not continued then."""

    def keys() -> Keys:
        identity = load_gateway_identity(config, ask)
        return identity.signing, (*identity.signed_before, *config.audit.former())

    return AuditLog.kept(config.state / "audit", Party(role="gateway", id=config.id), keys, clock=clock)


class Gateway:
    """One gateway. ``async with`` starts it, and stops it at the end; ``address`` is where it listens."""

    def __init__(self, config: Config, *, clock: Callable[[], datetime]) -> None:
        self._config = config
        self._clock = clock
        self._stack = AsyncExitStack()
        self.address = config.listen

    async def __aenter__(self) -> Gateway:
        async with self._stack:
            await self._start()
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        config = self._config
        ask = asking()
        self._keys = WatchedIdentity(config.identity, lambda: load_gateway_identity(config, ask))
        datasets = Datasets(config.datasets)
        make_directory(config.state)
        self._stack.callback(_lock(config.state))
        pin = Pin(config.state, self._keys.current.authority)
        self._manifest = ManifestFile(config.manifest, pin, self._clock())
        self._audit = GatewayAudit(open_log(config, self._clock, ask), clock=self._clock)
        self._stack.callback(self._stop_audit)
        self._start_audit(self._keys.current)
        fanout, intake = await self._start_fanout(datasets)
        await self._listen(fanout, intake, datasets)
        await self._listen_for_operator()
        # after the servers in the order of ending: first the streams are told, then the servers stop
        self._stack.push_async_callback(fanout.close)
        watch = asyncio.ensure_future(self._watch(fanout))
        self._stack.callback(watch.cancel)
        keeping = asyncio.ensure_future(self._keep_audit())
        self._stack.callback(keeping.cancel)
        log.info("listening", address=self.address, manifest_version=self._manifest.current.manifest.version)

    async def _start_fanout(self, datasets: Datasets) -> tuple[Fanout, Intake]:
        limits = self._config.limits
        compute = Compute(limits.workers, limits.result_memory_mb, limits.result_timeout_s)
        self._stack.callback(compute.close)
        store = SqliteStore(self._config.state / "gateway.sqlite")
        self._journal = Journal(AuditedStore(store, self._audit, clock=self._clock))
        self._stack.push_async_callback(self._journal.close)
        self._profiles = KeptProfiles(
            self._journal, manifest=lambda: self._manifest.current.manifest, clock=self._clock
        )
        self._registry = Registry()
        self._tasks = tasks = Tasks()
        tasks.spawn(self._profiles.tidy())
        fanout = Fanout(
            journal=self._journal,
            registry=self._registry,
            compute=compute,
            manifest=lambda: self._manifest.current.manifest,
            datasets=datasets,
            limits=limits,
            clock=self._clock,
            tasks=tasks,
            audit=self._audit,
        )
        intake = Intake(
            fanout=fanout,
            journal=self._journal,
            manifest=lambda: self._manifest.current.manifest,
            limits=limits,
            clock=self._clock,
            tasks=tasks,
            audit=self._audit,
        )
        await intake.recover()
        warming = asyncio.ensure_future(compute.warm())
        self._stack.callback(warming.cancel)
        return fanout, intake

    async def _listen(self, fanout: Fanout, intake: Intake, datasets: Datasets) -> None:
        server = grpc.aio.server(options=_OPTIONS)
        limits = self._config.limits
        self._federation = FederationService(fanout, self._current, limits, self._profiles)
        stubs.add_FederationServicer_to_server(self._federation, server)
        research = ResearchService(intake, self._current, datasets, limits, self._profiles)
        stubs.add_ResearchServicer_to_server(research, server)
        self._tls = self._tls_now()
        credentials = grpc.dynamic_ssl_server_credentials(
            self._tls, lambda: self._tls, require_client_authentication=True
        )
        host, _, _ = self._config.listen.rpartition(":")
        try:
            port = server.add_secure_port(self._config.listen, credentials)
        except RuntimeError as error:
            reason = f"cannot listen on {self._config.listen}"
            hint = "Set [gateway] listen to a free address of this machine."
            raise ConfigInvalid("INSITU-CONFIG-STATE", reason=reason, hint=hint) from error
        self._stack.push_async_callback(server.stop, _STOP_GRACE_S)
        await server.start()
        self.address = f"{host}:{port}"
        write_file(self._config.state / "address", f"{self.address}\n".encode())

    def _tls_now(self) -> grpc.ServerCertificateConfiguration:
        """What new connections are met with: the certificate as it is on disk, the CAs of the manifest (K11)."""
        identity = self._keys.current
        return grpc.ssl_server_certificate_configuration(
            [(identity.tls_key_pem, identity.tls_cert_pem)],
            root_certificates=identity.anchors(self._manifest.current.manifest),
        )

    async def _listen_for_operator(self) -> None:
        server = grpc.aio.server()
        stubs.add_OperationsServicer_to_server(OperationsService(self._status), server)
        path = self._socket_path()
        server.add_insecure_port(f"unix:{path}")
        self._stack.push_async_callback(server.stop, None)
        await server.start()
        path.chmod(0o600)
        write_file(self._config.state / "operations", f"unix:{path}\n".encode(), mode=0o600)

    def _socket_path(self) -> Path:
        """In the state directory, or, where that is too deep for a socket, in a new directory for this user alone."""
        path = self._config.state.resolve() / "operations.sock"
        if len(os.fsencode(path)) <= _UNIX_PATH_LIMIT:
            return path
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="insitu-"))
        return Path(folder) / "operations.sock"

    def _start_audit(self, identity: Identity) -> None:
        path, current = self._config.path, self._manifest.current
        fields = {
            "software": f"insitu-gateway {__version__}",
            "config_sha256": hashlib.sha256(read_file(path) if path else repr(self._config).encode()).hexdigest(),
            "key": identity.signing.thumbprint,
            "manifest_version": current.manifest.version,
            "manifest_sha256": token_sha256(current.jws),
        }
        self._audit.flush(Note(kind="gateway-started", fields=fields))
        self._audit.log.seal()

    def _stop_audit(self) -> None:
        self._audit.flush(Note(kind="gateway-stopped"))
        self._audit.log.seal()
        self._audit.log.close()

    async def _keep_audit(self) -> None:
        """Writes notes that no batch of the store took along; seals, and drops old days, when it is time."""
        while True:
            await asyncio.sleep(_AUDIT_FLUSH_S)
            try:
                await asyncio.to_thread(self._maintain_audit)
            except InsituError as error:
                log.warning("audit log not written", error=error.line())

    def _maintain_audit(self) -> None:
        settings = self._config.audit
        self._audit.flush()
        self._audit.log.maintain(seal_every=settings.seal_every, retention=settings.retention, keeps=lambda _: False)

    def _current(self) -> SignedManifest:
        return self._manifest.current

    async def _status(self) -> GatewayStatus:
        manifest = self._manifest.current.manifest
        counts = await self._journal.counts()
        return GatewayStatus(
            gateway_id=self._config.id,
            manifest_version=manifest.version,
            nodes=self._registry.statuses(node.id for node in manifest.nodes),
            requests=tuple(counts.items()),
        )

    async def _watch(self, fanout: Fanout) -> None:
        """Take up a new manifest, new keys and a new pin as their files change; connections that are open go on."""
        while True:
            await asyncio.sleep(MANIFEST_LOOK_S)
            before = self._manifest.current.jws
            if self._look_at_keys():
                await self._renew_log()
            try:
                self._manifest.refresh(self._clock())
            except InsituError as error:
                log.warning("manifest not taken", error=error.line())
            current = self._manifest.current
            if current.jws != before:
                version, sha256 = current.manifest.version, token_sha256(current.jws)
                log.info("manifest changed", version=version)
                self._audit.note("manifest-changed", version=version, sha256=sha256)
                self._tls = self._tls_now()
                fanout.manifest_changed(current.manifest, current.jws)
                self._federation.drop(current.manifest.revoked_certificates)
                self._tasks.spawn(self._profiles.tidy())

    async def _renew_log(self) -> None:
        """The audit log says by whom it is sealed from here on."""
        try:
            await asyncio.to_thread(self._audit.log.renew)
        except InsituError as error:
            log.warning("audit log not sealed with the new key", error=error.line())

    def _look_at_keys(self) -> bool:
        """Whether new keys were taken up."""
        before = self._keys.current
        try:
            if not self._keys.refresh():
                return False
            log.info("keys changed")
            if self._keys.current.authority != before.authority:
                self._manifest.repin(self._keys.current.authority, self._clock())
        except InsituError as error:
            log.warning("keys not taken", error=error.line())
        self._tls = self._tls_now()
        return self._keys.current is not before


def _lock(state: Path) -> Callable[[], None]:
    """Hold the state directory; returns what lets go of it. Raises ConfigInvalid where another process holds it."""
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigInvalid(
            "INSITU-CONFIG-STATE",
            reason=f"another gateway runs on {state}",
            hint="Stop it first, or give this one a state directory of its own.",
        ) from error
    return lambda: os.close(descriptor)
