"""How the SDK reaches a gateway: one method, ``call``, which yields what comes back. gRPC over mTLS is one way.

Failures of the network are Unavailable (INSITU-GATEWAY-UNREACHABLE or INSITU-GATEWAY-FAILED); what the gateway refuses
is the error it sent, unless it is one for nodes to give, who sign it (V7). With several gateway addresses the one that
last answered is tried first. What is not here: trying again (``delivery``) and belief in anything that is received
(``trust``, ``verification``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import InsituError, IntegrityFailed, Unavailable
from insitu_proto.messages import MAX_MESSAGE_BYTES, Ask, DatasetRef, Event, Follow, ManifestUpdate

if TYPE_CHECKING:
    import grpc
    from insitu_access.identity import Identity
    from insitu_proto.v1 import insitu_pb2_grpc as stubs

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # a gateway that restarts is back within a second or two: do not wait for gRPC's usual minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetManifest:
    """Wants the current manifest."""


Call = GetManifest | DatasetRef | Ask | Follow
Reply = ManifestUpdate | DatasetBundle | Event
_T = TypeVar("_T", ManifestUpdate, DatasetBundle)


class Transport(Protocol):
    """Anything that carries calls to a gateway."""

    def call(self, call: Call, *, timeout_s: float) -> Iterator[Reply]:
        """Send ``call`` and yield the replies as they come. Raises InsituError."""

    def believe(self, ca_pem: bytes) -> None:
        """From the next connection on, gateways are believed by these CAs."""

    def close(self) -> None:
        """End the connection."""


def receive(replies: Iterator[Reply], kind: type[_T]) -> _T:
    """The one reply of a call that has one."""
    for reply in replies:
        if isinstance(reply, kind):
            return reply
    raise Unavailable("INSITU-GATEWAY-FAILED", reason="it sent no answer")


_OWN_WORDS = ("INSITU-ACCESS-", "INSITU-GATEWAY-", "INSITU-PARAM-", "INSITU-REQUEST-")
"""What a gateway can refuse with by itself. Budgets, nodes and their data are not its to speak of."""


def _own_word(error: InsituError) -> InsituError:
    if error.code.startswith(_OWN_WORDS):
        return error
    return IntegrityFailed("INSITU-VERIFY-RESULT", reason="the gateway itself gives a code that is for nodes to sign")


class GrpcTransport:
    """gRPC over mTLS with the researcher's certificate. Channels are opened when first used, then kept."""

    def __init__(self, addresses: Sequence[str], identity: Identity) -> None:
        self._addresses = list(addresses)
        self._identity = identity
        self._lock = threading.Lock()
        self._open: dict[str, tuple[grpc.Channel, stubs.ResearchStub]] = {}
        self._stale: set[str] = set()
        """Addresses whose channel was opened under CAs that have changed since."""

    def call(self, call: Call, *, timeout_s: float) -> Iterator[Reply]:
        """Try each gateway in turn until one answers; once one has, stay with it."""
        last: InsituError | None = None
        for address in tuple(self._addresses):
            answered = False
            try:
                for reply in self._exchange(address, call, timeout_s):
                    answered = True
                    self._prefer(address)
                    yield reply
                return
            except Unavailable as error:
                if answered:
                    raise
                last = error
        raise last or Unavailable("INSITU-GATEWAY-UNREACHABLE", address="(none)")

    def believe(self, ca_pem: bytes) -> None:
        """Channels that are open go on; one that breaks is opened again under these CAs."""
        with self._lock:
            self._identity = replace(self._identity, ca_pem=ca_pem)
            self._stale = set(self._open)

    def close(self) -> None:
        """Close every channel."""
        with self._lock:
            for channel, _ in self._open.values():
                channel.close()
            self._open.clear()

    def _prefer(self, address: str) -> None:
        if self._addresses[0] != address:
            self._addresses = [address, *(one for one in self._addresses if one != address)]

    def _exchange(self, address: str, call: Call, timeout_s: float) -> Iterator[Reply]:
        import grpc
        from insitu_proto.status import from_rpc

        try:
            yield from self._replies(self._stub(address), call, timeout_s)
        except grpc.RpcError as error:
            self._forget(address)
            raise _own_word(from_rpc(error, address)) from None

    def _forget(self, address: str) -> None:
        """Let go of a channel that failed and knows only former CAs: the next call opens it anew."""
        with self._lock:
            if address in self._stale:
                self._stale.discard(address)
                channel = self._open.pop(address, None)
                if channel is not None:
                    channel[0].close()

    def _replies(self, stub: stubs.ResearchStub, call: Call, timeout_s: float) -> Iterator[Reply]:
        from insitu_proto import wire
        from insitu_proto.v1 import insitu_pb2 as pb

        if isinstance(call, GetManifest):
            yield wire.from_manifest(stub.GetManifest(pb.GetManifestRequest(), timeout=timeout_s))
        elif isinstance(call, DatasetRef):
            yield wire.from_chunks(stub.GetDataset(wire.to_dataset_ref(call), timeout=timeout_s))
        else:
            stream = (
                stub.Ask(wire.to_ask(call), timeout=timeout_s)
                if isinstance(call, Ask)
                else stub.Follow(wire.to_follow(call), timeout=timeout_s)
            )
            reader = wire.EventReader()
            for message in stream:
                event = reader.read(message)
                if event is not None:
                    yield event

    def _stub(self, address: str) -> stubs.ResearchStub:
        with self._lock:
            if address not in self._open:
                self._open[address] = self._dial(address)
            return self._open[address][1]

    def _dial(self, address: str) -> tuple[grpc.Channel, stubs.ResearchStub]:
        import grpc
        from insitu_proto.v1 import insitu_pb2_grpc as stubs

        credentials = grpc.ssl_channel_credentials(
            root_certificates=self._identity.ca_pem,
            private_key=self._identity.tls_key_pem,
            certificate_chain=self._identity.tls_cert_pem,
        )
        channel = grpc.secure_channel(address, credentials, options=_OPTIONS)
        return channel, stubs.ResearchStub(channel)
