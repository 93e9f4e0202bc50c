"""The authority key that a party believes now: the pinned one, and the successions it followed since.

``successions.jws`` stands in the party's state (a researcher's: the profile), so that a key that was left behind stays
left behind when the authority no longer publishes the way from it. It proves itself: every step is verified again when
it is read, from ``authority.pub`` on. Where that file was replaced by hand the steps lead from another key, and count
for nothing. What is not here: replacing the pin by hand (``site.repin``).
"""

from __future__ import annotations

from pathlib import Path

from insitu_privacy.errors import AccessRefused

from insitu_access.files import read_file, write_file
from insitu_access.keys import VerifyingKey
from insitu_access.manifest import Manifest, Opened, verify_manifest
from insitu_access.succession import walk

FILE_NAME = "successions.jws"


class Pin:
    """The key to verify manifests with. ``keep`` False: nothing is written. Not safe from several threads by itself."""

    def __init__(self, folder: Path, pinned: VerifyingKey, *, keep: bool = True) -> None:
        self._path = folder / FILE_NAME
        self._keep = keep
        self.reset(pinned)

    def reset(self, pinned: VerifyingKey) -> None:
        """Start again from a key that a person pinned."""
        kept = read_file(self._path).decode("ascii", "replace").split() if self._path.exists() else []
        self._pinned = pinned
        self.key, self._steps = walk(kept, pinned)

    def advance(self, opened: Opened) -> None:
        """Remember how a manifest was come to, on disk before in memory. Raises ConfigInvalid where it cannot be."""
        if opened.steps:
            steps = (*self._steps, *opened.steps)
            if self._keep:
                write_file(self._path, "".join(f"{step}\n" for step in steps).encode())
            self.key, self._steps = opened.key, steps

    def reopen(self, text: str) -> Manifest:
        """A manifest that was kept. Raises AccessRefused.

        Where a crash came between a succession and the manifest that brought it, the pinned key still verifies it.
        """
        try:
            return verify_manifest(text, self.key)
        except AccessRefused:
            return verify_manifest(text, self._pinned)
