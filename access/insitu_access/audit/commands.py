"""What ``insitu-node audit``, ``insitu-gateway audit`` and ``insitu-authority audit`` share: the work of each command.

A command checks before it shows: a log that does not verify is still shown, with what is wrong on standard error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import typer
from insitu_privacy.errors import AccessRefused

from insitu_access.audit import files
from insitu_access.audit.acts import operator
from insitu_access.audit.chain import CLOCK_LEEWAY, Checker, Finding, Report
from insitu_access.audit.entry import Entry, Party, read_line, write_line
from insitu_access.audit.log import AuditLog, Note
from insitu_access.audit.seal import Seal, Sealers, given_up, open_seal
from insitu_access.cli import EXIT_INTEGRITY, Format, print_facts, printable
from insitu_access.files import read_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are asked for."""

    since: datetime | None = None
    kinds: Collection[str] = ()
    about: str | None = None
    last: int | None = None
    details: bool = False

    def takes(self, entry: Entry) -> bool:
        return (
            (self.since is None or entry.at >= self.since)
            and (not self.kinds or entry.kind in self.kinds)
            and (self.about is None or any(self.about == value for value in entry.fields.values()))
        )


def show(path: Path, party: Party, keys: Sealers, wanted: Wanted, format_: Format) -> None:
    """Prints entries, oldest first."""
    checker = Checker(party, keys)
    found = [e for line in files.lines(path) if (e := checker.take(line)) is not None and wanted.takes(e)]
    if wanted.last is not None:
        found = found[-wanted.last :]
    report = checker.end()
    if format_ is Format.JSON:
        entries = [_entry(entry, wanted.details) for entry in found]
        print_facts({"party": str(party), "holds": report.holds, "entries": entries}, format_)
    else:
        for entry in found:
            typer.echo(_line(entry, wanted.details))
    if not report.holds:
        typer.echo(f"This log does NOT verify: {report.findings[0].reason}. See `audit verify`.", err=True)


def verify(
    path: Path,
    party: Party,
    keys: Sealers,
    format_: Format,
    *,
    seals: Sequence[Path] = (),
    more: Sequence[Finding] = (),
) -> None:
    """Prints the report on a log; exit code 4 where it does not hold. ``more`` is what else its party found."""
    checker = Checker(party, keys, seals=[read_seal(seal, keys) for seal in seals])
    for line in files.lines(path):
        checker.take(line)
    report = checker.end()
    findings = (*report.findings, *more)
    print_facts(_report(path, report, findings), format_)
    if findings:
        raise typer.Exit(EXIT_INTEGRITY)


def read_seal(path: Path, keys: Sealers) -> Seal:
    """A seal that was kept in a file. Raises AccessRefused where it is not this party's, by a key it had then."""
    token = read_file(path, 2**16).decode("ascii", "replace").strip()
    seal, until = open_seal(token, keys), given_up(token, keys)
    if until is not None and seal.at > until + CLOCK_LEEWAY:  # E12
        raise AccessRefused("INSITU-ACCESS-SIGNATURE", what="seal")
    return seal


def export(log: AuditLog, out: Path, format_: Format, *, withhold: bool) -> None:
    """Seals the log and copies it to one file, which the log records."""
    log.record(Note(kind="exported", fields={"by": operator(), "details": not withhold}))
    log.seal()
    count = _copy(log.directory, out, withhold=withhold)
    facts = {"party": str(log.party), "file": str(out), "entries": count, "details": not withhold}
    print_facts({**facts, "sealed_with": log.keys[0].thumbprint}, format_)


def seal(log: AuditLog, out: Path | None, format_: Format) -> None:
    """Seals the log, and hands out the seal: whoever keeps it can tell later that nothing was cut before it."""
    from insitu_access.files import write_file

    token = log.seal()
    made = open_seal(token, log.keys)
    if out is not None:
        write_file(out, token.encode() + b"\n")
    facts = {"party": str(log.party), "entries": made.last, "head": made.head, "at": made.at.isoformat()}
    print_facts({**facts, "seal": token if out is None else str(out)}, format_)


def _copy(path: Path, out: Path, *, withhold: bool) -> int:
    """Writes the file whole or not at all."""
    count = 0
    descriptor, part = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for line in files.lines(path):
                count += 1
                file.write(write_line(read_line(line).withheld()) if withhold else line)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(out)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return count


def _report(path: Path, report: Report, findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "party": str(report.party),
        "log": str(path),
        "holds": not findings,
        "entries": report.entries,
        "first": report.first,
        "last": report.last,
        "sealed_to": report.sealed_to,
        "head": report.head,
        "begins_at": report.begins_at.isoformat() if report.begins_at else None,
        "ends_at": report.ends_at.isoformat() if report.ends_at else None,
        "withheld": report.withheld,
        "findings": [asdict(finding) for finding in findings],
    }


def _entry(entry: Entry, details: bool) -> dict[str, object]:
    facts = {"seq": entry.seq, "at": entry.at.isoformat(), "kind": entry.kind, "fields": dict(entry.fields)}
    return {**facts, "detail": dict(entry.detail) if entry.detail else None} if details else facts


def _line(entry: Entry, details: bool) -> str:
    said = " ".join(f"{name}={_value(value)}" for name, value in entry.fields.items() if value not in (None, False))
    line = f"{entry.seq:>8}  {entry.at:%Y-%m-%d %H:%M:%S}  {entry.kind:<20} {said}"
    if details and entry.detail:
        texts = [text for name, text in entry.detail.items() if name != "salt"]
        line += "".join(f"\n{'':>10}{_value(text)}" for text in texts)
    return printable(line)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{_value(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(_value(item) for item in value)
    text = str(value)
    return f"{text[:60]}…" if len(text) > 200 and " " not in text else text
