"""Between the domain and protobuf: for every message ``to_…`` and ``from_…``, total in both directions.

``from_…`` refuses a message with a missing field, an unknown enum value or an oversized text, always with
``AccessRefused("INSITU-ACCESS-MALFORMED")`` and never with a field's content. Nothing here verifies a signature.

Sizes: ``to_node_message`` pads an outcome so that the serialized NodeMessage is a power of two of at least 4096 bytes,
and an observer of the encrypted stream learns little of how much was released (T4; DESIGN.md section 4, No side doors).
``EventWriter`` splits outcomes that would not fit into one message; ``EventReader`` puts them together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import cast, get_args

from google.protobuf.message import Message
from insitu_privacy.dataset import DatasetBundle

from insitu_proto import messages as m
from insitu_proto.fields import malformed, optional, text, token
from insitu_proto.v1 import insitu_pb2 as pb

_STAGES: dict[m.Stage, pb.Stage.ValueType] = {
    stage: pb.Stage.Value(f"STAGE_{stage.upper()}") for stage in get_args(m.Stage)
}
_STAGE_NAMES: dict[int, m.Stage] = {value: stage for stage, value in _STAGES.items()}
_FINAL: frozenset[m.Stage] = frozenset(get_args(m.Status))
_SMALLEST_OUTCOME = 4096
_ANSWERED_INLINE = 4 * 1024 * 1024


def _stage(value: int) -> m.Stage:
    if value not in _STAGE_NAMES:
        raise malformed("stage is missing or unknown")
    return _STAGE_NAMES[value]


def _kind(message: Message, oneof: str) -> str:
    kind: str | None = message.WhichOneof(oneof)
    if kind is None:
        raise malformed(f"{oneof} is missing or unknown")
    return kind


# ------------------------------------------------------------------------------------------------ node to gateway


def to_node_message(value: m.NodeMessage) -> pb.NodeMessage:
    """A node's message; outcomes are padded."""
    match value:
        case m.Hello():
            hello = pb.Hello(node_id=value.node_id, manifest_version=value.manifest_version, software=value.software)
            return pb.NodeMessage(hello=hello)
        case m.Heartbeat():
            return pb.NodeMessage(heartbeat=pb.Heartbeat())
        case m.Progress():
            return pb.NodeMessage(progress=pb.Progress(request_id=value.request_id, stage=_STAGES[value.stage]))
        case m.Outcome():
            return _padded(pb.Outcome(request_id=value.request_id, outcome_jws=value.outcome_jws))
        case m.AnnounceProfile():  # public, and so is its size: not padded
            return pb.NodeMessage(profile=pb.AnnounceProfile(profile_jws=value.profile_jws))


def _padded(outcome: pb.Outcome) -> pb.NodeMessage:
    """The smallest size class that is reached exactly: lengths are varints, so that a few sizes cannot be."""
    bare = pb.NodeMessage(outcome=outcome).ByteSize()
    for size in (1 << power for power in count(_SMALLEST_OUTCOME.bit_length() - 1)):
        # at most 8 bytes go to the tag and length of the padding and to the grown length of what is around it
        for spare in range(min(9, max(0, size - bare + 1))):
            outcome.padding = bytes(size - bare - spare)
            message = pb.NodeMessage(outcome=outcome)
            if message.ByteSize() == size:
                return message
    raise AssertionError("unreachable: size classes are unbounded")


def from_node_message(message: pb.NodeMessage) -> m.NodeMessage:
    """What a node says."""
    kind = _kind(message, "message")
    if kind == "hello":
        hello = message.hello
        return m.Hello(
            node_id=text(hello.node_id, "node_id"),
            manifest_version=hello.manifest_version,
            software=text(hello.software, "software"),
        )
    if kind == "progress":
        progress = message.progress
        return m.Progress(request_id=text(progress.request_id, "request_id"), stage=_stage(progress.stage))
    if kind == "outcome":
        outcome = message.outcome
        jws = text(outcome.outcome_jws, "outcome_jws", m.MAX_OUTCOME_CHARS)
        return m.Outcome(request_id=text(outcome.request_id, "request_id"), outcome_jws=jws)
    if kind == "profile":
        return m.AnnounceProfile(profile_jws=token(message.profile.profile_jws, "profile_jws"))
    return m.Heartbeat()


# ------------------------------------------------------------------------------------------------ gateway to node


def to_gateway_message(value: m.GatewayMessage) -> pb.GatewayMessage:
    """A gateway's message to a node."""
    match value:
        case m.Welcome():
            welcome = pb.Welcome(
                manifest_jws=value.manifest_jws,
                heartbeat_seconds=value.heartbeat_seconds,
                takes_profiles=value.takes_profiles,
            )
            return pb.GatewayMessage(welcome=welcome)
        case m.Heartbeat():
            return pb.GatewayMessage(heartbeat=pb.Heartbeat())
        case m.Task():
            task = pb.Task(request_id=value.request_id, request_jws=value.request_jws, grant_jwt=value.grant_jwt)
            return pb.GatewayMessage(task=task)
        case m.ManifestUpdate():
            return pb.GatewayMessage(manifest=to_manifest(value))
        case m.Taken():
            return pb.GatewayMessage(taken=pb.Taken(request_id=value.request_id))


