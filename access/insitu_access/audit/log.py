"""The files of an audit log: appended by one writer at a time, on the disk when ``record`` returns, sealed every day.

Every append holds ``audit/lock``, looks at where the log ends, and chains on from there: a running program and commands
beside it write one log. A last line that a crash cut off was never acted on: it is removed, and an entry says so. The
first append of a new day (UTC) seals the day before and begins a file of its own (``files``).

    E7  when a log is opened, all since the last sealed day is checked (``chain``) before anything is chained or sealed
        on top of it: what does not verify is not continued
    E8  whole days alone are dropped, from the front, and none that ``keeps`` holds back; before files go, an entry says
        where the log begins now, under a seal, so that a copy whose front somebody else cut is told apart
    E12 a key that takes the place of another says so in an entry, under its first seal; a process that still has the
        former one reads its keys again when it finds that entry

What is not here: what is recorded and when, which entries must stay; a log of more days than the disk holds.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from insitu_privacy.errors import IntegrityFailed

from insitu_access.audit import files
from insitu_access.audit.chain import CLOCK_LEEWAY, Checker
from insitu_access.audit.entry import Entry, Party, detail_sha256, genesis, read_line, write_line
from insitu_access.audit.kinds import check_entry
from insitu_access.audit.seal import Seal, Sealers, key_of, make_seal
from insitu_access.files import make_directory, unreadable
from insitu_access.keys import SigningKey
from insitu_access.payload import Malformed, seconds_down

Keys = tuple[SigningKey, Sealers]
"""The key to seal with, and the party's former ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is to be recorded. ``at`` is the clock's time unless it is given."""

    kind: str
    fields: Mapping[str, object] = field(default_factory=dict)
    detail: Mapping[str, object] | None = None
    at: datetime | None = None


class AuditLog:
    """One party's log. Safe from several threads, and beside other processes that use this class.

    ``former`` are earlier keys of the party, whose seals are believed too, whatever their date: the next seal covers
    them. ``reread`` gives the party's keys as they are now. Raises IntegrityFailed (INSITU-AUDIT-BROKEN) where the log
    does not verify, ConfigInvalid where it cannot be read or written.
    """

    @classmethod
    def kept(
        cls, directory: Path, party: Party, keys: Callable[[], Keys], *, clock: Callable[[], datetime]
    ) -> AuditLog:
        """The log of a party whose keys change while it runs: ``keys`` reads them where they stand."""
        key, former = keys()
        return cls(directory, party, key, clock=clock, former=former, reread=keys)

    def __init__(
        self,
        directory: Path,
        party: Party,
        key: SigningKey,
        *,
        clock: Callable[[], datetime],
        former: Sealers = (),
        reread: Callable[[], Keys] | None = None,
    ) -> None:
        self.directory = directory
        self.party = party
        self._believe(key, former)
        self._reread = reread
        self._clock = clock
        self._thread = threading.Lock()
        self._path: Path | None = None
        self._descriptor = -1
        self._size = 0
        self._last: Entry | None = None
        self._sealed_to = 0
        self._sealer: str | None = None
        make_directory(directory)
        with self._writing():
            self._load()
            if self._last is None:
                begun = {"role": party.role, "id": party.id, "key": key.thumbprint}
                self._append([Note(kind="log-begun", fields=begun)])
                self._sealer = key.thumbprint
                os.fsync(self._descriptor)

    def record(self, *notes: Note, durable: bool = True) -> None:
        """Appends entries. ``durable`` ones are on the disk on return, with all before them; others outlive a kill."""
        with self._writing():
            self._catch_up()
            self._end_day()
            self._append([*self._set_back(), *notes])
            if durable:
                os.fsync(self._descriptor)

    def sync(self) -> None:
        """Puts on the disk what was recorded without ``durable``."""
        with self._thread, self._refusing():
            if self._descriptor >= 0:
                os.fsync(self._descriptor)

    def seal(self) -> str:
        """Signs all that no seal covers yet. Returns the newest seal."""
        with self._writing():
            self._catch_up()
            self._seal()
            assert self._last is not None  # a log begins with an entry
            return str(self._last.fields["jws"])

    def renew(self) -> None:
        """Seals with the key that the party has now (``reread``), and says so."""
        assert self._reread is not None
        with self._writing():
            self._believe(*self._reread())
            self._catch_up()
            self._seal()

    def maintain(self, *, seal_every: timedelta, retention: timedelta | None, keeps: Callable[[Entry], bool]) -> int:
        """What is due by the clock: a seal, then dropping old days. Returns how many days were dropped."""
        with self._writing():
            self._catch_up()
            now = self._clock()
            if now - self._sealed_at >= seal_every or (self._path and files.day_of(self._path) != _day(now)):
                self._seal()
            return 0 if retention is None else self._drop(now - retention, keeps)

    def close(self) -> None:
        """Gives back what is held open."""
        with self._thread:
            self._point_at(None)

    # ------------------------------------------------------------------------------------------------- under the lock

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._thread, self._refusing():
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    def _believe(self, key: SigningKey, former: Sealers) -> None:
        self._key = key
        self.keys = (key.public(), *(key_of(each) for each in former))

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A full disk, or a file of somebody else: nothing is done that cannot be recorded."""
        try:
            yield
        except OSError as error:
            raise unreadable(self.directory, error.strerror or "it cannot be written") from error

    def _load(self) -> None:
        """E7: checks the newest day, and that the day before it ends with a seal of this party."""
        found = files.days(self.directory)
        if len(found) < 2:
            checker = Checker(self.party, self.keys, front=not found or int(found[0].stem[:12]) == 1)
        else:
            ended = Checker(self.party, self.keys, front=False)
            seal = ended.take(files.last_line(found[-2]))
            if seal is None or seal.kind != "seal" or not ended.end().holds:
                raise self._broken(f"{found[-2].name} does not end with a seal of {self.party}")
            checker = Checker(self.party, self.keys, after=seal, sealed_to=seal.seq, sealer=ended.sealer)
        self._sealed_at = datetime.fromtimestamp(0, tz=self._clock().tzinfo)
        if found:
            self._point_at(found[-1])
            self._take(checker, 0)

    def _catch_up(self) -> None:
        """What another process has written since, with a newer key than this one has, perhaps."""
        try:
            self._read_on()
        except IntegrityFailed:
            if self._reread is None:
                raise
            before = self.keys
            self._believe(*self._reread())
            if self.keys == before:
                raise
            self._read_on()

    def _read_on(self) -> None:
        newest = next(iter(reversed(files.days(self.directory))), None)
        if newest is None or self._last is None:
            raise self._broken("its files are gone")
        if newest != self._path:
            self._load()
            return
        size = newest.stat().st_size
        if size < self._size:
            raise self._broken(f"{newest.name} is shorter than it was")
        if size > self._size:
            checker = Checker(self.party, self.keys, after=self._last, sealed_to=self._sealed_to, sealer=self._sealer)
            self._take(checker, self._size)

    def _take(self, checker: Checker, start: int) -> None:
        assert self._path is not None
        found, cut = files.whole_lines(self._path, start)
        for line in found:
            entry = checker.take(line)
            if entry is not None and entry.kind == "seal":
                self._sealed_at = entry.at
        report = checker.end()
        if not report.holds:
            raise self._broken(f"entry {report.findings[0].seq}: {report.findings[0].reason}")
        if self._last is not None and (checker.last is None or checker.last.seq < self._last.seq):
            raise self._broken("it ends before an entry that was written already")
        if self._sealer == self._key.thumbprint != checker.sealer:
            raise self._broken("another key of the party seals it now")
        self._last, self._sealed_to, self._sealer = checker.last, report.sealed_to, checker.sealer
        self._size = start + sum(map(len, found))
        if cut:
            os.ftruncate(self._descriptor, self._size)
            self._append([Note(kind="log-repaired", fields={"cut_bytes": cut})])
            os.fsync(self._descriptor)

    def _append(self, notes: Sequence[Note]) -> None:
        written, last = [], self._last
        for note in notes:
            last = self._entry(note, last)
            written.append(write_line(last))
        if not written:
            return
        if self._path is None:
            first = 1 if self._last is None else self._last.seq + 1
            self._point_at(self.directory / files.day_name(first, self._clock().date()))
        data = b"".join(written)
        _write_out(self._descriptor, data, self._size)
        self._size += len(data)
        self._last = last

    def _entry(self, note: Note, last: Entry | None) -> Entry:
        detail = None if note.detail is None else {**note.detail, "salt": secrets.token_hex(16)}
        check_entry(self.party.role, note.kind, note.fields, detail)
        return Entry(
            seq=1 if last is None else last.seq + 1,
            at=(note.at or self._clock()).replace(microsecond=0),
            kind=note.kind,
            previous=genesis(self.party) if last is None else last.digest,
            fields=note.fields,
            detail_sha256=None if detail is None else detail_sha256(detail),
            detail=detail,
        )

    def _end_day(self) -> None:
        if self._path is not None and files.day_of(self._path) != _day(self._clock()):
            self._seal()
            self._point_at(None)

    def _set_back(self) -> list[Note]:
        """The entry without which time may not go back."""
        if self._last is None or self._clock() >= self._last.at - CLOCK_LEEWAY:
            return []
        return [Note(kind="clock-set-back", fields={"before": seconds_down(self._last.at)})]

    def _seal(self) -> None:
        last, own = self._last, self._key.thumbprint
        new = self._sealer not in (None, own)
        if last is None or (last.kind == "seal" and not new):
            return
        changed = [Note(kind="key-changed", fields={"former": self._sealer, "key": own})] if new else []
        self._append([*self._set_back(), *changed])
        assert self._last is not None
        last, at = self._last, self._clock().replace(microsecond=0)
        seal = Seal(party=self.party, first=self._sealed_to + 1, last=last.seq, head=last.digest, at=at)
        self._append([Note(kind="seal", fields={"jws": make_seal(seal, self._key)}, at=at)])
        os.fsync(self._descriptor)
        self._sealed_to, self._sealed_at, self._sealer = last.seq + 1, at, own

    def _drop(self, before: datetime, keeps: Callable[[Entry], bool]) -> int:
        """E8."""
        found = files.days(self.directory)
        old = []
        for path in found[:-1]:
            if not _may_go(path, before, keeps):
                break
            old.append(path)
        if old:
            kept = self._read(files.first_line(found[len(old)]))
            begins = {"first": kept.seq, "previous": kept.previous}
            self._append([*self._set_back(), Note(kind="log-dropped", fields=begins)])
            self._seal()
            for path in old:
                path.unlink()
            _sync_directory(self.directory)
        return len(old)

    def _read(self, line: bytes) -> Entry:
        try:
            return read_line(line)
        except Malformed as error:
            raise self._broken(error.reason) from None

    def _point_at(self, path: Path | None) -> None:
        """Appends go to ``path`` from now on; without one, to a new day."""
        if path == self._path and self._descriptor >= 0:
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path, self._descriptor, self._size = path, -1, 0
        if path is not None:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _sync_directory(self.directory)

    def _broken(self, reason: str) -> IntegrityFailed:
        return IntegrityFailed("INSITU-AUDIT-BROKEN", path=self.directory, reason=reason)


def _may_go(path: Path, before: datetime, keeps: Callable[[Entry], bool]) -> bool:
    try:
        entries = [read_line(line) for line in files.lines(path)]
    except Malformed:
        return False  # evidence of something: it stays
    young = any(entry.at >= before for entry in entries if entry.kind != "seal")
    return not young and not any(keeps(entry) for entry in entries)


def _write_out(descriptor: int, data: bytes, at: int) -> None:
    """Writes all of ``data`` at a place, so that what failed in the middle is written over by the next append."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
