"""The manifest's numbered checks M1 to M5."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import (
    CLOCK_LEEWAY,
    DatasetEntry,
    GatewayEntry,
    Manifest,
    open_manifest,
    seal_manifest,
    split_address,
    verify_manifest,
)
from insitu_access.payload import Malformed
from insitu_privacy.errors import AccessRefused

from tests.unit.access.strategies import manifests, quick
from tests.unit.access.world import AUTHORITY, DIGEST, NOW, STRANGER, manifest, node, payload_of, signed, without

PINNED = AUTHORITY.public()
TOKEN = seal_manifest(manifest(), AUTHORITY)


def refused(token: str, *, now=NOW, known=0, pinned=PINNED) -> str:
    with pytest.raises(AccessRefused) as caught:
        open_manifest(token, pinned, now=now, known_version=known)
    return caught.value.code


@quick
@given(manifests())
def test_a_sealed_manifest_opens_as_itself(made: Manifest) -> None:
    token = seal_manifest(made, AUTHORITY)
    assert open_manifest(token, PINNED, now=made.issued_at, known_version=made.version) == made
    assert verify_manifest(token, PINNED) == made


@pytest.mark.attacks("M1")
def test_m1_only_the_pinned_key_counts() -> None:
    assert refused(seal_manifest(manifest(), STRANGER)) == "INSITU-ACCESS-SIGNATURE"
    # a key that the manifest itself lists may sign grants, not manifests
    listed = manifest(authority_keys=(STRANGER.public(), PINNED))
    assert refused(seal_manifest(listed, STRANGER)) == "INSITU-ACCESS-SIGNATURE"
    assert refused(signed(payload_of(TOKEN), AUTHORITY, "insitu-grant+jwt")) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("M2")
@pytest.mark.parametrize("name", sorted(payload_of(TOKEN)))
def test_m2_every_field_is_needed_and_typed(name: str) -> None:
    value = payload_of(TOKEN)
    empty = [] if name == "grant_revisions" else [value | {name: {}}]
    for wrong in (without(value, name), value | {name: None}, value | {name: True}, *empty):
        assert refused(signed(wrong, AUTHORITY, "insitu-manifest+jws")) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("M2")
def test_m2_no_field_is_unknown_or_repeated() -> None:
    value = payload_of(TOKEN)
    assert refused(signed(value | {"extra": 1}, AUTHORITY, "insitu-manifest+jws")) == "INSITU-ACCESS-MALFORMED"
    value["nodes"][0]["extra"] = 1
    assert refused(signed(value, AUTHORITY, "insitu-manifest+jws")) == "INSITU-ACCESS-MALFORMED"
    twice = b'{"version":8,' + json.dumps(payload_of(TOKEN)).encode()[1:]
    assert refused(signed(twice, AUTHORITY, "insitu-manifest+jws")) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0}, {"version": -1}, {"federation": ""}, {"federation": "a b"}, {"authority_keys": ()},
        {"authority_keys": (PINNED, PINNED)}, {"expires_at": NOW - timedelta(days=1)},
        {"issued_at": NOW.replace(tzinfo=None)}, {"revoked_grants": frozenset({"../x"})},
        {"nodes": (node("a"), node("b"))}, {"nodes": (node("a"), node("A", STRANGER))},
        {"datasets": (DatasetEntry(name="care", version=1, digest=DIGEST),) * 2},
        {"gateways": (GatewayEntry(id="g", address="a:1", operator="o", jurisdiction="FR"),) * 2},
    ],
)  # fmt: skip
def test_m2_a_manifest_that_contradicts_itself_cannot_be_made(changes: dict) -> None:
    with pytest.raises(Malformed):
        manifest(**changes)


@pytest.mark.attacks("M2")
def test_m2_a_manifest_that_contradicts_itself_is_refused_even_signed() -> None:
    def signed_with(**changes: object) -> str:
        return signed(payload_of(TOKEN) | changes, AUTHORITY, "insitu-manifest+jws")

    value = payload_of(TOKEN)
    (entry,), (dataset,) = value["nodes"], value["datasets"]
    shared = [entry, entry | {"id": "other"}]  # two nodes of one key: either could answer for the other
    for changes in ({"nodes": [entry, entry]}, {"nodes": shared}, {"datasets": [dataset, dataset]}):
        assert refused(signed_with(**changes)) == "INSITU-ACCESS-MALFORMED"
    assert open_manifest(signed_with(), PINNED, now=NOW, known_version=0)


@pytest.mark.attacks("M3")
def test_m3_an_older_version_is_never_accepted() -> None:
    assert open_manifest(TOKEN, PINNED, now=NOW, known_version=7).version == 7
    assert refused(TOKEN, known=8) == "INSITU-ACCESS-MANIFEST-OLD"
    # also where it has expired: going back is the graver fault
    assert refused(TOKEN, known=8, now=NOW + timedelta(days=99)) == "INSITU-ACCESS-MANIFEST-OLD"


@pytest.mark.attacks("M4")
def test_m4_a_manifest_from_the_future_is_refused() -> None:
    issued = manifest().issued_at
    assert open_manifest(TOKEN, PINNED, now=issued - CLOCK_LEEWAY, known_version=0)
    assert refused(TOKEN, now=issued - CLOCK_LEEWAY - timedelta(seconds=1)) == "INSITU-ACCESS-MANIFEST"


@pytest.mark.attacks("M5")
def test_m5_an_expired_manifest_is_refused() -> None:
    expiry = manifest().expires_at
    assert open_manifest(TOKEN, PINNED, now=expiry - timedelta(seconds=1), known_version=0)
    assert refused(TOKEN, now=expiry) == "INSITU-ACCESS-MANIFEST"


def test_entries_are_found_by_their_exact_name() -> None:
    made = manifest(nodes=(node("a"), node("b", generate_signing_key())))
    assert made.node("a") is made.nodes[0]
    assert made.node("A") is None
    assert made.dataset("care") is made.datasets[0]
    assert made.dataset("other") is None
    assert made.gateway("gw") is made.gateways[0]


@pytest.mark.parametrize(
    ("address", "parts"),
    [("localhost:1", ("localhost", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65535)), ("[::1]:7443", ("::1", 7443))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:0", "host:65536", "::1:7", "a b:1", "h:1\n", "h:-1", "https://h:1"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(Malformed):
        split_address(address)
