"""What the access authority does: sets itself up, certifies parties, publishes manifests, grants and revokes.

The directory holds ``authority.key`` (signs manifests and grants), ``authority.pub`` (which all others pin),
``ca.key`` and ``ca.pem`` (TLS), the register, the keyring and the audit log. It is meant to be offline: nothing here
opens a network connection. Each act changes keyring and register first, is recorded in the audit log, and signs after.
Not here: files for others and printing (``commands``), enrolment and the change of keys (``ceremonies``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from insitu_privacy.errors import AccessRefused, ConfigInvalid

from insitu_access import certificates
from insitu_access.audit import of_authority as audit
from insitu_access.audit.log import AuditLog, Keys
from insitu_access.bundle import read_bundle
from insitu_access.certificates import BACKDATED, CertificateAuthority, Role
from insitu_access.files import KEY_LIMIT, make_directory, read_file, read_private_file, write_file, write_private_file
from insitu_access.grant import Grant, grant_sha256, seal_grant
from insitu_access.invariants import check
from insitu_access.jurisdiction import country
from insitu_access.keyring import Certified, Invited, Keyring, load_keyring, save_keyring
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    generate_signing_key,
    load_private_pem,
    load_signing_key,
    locked_pem,
    save_signing_key,
    save_verifying_key,
)
from insitu_access.manifest import DatasetEntry, GatewayEntry, Manifest, NodeEntry, seal_manifest, split_address
from insitu_access.passphrase import Ask, asking
from insitu_access.payload import Malformed
from insitu_access.register import (
    GrantEntry,
    Register,
    ResearcherEntry,
    load_register,
    locked,
    save_register,
)
from insitu_access.sealed_key import is_sealed

CA_LIFETIME = timedelta(days=3650)
Change = Literal["key", "ca"]
"""What ``rotate`` changes."""
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
    keyring: Keyring
    passphrase: bytes | None = field(default=None, repr=False)
    """What its private keys are under, so that the next ones are too."""

    @property
    def public(self) -> VerifyingKey:
        return self.key.public()

    @property
    def ca_bundle(self) -> bytes:
        """The CA that issues, and those before it whose certificates still count (K11)."""
        own = self.ca.certificate_pem.decode()
        return "".join([own, *(each for each in self.keyring.former_cas if each != own)]).encode()


def init_authority(directory: Path, federation: str, *, now: datetime, passphrase: bytes | None = None) -> VerifyingKey:
    """Make a new authority in ``directory``. Raises ConfigInvalid where there is one already."""
    register = Register(federation=federation)
    ca = certificates.create_authority(federation, not_before=now - BACKDATED, not_after=now + CA_LIFETIME)
    key = generate_signing_key()
    make_directory(directory)
    save_signing_key(key, directory / "authority.key", passphrase)  # refuses to overwrite, so it comes first
    write_private_file(directory / "ca.key", locked_pem(ca.key_pem, passphrase))
    write_file(directory / "ca.pem", ca.certificate_pem)
    save_verifying_key(key.public(), directory / "authority.pub")
    save_register(register, directory)
    log = audit.open_log(directory, federation, lambda: (key, ()), lambda: now)
    log.seal()
    log.close()
    return key.public()


def _clock() -> datetime:
    return datetime.now(UTC)


@contextmanager
def opened(
    directory: Path, ask: Ask | None = None, *, clock: Callable[[], datetime] = _clock, finishes: Change | None = None
) -> Iterator[Authority]:
    """The authority in ``directory``, unlocked and held against other commands. What it did is sealed at the end.

    Raises ConfigInvalid where a change of its own keys was cut off, but to the command that ``finishes`` it: what was
    signed meanwhile nobody could verify.
    """
    ask = ask or asking()
    key_file = directory / "authority.key"
    with locked(directory):
        passphrase = ask(key_file) if is_sealed(read_private_file(key_file)) else None
        key, before = load_signing_key(key_file, ask), load_register(directory)
        keyring = load_keyring(directory)
        register = _reconciled(before, keyring)
        if register != before:  # a command was cut off between the two
            save_register(register, directory)
        log = audit.open_log(directory, register.federation, lambda: _sealing_keys(directory, passphrase), clock)
        try:
            audit.agree(log, register)
            authority = Authority(
                directory=directory,
                key=key,
                ca=CertificateAuthority(
                    certificate_pem=read_file(directory / "ca.pem", KEY_LIMIT),
                    key_pem=load_private_pem(directory / "ca.key", ask),
                ),
                register=register,
                log=log,
                keyring=keyring,
                passphrase=passphrase,
            )
            _refuse_cut_off(authority, finishes)
            yield authority
        finally:
            log.seal()
            log.close()


def _refuse_cut_off(authority: Authority, finishes: Change | None) -> None:
    for change, cut_off in (
        ("key", any(each.key == authority.public for each in authority.keyring.signed_before)),
        ("ca", not certificates.is_whole(authority.ca)),
    ):
        if cut_off and change != finishes:
            reason = f"a change of it was cut off; finish it with `insitu-authority rotate --{change}`"
            path = authority.directory / ("ca.key" if change == "ca" else "authority.key")
            raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason)


def _sealing_keys(directory: Path, passphrase: bytes | None) -> Keys:
    """The authority's own key, as it is now, and those that sealed its log before."""
    key = load_signing_key(directory / "authority.key", lambda _: passphrase or b"")
    return key, load_keyring(directory).signed_before


