"""What one party's verified log says, ordered for comparison, and when another log can be expected to say the same.

A node's entries of requests bear the minute alone, so their time is known within bounds: not before the minute, not
after its end or the next entry with an exact time. A log can be expected to hold what happened within its ``Span``;
what may lie outside is counted as not compared, and no conclusion is drawn from it.

Pure. What follows from differences: ``reconcile``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from insitu_access.audit.chain import Report
from insitu_access.audit.entry import Entry

_MINUTE = timedelta(seconds=59)
_BY_THE_MINUTE = frozenset(
    {
        "request-received", "request-admitted", "charge-reserved", "charge-resumed", "charge-joined", "sql-run",
        "charge-settled", "answered",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when to when a log tells all."""

    begins: datetime
    ends: datetime
    whole: bool
    """Whether it holds the party's first entry: before it, there was nothing to record."""

    def covers(self, event: Event) -> bool:
        """Whether the log must have it, if it happened."""
        return event.latest <= self.ends and (self.whole or self.begins <= event.earliest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An entry, and the bounds of its time."""

    fields: Mapping[str, object]
    seq: int
    earliest: datetime
    latest: datetime

    def text(self, name: str) -> str:
        return str(self.fields[name])


@dataclass(slots=True, kw_only=True)
class Trail:
    """A log's events by kind, in order."""

    party: str
    span: Span
    first: int
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def of(self, *kinds: str) -> list[Event]:
        """All events of these kinds, in order."""
        return sorted((event for kind in kinds for event in self.events.get(kind, ())), key=lambda event: event.seq)

    def by(self, kind: str, name: str) -> Mapping[str, list[Event]]:
        """The events of a kind by one of their fields."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.events.get(kind, ()):
            found[event.text(name)].append(event)
        return found


def trail_of(report: Report, entries: Sequence[Entry], *, until: datetime | None = None) -> Trail:
    """The trail of a log. ``until`` is when a log that goes on was read; a copy tells all up to its last entry."""
    last = report.ends_at
    assert report.begins_at is not None  # an empty log is no log
    assert last is not None
    assert report.first is not None
    ends = last if until is None else max(last, until)
    span = Span(begins=report.begins_at, ends=ends, whole=report.first == 1)
    trail = Trail(party=report.party.id, span=span, first=report.first)
    for event, kind in _events(entries, ends):
        trail.events[kind].append(event)
    return trail


def _events(entries: Sequence[Entry], ends: datetime) -> Iterable[tuple[Event, str]]:
    found, after = [], ends
    for entry in reversed(entries):
        coarse = entry.kind in _BY_THE_MINUTE
        latest = min(entry.at + _MINUTE, max(after, entry.at)) if coarse else entry.at
        if not coarse:
            after = entry.at
        found.append((Event(fields=entry.fields, seq=entry.seq, earliest=entry.at, latest=latest), entry.kind))
    return reversed(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One node's signed outcome in a receipt."""

    sha256: str
    released: bool
    replayed: bool
    spent_epsilon: Fraction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a researcher holds of one request: signed texts, by their hashes."""

    name: str
    """The file it came from."""
    request_id: str
    request_sha256: str
    grant_id: str
    grant_sha256: str
    manifest_version: int
    manifest_sha256: str
    at: datetime
    """When the request was signed, by the researcher's clock."""
    outcomes: Mapping[str, Answered]

    @property
    def event(self) -> Event:
        return Event(fields={}, seq=0, earliest=self.at, latest=self.at)
