"""Audit logs for tests: entries of a party, and a log rewritten from the start by a party that lies and has its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from insitu_access.audit.entry import Entry, Party, genesis, read_line, write_line
from insitu_access.audit.files import lines
from insitu_access.audit.seal import Seal, make_seal
from insitu_access.keys import SigningKey


def entries(path: Path) -> list[Entry]:
    """The entries of a log, unchecked."""
    return [read_line(line) for line in lines(path)]


def kinds(path: Path) -> list[str]:
    return [entry.kind for entry in entries(path)]


def chained(party: Party, key: SigningKey, told: Iterable[Entry]) -> list[bytes]:
    """The lines of a log of just these entries: numbered, chained and sealed anew, with every signature right."""
    made: list[Entry] = []
    sealed_to = 0
    for entry in told:
        seq, previous = len(made) + 1, made[-1].digest if made else genesis(party)
        fields = entry.fields
        if entry.kind == "seal":
            seal = Seal(party=party, first=sealed_to + 1, last=seq - 1, head=previous, at=entry.at)
            fields, sealed_to = {"jws": make_seal(seal, key)}, seq
        made.append(replace(entry, seq=seq, previous=previous, fields=fields))
    return [write_line(entry) for entry in made]


def lied(path: Path, out: Path, party: Party, key: SigningKey, omit: Callable[[Entry], bool]) -> Path:
    """A copy of a log from which its own party has left something out, and which verifies."""
    out.write_bytes(b"".join(chained(party, key, (entry for entry in entries(path) if not omit(entry)))))
    return out


def texts(found: Sequence[Entry]) -> str:
    """All that entries say, details included, in one text."""
    return "\n".join(write_line(entry).decode() for entry in found)
