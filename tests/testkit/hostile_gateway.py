"""A gateway that its operator has turned: the production gateway, with its genuine certificate, whose words are changed.

Real nodes and real researchers meet it over mTLS. Its core stays honest, so that every attack reaches its victim with
all around it in order; an ``Attack`` changes what goes out, at the last moment before the wire. What is not here: what
an attack leads to (``tests/privacy/test_hostile_*.py``).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc.aio
from insitu_access.release import Outcome as Signed
from insitu_access.release import open_outcome
from insitu_gateway.config import load_config
from insitu_gateway.server import Gateway
from insitu_gateway.service import Context, FederationService, ResearchService
from insitu_privacy.errors import InsituError
from insitu_proto import messages as m
from insitu_proto import wire
from insitu_proto.status import abort
from insitu_proto.v1 import insitu_pb2 as pb

PATIENCE_S = 20.0
Said = m.Event | pb.Event | float
"""What a researcher is told: an event, a message as it stands, or so many seconds of silence."""


@dataclass
class Attack:
    """Honest in all that is not set."""

    to_node: Callable[[str, m.GatewayMessage], Iterable[m.GatewayMessage | pb.GatewayMessage]] = lambda _, message: (
        message,
    )
    event: Callable[[m.Event], Iterable[Said]] = lambda event: (event,)
    manifest: Callable[[str], str] = lambda token: token
    """What researchers are given for the manifest."""
    manifest_after_s: float = 0
    chunks: Callable[[list[pb.DatasetChunk]], list[pb.DatasetChunk]] = lambda chunks: chunks
    profiles: Callable[[list[str]], list[str]] = lambda tokens: tokens
    """What researchers are given for the profiles of a dataset."""
    refuse: InsituError | None = None
    """With what every request is turned away, after it was run."""


Outcomes = list[m.NodeOutcome]


def outcomes(change: Callable[[Outcomes], Sequence[m.NodeOutcome]]) -> Attack:
    """Changes what nodes are said to have answered, and has no result of its own that could contradict it."""

    def event(true: m.Event) -> list[m.Event]:
        if isinstance(true, m.Answered):
            return [m.Answered(outcomes=tuple(change(list(true.outcomes))))]
        return [replace(true, result_json=None)] if isinstance(true, m.Finished) else [true]

    return Attack(event=event)


def of_alpha(change: Callable[[m.NodeOutcome], m.NodeOutcome]) -> Attack:
    return outcomes(lambda all_: [change(one) if one.node_id == "alpha" else one for one in all_])


def jws(change: Callable[[str], str]) -> Attack:
    return of_alpha(lambda one: replace(one, outcome_jws=change(one.outcome_jws or "")))


@dataclass
class HostileGateway:
    """Runs in a thread of its own. ``heard`` is all that nodes said, ``attack`` what is done at the moment."""

    config: Path
    attack: Attack = field(default_factory=Attack)
    heard: list[tuple[str, m.NodeMessage]] = field(default_factory=list)
    bytes_heard: list[bytes] = field(default_factory=list)
    """The same as it stood on the wire, within TLS: fields that nobody knows included, and the call's metadata."""
    welcomed: dict[str, bool] = field(default_factory=dict)
    """By node, whether its stream began with an honest welcome: after any other the node is about to hang up."""

    # ------------------------------------------------------------------------------------------------------- running

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="hostile-gateway", daemon=True)
        self._ready, self._failed = threading.Event(), list[BaseException]()
        self._thread.start()
        assert self._ready.wait(PATIENCE_S), "the hostile gateway did not start"
        assert not self._failed, self._failed

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._turned():
                self._ready.set()
                await self._stopping.wait()
        except BaseException as error:
            self._failed.append(error)
            self._ready.set()
            raise

    def _turned(self) -> Gateway:
        self.gateway = _Gateway(load_config(self.config), clock=lambda: datetime.now(UTC))
        self.gateway.hostile = self
        return self.gateway

    # --------------------------------------------------------------------------------------------------- what it does

    def say(self, node: str, message: m.GatewayMessage) -> None:
        """To a node, unasked."""
        wait_until(lambda: self.connected(node))
        connection = self.gateway._registry.connection(node)
        assert connection is not None
        self._loop.call_soon_threadsafe(connection.send, message)

    def hellos(self, node: str) -> int:
        """How often a node has dialled."""
        return sum(name == node and isinstance(said, m.Hello) for name, said in tuple(self.heard))

    def drop(self, node: str) -> None:
        """Ends a node's stream as a gateway that stops would; until the node has dialled again."""
        before, connection = self.hellos(node), self.gateway._registry.connection(node)
        assert connection is not None
        self._loop.call_soon_threadsafe(connection.close)
        wait_until(lambda: self.hellos(node) > before and self.connected(node))

    def connected(self, *nodes: str) -> bool:
        registry = self.gateway._registry
        return all(self.welcomed.get(node) and registry.connection(node) is not None for node in nodes)

    def outcomes(self, node: str, request_id: str) -> list[str]:
        """The outcomes that a node sent for a task of this id."""
        said = [message for name, message in tuple(self.heard) if name == node and isinstance(message, m.Outcome)]
        return [message.outcome_jws for message in said if message.request_id == request_id]

    def answer(self, node: str, request_id: str, number: int = 1) -> Signed:
        """The ``number``th outcome of a node for a task, opened."""
        wait_until(lambda: len(self.outcomes(node, request_id)) >= number)
        entry = self.gateway._manifest.current.manifest.node(node)
        assert entry is not None
        return open_outcome(self.outcomes(node, request_id)[number - 1], entry.key, node=node)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Fails the test when that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


