"""E12: older seals verify when a party's key has changed, and nobody seals with a key that was given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from insitu_access.audit import files
from insitu_access.audit.chain import check_lines
from insitu_access.audit.commands import read_seal
from insitu_access.audit.entry import Entry, Party, genesis, read_line, write_line
from insitu_access.audit.log import AuditLog, Keys, Note
from insitu_access.audit.seal import Seal, Sealers, make_seal
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_access.manifest import FormerKey
from insitu_privacy.errors import AccessRefused, IntegrityFailed

from tests.testkit.audit_logs import kinds

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
PARTY = Party(role="node", id="chu-lille")
OLD, NEW, STRANGER = (generate_signing_key() for _ in range(3))
STOPPED = Note(kind="node-stopped")
CHANGED = NOON + 3 * DAY
NOW_NEW: Sealers = (NEW.public(), FormerKey(key=OLD.public(), until=CHANGED))


def begun(key: SigningKey = OLD) -> Entry:
    fields = {"role": "node", "id": "chu-lille", "key": key.thumbprint}
    return Entry(seq=1, at=NOON, kind="log-begun", previous="0" * 64, fields=fields)


def seal(key: SigningKey, at: datetime) -> tuple[SigningKey, datetime]:
    return key, at


def change(former: SigningKey, key: SigningKey, at: datetime = CHANGED) -> Entry:
    fields = {"former": former.thumbprint, "key": key.thumbprint}
    return Entry(seq=1, at=at, kind="key-changed", previous="0" * 64, fields=fields)


def stopped(at: datetime = NOON) -> Entry:
    return Entry(seq=1, at=at, kind="node-stopped", previous="0" * 64, fields={})


def written(*told: Entry | tuple[SigningKey, datetime]) -> list[bytes]:
    """The lines of a log, chained; where a key and a time stand, that key seals."""
    made: list[Entry] = []
    for one in told:
        seq, previous = len(made) + 1, made[-1].digest if made else genesis(PARTY)
        if isinstance(one, Entry):
            made.append(replace(one, seq=seq, previous=previous))
            continue
        key, at = one
        jws = make_seal(Seal(party=PARTY, first=1, last=seq - 1, head=previous, at=at), key)
        made.append(Entry(seq=seq, at=at, kind="seal", previous=previous, fields={"jws": jws}))
    return [write_line(entry) for entry in made]


def reasons(lines: Sequence[bytes], keys: Sealers = NOW_NEW) -> list[str]:
    return [finding.reason for finding in check_lines(lines, PARTY, keys)[0].findings]


def test_seals_of_before_and_after_a_change_verify() -> None:
    lines = written(
        begun(), seal(OLD, NOON), change(OLD, NEW), seal(NEW, CHANGED), stopped(CHANGED), seal(NEW, CHANGED)
    )
    assert reasons(lines) == []
    assert reasons(lines[:2], [OLD.public()]) == []  # as it was then
    assert reasons(lines[:2]) == []  # and as it is looked back on
    assert check_lines(lines, PARTY, NOW_NEW)[0].sealed_to == 6


@pytest.mark.attacks("E12")
def test_a_key_that_the_party_never_had_seals_nothing() -> None:
    assert "its seal does not verify" in reasons(written(begun(), seal(STRANGER, NOON)))[0]
    lines = written(begun(), seal(OLD, NOON), change(OLD, STRANGER), seal(STRANGER, CHANGED))
    assert any("its seal does not verify" in reason for reason in reasons(lines))
    # nor does the present key vouch for one that its party does not name
    lines = written(begun(STRANGER), seal(STRANGER, NOON), change(STRANGER, NEW), seal(NEW, CHANGED))
    assert any("its seal does not verify" in reason for reason in reasons(lines))


@pytest.mark.attacks("E12")
def test_a_key_that_was_given_up_seals_nothing_after_another() -> None:
    start = (begun(), seal(OLD, NOON), change(OLD, NEW), seal(NEW, CHANGED), stopped(CHANGED))
    assert reasons(written(*start, seal(OLD, CHANGED))) == ["its seal is of another key than the log says is in use"]
    back = written(*start, change(NEW, OLD), seal(OLD, CHANGED))
    assert reasons(back) == ["it says that a key follows which does not: it is of before, or after another"]
    unsaid = written(begun(), seal(OLD, NOON), stopped(), seal(NEW, CHANGED))
    assert reasons(unsaid) == ["its seal is of another key than the log says is in use"]
    assert len(reasons(written(begun(), change(STRANGER, NEW), seal(NEW, CHANGED)))) == 1


@pytest.mark.attacks("E12")
def test_a_key_that_was_given_up_seals_nothing_dated_later() -> None:
    late = CHANGED + timedelta(hours=1)
    assert reasons(written(begun(), seal(OLD, CHANGED - DAY))) == []
    (reason,) = reasons(written(begun(), seal(OLD, late)))
    assert reason == "its seal is of a key that was given up before, at 2026-03-04 12:00:00 UTC"
    # where a process had not taken up the new key yet, the new key says that it was so
    assert reasons(written(begun(), seal(OLD, late), change(OLD, NEW, late), seal(NEW, late))) == []


def test_a_seal_that_was_kept_counts_by_the_key_of_its_time(tmp_path: Path) -> None:
    path = tmp_path / "seal.jws"
    made = Seal(party=PARTY, first=1, last=1, head="0" * 64, at=CHANGED - DAY)
    path.write_text(make_seal(made, OLD))
    assert read_seal(path, NOW_NEW) == made
    for token in (make_seal(replace(made, at=CHANGED + DAY), OLD), make_seal(made, STRANGER)):
        path.write_text(token)
        with pytest.raises(AccessRefused):
            read_seal(path, NOW_NEW)


class Site:
    """A log whose party changes its key; processes take the change up when they look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "audit"
        self.now = NOON
        self.keys: Keys = (OLD, ())

    def open(self, keys: Keys | None = None, *, looks: bool = True) -> AuditLog:
        key, former = keys or self.keys
        reread = (lambda: self.keys) if looks else None
        return AuditLog(self.folder, PARTY, key, clock=lambda: self.now, former=former, reread=reread)

    def change(self, key: SigningKey = NEW) -> None:
        former, before = self.keys
        self.keys = key, (FormerKey(key=former.public(), until=self.now), *before)

    def findings(self) -> Sequence[object]:
        key, former = self.keys
        return check_lines(files.lines(self.folder), PARTY, (key.public(), *former))[0].findings


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("pause", [timedelta(0), DAY, 3 * DAY])
def test_a_log_goes_on_under_a_new_key(site: Site, pause: timedelta) -> None:
    site.open().seal()
    for key in (NEW, STRANGER):
        site.change(key)
        site.now += pause
        log = site.open()
        log.record(STOPPED)
        log.seal()
        assert site.findings() == ()
    assert kinds(site.folder).count("key-changed") == 2


