"""A small federation of values and keys for tests; every builder gives a valid object, each field may be replaced."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from insitu_access.grant import Grant, GrantedDataset, grant_sha256, seal_grant
from insitu_access.jose import Typ, sign
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_access.manifest import DatasetEntry, GatewayEntry, Manifest, NodeEntry
from insitu_access.release import NodeRelease
from insitu_access.request import QueryRequest
from insitu_privacy.plan import QueryParameters, ReleasedValues

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
AUTHORITY, NODE, RESEARCHER, STRANGER = (generate_signing_key() for _ in range(4))
DIGEST = "ab" * 32


def manifest(**changes) -> Manifest:
    fields = {
        "federation": "demo",
        "version": 7,
        "issued_at": NOW - DAY,
        "expires_at": NOW + 30 * DAY,
        "authority_keys": (AUTHORITY.public(),),
        "ca_pem": "-----BEGIN CERTIFICATE-----\n",
        "nodes": (node("chu-lille"),),
        "gateways": (GatewayEntry(id="gw", address="gw.example.org:7443", operator="Hub", jurisdiction="FR"),),
        "datasets": (DatasetEntry(name="care", version=1, digest=DIGEST),),
        "revoked_grants": frozenset(),
    }
    return Manifest(**(fields | changes))


def node(node_id: str, key: SigningKey = NODE) -> NodeEntry:
    return NodeEntry(id=node_id, organisation="CHU de Lille", jurisdiction="FR", key=key.public())


def grant(**changes) -> Grant:
    fields = {
        "id": "grant-1",
        "federation": "demo",
        "project": "stays",
        "purpose": "Length of stay",
        "reference": "CEREES-2026-17",
        "researchers": (RESEARCHER.public(),),
        "datasets": (GrantedDataset(name="care", tables={"person": None, "visit": frozenset({"day", "icd10"})}),),
        "nodes": ("chu-lille", "chu-rennes"),
        "not_before": NOW - DAY,
        "expires_at": NOW + 90 * DAY,
        "epsilon": Fraction(5),
        "delta": Fraction(1, 10**6),
        "accounting": "zcdp",
    }
    return Grant(**(fields | changes))


def request(**changes) -> QueryRequest:
    fields = {
        "request_id": "0f" * 16,
        "grant_id": "grant-1",
        "grant_sha256": grant_sha256(seal_grant(grant(), AUTHORITY)),
        "dataset": "care",
        "dataset_digest": DIGEST,
        "sql": "SELECT COUNT(*) FROM person",
        "dialect": "duckdb",
        "parameters": QueryParameters(epsilon=Fraction(1, 2), delta=Fraction(0)),
        "plan_digest": "cd" * 32,
        "nodes": ("chu-lille", "chu-rennes"),
        "min_nodes": 1,
        "issued_at": NOW,
        "deadline": NOW + timedelta(seconds=60),
    }
    return QueryRequest(**(fields | changes))


def release(**changes) -> NodeRelease:
    fields = {
        "node": "chu-lille",
        "request_id": "0f" * 16,
        "request_sha256": "12" * 32,
        "grant_id": "grant-1",
        "dataset": "care",
        "dataset_digest": DIGEST,
        "plan_digest": "cd" * 32,
        "values": (ReleasedValues(keys=(("F",), ("M",)), statistics=((10, -1), (2**62, 0))),),
        "spent_epsilon": Fraction(1, 2),
        "spent_delta": Fraction(0),
        "replayed": False,
        "issued_at": NOW,
    }
    return NodeRelease(**(fields | changes))


def segment(value: object) -> str:
    """A part of a JWS: base64url of bytes, or of a JSON value."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def payload_of(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def signed(value: object, key: SigningKey, typ: Typ) -> str:
    """A validly signed token of any JSON, for payloads that insitu itself would never sign."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return sign(data, key, typ)


def without(value: dict, name: str) -> dict:
    return {key: item for key, item in value.items() if key != name}
