"""What the access authority writes into its audit log: each certificate, manifest, grant and revocation.

Recorded after the register has the act and before what it allows is signed over: nothing leaves that the log does not
have. What a crash in between left out is written when the authority is opened again, as ``derived``. The log also says
which signing key every party was certified with, a gateway's too: that is how others' logs are attributed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from insitu_access.audit.entry import Entry, Party, read_line
from insitu_access.audit.files import lines
from insitu_access.audit.log import AuditLog, Keys, Note
from insitu_access.grant import Grant, grant_sha256
from insitu_access.jose import token_sha256
from insitu_access.keys import VerifyingKey
from insitu_access.manifest import Manifest
from insitu_access.payload import seconds_up
from insitu_access.register import GrantEntry, Register


def open_log(directory: Path, federation: str, keys: Callable[[], Keys], clock: Callable[[], datetime]) -> AuditLog:
    """The log beside the register. Raises IntegrityFailed where it does not verify: then nothing is signed."""
    return AuditLog.kept(directory / "audit", Party(role="authority", id=federation), keys, clock=clock)


def agree(log: AuditLog, register: Register) -> None:
    """Writes what a crash between the register and the log left out."""
    missing = lacking(register, (read_line(line) for line in lines(log.directory)))
    if missing:
        log.record(*missing)


def lacking(register: Register, entries: Iterable[Entry]) -> list[Note]:
    """The entries that the log lacks of what the register holds. What retention dropped is not asked for again."""
    issued, revoked, version, dropped = set[object](), set[object](), 0, False
    suspended: dict[object, object] = {}
    for entry in entries:
        dropped = dropped or entry.kind == "log-dropped"
        if entry.kind == "grant-issued":
            issued.add(entry.fields["sha256"])
        elif entry.kind == "grant-revoked":
            revoked.add(entry.fields["grant_id"])
        elif entry.kind == "grant-suspended":
            suspended[entry.fields["grant_id"]] = entry.fields["suspended"]
        elif entry.kind == "manifest-published":
            version = int(str(entry.fields["version"]))
    if dropped:
        return []
    notes = [_derived(grant) for grant in register.grants if grant.sha256 not in issued]
    notes += [
        _revoked(grant.id, derived=True) for grant in register.grants if grant.revoked and grant.id not in revoked
    ]
    notes += [
        _suspended(grant.id, suspended=grant.suspended, derived=True)
        for grant in register.grants
        if grant.suspended != suspended.get(grant.id, False)
    ]
    if register.manifest_version > version:
        notes.append(_manifest_of(register))
    return notes


def certified(
    log: AuditLog,
    role: str,
    party: str,
    key: VerifyingKey | None,
    *,
    certificate: bytes,
    replaced: bool,
    former_until: datetime | None = None,
) -> None:
    """A certificate was made. ``replaced``: for another signing key, and the former one counts until a date, or from
    now on no longer."""
    fields = {
        "role": role,
        "id": party,
        "key": None if key is None else key.as_json(),
        "certificate_sha256": hashlib.sha256(certificate).hexdigest(),
        "replaced": replaced,
        "former_until": None if former_until is None else seconds_up(former_until),
    }
    log.record(Note(kind="certified", fields=fields))


def published(log: AuditLog, manifest: Manifest, token: str) -> None:
    fields = {
        "version": manifest.version,
        "sha256": token_sha256(token),
        "revoked": sorted(manifest.revoked_grants),
        "suspended": sorted(manifest.suspended_grants),
        "derived": False,
    }
    log.record(Note(kind="manifest-published", fields=fields))


def issued(log: AuditLog, grant: Grant, token: str) -> None:
    fields = {
        "grant_id": grant.id,
        "revision": grant.revision,
        "sha256": grant_sha256(token),
        "project": grant.project,
        "purpose": grant.purpose,
        "reference": grant.reference,
        "researchers": [key.thumbprint for key in grant.researchers],
        "nodes": list(grant.nodes),
        "datasets": [dataset.name for dataset in grant.datasets],
        "epsilon": str(grant.epsilon),
        "delta": str(grant.delta),
        "expires": seconds_up(grant.expires_at),
        "derived": False,
    }
    log.record(Note(kind="grant-issued", fields=fields))


def revoked(log: AuditLog, grant_id: str) -> None:
    log.record(_revoked(grant_id, derived=False))


def suspended(log: AuditLog, grant_id: str, *, suspended: bool) -> None:
    """A grant was suspended, or may be used again."""
    log.record(_suspended(grant_id, suspended=suspended, derived=False))


def _derived(grant: GrantEntry) -> Note:
    fields: dict[str, object] = {
        "grant_id": grant.id,
        "revision": grant.revision,
        "sha256": grant.sha256,
        "project": grant.project,
        "purpose": None,
        "reference": None,
        "researchers": [],
        "nodes": [],
        "datasets": [],
        "epsilon": None,
        "delta": None,
        "expires": seconds_up(grant.expires_at),
        "derived": True,
    }
    return Note(kind="grant-issued", fields=fields)


def _revoked(grant_id: str, *, derived: bool) -> Note:
    return Note(kind="grant-revoked", fields={"grant_id": grant_id, "derived": derived})


def _suspended(grant_id: str, *, suspended: bool, derived: bool) -> Note:
    return Note(kind="grant-suspended", fields={"grant_id": grant_id, "suspended": suspended, "derived": derived})


def _manifest_of(register: Register) -> Note:
    fields = {
        "version": register.manifest_version,
        "sha256": None,
        "revoked": sorted(grant.id for grant in register.grants if grant.revoked),
        "suspended": sorted(grant.id for grant in register.grants if grant.suspended and not grant.revoked),
        "derived": True,
    }
    return Note(kind="manifest-published", fields=fields)
