"""The gRPC servicers: who calls, from wire to domain, on to ``intake`` and ``fanout``. They decide nothing else.

A peer's certificate says what it may call (T3): nodes attach, each only as itself and while the manifest lists it;
researchers do everything else; the operator's service is on a socket of its own (``server``).
"""

# ruff: noqa: N802 - methods have the names that the .proto gives them

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc.aio
from insitu_privacy.errors import AccessRefused, InsituError, Unavailable
from insitu_proto import wire, wire_profiles
from insitu_proto.messages import AnnounceProfile, Event, GatewayStatus, Hello, ManifestUpdate, Welcome
from insitu_proto.status import abort
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1 import insitu_pb2_grpc as stubs

from insitu_gateway.config import Limits
from insitu_gateway.documents import Datasets, SignedManifest
from insitu_gateway.fanout import Fanout
from insitu_gateway.intake import Intake
from insitu_gateway.peers import require_role, serial
from insitu_gateway.profiles import MOST_IGNORED, KeptProfiles
from insitu_gateway.stream import NodeStream

Context = grpc.aio.ServicerContext[Any, Any]


class FederationService(stubs.FederationServicer):
    """For nodes."""

    def __init__(
        self, fanout: Fanout, manifest: Callable[[], SignedManifest], limits: Limits, profiles: KeptProfiles
    ) -> None:
        self._fanout = fanout
        self._profiles = profiles
        self._manifest = manifest
        self._limits = limits
        self._attached: dict[NodeStream, str] = {}
        """The streams, with the serial number of the certificate they came by."""

    def drop(self, revoked: Collection[str]) -> None:
        """End the streams that came by a certificate that is now revoked (K10)."""
        for stream, number in list(self._attached.items()):
            if number in revoked:
                stream.close()

    async def Attach(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]  # reads and writes
        """One node's stream, from its Hello until either side ends it."""
        try:
            await self._attach(context)
        except InsituError as error:
            await abort(context, error)

    async def _attach(self, context: Context) -> None:
        node = require_role(context, "node", self._manifest().manifest.revoked_certificates)
        stream = NodeStream(context, beat_s=self._limits.heartbeat_s, limit=self._limits.node_queue)
        hello = await stream.read()
        manifest = self._manifest()
        if not isinstance(hello, Hello) or hello.node_id != node or manifest.manifest.node(node) is None:
            raise AccessRefused("INSITU-ACCESS-PEER")
        beat_s = self._limits.heartbeat_s
        stream.send(Welcome(manifest_jws=manifest.jws, heartbeat_seconds=beat_s, takes_profiles=True))
        self._fanout.attached(stream, hello)
        self._attached[stream] = serial(context)
        try:
            await stream.run(self._listen(node, stream))
        finally:
            del self._attached[stream]
            self._fanout.detached(node, stream)
            await stream.settle()

    async def _listen(self, node: str, stream: NodeStream) -> None:
        ignored, by = 0, self._manifest()
        while (message := await stream.read()) is not None:
            await self._fanout.heard(node, stream, message)
            if not isinstance(message, AnnounceProfile):
                continue
            if by is not self._manifest():  # every node announces again, also what the one before did not cover
                ignored, by = 0, self._manifest()
            if ignored < MOST_IGNORED:
                ignored += not await self._profiles.announced(node, message.profile_jws)


class ResearchService(stubs.ResearchServicer):
    """For researchers."""

    def __init__(
        self,
        intake: Intake,
        manifest: Callable[[], SignedManifest],
        datasets: Datasets,
        limits: Limits,
        profiles: KeptProfiles,
    ) -> None:
        self._intake = intake
        self._manifest = manifest
        self._datasets = datasets
        self._profiles = profiles
        self._limits = limits
        self._streams: Counter[str] = Counter()

    async def GetManifest(self, request: pb.GetManifestRequest, context: Context) -> pb.Manifest:
        """The newest manifest there is here."""
        try:
            self._researcher(context)
            return wire.to_manifest(ManifestUpdate(manifest_jws=self._manifest().jws))
        except InsituError as error:
            await abort(context, error)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> AsyncIterator[pb.DatasetChunk]:
        """A dataset's files."""
        try:
            with self._one_more(self._researcher(context)):
                wanted = wire.from_dataset_ref(request)
                bundle = self._datasets.bundle(wanted.name, wanted.digest, self._manifest().manifest)
                for chunk in wire.to_chunks(bundle):
                    yield chunk
        except InsituError as error:
            await abort(context, error)

    async def GetProfiles(self, request: pb.GetProfilesRequest, context: Context) -> AsyncIterator[pb.NodeProfile]:
        """The profiles there are of a dataset."""
        try:
            with self._one_more(self._researcher(context)):
                found = await self._profiles.of(wire_profiles.from_get_profiles(request))
                for message in wire_profiles.to_profiles(found):
                    yield message
        except InsituError as error:
            await abort(context, error)

    async def Ask(self, request: pb.AskRequest, context: Context) -> AsyncIterator[pb.Event]:
        """A request's events from its start."""
        async for event in self._told(context, lambda owner: self._intake.ask(wire.from_ask(request), owner)):
            yield event

    async def Follow(self, request: pb.FollowRequest, context: Context) -> AsyncIterator[pb.Event]:
        """The rest of a request's events."""

        async def follow(owner: str) -> AsyncGenerator[Event]:
            return await self._intake.follow(wire.from_follow(request).request_id, owner)

        async for event in self._told(context, follow):
            yield event

    async def _told(
        self, context: Context, start: Callable[[str], Awaitable[AsyncGenerator[Event]]]
    ) -> AsyncIterator[pb.Event]:
        try:
            owner = self._researcher(context)
            with self._one_more(owner):
                writer = wire.EventWriter()
                async with aclosing(await start(owner)) as events:
                    async for event in events:
                        for message in writer.write(event):
                            yield message
        except InsituError as error:
            await abort(context, error)

    def _researcher(self, context: Context) -> str:
        return require_role(context, "researcher", self._manifest().manifest.revoked_certificates)

    @contextmanager
    def _one_more(self, owner: str) -> Iterator[None]:
        """One researcher's streams are limited, so that the others' are not."""
        if self._streams[owner] >= self._limits.streams_per_researcher:
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="too many streams are open")
        self._streams[owner] += 1
        try:
            yield
        finally:
            self._streams[owner] -= 1
            if not self._streams[owner]:
                del self._streams[owner]


class OperationsService(stubs.OperationsServicer):
    """For the operator, on this machine alone."""

    def __init__(self, status: Callable[[], Awaitable[GatewayStatus]]) -> None:
        self._status = status

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusReply:
        """Nodes and counts."""
        try:
            return wire.to_status(await self._status())
        except InsituError as error:
            await abort(context, error)
