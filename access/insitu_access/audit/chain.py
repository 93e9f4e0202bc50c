"""Checks a log line by line: every cut, edit, reorder, insertion, gap, foreign entry and clock set back is found.

    E1  a line is written exactly as entries are, and says what its kind may say (``kinds``)
    E2  entries are numbered without a gap, each holds the hash of the one before; the first holds the party's own mark,
        or stands where an entry of this very log, under a seal, says that older ones were dropped
    E3  a seal is signed by a key of the party over all that stands before it
    E4  the log leads to every seal that was handed out before: nothing was cut below it
    E5  time does not go back by more than five minutes, but where an entry says that the clock was set back
    E6  what was written after the last seal is told apart: it is chained, and not signed yet
    E12 a seal is of the key that the log says is in use; keys follow one another and none comes back; one that was
        given up seals nothing dated later, unless the key after it has sealed over that

Pure: lines come in, findings come out; memory does not grow with the log. What nobody can find in one log alone: what
its own party never wrote, and a log rewritten from a point on by who holds its key. Other parties' logs, receipts and
earlier seals show these (``reconcile``, E4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from insitu_privacy.errors import AccessRefused

from insitu_access.audit.entry import Entry, Party, genesis, read_line
from insitu_access.audit.kinds import check_entry
from insitu_access.audit.seal import Seal, Sealers, given_up, open_seal
from insitu_access.jose import unverified_kid
from insitu_access.payload import Malformed

CLOCK_LEEWAY = timedelta(minutes=5)
_MANY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong; ``seq`` is the number it is at, as far as that can be told."""

    seq: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a log is, and what is wrong with it."""

    party: Party
    entries: int
    first: int | None
    last: int | None
    head: str | None
    sealed_to: int
    """The newest seal that verifies: all before it is signed; 0 for none."""
    withheld: int
    """Details that this copy does not hold."""
    begins_at: datetime | None
    ends_at: datetime | None
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return not self.findings


class Checker:
    """Takes the lines of one log in their order. ``seals`` were handed out before, and must be led to."""

    def __init__(
        self,
        party: Party,
        keys: Sealers,
        *,
        seals: Sequence[Seal] = (),
        after: Entry | None = None,
        sealed_to: int = 0,
        sealer: str | None = None,
        front: bool = True,
    ) -> None:
        """``after`` was checked before, a seal covers ``sealed_to``, ``sealer`` was in use: what follows is taken up.

        Without ``front``, entries may be missing before the first.
        """
        self._party = party
        self._keys = keys
        self._sealer = sealer
        self._given_up = set[str]()
        self._late: list[tuple[int, str, datetime]] = []
        self._wanted = list(seals)
        self._front = front
        self._first = self._last = after
        self._digest = after.digest if after else genesis(party)
        self._start: tuple[int, str] | None = None
        self._dropped: dict[tuple[int, str], int] = {}
        self._sealed_to = sealed_to
        self._entries = self._withheld = 0
        self._findings: list[Finding] = []

    def take(self, line: bytes) -> Entry | None:
        """Checks the next line; the entry in it, None where it holds none."""
        try:
            entry = read_line(line)
            check_entry(self._party.role, entry.kind, entry.fields, entry.detail)
        except Malformed as error:  # E1
            self._found(None if self._last is None else self._last.seq + 1, f"line: {error.reason}")
            return None
        self._linked(entry)
        self._timed(entry)
        self._said(entry)
        self._entries += 1
        self._withheld += entry.detail is None and entry.detail_sha256 is not None
        for seal in [seal for seal in self._wanted if seal.last + 1 == entry.seq]:
            self._wanted.remove(seal)
            self._led(seal, entry)
        self._last, self._digest = entry, entry.digest
        return entry

    @property
    def last(self) -> Entry | None:
        """The last entry taken."""
        return self._last

    @property
    def sealer(self) -> str | None:
        """The thumbprint of the key that is in use after the last entry, where the log tells."""
        return self._sealer

    def end(self) -> Report:
        """The report, after the last line."""
        dropped = None if self._start is None else self._dropped.get(self._start)
        if self._front and self._start is not None and (dropped is None or dropped > self._sealed_to):  # E2
            self._found(
                self._start[0], "entries before this one are missing, and no sealed entry says they were dropped"
            )
        for seq, _, until in self._late:  # E12
            self._found(seq, f"its seal is of a key that was given up before, at {until:%Y-%m-%d %H:%M:%S} UTC")
        for seal in self._wanted:  # E4
            if self._first is None or seal.last + 1 >= self._first.seq:
                self._found(seal.last, f"the log is cut: a seal of {seal.at:%Y-%m-%d %H:%M:%S} UTC covers this entry")
        first, last = self._first, self._last
        return Report(
            party=self._party,
            entries=self._entries,
            first=first.seq if first else None,
            last=last.seq if last else None,
            head=last.digest if last else None,
            sealed_to=self._sealed_to,
            withheld=self._withheld,
            begins_at=first.at if first else None,
            ends_at=last.at if last else None,
            findings=tuple(self._findings[:_MANY]),
        )

    def _linked(self, entry: Entry) -> None:
        """E2."""
        if self._last is None:
            self._first = entry
            if (entry.seq, entry.previous) != (1, self._digest):
                self._start = entry.seq, entry.previous
        elif entry.seq != self._last.seq + 1:
            self._found(entry.seq, f"entry {self._last.seq + 1} should stand here: cut, inserted or reordered")
        elif entry.previous != self._digest:
            self._found(entry.seq, "it does not hold the hash of the entry before it: one of the two was changed")

    def _timed(self, entry: Entry) -> None:
        """E5."""
        before = self._last
        if before is not None and entry.at < before.at - CLOCK_LEEWAY and entry.kind != "clock-set-back":
            self._found(entry.seq, "its time lies before that of the entry before it")

    def _said(self, entry: Entry) -> None:
        if entry.kind == "log-begun" and (entry.fields["role"], entry.fields["id"]) != (
            self._party.role,
            self._party.id,
        ):
            self._found(entry.seq, "it is the log of another party")
        if entry.kind == "log-begun":
            self._sealer = str(entry.fields["key"])
        if entry.kind == "key-changed":
            self._changed(entry)
        if entry.kind == "log-dropped":
            self._dropped[int(str(entry.fields["first"])), str(entry.fields["previous"])] = entry.seq
        if entry.kind == "seal":
            self._sealed(entry)

    def _sealed(self, entry: Entry) -> None:
        """E3."""
        token = str(entry.fields["jws"])
        try:
            seal = open_seal(token, self._keys)
        except AccessRefused as error:
            self._found(entry.seq, f"its seal does not verify: {error.text}")
            return
        if (seal.party, seal.last, seal.head) != (self._party, entry.seq - 1, entry.previous):
            self._found(entry.seq, "its seal is of another log, or of another place in it")
            return
        if self._last is not None and entry.previous == self._digest:
            self._sealed_to = entry.seq
        self._in_turn(entry.seq, token, seal.at)

    def _changed(self, entry: Entry) -> None:
        """E12."""
        former, key = str(entry.fields["former"]), str(entry.fields["key"])
        if self._sealer not in (None, former) or key in {former, *self._given_up}:
            self._found(entry.seq, "it says that a key follows which does not: it is of before, or after another")
        self._given_up.add(former)
        self._sealer = key

    def _in_turn(self, seq: int, token: str, at: datetime) -> None:
        """E12."""
        signer = str(unverified_kid(token))  # the seal is verified
        if self._sealer not in (None, signer):
            self._found(seq, "its seal is of another key than the log says is in use")
            return
        self._sealer = signer
        until = given_up(token, self._keys)
        if until is not None and at > until + CLOCK_LEEWAY:
            self._late.append((seq, signer, until))
        else:
            self._late = [late for late in self._late if late[1] == signer]

    def _led(self, seal: Seal, entry: Entry) -> None:
        """E4: a seal stands in the log right after what it covers."""
        if seal.party != self._party or (entry.kind, entry.previous) != ("seal", seal.head):
            self._found(seal.last, f"it is not what a seal of {seal.at:%Y-%m-%d %H:%M:%S} UTC covers: it was rewritten")

    def _found(self, seq: int | None, reason: str) -> None:
        if len(self._findings) <= _MANY:
            self._findings.append(Finding(seq=seq, reason=reason))


def check_lines(
    lines: Iterable[bytes], party: Party, keys: Sealers, *, seals: Sequence[Seal] = ()
) -> tuple[Report, tuple[Entry, ...]]:
    """The report on a whole log, and its entries without their details."""
    checker = Checker(party, keys, seals=seals)
    taken = [entry.withheld() for line in lines if (entry := checker.take(line)) is not None]
    return checker.end(), tuple(taken)
