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
from insitu_access.succession import Followed, walk

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

    @property
    def steps(self) -> tuple[str, ...]:
        """The way from the pinned key to ``key``."""
        return self._steps

    def advance(self, reached: Opened | Followed) -> None:
        """Remember how a text was come to, on disk before in memory. Raises ConfigInvalid where it cannot be."""
        if reached.steps:
            steps = (*self._steps, *reached.steps)
            if self._keep:
                write_file(self._path, steps_text(steps))
            self.key, self._steps = reached.key, steps

    def reopen(self, text: str) -> Manifest:
        """A manifest that was kept. Raises AccessRefused.

        Where a succession was kept before a manifest of the new key came, a key on the way there still verifies it.
        """
        for count in range(len(self._steps), 0, -1):
            try:
                return verify_manifest(text, walk(list(self._steps[:count]), self._pinned)[0])
            except AccessRefused:
                continue
        return verify_manifest(text, self._pinned)


def steps_text(steps: tuple[str, ...]) -> bytes:
    """What stands in the file."""
    return "".join(f"{step}\n" for step in steps).encode()
