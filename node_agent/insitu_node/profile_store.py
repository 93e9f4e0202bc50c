"""Where a node keeps the profiles it made, and how it gives them out.

    state/profiles/care-1f0c….json      the newest of one dataset version, as the bytes that are signed
    state/profiles/lock                 held while one is made

Not signed on the disk: a profile is signed when it is given out, by the key that the node has then, so that it outlives
changes of keys. A file that cannot be read is not given out, and the log says so; the ledger has its values still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog
from insitu_access.data_profile import NodeProfile, read_data_profile, seal_data_profile, write_data_profile
from insitu_access.files import make_directory, read_file, write_file
from insitu_access.keys import SigningKey
from insitu_privacy.errors import ConfigInvalid, InsituError

_log = structlog.get_logger("insitu.node.profiles")
Stamp = tuple[tuple[str, int, int, int], ...]


class Announcements:
    """What a running node tells gateways of its profiles, and how it sees that there is something new to tell.

    While the node is halted it tells nothing (C1); what was told before is public.
    """

    def __init__(
        self, store: ProfileStore, signing: Callable[[], SigningKey], halted: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._signing = signing
        self._halted = halted

    def stamp(self) -> object:
        """Another one than before where there is another profile, or another key to sign with."""
        return self._halted(), self._store.stamp(), self._signing().thumbprint

    def tokens(self) -> Sequence[str]:
        """All profiles, signed with the present key."""
        return () if self._halted() else self._store.sealed_profiles(self._signing())


class ProfileStore:
    """The profiles of the datasets that a node serves, each in the version it serves now."""

    def __init__(self, state: Path, node: str, digests: Mapping[str, str]) -> None:
        self.directory = state / "profiles"
        self._node = node
        self._digests = dict(digests)

    def kept(self, dataset: str) -> NodeProfile | None:
        """The newest one of a dataset. Raises ConfigInvalid where its file is not one that this node made of it."""
        path = self._path(dataset)
        if not path.exists():
            return None
        try:
            made = read_data_profile(read_file(path))
        except InsituError as error:
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=error.text) from None
        about = (made.node, made.profile.dataset, made.profile.dataset_digest)
        if about != (self._node, dataset, self._digests[dataset]):
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason="it is the profile of something else")
        return made

    def keep(self, made: NodeProfile) -> None:
        """Puts a profile in the place of the one before: whole, durable, for the node's owner alone."""
        make_directory(self.directory)
        write_file(self._path(made.profile.dataset), write_data_profile(made), mode=0o600)

    def sealed_profiles(self, signing: SigningKey) -> tuple[str, ...]:
        """Those there are, signed now, in order of their datasets' names."""
        return tuple(token for name in sorted(self._digests) if (token := self._sealed(name, signing)) is not None)

    def stamp(self) -> Stamp:
        """What changes when a profile is made: cheap, to be looked at again and again."""
        found = []
        for name in sorted(self._digests):
            try:
                status = self._path(name).stat()
            except OSError:
                continue
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _sealed(self, dataset: str, signing: SigningKey) -> str | None:
        try:
            made = self.kept(dataset)
            return None if made is None else seal_data_profile(made, signing)
        except InsituError as error:
            _log.error("profile not given out", dataset=dataset, error=error.line())
            return None

    def _path(self, dataset: str) -> Path:
        return self.directory / f"{dataset}-{self._digests[dataset][:16]}.json"
