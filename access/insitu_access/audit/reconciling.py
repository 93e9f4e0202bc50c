"""Reads what was handed in and reconciles it: files in, facts and lines out. The comparison itself is ``reconcile``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from insitu_privacy.errors import AccessRefused, ConfigInvalid, IntegrityFailed

from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Entry, Party
from insitu_access.audit.files import lines
from insitu_access.audit.parties import Copy, Keys, certified_keys, read_copy
from insitu_access.audit.receipts import read_receipts
from insitu_access.audit.reconcile import Books, Discrepancy, Reconciled, reconcile
from insitu_access.audit.seal import Sealers
from insitu_access.audit.trail import Receipt, Trail, trail_of
from insitu_access.keyring import load_keyring
from insitu_access.keys import VerifyingKey, load_verifying_key
from insitu_access.register import Register, load_register


def reconcile_files(
    directory: Path,
    nodes: Sequence[Path],
    gateways: Sequence[Path],
    receipts: Sequence[Path],
    *,
    extra: Sequence[VerifyingKey],
    now: datetime,
) -> tuple[dict[str, object], list[str]]:
    """Facts for JSON, and the same as lines. Raises ConfigInvalid where a file is no log or no result."""
    register, keyring = load_register(directory), load_keyring(directory)
    pinned: Sealers = (load_verifying_key(directory / "authority.pub"), *keyring.signed_before)
    authority, entries, broken = _own(directory, register, pinned, now)
    keys = certified_keys(entries, register, keyring)
    copies = [*_copies(nodes, "node", keys, extra, now), *_copies(gateways, "gateway", keys, extra, now)]
    broken += [found for copy in copies for found in _broken(copy)]
    held, forged = _receipts(receipts, pinned)
    files = len(receipts) - len(forged)
    books = Books(
        nodes={copy.party.id: copy.trail for copy in copies if copy.party.role == "node" and copy.trail},
        gateways=[copy.trail for copy in copies if copy.party.role == "gateway" and copy.trail],
        authority=authority,
        receipts=held,
    )
    done = reconcile(books)
    found = [*broken, *forged, *done.discrepancies]
    return _facts(copies, files, found, done), [*_lines(found), _summary(copies, files, found, done)]


def _own(
    directory: Path, register: Register, pinned: Sealers, now: datetime
) -> tuple[Trail | None, Sequence[Entry], list[Discrepancy]]:
    party = Party(role="authority", id=register.federation)
    report, entries = check_lines(lines(directory / "audit"), party, pinned)
    if report.holds:
        return trail_of(report, entries, until=now), entries, []
    reason = f"the authority's log does not verify: {report.findings[0].reason}"
    return None, entries, [Discrepancy(code="log-broken", about=str(party), party=str(party), text=reason)]


def _copies(
    paths: Sequence[Path], role: str, keys: Keys, extra: Sequence[VerifyingKey], now: datetime
) -> Iterator[Copy]:
    seen: dict[str, Path] = {}
    for path in paths:
        copy = read_copy(path, role, keys, extra, now)
        if copy.party.id in seen:
            reason = f"{seen[copy.party.id]} is a log of {copy.party} too"
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=reason)
        seen[copy.party.id] = path
        yield copy


def _broken(copy: Copy) -> Iterator[Discrepancy]:
    for finding in copy.findings:
        at = "" if finding.seq is None else f" at entry {finding.seq}"
        text = f"the log of {copy.party} does not verify{at}: {finding.reason}"
        yield Discrepancy(code="log-broken", about=str(copy.path), party=copy.party.id, text=text)


def _receipts(paths: Sequence[Path], pinned: Sealers) -> tuple[list[Receipt], list[Discrepancy]]:
    held: list[Receipt] = []
    forged = []
    for path in paths:
        try:
            held += read_receipts(path, pinned)
        except (AccessRefused, IntegrityFailed) as error:
            text = f"{path.name} does not verify: {error.text}"
            forged.append(Discrepancy(code="receipt-broken", about=path.name, party="researcher", text=text))
    return held, forged


def _facts(copies: Sequence[Copy], receipts: int, found: Sequence[Discrepancy], done: Reconciled) -> dict[str, object]:
    return {
        "agree": not found,
        "discrepancies": [asdict(each) for each in found],
        "logs": [_log(copy) for copy in copies],
        "receipts": receipts,
        "compared": done.compared,
        "not_compared": done.not_compared,
    }


def _log(copy: Copy) -> Mapping[str, object]:
    report = copy.report
    return {
        "party": str(copy.party),
        "file": str(copy.path),
        "holds": not copy.findings,
        "entries": report.entries,
        "begins_at": report.begins_at.isoformat() if report.begins_at else None,
        "ends_at": report.ends_at.isoformat() if report.ends_at else None,
    }


def _lines(found: Sequence[Discrepancy]) -> list[str]:
    return [f"{each.code} {each.about}: {each.text}" for each in found]


def _summary(copies: Sequence[Copy], receipts: int, found: Sequence[Discrepancy], done: Reconciled) -> str:
    what = f"{_many(len(copies), 'log')} and {_many(receipts, 'receipt')}, {_many(done.compared, 'comparison')}"
    later = f", {done.not_compared} left out: the other log ends before or begins after" if done.not_compared else ""
    agree = "they agree" if done.compared else "there was nothing to compare"
    return f"{what}{later}: {_many(len(found), 'discrepancy', 'discrepancies') if found else agree}"


def _many(count: int, one: str, more: str | None = None) -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"