class _Gateway(Gateway):
    """The production gateway, but for the two services that speak to others."""

    hostile: HostileGateway

    async def _listen(self, *parts: Any) -> None:
        with patch.multiple(
            "insitu_gateway.server",
            FederationService=lambda *args: _Federation(self.hostile, *args),
            ResearchService=lambda *args: _Research(self.hostile, *args),
        ):
            await super()._listen(*parts)


class _Tap:
    """A node's stream: all that the node says is kept, all that is said to it goes through the attack."""

    def __init__(self, hostile: HostileGateway, context: Context) -> None:
        self._hostile, self._context, self._node = hostile, context, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        message = await self._context.read()
        if isinstance(message, pb.NodeMessage):
            self._hostile.bytes_heard += [
                message.SerializeToString(),
                repr(self._context.invocation_metadata()).encode(),
            ]
            said = wire.from_node_message(message)
            if isinstance(said, m.Hello):
                self._node = said.node_id
                self._hostile.welcomed[self._node] = False
            self._hostile.heard.append((self._node, said))
        return message

    async def write(self, message: pb.GatewayMessage) -> None:
        true = wire.from_gateway_message(message)
        said = list(self._hostile.attack.to_node(self._node, true))
        for each in said:
            await self._context.write(each if isinstance(each, pb.GatewayMessage) else wire.to_gateway_message(each))
        if isinstance(true, m.Welcome):
            self._hostile.welcomed[self._node] = said == [true]


class _Federation(FederationService):
    def __init__(self, hostile: HostileGateway, *args: Any) -> None:
        super().__init__(*args)
        self._hostile = hostile

    async def Attach(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        await super().Attach(request_iterator, _Tap(self._hostile, context))  # type: ignore[arg-type]


class _Research(ResearchService):
    def __init__(self, hostile: HostileGateway, *args: Any) -> None:
        super().__init__(*args)
        self._hostile = hostile

    async def GetManifest(self, request: pb.GetManifestRequest, context: Context) -> pb.Manifest:
        true = await super().GetManifest(request, context)
        await asyncio.sleep(self._hostile.attack.manifest_after_s)
        return pb.Manifest(manifest_jws=self._hostile.attack.manifest(true.manifest_jws))

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> AsyncIterator[pb.DatasetChunk]:
        for chunk in self._hostile.attack.chunks([chunk async for chunk in super().GetDataset(request, context)]):
            yield chunk

    async def GetProfiles(self, request: pb.GetProfilesRequest, context: Context) -> AsyncIterator[pb.NodeProfile]:
        true = [one.profile_jws async for one in super().GetProfiles(request, context)]
        for token in self._hostile.attack.profiles(true):
            yield pb.NodeProfile(profile_jws=token)

    async def Ask(self, request: pb.AskRequest, context: Context) -> AsyncIterator[pb.Event]:
        async for event in self._changed(super().Ask(request, context), context):
            yield event

    async def Follow(self, request: pb.FollowRequest, context: Context) -> AsyncIterator[pb.Event]:
        async for event in self._changed(super().Follow(request, context), context):
            yield event

    async def _changed(
        self, true: AsyncIterator[pb.Event], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Event]:
        reader, writer, attack = wire.EventReader(), wire.EventWriter(), self._hostile.attack
        async for message in true:
            event = reader.read(message)
            for said in attack.event(event) if event is not None else ():
                if isinstance(said, float):
                    await asyncio.sleep(said)
                elif isinstance(said, pb.Event):
                    yield said
                else:
                    for written in writer.write(said):
                        yield written
        if attack.refuse is not None:
            await abort(context, attack.refuse)
