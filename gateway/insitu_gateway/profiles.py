"""Profiles that nodes have announced: of each node and dataset of the manifest the newest, kept and handed out.

Nobody relies on what is looked at here: researchers verify every profile by themselves. It is looked at so
that no more is kept than one profile for each node and dataset, each of which some node really signed. A manifest that
changes takes away what its nodes, keys and datasets no longer cover; nodes announce again after every manifest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from insitu_access.data_profile import NodeProfile, open_data_profile
from insitu_access.jose import token_sha256
from insitu_access.manifest import Manifest
from insitu_privacy.errors import AccessRefused, InsituError, Unavailable
from insitu_proto.messages import GetProfiles, Profiles

from insitu_gateway.journal import Journal
from insitu_gateway.store import DropProfile, KeepProfile

MOST_IGNORED = 16
"""Of a node that announced so many profiles on one stream that are none, no more are read under the same manifest."""
log = structlog.get_logger("insitu.gateway")


class KeptProfiles:
    """The profiles in the store, and which of them there are."""

    def __init__(self, journal: Journal, *, manifest: Callable[[], Manifest], clock: Callable[[], datetime]) -> None:
        self._journal = journal
        self._manifest = manifest
        self._clock = clock
        self._known: dict[str, dict[str, str]] = {}
        """By node and dataset, the SHA-256 of what was announced last: nodes repeat themselves at every connection."""

    async def announced(self, node: str, token: str) -> bool:
        """Keep a node's profile, unless there is a later one; False where it is not one."""
        sha256 = token_sha256(token)
        if sha256 in self._known.get(node, {}).values():
            return True
        try:
            # off the event loop: a profile may be a megabyte of numbers
            made = await asyncio.to_thread(_opened, token, node, self._manifest(), self._clock())
            await self._journal.write(_keep(made, token))
        except InsituError as error:
            log.warning("profile ignored", node=node, code=error.code, reason=error.text)
            return isinstance(error, Unavailable)  # then it is the store that failed
        self._known.setdefault(node, {})[made.profile.dataset_digest] = sha256
        log.info("profile kept", node=node, dataset_digest=made.profile.dataset_digest, serial=made.serial)
        return True

    async def of(self, wanted: GetProfiles) -> Profiles:
        """The profiles of one dataset. Raises AccessRefused where the manifest has another dataset, or none."""
        manifest = self._manifest()
        entry = manifest.dataset(wanted.dataset)
        if entry is None or entry.digest != wanted.dataset_digest:
            raise AccessRefused("INSITU-ACCESS-DATASET", name=wanted.dataset)
        kept = await self._journal.profiles(entry.digest)
        return Profiles(profile_jws=tuple(one.profile_jws for one in kept if manifest.node(one.node_id)))

    async def tidy(self) -> None:
        """Drop what does not verify by the manifest there is now: a thief's serial bars no other's way."""
        self._known.clear()
        manifest, now = self._manifest(), self._clock()
        for digest in await self._journal.profiled():
            for one in await self._journal.profiles(digest):
                try:
                    await asyncio.to_thread(_opened, one.profile_jws, one.node_id, manifest, now)
                except InsituError as error:
                    log.info("profile dropped", node=one.node_id, dataset_digest=digest, code=error.code)
                    await self._journal.write(DropProfile(profile=one))


def _opened(token: str, node: str, manifest: Manifest, now: datetime) -> NodeProfile:
    """A profile of a dataset of the manifest, signed by its node (H1 to H4; K7: a former key may still count)."""
    entry = manifest.node(node)
    if entry is None:
        raise AccessRefused("INSITU-ACCESS-PEER")
    made = open_data_profile(token, entry.keys_at(now), node=node)
    dataset = manifest.dataset(made.profile.dataset)
    if dataset is None or dataset.digest != made.profile.dataset_digest:
        raise AccessRefused("INSITU-ACCESS-DATASET", name=made.profile.dataset)
    return made


def _keep(made: NodeProfile, token: str) -> KeepProfile:
    return KeepProfile(
        node_id=made.node, dataset_digest=made.profile.dataset_digest, serial=made.serial, profile_jws=token
    )