def from_gateway_message(message: pb.GatewayMessage) -> m.GatewayMessage:
    """What a gateway says to a node."""
    kind = _kind(message, "message")
    if kind == "welcome":
        welcome = message.welcome
        if welcome.heartbeat_seconds < 1:
            raise malformed("heartbeat_seconds is missing")
        jws = token(welcome.manifest_jws, "manifest_jws")
        return m.Welcome(
            manifest_jws=jws, heartbeat_seconds=welcome.heartbeat_seconds, takes_profiles=welcome.takes_profiles
        )
    if kind == "task":
        task = message.task
        return m.Task(
            request_id=text(task.request_id, "request_id"),
            request_jws=token(task.request_jws, "request_jws"),
            grant_jwt=token(task.grant_jwt, "grant_jwt"),
        )
    if kind == "manifest":
        return from_manifest(message.manifest)
    if kind == "taken":
        return m.Taken(request_id=text(message.taken.request_id, "request_id"))
    return m.Heartbeat()


def to_manifest(value: m.ManifestUpdate) -> pb.Manifest:
    """A manifest on its own."""
    return pb.Manifest(manifest_jws=value.manifest_jws)


def from_manifest(message: pb.Manifest) -> m.ManifestUpdate:
    """A manifest on its own."""
    return m.ManifestUpdate(manifest_jws=token(message.manifest_jws, "manifest_jws"))


# --------------------------------------------------------------------------------------------- researchers' requests


def to_ask(value: m.Ask) -> pb.AskRequest:
    """A signed request with its grant."""
    return pb.AskRequest(request_jws=value.request_jws, grant_jwt=value.grant_jwt)


def from_ask(message: pb.AskRequest) -> m.Ask:
    """A signed request with its grant."""
    request = token(message.request_jws, "request_jws")
    return m.Ask(request_jws=request, grant_jwt=token(message.grant_jwt, "grant_jwt"))


def to_follow(value: m.Follow) -> pb.FollowRequest:
    """Wants the rest of a request's events."""
    return pb.FollowRequest(request_id=value.request_id)


def from_follow(message: pb.FollowRequest) -> m.Follow:
    """Wants the rest of a request's events."""
    return m.Follow(request_id=text(message.request_id, "request_id"))


def to_dataset_ref(value: m.DatasetRef) -> pb.GetDatasetRequest:
    """A dataset by name and digest."""
    return pb.GetDatasetRequest(name=value.name, digest=value.digest)


def from_dataset_ref(message: pb.GetDatasetRequest) -> m.DatasetRef:
    """A dataset by name and digest."""
    return m.DatasetRef(name=text(message.name, "name"), digest=text(message.digest, "digest"))


def to_chunks(bundle: DatasetBundle) -> Iterator[pb.DatasetChunk]:
    """A dataset's files in pieces, dataset.toml first."""
    for name, data in [("", bundle.toml), *sorted(bundle.files.items())]:
        for start in range(0, max(1, len(data)), m.CHUNK_BYTES):
            yield pb.DatasetChunk(file=name, data=data[start : start + m.CHUNK_BYTES])


def from_chunks(chunks: Iterable[pb.DatasetChunk]) -> DatasetBundle:
    """A dataset's files from their pieces. Whoever receives them compares the digest with the manifest's."""
    files: dict[str, bytearray] = {}
    size = 0
    for chunk in chunks:
        size += max(len(chunk.data) + len(chunk.file), m.LEAST_CHUNK_BYTES)
        if size > m.MAX_BUNDLE_BYTES:  # B1: empty pieces count too
            raise malformed(f"the dataset is larger than {m.MAX_BUNDLE_BYTES} bytes")
        name = optional(chunk.file, "file") or ""
        if len(files) > m.MAX_BUNDLE_FILES:
            raise malformed(f"the dataset has more than {m.MAX_BUNDLE_FILES} files")
        files.setdefault(name, bytearray()).extend(chunk.data)
    if "" not in files:
        raise malformed("dataset.toml is missing")
    toml = bytes(files.pop(""))
    return DatasetBundle(toml=toml, files={name: bytes(data) for name, data in files.items()})


# ---------------------------------------------------------------------------------------------- researchers' events


class EventWriter:
    """Turns domain events into one stream's messages. One writer for each stream."""

    def __init__(self) -> None:
        self._answered = False

    def write(self, value: m.Event) -> Iterator[pb.Event]:
        """The messages of an event; of a Finished also its outcomes, where no Answered came before it."""
        match value:
            case m.Accepted():
                yield pb.Event(accepted=pb.Accepted(request_id=value.request_id))
            case m.NodeProgress():
                yield pb.Event(node_progress=pb.NodeProgress(node_id=value.node_id, stage=_STAGES[value.stage]))
            case m.Answered():
                yield from self._outcomes(value.outcomes)
            case m.Finished():
                if not self._answered:
                    yield from self._outcomes(value.outcomes)
                yield pb.Event(finished=pb.Finished(result_json=value.result_json or b""))

    def _outcomes(self, values: Sequence[m.NodeOutcome]) -> Iterator[pb.Event]:
        """All in one message, or one by one before it where they are large together."""
        self._answered = True
        outcomes = [_to_outcome(value) for value in values]
        if sum(outcome.ByteSize() for outcome in outcomes) > _ANSWERED_INLINE:
            yield from (pb.Event(node_outcome=outcome) for outcome in outcomes)
            outcomes = []
        yield pb.Event(answered=pb.Answered(outcomes=outcomes))


