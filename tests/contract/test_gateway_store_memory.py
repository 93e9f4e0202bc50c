"""The store in memory, for tests that want no disk, under the same contract as the durable one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from insitu_gateway.store import AddOutcome, AddRequest, DropProfile, Finish, KeepProfile, Store, Stored, Write
from insitu_proto.messages import NodeOutcome

from tests.contract.test_gateway_store import StoreContract


class MemoryStore:
    """A store that forgets everything with its process."""

    def __init__(self) -> None:
        self._requests: dict[str, Stored] = {}
        self._profiles: dict[tuple[str, str], KeepProfile] = {}

    def write(self, batch: Sequence[Write]) -> frozenset[str]:
        before = copy.copy(self._requests), copy.copy(self._profiles)
        try:
            return frozenset(name for write in batch if (name := self._write(write)) is not None)
        except KeyError:
            self._requests, self._profiles = before
            raise

    def _write(self, write: Write) -> str | None:
        if isinstance(write, (KeepProfile, DropProfile)):
            self._write_profile(write)
            return None
        if isinstance(write, AddRequest):
            if write.request_id in self._requests:
                return write.request_id
            self._requests[write.request_id] = Stored(request=write, outcomes=(), result_json=None, finished_at=None)
            return None
        stored = self._requests[write.request_id]
        if isinstance(write, AddOutcome):
            self._requests[write.request_id] = _with(stored, (write.outcome,))
        elif stored.finished_at is None:
            self._requests[write.request_id] = self._ended(stored, write)
        return None

    def _write_profile(self, write: KeepProfile | DropProfile) -> None:
        one = write if isinstance(write, KeepProfile) else write.profile
        place = one.dataset_digest, one.node_id
        kept = self._profiles.get(place)
        if isinstance(write, KeepProfile):
            if kept is None or kept.serial <= write.serial:
                self._profiles[place] = write
        elif kept is not None and kept.profile_jws == one.profile_jws:
            del self._profiles[place]

    def _ended(self, stored: Stored, write: Finish) -> Stored:
        ended = replace(stored, result_json=write.result_json, finished_at=write.finished_at)
        return _with(ended, write.outcomes)

    def find(self, request_id: str) -> Stored | None:
        return self._requests.get(request_id)

    def open_requests(self) -> tuple[Stored, ...]:
        found = [stored for stored in self._requests.values() if stored.finished_at is None]
        return tuple(sorted(found, key=lambda stored: stored.request.accepted_at))

    def profiles(self, dataset_digest: str) -> tuple[KeepProfile, ...]:
        return tuple(self._profiles[place] for place in sorted(self._profiles) if place[0] == dataset_digest)

    def profiled(self) -> tuple[str, ...]:
        return tuple(sorted({digest for digest, _ in self._profiles}))

    def counts(self) -> Mapping[str, int]:
        pending = len(self.open_requests())
        return {"open": pending, "finished": len(self._requests) - pending}

    def close(self) -> None:
        """Nothing is held."""


def _with(stored: Stored, outcomes: tuple[NodeOutcome, ...]) -> Stored:
    found = {outcome.node_id: outcome for outcome in (*outcomes, *stored.outcomes)}  # those there before stay
    ordered = tuple(found[node] for node in stored.request.nodes if node in found)
    return replace(stored, outcomes=ordered)


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

    def reopen(self, store: Store) -> Store:
        return store
