"""One line of an audit log: who did what, when; its number, and the hash of the line before it.

A line is canonical JSON (``payload.write``) of two parts. ``entry`` is what the chain is made of: the next line holds
its SHA-256. ``detail`` is text that only the custodian needs, SQL above all; the entry holds the detail's SHA-256
alone, over a random salt as well, so that a copy may withhold details and still verify, and nobody can guess one.

What is not here: what a kind of entry must say (``kinds``), signatures (``seal``), files (``log``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from insitu_access import payload
from insitu_access.invariants import check, check_moments, check_name, check_sha256
from insitu_access.payload import Fields, Malformed

LINE_LIMIT = 8 * 2**20
"""Bytes of a line: a request of a megabyte and the statements made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Whose log it is: node, gateway or authority, and its name (of the federation, for the authority)."""

    role: str
    id: str

    def __post_init__(self) -> None:
        check(self.role in ("node", "gateway", "authority"), "role must be node, gateway or authority")
        check_name(self.id, "party")

    def __str__(self) -> str:
        return f"{self.role} {self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry in its place. ``detail`` is None where there is none, or where it was withheld from this copy."""

    seq: int
    at: datetime
    kind: str
    previous: str
    fields: Mapping[str, object]
    detail_sha256: str | None = None
    detail: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        check(self.seq >= 1, "seq must be at least 1")
        check_moments((self.at,), "at")
        check(0 < len(self.kind) <= 40, "kind must be a short name")
        check_sha256(self.previous, "previous")
        if self.detail_sha256 is not None:
            check_sha256(self.detail_sha256, "detail_sha256")
        check(self.detail is None or detail_sha256(self.detail) == self.detail_sha256, "its detail was changed")

    @property
    def digest(self) -> str:
        """The hash that the next entry holds, and that a seal signs."""
        return hashlib.sha256(payload.write(_as_json(self))).hexdigest()

    def withheld(self) -> Entry:
        """The same entry without its detail: the chain is as it was."""
        return replace(self, detail=None)


def genesis(party: Party) -> str:
    """What the first entry of a party's log holds as the hash before it: one party's log never passes as another's."""
    return hashlib.sha256(payload.write({"log": "insitu-audit", "role": party.role, "id": party.id})).hexdigest()


def detail_sha256(detail: Mapping[str, object]) -> str:
    """The hash of a detail, its salt included."""
    return hashlib.sha256(payload.write(detail)).hexdigest()


def write_line(entry: Entry) -> bytes:
    """The entry as a line, newline included."""
    line = payload.write({"entry": _as_json(entry), "detail": entry.detail}) + b"\n"
    check(len(line) <= LINE_LIMIT, f"an entry must be at most {LINE_LIMIT} bytes")
    return line


def read_line(line: bytes) -> Entry:
    """The entry that a line holds. Raises Malformed where one byte is not as ``write_line`` would have it."""
    check(len(line) <= LINE_LIMIT, "it is too long")
    with payload.read(line.rstrip(b"\n")) as fields:
        detail = fields.item("detail", _mapping_or_none)
        with fields.fields("entry") as inner:
            entry = _read(inner, detail)
    check(write_line(entry) == line, "it is not written as entries are")
    return entry


def _read(fields: Fields, detail: Mapping[str, object] | None) -> Entry:
    return Entry(
        seq=fields.integer("seq"),
        at=fields.moment("at"),
        kind=fields.text("kind"),
        previous=fields.text("previous"),
        fields=fields.item("fields", _mapping),
        detail_sha256=fields.optional_text("detail_sha256"),
        detail=detail,
    )


def _as_json(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "at": payload.seconds_down(entry.at),
        "kind": entry.kind,
        "previous": entry.previous,
        "fields": entry.fields,
        "detail_sha256": entry.detail_sha256,
    }


def _mapping(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"{path} must be an object")
    return value


def _mapping_or_none(value: object, path: str) -> Mapping[str, object] | None:
    return None if value is None else _mapping(value, path)
