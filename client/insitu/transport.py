"""How the SDK reaches a gateway: one method, ``call``, which yields what comes back. gRPC over mTLS is one way.

Failures of the network are Unavailable (INSITU-GATEWAY-UNREACHABLE or INSITU-GATEWAY-FAILED); what the gateway refuses
is the error it sent, unless it is one for nodes to give, who sign it (V7). Who answers is looked at before a channel is
opened, and the channel reaches nobody else (W5). With several gateway addresses the one that last answered is tried
first. What is not here: trying again (``delivery``) and belief in anything that is received (``trust``,
``verification``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import AccessRefused, InsituError, IntegrityFailed, Unavailable
from insitu_proto.messages import (
    MAX_MESSAGE_BYTES,
    Ask,
    DatasetRef,
    Event,
    Follow,
    GetProfiles,
    ManifestUpdate,
    Profiles,
)

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


Call = GetManifest | DatasetRef | GetProfiles | Ask | Follow
Reply = ManifestUpdate | DatasetBundle | Profiles | Event
_T = TypeVar("_T", ManifestUpdate, DatasetBundle, Profiles)


class Transport(Protocol):
    """Anything that carries calls to a gateway."""

    def call(self, call: Call, *, timeout_s: float) -> Iterator[Reply]:
        """Send ``call`` and yield the replies as they come. Raises InsituError."""

    def believe(self, ca_pem: bytes) -> None:
        """From the next connection on, gateways are believed by these CAs."""

    def require(self, check: Callable[[bytes], None]) -> None:
        """From now on nothing is asked of a gateway whose certificate (PEM) ``check`` refuses."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An open channel, and the certificate of who is at its other end."""

    certificate: bytes
    channel: grpc.Channel
    stub: stubs.ResearchStub


class GrpcTransport:
    """gRPC over mTLS with the researcher's certificate. Channels are opened when first used, then kept."""

    def __init__(self, addresses: Sequence[str], identity: Identity) -> None:
        self._addresses = list(addresses)
        self._identity = identity
        self._lock = threading.Lock()
        self._open: dict[str, _Line] = {}
        self._doubted: set[str] = set()
        """Addresses whose channel failed: who answers there is looked at again before the next call."""
        self._check: Callable[[bytes], None] | None = None

    def call(self, call: Call, *, timeout_s: float) -> Iterator[Reply]:
        """Try each gateway in turn until one answers; once one has, stay with it."""
        last: InsituError | None = None
        for address in tuple(self._addresses):
            answered = False
            try:
                last = self._refusal(address, call, timeout_s)
                if last is not None:
                    continue
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

    def require(self, check: Callable[[bytes], None]) -> None:
        """Channels stay open: a manifest is taken from anybody, for it may be the one that accepts this gateway."""
        self._check = check

    def close(self) -> None:
        """Close every channel."""
        with self._lock:
            for line in self._open.values():
                line.channel.close()
            self._open.clear()

    def _prefer(self, address: str) -> None:
        if self._addresses[0] != address:
            self._addresses = [address, *(one for one in self._addresses if one != address)]

    def _exchange(self, address: str, call: Call, timeout_s: float) -> Iterator[Reply]:
        import grpc
        from insitu_proto.status import from_rpc

        try:
            yield from self._replies(self._line(address, timeout_s).stub, call, timeout_s)
        except grpc.RpcError as error:
            with self._lock:
                self._doubted.add(address)
            raise _own_word(from_rpc(error, address)) from None

    def _refusal(self, address: str, call: Call, timeout_s: float) -> InsituError | None:
        """Why a gateway is not asked this: W1 and W2. Its manifest is taken in any case."""
        if self._check is None or isinstance(call, GetManifest):
            return None
        try:
            self._check(self._line(address, timeout_s).certificate)
        except AccessRefused as error:
            with self._lock:
                self._doubted.add(address)  # another may stand there when it is asked again
            return error
        return None

    def _replies(self, stub: stubs.ResearchStub, call: Call, timeout_s: float) -> Iterator[Reply]:
        from insitu_proto import wire, wire_profiles
        from insitu_proto.v1 import insitu_pb2 as pb

        if isinstance(call, GetManifest):
            yield wire.from_manifest(stub.GetManifest(pb.GetManifestRequest(), timeout=timeout_s))
        elif isinstance(call, DatasetRef):
            yield wire.from_chunks(stub.GetDataset(wire.to_dataset_ref(call), timeout=timeout_s))
        elif isinstance(call, GetProfiles):
            yield wire_profiles.from_profiles(stub.GetProfiles(wire_profiles.to_get_profiles(call), timeout=timeout_s))
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

    def _line(self, address: str, timeout_s: float) -> _Line:
        """The channel to an address, opened or, where it failed, to who answers there now. Raises Unavailable."""
        from insitu_access.meeting import MEETING_SECONDS, certificate_at

        with self._lock:
            known, identity = self._open.get(address), self._identity
            if known is not None and address not in self._doubted:
                return known
        certificate = certificate_at(address, identity, identity.ca_pem, seconds=min(timeout_s, MEETING_SECONDS))
        with self._lock:
            self._doubted.discard(address)
            known = self._open.get(address)
            if known is None or known.certificate != certificate:
                if known is not None:
                    known.channel.close()
                self._open[address] = self._dial(address, certificate)
            return self._open[address]

    def _dial(self, address: str, certificate: bytes) -> _Line:
        """W5: to the holder of this certificate, and nobody else."""
        import grpc
        from insitu_access.meeting import NO_DETOUR
        from insitu_proto.v1 import insitu_pb2_grpc as stubs

        credentials = grpc.ssl_channel_credentials(
            root_certificates=certificate,
            private_key=self._identity.tls_key_pem,
            certificate_chain=self._identity.tls_cert_pem,
        )
        channel = grpc.secure_channel(address, credentials, options=(*NO_DETOUR, *_OPTIONS))
        return _Line(certificate=certificate, channel=channel, stub=stubs.ResearchStub(channel))