def certify(
    authority: Authority,
    party: Party,
    csr: bytes,
    *,
    now: datetime,
    lifetime: timedelta,
    also: Sequence[str] = (),
    replace_key: bool = False,
    key: VerifyingKey | None = None,
) -> bytes:
    """Register a party and return its TLS certificate. ``also`` are further names of a gateway, ``key`` its signing
    key: it vouches for the gateway's next keys and seals its audit log, and signs nothing that anybody believes. A node
    and a researcher have theirs in ``party``.

    A party that is registered keeps its signing key unless ``replace_key`` says otherwise: taking over a name is an
    act of its own. What the party had before then counts no longer.
    """
    role = ROLE_OF[type(party)]
    signing = key if isinstance(party, GatewayEntry) else party.key
    keyring = authority.keyring
    present = keyring.certificate_of(role, party.id)
    if signing is not None and signing not in (present and present.key, authority.register.key_of(role, party.id)):
        refuse_known(authority, signing)
    register = _registered(authority.register, party, replace_key=replace_key)
    certificate = certificate_for(authority, party, csr, now=now, lifetime=lifetime, also=also)
    before = present.key if present and present.key else authority.register.key_of(role, party.id)
    if signing is not None and before not in (None, signing):
        keyring = keyring.with_revoked(role, party.id)
    if signing is not None and before != signing:
        keyring = keyring.without_invitations(role, party.id)  # it has what it was invited for
    made = Certified(role=role, id=party.id, pem=certificate.decode(), key=signing, also=tuple(also))
    save_keyring(keyring.with_certificate(made), authority.directory)
    save_register(register, authority.directory)
    audit.certified(authority.log, role, party.id, signing, certificate=certificate, replaced=replace_key)
    return certificate


def refuse_known(authority: Authority, key: VerifyingKey) -> None:
    """A key that stood for something before may be in a thief's hands, and one key for two would stop the manifest."""
    register, keyring = authority.register, authority.keyring
    had: list[VerifyingKey | None] = [each.key for each in register.nodes]
    had += [each.key for each in register.researchers]
    had += [each.key for each in keyring.certified]
    had += [each.key for each in keyring.former]
    if key in had or key.thumbprint in keyring.lost_keys:
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="enrolment", reason="its key was enrolled before")


def certificate_for(
    authority: Authority, party: Party, csr: bytes, *, now: datetime, lifetime: timedelta, also: Sequence[str] = ()
) -> bytes:
    """The certificate of a party, signed and not yet entered anywhere."""
    return certificates.issue_certificate(
        authority.ca,
        ROLE_OF[type(party)],
        party.id,
        csr,
        addresses=addresses_of(party, also),
        country=country_of_party(party),
        not_before=now - BACKDATED,
        not_after=now + lifetime,
    )


def addresses_of(party: Party, also: Sequence[str]) -> tuple[str, ...]:
    """The names that a certificate carries: of a gateway alone."""
    return (split_address(party.address)[0], *also) if isinstance(party, GatewayEntry) else tuple(also)


