"""The manifest: the federation's root document, signed by the access authority and pinned by everyone else.

It lists who takes part (nodes with their keys, gateways with their addresses), what is served (datasets by digest),
under which law gateways may be, which keys may sign grants now, and which grants are revoked. It reaches nodes and
researchers through a gateway that nobody trusts, so it carries a version and an expiry. Numbered checks of
``open_manifest``:

  M1  the pinned authority key signed it, or the one that succeeded it (``succession`` K8), as a manifest (J1 to J5)
  M2  its form is exact, its names are unique, no two nodes share a key
  M3  its version is not below one seen before: a gateway cannot roll back a revocation
  M4  it was not issued in the future (``CLOCK_LEEWAY`` allowed)
  M5  it has not expired: a gateway cannot withhold a revocation for longer than that

While a node changes its key, its entry lists both, the former one until a date (K7).

Not here: where the last version and the key followed to are remembered (each party's own state, ``pin``), and two
manifests of one version, which only the authority itself could sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from insitu_privacy.errors import AccessRefused

from insitu_access import payload
from insitu_access.invariants import (
    check,
    check_countries,
    check_jurisdiction,
    check_line,
    check_moments,
    check_name,
    check_sha256,
    check_text,
    check_unique,
)
from insitu_access.jose import refusing_malformed, sign, verify
from insitu_access.keys import SigningKey, VerifyingKey, read_verifying_key
from insitu_access.payload import Fields, Malformed, as_integer, as_mapping
from insitu_access.succession import follow

CLOCK_LEEWAY = timedelta(minutes=5)
_ADDRESS = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerKey:
    """A signing key that another has taken the place of, and until when it still counts."""

    key: VerifyingKey
    until: datetime

    def __post_init__(self) -> None:
        check_moments((self.until,), "end of a former key")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """A node: who runs it, under which law, and the key that signs its releases."""

    id: str
    organisation: str
    jurisdiction: str
    key: VerifyingKey
    former: tuple[FormerKey, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.id, "node id")
        check_line(self.organisation, "organisation of a node")
        check_jurisdiction(self.jurisdiction, "jurisdiction of a node")

    @property
    def all_keys(self) -> tuple[VerifyingKey, ...]:
        """Its key, and its former ones."""
        return self.key, *(former.key for former in self.former)

    def keys_at(self, asked: datetime) -> tuple[VerifyingKey, ...]:
        """K7: the keys that may have signed the answer to a request of that time."""
        return self.key, *(former.key for former in self.former if asked < former.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEntry:
    """A gateway: where it listens and who operates it. It has no signing key, for nobody believes it anything."""

    id: str
    address: str
    """host:port; an IPv6 host in brackets."""
    operator: str
    jurisdiction: str

    def __post_init__(self) -> None:
        check_name(self.id, "gateway id")
        split_address(self.address)
        check_line(self.operator, "operator of a gateway")
        check_jurisdiction(self.jurisdiction, "jurisdiction of a gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """A dataset that is served: its contract by digest (``DatasetBundle.digest``)."""

    name: str
    version: int
    digest: str

    def __post_init__(self) -> None:
        check_name(self.name, "dataset name")
        check(self.version >= 1, "dataset version must be at least 1")
        check_sha256(self.digest, "dataset digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The root document. A value of this class is well formed; that it is signed and current is ``open_manifest``."""

    federation: str
    version: int
    issued_at: datetime
    expires_at: datetime
    authority_keys: tuple[VerifyingKey, ...]
    """The keys that may sign grants now."""
    ca_pem: str
    """The federation's certificate authority for TLS."""
    nodes: tuple[NodeEntry, ...]
    gateways: tuple[GatewayEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    revoked_grants: frozenset[str]
    """Grant ids."""
    revoked_certificates: frozenset[str] = frozenset()
    """Serial numbers in hex: TLS certificates whose key was lost or replaced (K10)."""
    revoked_keys: frozenset[str] = frozenset()
    """Thumbprints: signing keys that were lost or stolen. A grant that names one is good without it (K10)."""
    suspended_grants: frozenset[str] = frozenset()
    grant_revisions: Mapping[str, int] = field(default_factory=dict)
    """By grant id, the revision that counts; grants that were never amended are not in it."""
    jurisdictions: frozenset[str] = frozenset()
    """Countries, or EU, whose law a gateway may be under (``jurisdiction``); none named: any."""

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        check(1 <= self.version < 2**53, "version must be at least 1")
        check_moments((self.issued_at, self.expires_at), "validity of the manifest")
        check_unique([key.thumbprint for key in self.authority_keys], "authority keys")
        check(bool(self.authority_keys), "authority keys must not be empty")
        check_text(self.ca_pem, "ca_pem", 2**16)
        check_unique([node.id.casefold() for node in self.nodes], "node ids")
        # one key for two nodes would let one of them sign the other's releases
        check_unique([key.thumbprint for node in self.nodes for key in node.all_keys], "node keys")
        check_unique([gateway.id.casefold() for gateway in self.gateways], "gateway ids")
        check_unique([dataset.name.casefold() for dataset in self.datasets], "dataset names")
        for grant in self.revoked_grants:
            check_name(grant, "revoked grant")
        for serial in self.revoked_certificates:
            check_name(serial, "revoked certificate")
        for thumbprint in self.revoked_keys:
            check_text(thumbprint, "revoked key", 64)
        check_countries(self.jurisdictions, "jurisdictions")
        for grant in self.suspended_grants:
            check_name(grant, "suspended grant")
        for grant, revision in self.grant_revisions.items():
            check_name(grant, "amended grant")
            check(2 <= revision < 2**31, "the revision of an amended grant must be at least 2")

    def node(self, node_id: str) -> NodeEntry | None:
        return next((node for node in self.nodes if node.id == node_id), None)

    def gateway(self, gateway_id: str) -> GatewayEntry | None:
        return next((gateway for gateway in self.gateways if gateway.id == gateway_id), None)

    def dataset(self, name: str) -> DatasetEntry | None:
        return next((dataset for dataset in self.datasets if dataset.name == name), None)


def seal_manifest(manifest: Manifest, key: SigningKey) -> str:
    """The manifest signed by the authority."""
    with refusing_malformed("manifest"):
        return sign(payload.write(_as_json(manifest)), key, "insitu-manifest+jws")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A verified, current manifest, and how it was come to."""

    manifest: Manifest
    key: VerifyingKey
    """The authority key that signed it."""
    steps: tuple[str, ...]
    """The successions from the pinned key to that one."""


def open_root(text: str, pinned: VerifyingKey, *, now: datetime, known_version: int) -> Opened:
    """The verified, current manifest, with successions before it if there are any.

    ``known_version`` is the highest seen before, 0 for none. Raises AccessRefused: INSITU-ACCESS-SIGNATURE or
    -MALFORMED (M1, M2), -MANIFEST-OLD (M3), -MANIFEST (M4, M5).
    """
    opened = _opened(text, pinned)  # M1, M2
    manifest = opened.manifest
    if manifest.version < known_version:  # M3
        raise AccessRefused("INSITU-ACCESS-MANIFEST-OLD", version=manifest.version, known=known_version)
    if manifest.issued_at > now + CLOCK_LEEWAY:  # M4
        raise AccessRefused("INSITU-ACCESS-MANIFEST", reason="it is dated in the future")
    if now >= manifest.expires_at:  # M5
        raise AccessRefused("INSITU-ACCESS-MANIFEST", reason=f"it expired at {manifest.expires_at:%Y-%m-%d %H:%M} UTC")
    return opened


def open_manifest(text: str, pinned: VerifyingKey, *, now: datetime, known_version: int) -> Manifest:
    """``open_root``, where nobody remembers which key it came to."""
    return open_root(text, pinned, now=now, known_version=known_version).manifest


def verify_manifest(text: str, pinned: VerifyingKey) -> Manifest:
    """M1 and M2 alone, for showing a manifest and for verifying past results; says nothing of whether it is current."""
    return _opened(text, pinned).manifest


def _opened(text: str, pinned: VerifyingKey) -> Opened:
    followed = follow(text, pinned)
    manifest = read_manifest(verify(followed.token, [followed.key], "insitu-manifest+jws", "manifest"))
    return Opened(manifest=manifest, key=followed.key, steps=followed.steps)


def read_manifest(data: bytes) -> Manifest:
    """M2: the manifest that payload bytes say, unverified. Raises INSITU-ACCESS-MALFORMED."""
    with refusing_malformed("manifest"), payload.read(data) as fields:
        return Manifest(
            federation=fields.text("federation"),
            version=fields.integer("version"),
            issued_at=fields.moment("issued_at"),
            expires_at=fields.moment("expires_at"),
            authority_keys=fields.items("authority_keys", read_verifying_key),
            ca_pem=fields.text("ca_pem"),
            nodes=fields.items("nodes", read_node),
            gateways=fields.items("gateways", read_gateway),
            datasets=fields.items("datasets", read_dataset),
            revoked_grants=frozenset(fields.texts("revoked_grants")),
            revoked_certificates=frozenset(fields.texts("revoked_certificates")),
            revoked_keys=frozenset(fields.texts("revoked_keys")),
            suspended_grants=frozenset(fields.texts("suspended_grants")),
            grant_revisions=fields.item("grant_revisions", lambda value, path: as_mapping(value, path, as_integer)),
            jurisdictions=frozenset(fields.texts("jurisdictions")),
        )


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of "host:port". Raises Malformed."""
    found = _ADDRESS.fullmatch(address)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise Malformed("address must be host:port")
    return found[1].strip("[]"), int(found[2])


def node_as_json(node: NodeEntry) -> dict[str, object]:
    return {
        "id": node.id,
        "organisation": node.organisation,
        "jurisdiction": node.jurisdiction,
        "key": node.key.as_json(),
        "former_keys": [former_as_json(each) for each in node.former],
    }


def read_node(value: object, path: str) -> NodeEntry:
    with Fields(value, path) as fields:
        return NodeEntry(
            id=fields.text("id"),
            organisation=fields.text("organisation"),
            jurisdiction=fields.text("jurisdiction"),
            key=fields.item("key", read_verifying_key),
            former=fields.items("former_keys", read_former),
        )


def former_as_json(former: FormerKey) -> dict[str, object]:
    return {"key": former.key.as_json(), "until": payload.seconds_up(former.until)}


def read_former(value: object, path: str) -> FormerKey:
    with Fields(value, path) as fields:
        return FormerKey(key=fields.item("key", read_verifying_key), until=fields.moment("until"))


def gateway_as_json(gateway: GatewayEntry) -> dict[str, object]:
    return {
        "id": gateway.id,
        "address": gateway.address,
        "operator": gateway.operator,
        "jurisdiction": gateway.jurisdiction,
    }


def read_gateway(value: object, path: str) -> GatewayEntry:
    with Fields(value, path) as fields:
        return GatewayEntry(
            id=fields.text("id"),
            address=fields.text("address"),
            operator=fields.text("operator"),
            jurisdiction=fields.text("jurisdiction"),
        )


def dataset_as_json(dataset: DatasetEntry) -> dict[str, object]:
    return {"name": dataset.name, "version": dataset.version, "digest": dataset.digest}


def read_dataset(value: object, path: str) -> DatasetEntry:
    with Fields(value, path) as fields:
        return DatasetEntry(name=fields.text("name"), version=fields.integer("version"), digest=fields.text("digest"))


def _as_json(manifest: Manifest) -> dict[str, object]:
    return {
        "federation": manifest.federation,
        "version": manifest.version,
        "issued_at": payload.seconds_down(manifest.issued_at),
        "expires_at": payload.seconds_up(manifest.expires_at),
        "authority_keys": [key.as_json() for key in manifest.authority_keys],
        "ca_pem": manifest.ca_pem,
        "nodes": [node_as_json(node) for node in manifest.nodes],
        "gateways": [gateway_as_json(gateway) for gateway in manifest.gateways],
        "datasets": [dataset_as_json(dataset) for dataset in manifest.datasets],
        "revoked_grants": sorted(manifest.revoked_grants),
        "revoked_certificates": sorted(manifest.revoked_certificates),
        "revoked_keys": sorted(manifest.revoked_keys),
        "suspended_grants": sorted(manifest.suspended_grants),
        "grant_revisions": dict(manifest.grant_revisions),
        "jurisdictions": sorted(manifest.jurisdictions),
    }
