"""What the access authority does: sets itself up, certifies parties, publishes manifests, grants and revokes.

The directory holds ``authority.key`` (signs manifests and grants), ``authority.pub`` (which all others pin),
``ca.key`` and ``ca.pem`` (TLS) and the register. It is meant to be offline: nothing here opens a network connection.
Each act changes the register first, is recorded in the audit log, and signs after. Not here: files for others and
printing (``commands``), rotation of the authority key, which is done out of band by pinning a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from insitu_access import certificates
from insitu_access.audit import of_authority as audit
from insitu_access.audit.log import AuditLog
from insitu_access.bundle import read_bundle
from insitu_access.certificates import BACKDATED, CertificateAuthority, Role
from insitu_access.files import KEY_LIMIT, make_directory, read_file, read_private_file, write_file, write_private_file
from insitu_access.grant import Grant, grant_sha256, seal_grant
from insitu_access.invariants import check
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    generate_signing_key,
    load_signing_key,
    save_signing_key,
    save_verifying_key,
)
from insitu_access.manifest import DatasetEntry, GatewayEntry, Manifest, NodeEntry, seal_manifest, split_address
from insitu_access.payload import Malformed
from insitu_access.register import (
    GrantEntry,
    Register,
    ResearcherEntry,
    load_register,
    locked,
    save_register,
)

CA_LIFETIME = timedelta(days=3650)
Party = NodeEntry | GatewayEntry | ResearcherEntry
ROLE_OF: Mapping[type, Role] = MappingProxyType(
    {NodeEntry: "node", GatewayEntry: "gateway", ResearcherEntry: "researcher"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The authority's keys and register, while its directory is held."""

    directory: Path
    key: SigningKey
    ca: CertificateAuthority
    register: Register
    log: AuditLog

    @property
    def public(self) -> VerifyingKey:
        return self.key.public()


def init_authority(directory: Path, federation: str, *, now: datetime) -> VerifyingKey:
    """Make a new authority in ``directory``. Raises ConfigInvalid where there is one already."""
    register = Register(federation=federation)
    ca = certificates.create_authority(federation, not_before=now - BACKDATED, not_after=now + CA_LIFETIME)
    key = generate_signing_key()
    make_directory(directory)
    save_signing_key(key, directory / "authority.key")  # refuses to overwrite, so it comes first
    write_private_file(directory / "ca.key", ca.key_pem)
    write_file(directory / "ca.pem", ca.certificate_pem)
    save_verifying_key(key.public(), directory / "authority.pub")
    save_register(register, directory)
    log = audit.open_log(directory, federation, key, lambda: now)
    log.seal()
    log.close()
    return key.public()


def _clock() -> datetime:
    return datetime.now(UTC)


@contextmanager
def opened(directory: Path, *, clock: Callable[[], datetime] = _clock) -> Iterator[Authority]:
    """The authority in ``directory``, held against other commands. What it did is sealed in the log at the end."""
    with locked(directory):
        key, register = load_signing_key(directory / "authority.key"), load_register(directory)
        log = audit.open_log(directory, register.federation, key, clock)
        try:
            audit.agree(log, register)
            yield Authority(
                directory=directory,
                key=key,
                ca=CertificateAuthority(
                    certificate_pem=read_file(directory / "ca.pem", KEY_LIMIT),
                    key_pem=read_private_file(directory / "ca.key"),
                ),
                register=register,
                log=log,
            )
        finally:
            log.seal()
            log.close()


def certify(
    authority: Authority,
    party: Party,
    csr: bytes,
    *,
    now: datetime,
    lifetime: timedelta,
    also: Sequence[str] = (),
    replace_key: bool = False,
    gateway_key: VerifyingKey | None = None,
) -> bytes:
    """Register a party and return its TLS certificate. ``also`` are further names of a gateway.

    ``gateway_key`` seals a gateway's audit log; it is recorded, and signs nothing that anybody believes.

    A party that is registered keeps its signing key unless ``replace_key`` says otherwise: taking over a name is an
    act of its own.
    """
    register = _registered(authority.register, party, replace_key=replace_key)
    addresses = (split_address(party.address)[0], *also) if isinstance(party, GatewayEntry) else tuple(also)
    certificate = certificates.issue_certificate(
        authority.ca,
        ROLE_OF[type(party)],
        party.id,
        csr,
        addresses=addresses,
        not_before=now - BACKDATED,
        not_after=now + lifetime,
    )
    save_register(register, authority.directory)
    key = gateway_key if isinstance(party, GatewayEntry) else party.key
    audit.certified(authority.log, ROLE_OF[type(party)], party.id, key, certificate=certificate, replaced=replace_key)
    return certificate