def _to_outcome(value: m.NodeOutcome) -> pb.NodeOutcome:
    return pb.NodeOutcome(
        node_id=value.node_id,
        status=_STAGES[value.status],
        code=value.code or "",
        text=value.text or "",
        remedy=value.remedy or "",
        outcome_jws=value.outcome_jws or "",
    )


def _from_outcome(message: pb.NodeOutcome) -> m.NodeOutcome:
    status = _stage(message.status)
    if status not in _FINAL:
        raise malformed("status is not final")
    released = status == "released"
    if released == bool(message.code) or (released and (message.text or message.remedy)):
        raise malformed("code is missing, or given where the node released")
    if released:
        text(message.outcome_jws, "outcome_jws", m.MAX_OUTCOME_CHARS)
    return m.NodeOutcome(
        node_id=text(message.node_id, "node_id"),
        status=cast("m.Status", status),
        code=optional(message.code, "code"),
        text=None if released else text(message.text, "text"),
        remedy=None if released else text(message.remedy, "remedy"),
        outcome_jws=optional(message.outcome_jws, "outcome_jws", m.MAX_OUTCOME_CHARS),
    )


class EventReader:
    """Turns one stream's events into domain events. One reader for each stream."""

    def __init__(self) -> None:
        self._outcomes: list[m.NodeOutcome] = []
        self._held = set[str]()
        self._size = 0
        self._answered: m.Answered | None = None

    def read(self, message: pb.Event) -> m.Event | None:
        """The event, or None for a message that is part of a later one."""
        kind = _kind(message, "event")
        if kind == "accepted":
            return m.Accepted(request_id=text(message.accepted.request_id, "request_id"))
        if kind == "node_progress":
            progress = message.node_progress
            return m.NodeProgress(node_id=text(progress.node_id, "node_id"), stage=_stage(progress.stage))
        if kind == "finished":
            if self._answered is None:
                raise malformed("it ends without outcomes")
            return m.Finished(outcomes=self._answered.outcomes, result_json=message.finished.result_json or None)
        if self._answered is not None:
            raise malformed("an outcome after all of them")
        if kind == "node_outcome":
            self._hold(_from_outcome(message.node_outcome))
            return None
        for outcome in message.answered.outcomes:
            self._hold(_from_outcome(outcome))
        self._answered = m.Answered(outcomes=tuple(self._outcomes))
        return self._answered

    def _hold(self, outcome: m.NodeOutcome) -> None:
        """B1: looked at as they come, so that a gateway cannot fill the memory of who waits for the last."""
        if outcome.node_id in self._held:
            raise malformed("two outcomes of one node")
        self._size += len(outcome.outcome_jws or "") + m.LEAST_CHUNK_BYTES
        if self._size > m.MAX_ANSWER_CHARS:
            raise malformed(f"its outcomes are larger than {m.MAX_ANSWER_CHARS}")
        self._held.add(outcome.node_id)
        self._outcomes.append(outcome)


# ------------------------------------------------------------------------------------------------------- operators


def to_status(value: m.GatewayStatus) -> pb.StatusReply:
    """The gateway's state."""
    nodes = [
        pb.NodeStatus(
            id=node.id,
            connected=node.connected,
            last_seen=int(node.last_seen.timestamp()) if node.last_seen else 0,
            manifest_version=node.manifest_version,
            software=node.software,
        )
        for node in value.nodes
    ]
    requests = [pb.StateCount(state=state, count=number) for state, number in value.requests]
    return pb.StatusReply(
        gateway_id=value.gateway_id, manifest_version=value.manifest_version, nodes=nodes, requests=requests
    )


def from_status(message: pb.StatusReply) -> m.GatewayStatus:
    """The gateway's state."""
    return m.GatewayStatus(
        gateway_id=text(message.gateway_id, "gateway_id"),
        manifest_version=message.manifest_version,
        nodes=tuple(map(_from_node_status, message.nodes)),
        requests=tuple((text(item.state, "state"), item.count) for item in message.requests),
    )


def _from_node_status(message: pb.NodeStatus) -> m.NodeStatus:
    seen = message.last_seen
    if seen >= 1 << 37:  # beyond the year 6000: not a time that datetime is sure to hold
        raise malformed("last_seen is not a time")
    return m.NodeStatus(
        id=text(message.id, "id"),
        connected=message.connected,
        last_seen=datetime.fromtimestamp(seen, UTC) if seen else None,
        manifest_version=message.manifest_version,
        software=optional(message.software, "software") or "",
    )
