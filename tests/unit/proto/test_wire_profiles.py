"""Profiles on the wire: round trips, sizes, and what an older party makes of the new messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_privacy.errors import AccessRefused
from insitu_proto import messages as m
from insitu_proto import wire, wire_profiles
from insitu_proto.v1 import insitu_pb2 as pb

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)


@given(st.builds(m.Profiles, profile_jws=st.lists(texts, max_size=4).map(tuple)))
def test_profiles_round_trip(value: m.Profiles) -> None:
    pieces = [one.SerializeToString() for one in wire_profiles.to_profiles(value)]
    assert wire_profiles.from_profiles(map(pb.NodeProfile.FromString, pieces)) == value


@given(st.builds(m.GetProfiles, dataset=texts, dataset_digest=texts))
def test_the_question_round_trips(value: m.GetProfiles) -> None:
    assert wire_profiles.from_get_profiles(wire_profiles.to_get_profiles(value)) == value


@pytest.mark.parametrize(
    "message",
    [
        pb.GetProfilesRequest(dataset="a"),
        pb.GetProfilesRequest(dataset_digest="a"),
        pb.GetProfilesRequest(dataset="a" * 5000, dataset_digest="a"),
    ],
)
def test_incomplete_questions_are_refused(message: pb.GetProfilesRequest) -> None:
    with pytest.raises(AccessRefused, match="MALFORMED"):
        wire_profiles.from_get_profiles(message)


@pytest.mark.attacks("B1")
def test_endless_and_oversized_profiles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccessRefused, match="more than 4096"):
        wire_profiles.from_profiles(pb.NodeProfile(profile_jws="a") for _ in range(10**9))
    with pytest.raises(AccessRefused, match="missing"):
        wire_profiles.from_profiles(pb.NodeProfile() for _ in range(10**9))
    with pytest.raises(AccessRefused, match="longer"):
        wire_profiles.from_profiles([pb.NodeProfile(profile_jws="x" * (m.MAX_TOKEN_CHARS + 1))])
    monkeypatch.setattr(m, "MAX_PROFILES_CHARS", 10)
    with pytest.raises(AccessRefused, match="more than"):
        wire_profiles.from_profiles([pb.NodeProfile(profile_jws="x" * 6)] * 2)


def test_older_parties_and_newer_ones_understand_each_other() -> None:
    """A Welcome without the field is an older gateway's: it takes no profiles, and would end the stream on one."""
    older = wire.from_gateway_message(pb.GatewayMessage(welcome=pb.Welcome(manifest_jws="a.b.c", heartbeat_seconds=5)))
    assert isinstance(older, m.Welcome)
    assert not older.takes_profiles
    with pytest.raises(AccessRefused, match="unknown"):  # what that gateway would see: a field that it does not know
        wire.from_node_message(pb.NodeMessage.FromString(b"\x32\x00"))