def publish_manifest(
    authority: Authority, datasets: Sequence[Path], *, now: datetime, lifetime: timedelta
) -> tuple[str, Manifest]:
    """The next manifest, of the register as it stands and of ``datasets`` as they are on disk."""
    register = replace(
        authority.register,
        manifest_version=authority.register.manifest_version + 1,
        datasets=tuple(_dataset_entry(path) for path in datasets),
    )
    manifest = Manifest(
        federation=register.federation,
        version=register.manifest_version,
        issued_at=now,
        expires_at=now + lifetime,
        authority_keys=(authority.public,),
        ca_pem=authority.ca.certificate_pem.decode(),
        nodes=register.nodes,
        gateways=register.gateways,
        datasets=register.datasets,
        revoked_grants=frozenset(grant.id for grant in register.grants if grant.revoked),
        suspended_grants=frozenset(grant.id for grant in register.grants if grant.suspended and not grant.revoked),
        grant_revisions={grant.id: grant.revision for grant in register.grants if grant.revision > 1},
    )
    save_register(register, authority.directory)
    token = seal_manifest(manifest, authority.key)
    audit.published(authority.log, manifest, token)
    return token, manifest


def issue_grant(authority: Authority, grant: Grant) -> str:
    """The signed grant, entered in the register."""
    _check_grantable(authority.register, grant)
    token = seal_grant(grant, authority.key)
    register = authority.register
    save_register(replace(register, grants=(*register.grants, _entry(grant, token))), authority.directory)
    audit.issued(authority.log, grant, token)
    return token


def amend_grant(authority: Authority, grant: Grant) -> str:
    """The next revision of a grant, signed and entered. It counts once the next manifest has arrived.

    Raises Malformed where the grant was never issued, is revoked, or would be counted in another way.
    """
    known = authority.register.grant(grant.id)
    check(not known.revoked, "a revoked grant cannot be amended; issue a new one")
    check(grant.revision == known.revision + 1, "only the newest revision of a grant can be amended")
    check(grant.accounting == known.accounting, "the accounting of a grant cannot be amended; issue a new one")
    _check_grantable(authority.register, grant)
    token = seal_grant(grant, authority.key)
    entry = replace(_entry(grant, token), suspended=known.suspended)
    save_register(authority.register.with_grant(entry), authority.directory)
    audit.issued(authority.log, grant, token)
    return token


def revoke_grant(authority: Authority, grant_id: str) -> None:
    """Enter a revocation. Nodes learn of it by the next manifest. Raises Malformed where it was never issued."""
    _change(authority, grant_id, revoked=True)
    audit.revoked(authority.log, grant_id)


def suspend_grant(authority: Authority, grant_id: str, *, suspended: bool) -> None:
    """Enter a suspension, or its end. Raises Malformed where it was never issued, or is revoked."""
    check(not authority.register.grant(grant_id).revoked, "the grant is revoked for good; issue a new one")
    _change(authority, grant_id, suspended=suspended)
    audit.suspended(authority.log, grant_id, suspended=suspended)


def _change(authority: Authority, grant_id: str, **changes: bool) -> None:
    register = authority.register
    entry = replace(register.grant(grant_id), **changes)  # type: ignore[arg-type]  # flags
    save_register(register.with_grant(entry), authority.directory)


def _entry(grant: Grant, token: str) -> GrantEntry:
    return GrantEntry(
        id=grant.id,
        project=grant.project,
        sha256=grant_sha256(token),
        expires_at=grant.expires_at,
        revision=grant.revision,
        accounting=grant.accounting,
    )


def _check_grantable(register: Register, grant: Grant) -> None:
    known = {node.id for node in register.nodes}
    check(grant.federation == register.federation, "a grant must name the authority's own federation")
    check(set(grant.nodes) <= known, f"nodes must be registered: {', '.join(sorted(known)) or 'none is'}")
    served = {dataset.name for dataset in register.datasets}
    named = {dataset.name for dataset in grant.datasets}
    # before the first manifest nothing is served: then there is nothing to compare with
    check(not served or named <= served, f"datasets must be of the last manifest: {', '.join(sorted(served))}")


def _registered(register: Register, party: Party, *, replace_key: bool) -> Register:
    if isinstance(party, GatewayEntry):
        return register.with_gateway(party)
    known = register.key_of(ROLE_OF[type(party)], party.id)
    if known is not None and known != party.key and not replace_key:
        raise Malformed("this id is registered with another signing key; say --replace to put the new one in its place")
    return register.with_node(party) if isinstance(party, NodeEntry) else register.with_researcher(party)


def _dataset_entry(path: Path) -> DatasetEntry:
    from insitu_privacy.dataset_file import parse_dataset  # pydantic: only a manifest needs it

    dataset = parse_dataset(read_bundle(path))
    return DatasetEntry(name=dataset.name, version=dataset.version, digest=dataset.digest)
