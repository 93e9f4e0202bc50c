"""What the gateway keeps for good: requests, outcomes, results, profiles. The Protocol of every store.

A batch of writes is durable as a whole when ``write`` returns, or not there at all. Writing again what is there
changes nothing: the first request of an id, the first outcome of a node and the first end of a request stay. Of a
node's profiles of one dataset the newest stays alone. Requests, outcomes and profiles are stored as the signed text
they came as. Methods block: ``journal`` calls them off the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from insitu_proto.messages import NodeOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRequest:
    """A request was accepted."""

    request_id: str
    request_sha256: str
    owner: str
    """Id of the researcher's certificate it came with: who may follow it."""
    request_jws: str
    grant_jwt: str
    nodes: tuple[str, ...]
    deadline: datetime
    accepted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOutcome:
    """A node answered, and others are still at work."""

    request_id: str
    outcome: NodeOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """A request ended: the outcomes of all its nodes, and the merged result if there is one."""

    request_id: str
    outcomes: tuple[NodeOutcome, ...]
    result_json: bytes | None
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepProfile:
    """A node's profile of a dataset. One with a higher serial stays; of equal ones the later written does."""

    node_id: str
    dataset_digest: str
    serial: int
    profile_jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropProfile:
    """This profile is not served any more. One that has taken its place meanwhile stays."""

    profile: KeepProfile


Write = AddRequest | AddOutcome | Finish | KeepProfile | DropProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A request as it is stored. ``finished_at`` is None while it is open."""

    request: AddRequest
    outcomes: tuple[NodeOutcome, ...]
    """In the order of the request's nodes; while it is open, only those there are."""
    result_json: bytes | None
    finished_at: datetime | None


class Store(Protocol):
    """A durable store. Used by one thread at a time."""

    def write(self, batch: Sequence[Write]) -> frozenset[str]:
        """Store all of ``batch``; returns the ids of its AddRequests that were there before."""

    def find(self, request_id: str) -> Stored | None:
        """One request with what is known of it."""

    def open_requests(self) -> tuple[Stored, ...]:
        """The requests that have not finished, oldest first."""

    def profiles(self, dataset_digest: str) -> tuple[KeepProfile, ...]:
        """The profiles of a dataset, by node."""

    def profiled(self) -> tuple[str, ...]:
        """Digests of the datasets there are profiles of."""

    def counts(self) -> Mapping[str, int]:
        """Number of requests by state: open, finished."""

    def close(self) -> None:
        """Release what the store holds."""
