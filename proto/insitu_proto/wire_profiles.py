"""Between the domain and protobuf for the profiles of a dataset, as ``wire`` is for everything else.

They come one by one, so that those of many nodes need not fit into one message. Nothing here opens them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from insitu_proto import messages as m
from insitu_proto.fields import malformed, text, token
from insitu_proto.v1 import insitu_pb2 as pb


def to_get_profiles(value: m.GetProfiles) -> pb.GetProfilesRequest:
    """Wants the profiles there are of a dataset."""
    return pb.GetProfilesRequest(dataset=value.dataset, dataset_digest=value.dataset_digest)


def from_get_profiles(message: pb.GetProfilesRequest) -> m.GetProfiles:
    """Wants the profiles there are of a dataset."""
    digest = text(message.dataset_digest, "dataset_digest")
    return m.GetProfiles(dataset=text(message.dataset, "dataset"), dataset_digest=digest)


def to_profiles(value: m.Profiles) -> Iterator[pb.NodeProfile]:
    """The profiles, one by one."""
    return (pb.NodeProfile(profile_jws=each) for each in value.profile_jws)


def from_profiles(messages: Iterable[pb.NodeProfile]) -> m.Profiles:
    """The profiles, put together again. B1: counted as they come, so that a gateway cannot fill the memory."""
    found: list[str] = []
    size = 0
    for message in messages:
        found.append(token(message.profile_jws, "profile_jws"))
        size += len(found[-1])
        if len(found) > m.MAX_PROFILES or size > m.MAX_PROFILES_CHARS:
            raise malformed(f"there are more than {m.MAX_PROFILES} profiles, or {m.MAX_PROFILES_CHARS} characters")
    return m.Profiles(profile_jws=tuple(found))
