"""The datasets of the manifest, parsed: from the profile folder, else through a gateway; by their digest alone (S4)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_proto.messages import DatasetRef

from insitu.profile import cache_bundle, cached_bundle
from insitu.transport import Transport, receive
from insitu.trust import open_bundle

if TYPE_CHECKING:
    from insitu_access.manifest import DatasetEntry

_FETCH_TIMEOUT_S = 10.0


class Datasets:
    """Each is fetched once and parsed once."""

    def __init__(self, folder: Path, transport: Transport) -> None:
        self._folder = folder
        self._transport = transport
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[Dataset, DatasetBundle]] = {}

    def of(self, entry: DatasetEntry) -> tuple[Dataset, DatasetBundle]:
        """The dataset and its files. Raises AccessRefused where they are not the manifest's."""
        with self._lock:
            if entry.digest not in self._opened:
                bundle = cached_bundle(self._folder, entry.digest) or self._fetch(entry)
                self._opened[entry.digest] = (open_bundle(bundle, entry), bundle)
            return self._opened[entry.digest]

    def _fetch(self, entry: DatasetEntry) -> DatasetBundle:
        call = DatasetRef(name=entry.name, digest=entry.digest)
        bundle = receive(self._transport.call(call, timeout_s=_FETCH_TIMEOUT_S), DatasetBundle)
        open_bundle(bundle, entry)
        cache_bundle(self._folder, bundle)
        return bundle
