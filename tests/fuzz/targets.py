"""The table of targets. A target may raise InsituError and nothing else, within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from insitu_privacy.errors import InsituError


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parser. ``run`` is given bytes; ``seeds`` are valid for it."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    seconds: float = 1.0
    """Of processor time, for an input of at most ``longest`` bytes."""
    megabytes: int = 64
    """Above what the process had before."""
    longest: int = 8192
    """How long mutants get; bombs may be longer."""
    examples: int = 60
    """In `make test`."""

    def outcome(self, data: bytes) -> str:
        """The code it was refused with, or "read". Anything else that is raised is a defect."""
        try:
            self.run(data)
        except InsituError as error:
            error.line()
            return error.code
        return "read"


@cache
def targets() -> dict[str, Target]:
    """All targets by name."""
    from tests.fuzz import targets_access, targets_client, targets_files, targets_privacy, targets_wire

    modules = (targets_privacy, targets_wire, targets_access, targets_files, targets_client)
    found = [target for module in modules for target in module.TARGETS]
    table = {target.name: target for target in found}
    assert len(table) == len(found)
    return table
