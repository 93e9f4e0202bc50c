"""E7, E8: the files of a log; crashes, several writers, days, retention, a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insitu_access.audit import files
from insitu_access.audit.chain import Report, check_lines
from insitu_access.audit.entry import Entry, Party
from insitu_access.audit.log import AuditLog, Note
from insitu_access.keys import SigningKey, generate_signing_key, save_signing_key
from insitu_privacy.errors import ConfigInvalid, IntegrityFailed

from tests.testkit.audit_logs import chained, entries, kinds

PARTY = Party(role="node", id="chu-lille")
STOPPED = Note(kind="node-stopped")
DAY = timedelta(days=1)


class Writer:
    """A log with a clock that is set by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "audit"
        self.key = generate_signing_key()
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def open(self, key: SigningKey | None = None, *former: SigningKey) -> AuditLog:
        keys = [one.public() for one in former]
        return AuditLog(self.folder, PARTY, key or self.key, clock=lambda: self.now, former=keys)

    def report(self) -> Report:
        return check_lines(files.lines(self.folder), PARTY, [self.key.public()])[0]

    def maintain(self, log: AuditLog, keep: int | None = None, keeps: object = None) -> int:
        retention = None if keep is None else keep * DAY
        return log.maintain(seal_every=DAY, retention=retention, keeps=lambda entry: entry.fields == keeps)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def broken(writer: Writer) -> str:
    with pytest.raises(IntegrityFailed) as caught:
        writer.open()
    assert caught.value.code == "INSITU-AUDIT-BROKEN"
    return caught.value.text


def test_a_log_begins_with_its_party_and_goes_on_where_it_was(writer: Writer) -> None:
    writer.open().record(STOPPED)
    writer.open().record(STOPPED)
    assert kinds(writer.folder) == ["log-begun", "node-stopped", "node-stopped"]
    assert writer.report().holds
    (path,) = files.days(writer.folder)
    assert path.name == "000000000001-2026-03-01.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_first_entry_of_a_day_seals_the_day_before(writer: Writer) -> None:
    log = writer.open()
    writer.now += DAY
    log.record(STOPPED)
    writer.now += DAY
    writer.open().record(STOPPED)
    assert [path.name[13:23] for path in files.days(writer.folder)] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert kinds(writer.folder) == ["log-begun", "seal", "node-stopped", "seal", "node-stopped"]
    assert writer.report().holds


def test_a_quiet_day_is_sealed_by_the_clock_and_once(writer: Writer) -> None:
    log = writer.open()
    writer.maintain(log)
    writer.maintain(log)
    assert kinds(writer.folder) == ["log-begun", "seal"]
    log.record(STOPPED)
    writer.now += timedelta(hours=11)
    writer.maintain(log)
    assert kinds(writer.folder)[-1] == "node-stopped"
    writer.now += timedelta(hours=13)
    writer.maintain(log)
    assert kinds(writer.folder)[-1] == "seal"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 60))
def test_a_line_that_a_crash_cut_off_is_removed_and_that_is_said(tmp_path_factory, cut: int) -> None:
    writer = Writer(tmp_path_factory.mktemp("cut"))
    writer.open().record(STOPPED)
    (path,) = files.days(writer.folder)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:cut])
    writer.open().record(STOPPED)
    assert kinds(writer.folder) == ["log-begun", "node-stopped", "log-repaired", "node-stopped"]
    assert entries(writer.folder)[2].fields == {"cut_bytes": cut}
    assert writer.report().holds


@pytest.mark.attacks("E7")
def test_a_log_that_was_changed_is_not_continued(writer: Writer) -> None:
    log = writer.open()
    log.record(STOPPED, STOPPED)
    (path,) = files.days(writer.folder)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([whole[0], whole[2]]))
    assert "entry 3: entry 2 should stand here" in broken(writer)
    with pytest.raises(IntegrityFailed):
        log.record(STOPPED)


@pytest.mark.attacks("E7")
def test_a_day_that_was_rewritten_by_somebody_else_is_not_continued(writer: Writer) -> None:
    writer.open().record(STOPPED)
    writer.now += DAY
    writer.open().record(STOPPED)
    first = files.days(writer.folder)[0]
    first.write_bytes(b"".join(chained(PARTY, generate_signing_key(), entries(first))))
    assert "does not end with a seal of node chu-lille" in broken(writer)


@pytest.mark.attacks("E7")
def test_a_day_that_is_gone_is_found(writer: Writer) -> None:
    for _ in range(3):
        writer.open().record(STOPPED)
        writer.now += DAY
    files.days(writer.folder)[1].unlink()
    assert "should stand here" in broken(writer)
    log = Writer(writer.folder.parent / "other").open()
    for path in files.days(log.directory):
        path.unlink()
    with pytest.raises(IntegrityFailed, match="its files are gone"):
        log.record(STOPPED)


