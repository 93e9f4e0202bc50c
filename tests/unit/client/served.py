"""Serves a ``World`` over real gRPC with mTLS on a loopback port, as a gateway does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
from insitu.transport import Call, GetManifest
from insitu_access.certificates import create_csr, create_tls_key, issue_certificate
from insitu_privacy.errors import InsituError
from insitu_proto import status, wire, wire_profiles
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1 import insitu_pb2_grpc as stubs

from tests.unit.client.world import World


class _Servicer(stubs.ResearchServicer):
    def __init__(self, world: World) -> None:
        self._world = world

    def GetManifest(self, request: Any, context: grpc.ServicerContext) -> pb.Manifest:
        return next(self._serve(GetManifest(), context, wire.to_manifest))

    def GetDataset(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.DatasetChunk]:
        for chunks in self._serve(wire.from_dataset_ref(request), context, wire.to_chunks):
            yield from chunks

    def GetProfiles(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.NodeProfile]:
        for profiles in self._serve(wire_profiles.from_get_profiles(request), context, wire_profiles.to_profiles):
            yield from profiles

    def Ask(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.Event]:
        yield from self._events(wire.from_ask(request), context)

    def Follow(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.Event]:
        yield from self._events(wire.from_follow(request), context)

    def _events(self, call: Call, context: grpc.ServicerContext) -> Iterator[pb.Event]:
        writer = wire.EventWriter()
        for event in self._serve(call, context, lambda it: it):
            yield from writer.write(event)

    def _serve(self, call: Call, context: grpc.ServicerContext, write: Any) -> Iterator[Any]:
        try:
            for reply in self._world.call(call, timeout_s=1):
                yield write(reply)
        except InsituError as error:
            if error.code == "INSITU-GATEWAY-UNREACHABLE":
                context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            context.set_trailing_metadata(((status.TRAILER, status.to_detail(error).SerializeToString()),))
            context.abort(status.status_of(error), error.code)


@contextmanager
def serving(world: World, host: str = "127.0.0.1", *, country: str | None = None, port: int = 0) -> Iterator[str]:
    """The address at which ``world`` is served."""
    key = create_tls_key()
    certificate = issue_certificate(
        world.ca,
        "gateway",
        "gw",
        create_csr(key),
        addresses=[host],
        country=country,
        not_before=world.now - timedelta(days=1),
        not_after=world.now + timedelta(days=30),
    )
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=world.ca.certificate_pem, require_client_auth=True
    )
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    stubs.add_ResearchServicer_to_server(_Servicer(world), server)
    port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
