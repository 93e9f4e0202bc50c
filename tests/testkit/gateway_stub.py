"""A gateway of a few lines, over real gRPC and mTLS, for tests of nodes: it hands out tasks and keeps what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from insitu_access.certificates import CertificateAuthority, create_authority, issue_certificate
from insitu_access.identity import create_keys, write_certificate
from insitu_access.keys import VerifyingKey
from insitu_proto.messages import (
    MAX_MESSAGE_BYTES,
    AnnounceProfile,
    GatewayMessage,
    Heartbeat,
    Hello,
    ManifestUpdate,
    NodeMessage,
    Outcome,
    Taken,
    Task,
    Welcome,
)
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1.insitu_pb2_grpc import FederationServicer, add_FederationServicer_to_server
from insitu_proto.wire import from_node_message, to_gateway_message


def make_ca() -> CertificateAuthority:
    now = datetime.now(UTC)
    return create_authority("demo", not_before=now - timedelta(days=1), not_after=now + timedelta(days=30))


def make_identity(
    folder: Path, ca: CertificateAuthority, role: Any, party: str, authority: VerifyingKey, country: str | None = None
) -> VerifyingKey:
    """An identity directory as the authority and the party would make it together."""
    now = datetime.now(UTC)
    public = create_keys(folder)
    certificate = issue_certificate(
        ca,
        role,
        party,
        (folder / "tls.csr").read_bytes(),
        addresses=("localhost",) if role == "gateway" else (),
        country=country,
        not_before=now - timedelta(hours=1),
        not_after=now + timedelta(days=1),
    )
    write_certificate(folder, certificate=certificate, ca=ca.certificate_pem, authority=authority)
    return public


class GatewayStub(FederationServicer):
    """Knobs: ``manifest_jws``; ``say`` sends to the node that is attached; ``confirm`` answers outcomes with Taken."""

    def __init__(self, identity: Path, manifest_jws: str) -> None:
        self._identity = identity
        self.manifest_jws = manifest_jws
        self.confirm = True
        self.heartbeat_seconds = 1
        self.takes_profiles = True
        self.heard: list[NodeMessage] = []
        self.attached = asyncio.Event()
        self._changed = asyncio.Condition()
        self._to_node: asyncio.Queue[GatewayMessage | None] = asyncio.Queue()
        self.address = ""

    async def start(self, port: int = 0) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ]
        )
        add_FederationServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [((self._identity / "tls.key").read_bytes(), (self._identity / "tls.pem").read_bytes())],
            root_certificates=(self._identity / "ca.pem").read_bytes(),
            require_client_auth=True,
        )
        self.port = self._server.add_secure_port(f"localhost:{port}", credentials)
        self.address = f"localhost:{self.port}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def Attach(
        self, request_iterator: AsyncIterator[pb.NodeMessage], context: Any
    ) -> AsyncIterator[pb.GatewayMessage]:
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            welcome = Welcome(
                manifest_jws=self.manifest_jws,
                heartbeat_seconds=self.heartbeat_seconds,
                takes_profiles=self.takes_profiles,
            )
            yield to_gateway_message(welcome)
            self._to_node = asyncio.Queue()
            self.attached.set()
            while True:
                try:
                    message = await asyncio.wait_for(self._to_node.get(), self.heartbeat_seconds)
                except TimeoutError:
                    message = Heartbeat()
                if message is None:
                    return
                yield to_gateway_message(message)
        finally:
            self.attached.clear()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, messages: AsyncIterator[pb.NodeMessage]) -> None:
        async for raw in messages:
            message = from_node_message(raw)
            async with self._changed:
                self.heard.append(message)
                self._changed.notify_all()
            if isinstance(message, Outcome) and self.confirm:
                self.say(Taken(request_id=message.request_id))

    def say(self, message: GatewayMessage | None) -> None:
        """Sends to the attached node; None ends the stream."""
        self._to_node.put_nowait(message)

    def task(self, request_id: str, request_jws: str, grant_jwt: str) -> None:
        self.say(Task(request_id=request_id, request_jws=request_jws, grant_jwt=grant_jwt))

    def manifest(self, manifest_jws: str) -> None:
        self.say(ManifestUpdate(manifest_jws=manifest_jws))

    def outcomes(self) -> list[Outcome]:
        return [message for message in self.heard if isinstance(message, Outcome)]

    def profiles(self) -> list[AnnounceProfile]:
        return [message for message in self.heard if isinstance(message, AnnounceProfile)]

    def hellos(self) -> list[Hello]:
        return [message for message in self.heard if isinstance(message, Hello)]

    async def wait_for(self, count: int, kind: type, seconds: float = 30) -> None:
        """Until ``count`` messages of a kind have come in all."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: sum(isinstance(m, kind) for m in self.heard) >= count)
