"""The profiles that nodes have released of their data: fetched through a gateway, verified here, and kept.

H1 to H4 stand in ``insitu_access.data_profile``. Here: the key must be one that counts for the node now (H2), and
  H5  the profile is of the very dataset that is asked about, by name and digest
  H6  it is never followed by an older one: the highest serial that was verified stays, in ``profiles/DIGEST.jws``

A gateway can withhold profiles, or serve old ones to who has seen none: bounds then fit less well, and nothing else. So
nothing that goes wrong here is an error: there is no profile, or the one before. What is not here: what is concluded
from them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_privacy.errors import InsituError
from insitu_proto.messages import MAX_PROFILES, MAX_PROFILES_CHARS, GetProfiles, Profiles

from insitu.transport import Transport, receive
from insitu.trust import Trusted

if TYPE_CHECKING:
    from insitu_access.data_profile import NodeProfile
    from insitu_access.keys import VerifyingKey
    from insitu_access.manifest import DatasetEntry, Manifest
    from insitu_privacy.data_profile import DataProfile

FETCH_TIMEOUT_S = 3.0
"""A gateway that keeps silent does not hold up a query for longer, and only when the manifest was fetched anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A profile, and the token it was verified in."""

    token: str
    made: NodeProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    trusted: Trusted
    """What they were verified by. A new one stands for every time that the manifest was fetched."""
    by_node: Mapping[str, Verified]
    sums: dict[tuple[str, ...], DataProfile | None] = field(default_factory=dict)


class DataProfiles:
    """The profiles of each dataset. Fetched again once the manifest was, and not in between."""

    def __init__(self, folder: Path, transport: Transport) -> None:
        self._folder = folder / "profiles"
        self._transport = transport
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def of(self, entry: DatasetEntry, trusted: Trusted, *, now: datetime) -> Mapping[str, NodeProfile]:
        """By node, verified by the manifest that was fetched last."""
        with self._lock:
            return {node: one.made for node, one in self._current(entry, trusted, now).by_node.items()}

    def total(
        self, entry: DatasetEntry, nodes: Sequence[str], trusted: Trusted, *, now: datetime
    ) -> DataProfile | None:
        """The sum over ``nodes``; None unless each of them has a profile."""
        from insitu_privacy.data_profile import added

        asked = tuple(nodes)
        with self._lock:
            held = self._current(entry, trusted, now)
            if asked not in held.sums:
                found = [held.by_node[node].made.profile for node in asked if node in held.by_node]
                held.sums[asked] = added(found) if len(found) == len(asked) else None
            return held.sums[asked]

    def _current(self, entry: DatasetEntry, trusted: Trusted, now: datetime) -> _Held:
        held = self._held.get(entry.digest)
        if held is None or held.trusted is not trusted:
            before = {} if held is None else held.by_node
            file = self._folder / f"{entry.digest}.jws"
            on_disk = _kept(file)
            kept = (*on_disk, *(one.token for one in before.values()))
            opened = {one.token: one.made for one in before.values()}
            received = fetch(self._transport, entry)
            by_node = newest(kept, received, entry, trusted.manifest, now=now, opened=opened)
            if {one.token for one in by_node.values()} - set(on_disk):
                _keep(file, by_node.values())
            held = _Held(trusted=trusted, by_node=by_node)
            self._held[entry.digest] = held
        return held


def fetch(transport: Transport, entry: DatasetEntry) -> tuple[str, ...]:
    """What a gateway says are the profiles of a dataset; nothing where it does not answer, or not as it should."""
    call = GetProfiles(dataset=entry.name, dataset_digest=entry.digest)
    try:
        return receive(transport.call(call, timeout_s=FETCH_TIMEOUT_S), Profiles).profile_jws
    except InsituError:  # an older gateway does not know the call
        return ()


def newest(
    kept: Iterable[str],
    received: Iterable[str],
    entry: DatasetEntry,
    manifest: Manifest,
    *,
    now: datetime,
    opened: Mapping[str, NodeProfile],
) -> Mapping[str, Verified]:
    """By node the verified profile with the highest serial, of equal ones the received (H6).

    ``opened`` are tokens that were verified before. Of what was received one token of each key is looked at, so that a
    gateway cannot keep the SDK busy with a thousand old ones.
    """
    from insitu_access.jose import unverified_kid

    # K7: a former key counts until its date
    keys = {node.id: node.keys_at(now) for node in manifest.nodes}
    signers = {key.thumbprint: node for node, each in keys.items() for key in each}
    fresh = {unverified_kid(token): token for token in received}
    found: dict[str, Verified] = {}
    for token in (*kept, *fresh.values()):
        node = signers.get(unverified_kid(token) or "")
        if node is None:
            continue
        made = opened.get(token) or _opened(token, node, keys[node], entry)
        if (
            made is not None
            and made.node == node
            and (made.node not in found or found[made.node].made.serial <= made.serial)
        ):
            found[made.node] = Verified(token=token, made=made)
    return found


def _opened(token: str, node: str, keys: Sequence[VerifyingKey], entry: DatasetEntry) -> NodeProfile | None:
    """The profile of a token; None where it is none of this node and dataset (H1 to H5)."""
    from insitu_access.data_profile import open_data_profile

    try:
        made = open_data_profile(token, keys, node=node)
    except InsituError:
        return None
    same = (made.profile.dataset, made.profile.dataset_digest) == (entry.name, entry.digest)
    return made if same else None


def _kept(file: Path) -> tuple[str, ...]:
    """What was kept before, a token on each line: no more believed than what a gateway sends."""
    from insitu_access.files import read_file

    try:
        return tuple(read_file(file, MAX_PROFILES_CHARS + MAX_PROFILES).decode("ascii", "replace").split())
    except InsituError:
        return ()


def _keep(file: Path, profiles: Iterable[Verified]) -> None:
    """For the next process. A profile folder that cannot be written does without."""
    from insitu_access.files import make_directory, write_file

    try:
        make_directory(file.parent)
        write_file(file, "".join(f"{one.token}\n" for one in profiles).encode(), 0o600)
    except InsituError:
        return
