"""Which keys a party may have sealed its log with, by the authority's log and register; and reading others' logs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

from insitu_access import payload
from insitu_access.audit import files
from insitu_access.audit.chain import Finding, Report, check_lines
from insitu_access.audit.entry import Entry, Party, genesis, read_line
from insitu_access.audit.seal import TYP
from insitu_access.audit.trail import Trail, trail_of
from insitu_access.jose import unverified
from insitu_access.keys import VerifyingKey, read_verifying_key
from insitu_access.payload import Malformed
from insitu_access.register import Register

Keys = Mapping[tuple[str, str], Sequence[VerifyingKey]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Another party's log as it was handed in: its trail if it verifies, else what is wrong with it."""

    path: Path
    party: Party
    report: Report
    trail: Trail | None
    findings: tuple[Finding, ...]


def certified_keys(entries: Iterable[Entry], register: Register) -> Keys:
    """Every signing key that a party was certified with, by role and id."""
    found: dict[tuple[str, str], list[VerifyingKey]] = defaultdict(list)
    for node in register.nodes:
        found["node", node.id].append(node.key)
    for entry in entries:
        if entry.kind == "certified" and entry.fields["key"] is not None:
            place = str(entry.fields["role"]), str(entry.fields["id"])
            found[place].append(read_verifying_key(entry.fields["key"], "key"))
    return found


def read_copy(path: Path, role: str, keys: Keys, extra: Sequence[VerifyingKey], now: datetime) -> Copy:
    """A log that a party handed in, checked with the keys of the party it says it is of."""
    place = files.find(path)
    party = claimed_party(place)
    if party.role != role:
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=f"it is the log of {party}, not of a {role}")
    own = [*keys.get((party.role, party.id), ()), *extra]
    if not own:
        reason = f"no signing key of {party} was certified here: hand in its signing.pub with --key"
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=reason)
    report, entries = check_lines(files.lines(place), party, own)
    live = place.is_dir()
    findings = report.findings
    if not findings and not live and report.sealed_to != report.last:
        findings = (Finding(seq=report.last, reason="the copy does not end with a seal"),)
    trail = None if findings else trail_of(report, entries, until=now if live else None)
    return Copy(path=path, party=party, report=report, trail=trail, findings=findings)


def claimed_party(path: Path) -> Party:
    """Whose log it says it is, by its first entry or its first seal. Raises ConfigInvalid where it says nothing."""
    for line in files.lines(path):
        try:
            entry = read_line(line)
            party = _named(entry)
        except Malformed:
            continue
        if party is not None:
            return party
    raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason="it is no audit log")


def _named(entry: Entry) -> Party | None:
    if entry.kind == "log-begun":
        party = Party(role=str(entry.fields.get("role")), id=str(entry.fields.get("id")))
        return party if entry.previous == genesis(party) else None
    if entry.kind != "seal":
        return None
    with payload.read(unverified(str(entry.fields.get("jws")), TYP, "seal")) as fields:
        party = Party(role=fields.text("role"), id=fields.text("id"))
        for name in ("first", "last", "at"):
            fields.integer(name)
        fields.text("head")
    return party
