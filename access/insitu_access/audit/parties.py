"""Which keys a party may have sealed its log with, by the authority's log and register; and reading others' logs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

from insitu_access import payload
from insitu_access.audit import files
from insitu_access.audit.chain import Finding, Report, check_lines
from insitu_access.audit.entry import Entry, Party, genesis, read_line
from insitu_access.audit.seal import TYP, Sealers
from insitu_access.audit.trail import Trail, trail_of
from insitu_access.jose import unverified
from insitu_access.keyring import Keyring
from insitu_access.keys import VerifyingKey, read_verifying_key
from insitu_access.manifest import FormerKey
from insitu_access.payload import Malformed
from insitu_access.register import Register

Keys = Mapping[tuple[str, str], Sealers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Another party's log as it was handed in: its trail if it verifies, else what is wrong with it."""

    path: Path
    party: Party
    report: Report
    trail: Trail | None
    findings: tuple[Finding, ...]


def certified_keys(entries: Iterable[Entry], register: Register, keyring: Keyring) -> Keys:
    """Every signing key that a party was certified with, by role and id, and until when those before the last count.

    What the log lacks after a crash is in register or keyring: such a key is the present one.
    """
    present: dict[tuple[str, str], VerifyingKey] = {}
    former: dict[tuple[str, str], list[FormerKey]] = defaultdict(list)
    for entry in entries:
        if entry.kind == "certified" and entry.fields["key"] is not None:
            place, key = (str(entry.fields["role"]), str(entry.fields["id"])), _key(entry)
            before = present.get(place, key)
            if before != key:
                former[place].append(FormerKey(key=before, until=_former_until(entry)))
            present[place] = key
    known: dict[tuple[str, str], list[VerifyingKey]] = defaultdict(list)
    for place, key in [*present.items(), *_held_now(register, keyring)]:
        known[place].append(key)
    return {place: (*keys, *former[place]) for place, keys in known.items()}


def _held_now(register: Register, keyring: Keyring) -> Iterable[tuple[tuple[str, str], VerifyingKey]]:
    yield from ((("node", node.id), node.key) for node in register.nodes)
    yield from (((each.role, each.id), each.key) for each in keyring.certified if each.key is not None)


def _key(entry: Entry) -> VerifyingKey:
    return read_verifying_key(entry.fields["key"], "key")


def _former_until(entry: Entry) -> datetime:
    until = entry.fields["former_until"]
    return entry.at if until is None else datetime.fromtimestamp(int(str(until)), tz=UTC)


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
