"""The outbound stream to one gateway: dial, say hello, take tasks, send outcomes, back off, dial again.

The node listens on no port (T2). It believes nothing of the gateway but what is signed: tasks go to ``cycle``,
manifests to ``ManifestStore``. A gateway that sends what cannot be read, or a manifest that does not verify, is hung up
on and dialled again later; requests that already run go on, and their outcomes are kept.

Who answers is looked at first (W5, ``insitu_access.meeting``): a gateway outside the jurisdictions of the custodian's
policy is not even greeted. One outside the manifest's is hung up on after its welcome, for that may bring a manifest
which accepts it; until then no task is taken and nothing but the node's name is said. Each newer manifest, whichever
gateway brought it, is held against every stream (W1, W2).

After the welcome the node's profiles are announced, and again whenever there is a new one, a new key to sign them with,
or a newer manifest: a gateway keeps what the manifest of its day covers.

``link`` decides, this module acts. What is not here: what a task means.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime

import grpc
import grpc.aio
import structlog
from insitu_access.manifest import Manifest
from insitu_access.meeting import NO_DETOUR, meet
from insitu_access.watched import WatchedIdentity
from insitu_privacy.errors import AccessRefused, InsituError, Unavailable
from insitu_proto.messages import (
    MAX_MESSAGE_BYTES,
    AnnounceProfile,
    GatewayMessage,
    Heartbeat,
    Hello,
    ManifestUpdate,
    NodeMessage,
    Outcome,
    Progress,
    Taken,
    Task,
    Welcome,
)
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1.insitu_pb2_grpc import FederationStub
from insitu_proto.wire import from_gateway_message, to_node_message

from insitu_node.cycle import Cycle
from insitu_node.link import Backoff, Liveness, Outbox, hold_s
from insitu_node.profile_store import Announcements
from insitu_node.running import Stage, Stopped
from insitu_node.state import ManifestStore
from insitu_node.tasks import hold, unless, wait

_WELCOME_SECONDS = 15.0
_PACE_SECONDS = 0.025
_PROFILES_LOOK_S = 1.0
_OPTIONS = (
    *NO_DETOUR,
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # this module's own back-off decides when to dial
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_BACKOFF = Backoff()
_log = structlog.get_logger("insitu.node.connection")


class Renewal:
    """Tells every stream that the keys have changed: each is dialled again with the new ones."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def tell(self) -> None:
        """Now."""
        self.event.set()
        self.event = asyncio.Event()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialer:
    """What every connection of a node shares."""

    keys: WatchedIdentity
    changed: Renewal
    software: str
    manifest: ManifestStore
    cycle: Cycle
    workers: Executor
    queue: int
    answer_every_s: float
    clock: Callable[[], datetime]
    profiles: Announcements | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """By address, why a gateway was refused last: the audit log says it once."""

    async def keep(self, address: str, stopping: asyncio.Event) -> None:
        """Keeps one gateway connected until ``stopping`` is set."""
        line = _Line(self.queue)
        failures = 0
        while not stopping.is_set():
            try:
                certificate = await unless(stopping, self._meet(address))
                if certificate is not None:
                    async with self._channel(address, certificate) as channel:
                        await _Stream(self, address, certificate, line, channel).run(stopping)
            except _Hung as hung:
                failures = 1 if hung.was_welcome else failures + 1
                _log.info("gateway not connected", gateway=address, reason=hung.reason)
            await wait(stopping, _BACKOFF.delay(failures, random.random()))

    async def _meet(self, address: str) -> bytes:
        """The certificate of the gateway, which the custodian's policy accepts. Raises _Hung."""
        identity = self.keys.current
        try:
            certificate = await meet(address, identity, identity.anchors(self.manifest.latest))
            self.judge(address, certificate, None)
        except InsituError as error:
            raise _Hung(error.code, was_welcome=False) from None
        return certificate

    def judge(self, address: str, certificate: bytes, manifest: Manifest | None) -> None:
        """W1 and W2. Raises AccessRefused."""
        try:
            self.cycle.custody.check_gateway(certificate, manifest)
        except AccessRefused as error:
            if self.refused.get(address) != error.text:
                self.refused[address] = error.text
                _log.warning("gateway refused", gateway=address, code=error.code, reason=error.text)
                self.cycle.audit.gateway_refused(address, error.code, certificate)
            raise
        if manifest is not None:
            self.refused.pop(address, None)

    def _channel(self, address: str, certificate: bytes) -> grpc.aio.Channel:
        identity = self.keys.current
        credentials = grpc.ssl_channel_credentials(
            root_certificates=certificate,
            private_key=identity.tls_key_pem,
            certificate_chain=identity.tls_cert_pem,
        )
        return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)