def country_of_party(party: Party) -> str | None:
    """The country whose law a party is under; of a researcher none is told."""
    return None if isinstance(party, ResearcherEntry) else country(party.jurisdiction)


def publish_manifest(
    authority: Authority,
    datasets: Sequence[Path] | None,
    *,
    now: datetime,
    lifetime: timedelta,
    jurisdictions: Collection[str] | None = None,
) -> tuple[str, Manifest]:
    """The next manifest, of the register as it stands and of ``datasets`` as they are on disk; None: as the last one.

    ``jurisdictions`` are those a gateway may be in; None: as the last one said. Its text begins with the successions of
    the authority's key.
    """
    register, keyring = authority.register, authority.keyring
    register = replace(
        register,
        manifest_version=register.manifest_version + 1,
        datasets=register.datasets if datasets is None else tuple(_dataset_entry(path) for path in datasets),
        jurisdictions=register.jurisdictions if jurisdictions is None else frozenset(jurisdictions),
    )
    manifest = Manifest(
        federation=register.federation,
        version=register.manifest_version,
        issued_at=now,
        expires_at=now + lifetime,
        authority_keys=(authority.public, *keyring.former_authority_keys),
        ca_pem=authority.ca_bundle.decode(),
        nodes=tuple(replace(node, former=keyring.former_keys("node", node.id, now)) for node in register.nodes),
        gateways=register.gateways,
        datasets=register.datasets,
        revoked_grants=frozenset(grant.id for grant in register.grants if grant.revoked),
        revoked_certificates=keyring.revoked_at(now),
        revoked_keys=frozenset(keyring.lost_keys),
        suspended_grants=frozenset(grant.id for grant in register.grants if grant.suspended and not grant.revoked),
        grant_revisions={grant.id: grant.revision for grant in register.grants if grant.revision > 1},
        jurisdictions=register.jurisdictions,
    )
    save_register(register, authority.directory)
    token = "\n".join([*keyring.successions, seal_manifest(manifest, authority.key)])
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


def party_of(invited: Invited, key: VerifyingKey) -> Party:
    """What the register will hold of an invited party. Raises Malformed."""
    if invited.role == "gateway":
        return GatewayEntry(
            id=invited.id,
            address=invited.address or "",
            operator=invited.operator or "",
            jurisdiction=invited.jurisdiction or "",
        )
    if invited.role == "researcher":
        return ResearcherEntry(id=invited.id, key=key)
    return NodeEntry(
        id=invited.id, organisation=invited.organisation or "", jurisdiction=invited.jurisdiction or "", key=key
    )


def known_party(register: Register, role: Role, party_id: str) -> Party | None:
    parties: tuple[Party, ...] = (*register.nodes, *register.gateways, *register.researchers)
    kinds = {"node": NodeEntry, "gateway": GatewayEntry, "researcher": ResearcherEntry}
    return next((each for each in parties if isinstance(each, kinds[role]) and each.id == party_id), None)


def with_party(register: Register, party: Party) -> Register:
    if isinstance(party, GatewayEntry):
        return register.with_gateway(party)
    return register.with_node(party) if isinstance(party, NodeEntry) else register.with_researcher(party)


def _reconciled(register: Register, keyring: Keyring) -> Register:
    """The register with the keys that the keyring, which is written first, has certified since."""
    for each in keyring.certified:
        if each.role == "gateway" or each.key is None or register.key_of(each.role, each.id) == each.key:
            continue
        party = known_party(register, each.role, each.id)
        used = [i for i in keyring.invited if i.used and (i.role, i.id) == (each.role, each.id)]
        if party is not None and not isinstance(party, GatewayEntry):
            register = with_party(register, replace(party, key=each.key))
        elif used:
            register = with_party(register, party_of(used[-1], each.key))
    return register


def _dataset_entry(path: Path) -> DatasetEntry:
    from insitu_privacy.dataset_file import parse_dataset  # pydantic: only a manifest needs it

    dataset = parse_dataset(read_bundle(path))
    return DatasetEntry(name=dataset.name, version=dataset.version, digest=dataset.digest)
