"""Wire round trips: every message survives; every missing field is refused; sizes are size classes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import AccessRefused
from insitu_proto import messages as m
from insitu_proto import wire
from insitu_proto.v1 import insitu_pb2 as pb

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
versions = st.integers(0, 2**32 - 1)
stages = st.sampled_from(get_args(m.Stage))

node_messages = st.one_of(
    st.builds(m.Hello, node_id=texts, manifest_version=versions, software=texts),
    st.just(m.Heartbeat()),
    st.builds(m.Progress, request_id=texts, stage=stages),
    st.builds(m.Outcome, request_id=texts, outcome_jws=texts),
    st.builds(m.AnnounceProfile, profile_jws=texts),
)
gateway_messages = st.one_of(
    st.builds(m.Welcome, manifest_jws=texts, heartbeat_seconds=st.integers(1, 2**32 - 1), takes_profiles=st.booleans()),
    st.just(m.Heartbeat()),
    st.builds(m.Task, request_id=texts, request_jws=texts, grant_jwt=texts),
    st.builds(m.ManifestUpdate, manifest_jws=texts),
    st.builds(m.Taken, request_id=texts),
)
outcomes = st.one_of(
    st.builds(m.NodeOutcome, node_id=texts, status=st.just("released"), outcome_jws=texts),
    st.builds(
        m.NodeOutcome,
        node_id=texts,
        status=st.sampled_from(["refused", "absent", "failed"]),
        code=texts,
        text=texts,
        remedy=texts,
        outcome_jws=st.none() | texts,
    ),
)
finished = st.builds(
    m.Finished,
    outcomes=st.lists(outcomes, max_size=4, unique_by=lambda outcome: outcome.node_id).map(tuple),
    result_json=st.none() | st.binary(min_size=1),
)
node_statuses = st.builds(
    m.NodeStatus,
    id=texts,
    connected=st.booleans(),
    last_seen=st.none() | st.integers(1, 2**36).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    manifest_version=versions,
    software=st.just("") | texts,
)
statuses = st.builds(
    m.GatewayStatus,
    gateway_id=texts,
    manifest_version=versions,
    nodes=st.lists(node_statuses, max_size=3).map(tuple),
    requests=st.lists(st.tuples(texts, st.integers(0, 2**63)), max_size=3).map(tuple),
)
bundles = st.builds(DatasetBundle, toml=st.binary(), files=st.dictionaries(texts, st.binary(max_size=50), max_size=3))


@given(node_messages)
def test_node_messages_round_trip(value: m.NodeMessage) -> None:
    data = wire.to_node_message(value).SerializeToString()
    assert wire.from_node_message(pb.NodeMessage.FromString(data)) == value


@given(gateway_messages)
def test_gateway_messages_round_trip(value: m.GatewayMessage) -> None:
    data = wire.to_gateway_message(value).SerializeToString()
    assert wire.from_gateway_message(pb.GatewayMessage.FromString(data)) == value


@given(finished)
def test_finished_round_trips(value: m.Finished) -> None:
    answered = m.Answered(outcomes=value.outcomes)
    for events in ([value], [answered, value]):
        reader, writer = wire.EventReader(), wire.EventWriter()
        assert [reader.read(message) for event in events for message in writer.write(event)] == [answered, value]


def test_outcomes_that_are_large_come_in_pieces() -> None:
    large = "x" * (wire._ANSWERED_INLINE // 2)
    outcomes = tuple(m.NodeOutcome(node_id=name, status="released", outcome_jws=large) for name in "abc")
    value = m.Finished(outcomes=outcomes, result_json=b"{}")
    events = list(wire.EventWriter().write(value))
    reader = wire.EventReader()
    assert [reader.read(event) for event in events] == [None, None, None, m.Answered(outcomes=outcomes), value]
    assert max(event.ByteSize() for event in events) < len(large) + 100


@given(st.builds(m.Accepted, request_id=texts) | st.builds(m.NodeProgress, node_id=texts, stage=stages))
def test_events_round_trip(value: m.Accepted | m.NodeProgress) -> None:
    (message,) = wire.EventWriter().write(value)
    assert wire.EventReader().read(pb.Event.FromString(message.SerializeToString())) == value


@given(texts, texts)
def test_requests_round_trip(one: str, other: str) -> None:
    assert wire.from_ask(wire.to_ask(m.Ask(request_jws=one, grant_jwt=other))).grant_jwt == other
    assert wire.from_follow(wire.to_follow(m.Follow(request_id=one))).request_id == one
    ref = m.DatasetRef(name=one, digest=other)
    assert wire.from_dataset_ref(wire.to_dataset_ref(ref)) == ref
    assert wire.from_manifest(wire.to_manifest(m.ManifestUpdate(manifest_jws=one))).manifest_jws == one


@given(statuses)
def test_status_round_trips(value: m.GatewayStatus) -> None:
    assert wire.from_status(pb.StatusReply.FromString(wire.to_status(value).SerializeToString())) == value


@given(bundles)
def test_bundles_round_trip(bundle: DatasetBundle) -> None:
    assert wire.from_chunks(wire.to_chunks(bundle)) == bundle


def test_a_large_file_comes_in_chunks() -> None:
    bundle = DatasetBundle(toml=b"x", files={"codes.csv": bytes(range(256)) * 10_000})
    chunks = list(wire.to_chunks(bundle))
    assert max(len(chunk.data) for chunk in chunks) == m.CHUNK_BYTES
    assert wire.from_chunks(chunks) == bundle


def test_a_bundle_without_its_contract_is_refused() -> None:
    with pytest.raises(AccessRefused, match="toml"):
        wire.from_chunks([pb.DatasetChunk(file="codes.csv", data=b"x")])


@pytest.mark.attacks("B1")
def test_an_endless_bundle_is_refused() -> None:
    def endless() -> object:
        while True:
            yield pb.DatasetChunk(data=bytes(m.CHUNK_BYTES))

    with pytest.raises(AccessRefused, match="larger"):
        wire.from_chunks(endless())  # type: ignore[arg-type]


def size_of(jws: str) -> int:
    return wire.to_node_message(m.Outcome(request_id="f" * 32, outcome_jws=jws)).ByteSize()


@pytest.mark.attacks("T4")
@given(st.integers(1, 70_000))
@settings(max_examples=300)
def test_an_outcome_is_padded_to_a_power_of_two(length: int) -> None:
    size = size_of("x" * length)
    assert size >= 4096
    assert size & (size - 1) == 0
    assert size < 4 * max(length, 2048)


@pytest.mark.attacks("T4")
@pytest.mark.parametrize("edge", [128, 4096, 8192, 16384, 2**21])
def test_padding_at_the_edges_of_varints(edge: int) -> None:
    sizes = {size_of("x" * length) for length in range(max(1, edge - 200), edge + 20)}
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes <= {4096, edge, 2 * edge}


def test_the_largest_outcome_fits_into_a_message() -> None:
    assert size_of("x" * m.MAX_OUTCOME_CHARS) < m.MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "message",
    [
        pb.NodeMessage(),
        pb.NodeMessage(hello=pb.Hello()),
        pb.NodeMessage(hello=pb.Hello(node_id="a")),
        pb.NodeMessage(hello=pb.Hello(software="a")),
        pb.NodeMessage(hello=pb.Hello(node_id="a" * 5000, software="a")),
        pb.NodeMessage(progress=pb.Progress(request_id="a")),
        pb.NodeMessage(progress=pb.Progress(stage=pb.STAGE_SENT)),
        pb.NodeMessage(progress=pb.Progress(request_id="a", stage=99)),  # type: ignore[arg-type]
        pb.NodeMessage(outcome=pb.Outcome(request_id="a")),
        pb.NodeMessage(outcome=pb.Outcome(outcome_jws="a")),
        pb.NodeMessage(profile=pb.AnnounceProfile()),
        pb.NodeMessage(profile=pb.AnnounceProfile(profile_jws="x" * (m.MAX_TOKEN_CHARS + 1))),
    ],
)
def test_incomplete_node_messages_are_refused(message: pb.NodeMessage) -> None:
    with pytest.raises(AccessRefused, match="MALFORMED"):
        wire.from_node_message(message)


@pytest.mark.parametrize(
    "message",
    [
        pb.GatewayMessage(),
        pb.GatewayMessage(welcome=pb.Welcome(manifest_jws="a")),
        pb.GatewayMessage(welcome=pb.Welcome(heartbeat_seconds=1)),
        pb.GatewayMessage(task=pb.Task(request_id="a", request_jws="b")),
        pb.GatewayMessage(task=pb.Task(request_id="a", grant_jwt="b")),
        pb.GatewayMessage(task=pb.Task(request_jws="a", grant_jwt="b")),
        pb.GatewayMessage(manifest=pb.Manifest()),
        pb.GatewayMessage(taken=pb.Taken()),
    ],
)
def test_incomplete_gateway_messages_are_refused(message: pb.GatewayMessage) -> None:
    with pytest.raises(AccessRefused, match="MALFORMED"):
        wire.from_gateway_message(message)


def outcome(**fields: object) -> pb.Event:
    return pb.Event(answered=pb.Answered(outcomes=[pb.NodeOutcome(**fields)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        pb.Event(),
        pb.Event(accepted=pb.Accepted()),
        pb.Event(node_progress=pb.NodeProgress(node_id="a")),
        pb.Event(finished=pb.Finished()),
        outcome(node_id="a"),
        outcome(node_id="a", status=pb.STAGE_SENT, code="c", text="t", remedy="r"),
        outcome(node_id="a", status=pb.STAGE_RELEASED),
        outcome(node_id="a", status=pb.STAGE_RELEASED, code="c", outcome_jws="j"),
        outcome(node_id="a", status=pb.STAGE_RELEASED, text="t", outcome_jws="j"),
        outcome(node_id="a", status=pb.STAGE_ABSENT, text="t", remedy="r"),
        outcome(node_id="a", status=pb.STAGE_ABSENT, code="c", remedy="r"),
        outcome(status=pb.STAGE_RELEASED, outcome_jws="j"),
    ],
)
def test_incomplete_events_are_refused(message: pb.Event) -> None:
    with pytest.raises(AccessRefused, match="MALFORMED"):
        wire.EventReader().read(message)


@pytest.mark.attacks("V1")
def test_two_outcomes_of_one_node_are_refused() -> None:
    one = m.NodeOutcome(node_id="a", status="released", outcome_jws="j")
    with pytest.raises(AccessRefused, match="two outcomes"):
        wire.EventReader().read(next(wire.EventWriter().write(m.Answered(outcomes=(one, one)))))


def test_an_outcome_after_all_of_them_is_refused() -> None:
    one = pb.NodeOutcome(node_id="a", status=pb.STAGE_RELEASED, outcome_jws="j")
    for late in (pb.Event(node_outcome=one), pb.Event(answered=pb.Answered(outcomes=[one]))):
        reader = wire.EventReader()
        reader.read(pb.Event(answered=pb.Answered()))
        with pytest.raises(AccessRefused, match="after all"):
            reader.read(late)


@pytest.mark.parametrize("message", [pb.AskRequest(request_jws="a"), pb.AskRequest(grant_jwt="a")])
def test_incomplete_asks_are_refused(message: pb.AskRequest) -> None:
    with pytest.raises(AccessRefused):
        wire.from_ask(message)


def test_an_oversized_token_is_refused() -> None:
    with pytest.raises(AccessRefused, match="longer"):
        wire.from_ask(pb.AskRequest(request_jws="x" * (m.MAX_TOKEN_CHARS + 1), grant_jwt="a"))


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = pb.NodeMessage.FromString(data)
    except Exception as error:
        assert type(error).__name__ == "DecodeError"  # noqa: PT017
        return
    try:
        wire.from_node_message(message)
    except AccessRefused:
        return


@pytest.mark.attacks("B1", "V1")
def test_streams_of_a_gateway_come_to_their_end() -> None:
    """B1: empty pieces count, and so do names; two outcomes of a node are refused when the second comes."""
    endless = (pb.DatasetChunk(file="a") for _ in range(10**9))
    with pytest.raises(AccessRefused):
        wire.from_chunks(endless)
    with pytest.raises(AccessRefused):
        wire.from_chunks(pb.DatasetChunk(file=f"{place}") for place in range(10**9))
    with pytest.raises(AccessRefused):
        wire.from_chunks([pb.DatasetChunk(file="a" * 5000)])
    reader = wire.EventReader()
    outcome = pb.NodeOutcome(node_id="a", status=pb.STAGE_RELEASED, outcome_jws="a.b.c")
    reader.read(pb.Event(node_outcome=outcome))
    with pytest.raises(AccessRefused):
        reader.read(pb.Event(node_outcome=outcome))


def test_names_of_files_count_towards_the_size_of_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "MAX_BUNDLE_BYTES", 100)
    chunks = [pb.DatasetChunk(data=b"x"), *(pb.DatasetChunk(file=f"{i:060}") for i in range(2))]
    with pytest.raises(AccessRefused, match="larger than 100 bytes"):
        wire.from_chunks(chunks)