class _Hung(Exception):
    """The stream has ended."""

    def __init__(self, reason: str, *, was_welcome: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.was_welcome = was_welcome


class _Line:
    """What outlives a stream: the outbox, and where messages go now. What was queued on a broken stream is forgotten:
    outcomes are in the outbox, and progress is not worth repeating."""

    def __init__(self, room: int) -> None:
        self.outbox = Outbox(room)
        self.queue: asyncio.Queue[NodeMessage] = asyncio.Queue()

    def fresh(self) -> None:
        """Before a new stream."""
        self.queue = asyncio.Queue()

    def send(self, message: NodeMessage) -> None:
        self.queue.put_nowait(message)


class _Stream:
    """One stream, from Hello to its end."""

    def __init__(
        self, dialer: Dialer, address: str, certificate: bytes, line: _Line, channel: grpc.aio.Channel
    ) -> None:
        self._dialer = dialer
        self._address = address
        self._certificate = certificate
        self._judged: Manifest | None = None
        self._line = line
        self._outbox = line.outbox
        line.fresh()
        self._call = FederationStub(channel).Attach(self._sending())
        self._welcomed = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Until the stream ends (raises _Hung) or the node stops."""
        ending = asyncio.create_task(stopping.wait())
        speaking = asyncio.create_task(self._speak())
        renewed = asyncio.create_task(self._dialer.changed.event.wait())
        try:
            await asyncio.wait({ending, speaking, renewed}, return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                if speaking.cancelled():  # grpc cancels a call whose messages cannot be written
                    raise _Hung("broken", was_welcome=self._welcomed)
                await speaking
            if renewed.done():
                raise _Hung("keys changed", was_welcome=True)
        except grpc.aio.AioRpcError as error:
            raise _Hung(error.code().name, was_welcome=self._welcomed) from None
        except InsituError as error:
            raise _Hung(error.code, was_welcome=False) from None
        finally:
            for task in (ending, speaking, renewed):
                task.cancel()
            self._call.cancel()
            await asyncio.gather(ending, speaking, renewed, return_exceptions=True)

    async def _sending(self) -> AsyncIterator[pb.NodeMessage]:
        hello = Hello(
            node_id=self._dialer.keys.current.id,
            manifest_version=self._dialer.manifest.version,
            software=self._dialer.software,
        )
        yield to_node_message(hello)
        while True:
            message = await self._line.queue.get()
            try:
                self._judge()
            except AccessRefused:
                return
            yield to_node_message(message)

    async def _speak(self) -> None:
        welcome = await self._welcome()
        self._offer(welcome.manifest_jws)
        self._judge()
        self._welcomed = True
        _log.info("gateway connected", gateway=self._address)
        for outcome in self._outbox.unconfirmed():
            self._line.send(outcome)
        beside = [asyncio.create_task(self._beat(welcome.heartbeat_seconds))]
        if self._dialer.profiles is not None and welcome.takes_profiles:
            beside.append(asyncio.create_task(self._announce(self._dialer.profiles)))
        try:
            await self._listen(welcome.heartbeat_seconds)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _welcome(self) -> Welcome:
        first = await self._read(_WELCOME_SECONDS)
        if not isinstance(first, Welcome):
            raise _Hung("no welcome", was_welcome=False)
        return first

    async def _read(self, seconds: float) -> GatewayMessage:
        try:
            message = await asyncio.wait_for(self._call.read(), seconds)
        except TimeoutError:
            raise _Hung("silent", was_welcome=self._welcomed) from None
        if not isinstance(message, pb.GatewayMessage):  # grpc's end-of-file mark
            raise _Hung("ended by the gateway", was_welcome=self._welcomed)
        return from_gateway_message(message)

    async def _listen(self, heartbeat_s: float) -> None:
        alive = Liveness(heartbeat_s=heartbeat_s, heard_at=time.monotonic())
        while not alive.is_dead(time.monotonic()):
            message = await self._read(4 * heartbeat_s)
            alive = alive.heard(time.monotonic())
            self._judge()  # another stream may have brought a manifest
            self._handle(message)
            self._judge()

    def _handle(self, message: GatewayMessage) -> None:
        match message:
            case Task():
                self._start(message)
            case Taken():
                self._outbox.taken(message.request_id)
            case ManifestUpdate():
                self._offer(message.manifest_jws)
            case Welcome() | Heartbeat():
                pass

    def _offer(self, manifest_jws: str) -> None:
        dialer, audit = self._dialer, self._dialer.cycle.audit
        try:
            newer = dialer.manifest.offer(manifest_jws, dialer.clock())
        except InsituError as error:
            audit.manifest_refused(manifest_jws, error.code)
            raise
        if newer:
            audit.manifest_accepted(dialer.manifest.version, manifest_jws)
            _log.info("manifest accepted", version=dialer.manifest.version)

    def _judge(self) -> None:
        """Whether this gateway may be talked to by the manifest there is now. Raises AccessRefused."""
        manifest = self._dialer.manifest.latest
        if manifest is not self._judged:
            self._dialer.judge(self._address, self._certificate, manifest)
            self._judged = manifest

    def _start(self, task: Task) -> None:
        verdict = self._outbox.take(task)
        if isinstance(verdict, Outcome):
            self._line.send(verdict)
        elif verdict != "running":
            runs = self._run(task) if verdict == "run" else self._busy(task)
            hold(asyncio.create_task(runs))

    async def _busy(self, task: Task) -> None:
        try:
            refusal = await asyncio.to_thread(
                self._dialer.cycle.refuse, task.request_id, task.request_jws, Unavailable("INSITU-NODE-BUSY")
            )
        except Exception as error:  # noqa: BLE001  # it could not be signed, or not be recorded: then it is not said
            _log.error("task dropped", error=type(error).__name__)
            return
        self._line.send(Outcome(request_id=task.request_id, outcome_jws=refusal))

    async def _run(self, task: Task) -> None:
        """Answers a task in a worker. It goes on when the stream breaks; the outcome then waits for the next one."""
        loop, started = asyncio.get_running_loop(), time.monotonic()
        pace = _Pace(lambda stage: self._line.send(Progress(request_id=task.request_id, stage=stage)))

        def progress(stage: Stage) -> None:
            if self._dialer.answer_every_s == 0 or stage == "admitted":  # a fixed schedule says nothing in between
                loop.call_soon_threadsafe(pace.reached, stage)

        try:
            jws = await loop.run_in_executor(
                self._dialer.workers,
                self._dialer.cycle.answer,
                task.request_id,
                task.request_jws,
                task.grant_jwt,
                progress,
            )
            await asyncio.sleep(hold_s(time.monotonic() - started, self._dialer.answer_every_s))
        except Stopped:
            self._outbox.dropped(task.request_id)
            return
        except Exception as error:  # noqa: BLE001  # not even a refusal could be signed: the task was never a request
            _log.error("task dropped", error=type(error).__name__)
            self._outbox.dropped(task.request_id)
            return
        finally:
            pace.end()
        outcome = Outcome(request_id=task.request_id, outcome_jws=jws)
        self._outbox.done(outcome)
        self._line.send(outcome)

    async def _announce(self, profiles: Announcements) -> None:
        said: object = None
        while True:
            there = await asyncio.to_thread(profiles.stamp), self._dialer.manifest.version
            if there != said:
                tokens = await asyncio.to_thread(profiles.tokens)  # a megabyte of numbers is read and signed
                for token in tokens:
                    self._line.send(AnnounceProfile(profile_jws=token))
                if tokens:
                    _log.info("profiles announced", gateway=self._address, profiles=len(tokens))
                said = there
            await asyncio.sleep(_PROFILES_LOOK_S)

    async def _beat(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self._line.send(Heartbeat())


class _Pace:
    """How far a request is, told every ``_PACE_SECONDS`` at most: of a quick one nothing but its end is read."""

    def __init__(self, tell: Callable[[Stage], None]) -> None:
        self._tell = tell
        self._stage: Stage | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def reached(self, stage: Stage) -> None:
        """The request is there now."""
        self._stage = stage
        if self._timer is None and not self._ended:
            self._timer = asyncio.get_running_loop().call_later(_PACE_SECONDS, self._due)

    def end(self) -> None:
        """The outcome is next: nothing more is told."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        if self._stage is not None:
            self._tell(self._stage)