def test_a_replaced_key_goes_on_only_where_the_former_one_is_named(writer: Writer) -> None:
    writer.open().seal()
    new, old = generate_signing_key(), writer.key
    writer.now += DAY
    with pytest.raises(IntegrityFailed):
        writer.open(new)
    writer.open(new, old).record(STOPPED)
    writer.now += DAY
    writer.open(new, old).seal()
    report, _ = check_lines(files.lines(writer.folder), PARTY, [new.public(), old.public()])
    assert report.holds


@pytest.mark.attacks("E8")
def test_retention_drops_whole_days_and_what_is_left_verifies(writer: Writer) -> None:
    log = writer.open()
    for _ in range(5):
        writer.now += DAY
        log.record(STOPPED)
    assert writer.maintain(log, keep=3) == 2
    assert [path.name[13:23] for path in files.days(writer.folder)] == [f"2026-03-0{day}" for day in (3, 4, 5, 6)]
    report = writer.report()
    assert report.holds
    assert report.first == 5
    assert kinds(writer.folder)[-2:] == ["log-dropped", "seal"]
    assert writer.maintain(log, keep=3) == 0
    files.days(writer.folder)[0].unlink()  # and nobody else can cut further
    assert not writer.report().holds
    writer.open().record(STOPPED)  # the front is not looked at to go on


def test_a_crash_while_days_are_dropped_leaves_a_log_that_holds(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer.open()
    for _ in range(5):
        writer.now += DAY
        log.record(STOPPED)
    unlink, gone = Path.unlink, []

    def crash(path: Path, missing_ok: bool = False) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", crash)
    with pytest.raises(KeyboardInterrupt):
        writer.maintain(log, keep=3)
    monkeypatch.undo()
    assert writer.maintain(writer.open(), keep=3) == 1
    assert writer.report().holds


@pytest.mark.attacks("E8")
def test_a_day_with_an_entry_that_must_stay_is_kept_with_all_after_it(writer: Writer) -> None:
    log = writer.open()
    for charge in range(5):
        writer.now += DAY
        log.record(Note(kind="charge-joined", fields={"charge": charge, "request_id": "a"}))
    keeps = {"charge": 1, "request_id": "a"}
    assert writer.maintain(log, keep=1, keeps=keeps) == 2
    assert writer.report().holds


def test_a_clock_that_is_set_back_is_said(writer: Writer) -> None:
    log = writer.open()
    log.record(STOPPED)
    writer.now -= 3 * DAY
    log.record(STOPPED)
    log.seal()
    assert "clock-set-back" in kinds(writer.folder)
    assert writer.report().holds
    writer.open().record(STOPPED)


def test_a_full_disk_refuses_and_leaves_the_log_whole(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    log = writer.open()
    pwrite = os.pwrite
    calls: list[int] = []

    def full(descriptor: int, data: bytes, at: int) -> int:
        if calls:
            raise OSError(errno.ENOSPC, "No space left on device")
        calls.append(at)
        return pwrite(descriptor, data[:10], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ConfigInvalid, match="No space left"):
        log.record(STOPPED)
    monkeypatch.undo()
    log.record(STOPPED)
    assert kinds(writer.folder) == ["log-begun", "log-repaired", "node-stopped"]
    assert writer.report().holds


def test_several_processes_write_one_chain(writer: Writer, tmp_path: Path) -> None:
    save_signing_key(writer.key, tmp_path / "key")
    program = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from insitu_access.audit.entry import Party
from insitu_access.audit.log import AuditLog, Note
from insitu_access.keys import load_signing_key
log = AuditLog(Path(sys.argv[1]), Party(role="node", id="chu-lille"), load_signing_key(Path(sys.argv[2])),
               clock=lambda: datetime.now(UTC))
for number in range(40):
    log.record(Note(kind="charge-joined", fields={"charge": number, "request_id": sys.argv[3]}), durable=number % 8 == 0)
log.seal()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, str(writer.folder), str(tmp_path / "key")]
    running = [subprocess.Popen([*command, name], env=environment) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert writer.report().holds
    written: dict[str, list[object]] = {name: [] for name in "abc"}
    for entry in joined(writer):
        written[str(entry.fields["request_id"])].append(entry.fields["charge"])
    assert set(map(tuple, written.values())) == {tuple(range(40))}


def joined(writer: Writer) -> list[Entry]:
    return [entry for entry in entries(writer.folder) if entry.kind == "charge-joined"]