def test_a_process_that_runs_says_when_its_key_has_changed(site: Site) -> None:
    log = site.open()
    log.seal()
    site.change()
    log.renew()
    log.renew()
    assert kinds(site.folder)[-2:] == ["key-changed", "seal"]
    assert kinds(site.folder).count("key-changed") == 1
    assert site.findings() == ()


def test_a_process_with_the_former_key_looks_again_when_another_has_sealed(site: Site) -> None:
    running = site.open()
    running.record(STOPPED)
    site.change()
    command = site.open()
    command.record(STOPPED)
    command.seal()
    running.record(STOPPED)
    running.seal()
    site.now += DAY
    running.record(STOPPED)
    assert site.findings() == ()
    assert kinds(site.folder).count("key-changed") == 1


def test_a_process_that_cannot_look_seals_nothing_over_another_key(site: Site) -> None:
    running = site.open(looks=False)
    site.change()
    site.open().seal()
    for act in (running.seal, lambda: running.record(STOPPED)):
        with pytest.raises(IntegrityFailed):
            act()
    assert site.findings() == ()


def test_a_change_that_a_crash_cut_off_is_sealed_next_time(site: Site) -> None:
    running = site.open()
    running.seal()
    site.change()
    site.open().seal()
    (path,) = files.days(site.folder)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:-1]))
    assert read_line(whole[-2]).kind == "key-changed"
    again = site.open()
    again.seal()
    assert kinds(site.folder).count("key-changed") == 1
    assert site.findings() == ()


def test_a_former_key_does_not_open_a_log_that_another_seals(site: Site) -> None:
    site.open().seal()
    site.change()
    site.open().seal()
    with pytest.raises(IntegrityFailed):
        site.open((OLD, ()), looks=False)
    site.open().record(STOPPED)
    assert site.findings() == ()
