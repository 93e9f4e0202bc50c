"""What gateway, nodes and researchers send one another: protobuf messages, and errors in trailers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import InsituError, SqlRefused, underline
from insitu_proto import messages as m
from insitu_proto import wire, wire_profiles
from insitu_proto.fields import malformed
from insitu_proto.status import from_detail, to_detail
from insitu_proto.v1 import insitu_pb2 as pb

from tests.fuzz.targets import Target

_READERS: tuple[tuple[Callable[[bytes], Any], Callable[[Any], object]], ...] = (
    (pb.NodeMessage.FromString, wire.from_node_message),
    (pb.GatewayMessage.FromString, wire.from_gateway_message),
    (pb.AskRequest.FromString, wire.from_ask),
    (pb.FollowRequest.FromString, wire.from_follow),
    (pb.GetDatasetRequest.FromString, wire.from_dataset_ref),
    (pb.GetProfilesRequest.FromString, wire_profiles.from_get_profiles),
    (pb.StatusReply.FromString, wire.from_status),
)


def _messages(data: bytes) -> None:
    """As every message there is: which one a peer expects is the call's choice, not the bytes'."""
    refused = []
    for parse, read in _READERS:
        try:
            read(_parsed(parse, data))
        except InsituError as error:
            refused.append(error)
    if len(refused) == len(_READERS):
        raise refused[0]


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """gRPC parses before the product sees anything, and ends the call where that fails."""
    try:
        return parse(data)
    except DecodeError:
        raise malformed("it does not parse") from None


def _pieces(data: bytes) -> list[bytes]:
    """Messages of a stream, each after two bytes of its length."""
    found, at = [], 0
    while at + 1 < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return found


def _framed(*messages: Any) -> bytes:
    parts = [message.SerializeToString() for message in messages]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _events(data: bytes) -> None:
    reader = wire.EventReader()
    for piece in _pieces(data):
        reader.read(_parsed(pb.Event.FromString, piece))


def _chunks(data: bytes) -> None:
    wire.from_chunks(_parsed(pb.DatasetChunk.FromString, piece) for piece in _pieces(data)).digest()


def _profiles(data: bytes) -> None:
    wire_profiles.from_profiles(_parsed(pb.NodeProfile.FromString, piece) for piece in _pieces(data))


def _detail(data: bytes) -> None:
    error = from_detail(data)
    if error is not None:
        shown = error.line()
        assert shown.isprintable()
        if error.span is not None:
            underline("SELECT COUNT(*)\nFROM visit", error.span)


_OUTCOMES = (
    m.NodeOutcome(node_id="a", status="released", outcome_jws="a.b.c"),
    m.NodeOutcome(node_id="b", status="refused", code="INSITU-NODE-QUIET", text="no", remedy="later"),
)
_ASKED = m.Ask(request_jws="a.b.c", grant_jwt="d.e.f")
_STATUS = m.GatewayStatus(
    gateway_id="gw",
    manifest_version=3,
    nodes=(
        m.NodeStatus(
            id="a", connected=True, last_seen=datetime(2026, 3, 1, tzinfo=UTC), manifest_version=3, software="1"
        ),
    ),
    requests=(("open", 3),),
)
_MESSAGES = (
    wire.to_node_message(m.Hello(node_id="a", manifest_version=3, software="insitu 0.1.0")),
    wire.to_node_message(m.Progress(request_id="0f" * 16, stage="admitted")),
    pb.NodeMessage(outcome=pb.Outcome(request_id="0f" * 16, outcome_jws="a.b.c", padding=bytes(32))),
    wire.to_node_message(m.AnnounceProfile(profile_jws="a.b.c")),
    wire.to_gateway_message(m.Welcome(manifest_jws="a.b.c", heartbeat_seconds=5, takes_profiles=True)),
    wire.to_gateway_message(m.Task(request_id="0f" * 16, request_jws="a.b.c", grant_jwt="d.e.f")),
    wire.to_ask(_ASKED),
    wire.to_follow(m.Follow(request_id="0f" * 16)),
    wire.to_dataset_ref(m.DatasetRef(name="care", digest="ab" * 32)),
    wire_profiles.to_get_profiles(m.GetProfiles(dataset="care", dataset_digest="ab" * 32)),
    wire.to_status(_STATUS),
)
_WRITER = wire.EventWriter()
_EVENTS = [
    message
    for event in (
        m.Accepted(request_id="0f" * 16),
        m.NodeProgress(node_id="a", stage="sent"),
        m.Answered(outcomes=_OUTCOMES),
        m.Finished(outcomes=_OUTCOMES, result_json=b'{"rows":[]}'),
    )
    for message in _WRITER.write(event)
]
_BUNDLE = DatasetBundle(toml=b"[dataset]\n", files={"icd.csv": b"code\nA\n"})
_PROFILES = m.Profiles(profile_jws=("a.b.c", "d.e.f"))
_ERROR = SqlRefused("INSITU-SQL-SYNTAX", reason="unexpected end")

TARGETS = (
    Target(name="messages", run=_messages, seeds=[one.SerializeToString() for one in _MESSAGES], examples=150),
    Target(name="events", run=_events, seeds=[_framed(*_EVENTS)], examples=100),
    Target(name="chunks", run=_chunks, seeds=[_framed(*wire.to_chunks(_BUNDLE))]),
    Target(name="profiles", run=_profiles, seeds=[_framed(*wire_profiles.to_profiles(_PROFILES))]),
    Target(name="error-detail", run=_detail, seeds=[to_detail(_ERROR).SerializeToString()]),
)
