"""Where a gateway may be (W1, W2): certificate, manifest entry and what is accepted; and how the authority says so."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from insitu_access import authority as acts
from insitu_access import ceremonies
from insitu_access.certificates import (
    country_of,
    create_authority,
    create_csr,
    create_tls_key,
    issue_certificate,
)
from insitu_access.jurisdiction import EU, accepted_gateways, accepts, check_gateway
from insitu_access.manifest import GatewayEntry
from insitu_access.payload import Malformed
from insitu_privacy.errors import AccessRefused

from tests.unit.access.world import DAY, NOW, manifest

CODE = "INSITU-TRUST-JURISDICTION"
VALID = {"not_before": NOW - DAY, "not_after": NOW + DAY}
CA = create_authority("demo", **VALID)
CSR = create_csr(create_tls_key())


def certificate(country: str | None, role="gateway", name: str = "gw") -> bytes:
    addresses = ["127.0.0.1"] if role == "gateway" else []
    return issue_certificate(CA, role, name, CSR, addresses=addresses, country=country, **VALID)


def listed(jurisdiction: str, *accepted: str):
    gateway = GatewayEntry(id="gw", address="gw:1", operator="Op", jurisdiction=jurisdiction)
    return manifest(gateways=(gateway,), jurisdictions=frozenset(accepted))


@pytest.mark.parametrize(
    ("accepted", "jurisdiction", "fits"),
    [
        ((), "US", True),
        ((), None, True),
        (("FR",), "FR", True),
        (("FR",), "FR-BRE", True),
        (("FR",), "BE", False),
        (("FR",), None, False),
        (("FR",), "EU", False),
        (("EU",), "BE", True),
        (("EU",), "EU", True),
        (("EU",), "GB", False),
        (("EU",), "CH", False),
        (("EU", "CH"), "CH", True),
        (("ZZ",), "FR", False),
    ],
)
def test_what_lies_in_what(accepted: tuple[str, ...], jurisdiction: str | None, *, fits: bool) -> None:
    assert accepts(accepted, jurisdiction) is fits


def test_the_union_has_27_members() -> None:
    assert len(EU) == 27
    assert not EU & {"GB", "UK", "EU", "CH", "NO", "IS", "EL"}


@pytest.mark.parametrize(
    ("shown", "entry", "own"),
    [
        ("FR", listed("FR", "FR"), ()),
        ("FR", listed("FR-BRE", "EU"), ("FR",)),
        ("FR", listed("FR"), ("FR", "BE")),
        (None, listed("FR"), ()),
        ("US", listed("US"), ()),
        ("FR", manifest(gateways=()), ()),
        ("FR", None, ("FR",)),
        (None, None, ()),
    ],
)
def test_gateways_that_are_talked_to(shown, entry, own) -> None:
    check_gateway(certificate(shown), entry, own)


@pytest.mark.attacks("W1", "W2")
@pytest.mark.parametrize(
    ("shown", "entry", "own", "says"),
    [
        ("US", listed("US", "EU"), (), "its certificate is of US, and the manifest accepts EU"),
        ("US", listed("FR", "EU"), (), "its certificate is of US, and the manifest accepts EU"),
        ("FR", listed("US", "EU"), (), "the manifest has it in US, and it accepts EU"),
        ("DE", listed("DE", "EU"), ("FR", "BE"), "its certificate is of DE, and this site's policy accepts BE, FR"),
        ("FR", listed("DE", "EU"), ("FR",), "the manifest has it in DE, and this site's policy accepts FR"),
        ("FR", listed("BE", "EU"), (), "its certificate is of FR, and the manifest has it in BE"),
        ("FR", listed("BE"), (), "its certificate is of FR, and the manifest has it in BE"),
        (None, listed("FR", "FR"), (), "its certificate names no country, and the manifest accepts FR"),
        (None, None, ("FR",), "its certificate names no country, and this site's policy accepts FR"),
        ("FR", manifest(gateways=(), jurisdictions=frozenset({"FR"})), (), "the manifest does not list it"),
        ("FR", manifest(gateways=()), ("FR",), "the manifest does not list it"),
    ],
)
def test_gateways_that_are_turned_away(shown, entry, own, says: str) -> None:
    with pytest.raises(AccessRefused) as caught:
        check_gateway(certificate(shown), entry, own)
    assert (caught.value.code, caught.value.text) == (CODE, f"gateway gw is not accepted here: {says}")


def test_who_is_no_gateway_is_turned_away() -> None:
    with pytest.raises(AccessRefused) as caught:
        check_gateway(certificate("FR", "node"), None)
    assert caught.value.code == "INSITU-ACCESS-PEER"


def test_a_certificate_of_two_countries_is_of_none() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, each) for each in ("FR", "US")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + DAY)
    assert country_of(builder.sign(key, SHA256()).public_bytes(Encoding.PEM)) is None
    assert country_of(b"no certificate") is None


def test_a_manifest_tells_which_gateways_it_leaves() -> None:
    gateways = tuple(GatewayEntry(id=each, address="a:1", operator="o", jurisdiction=each) for each in ("FR", "US"))
    made = manifest(gateways=gateways, jurisdictions=frozenset({"EU"}))
    assert accepted_gateways(made) == {"FR"}
    assert accepted_gateways(made, {"BE"}) == frozenset()
    with pytest.raises(Malformed, match="ISO 3166-1"):
        manifest(jurisdictions=frozenset({"FR-BRE"}))


def test_the_authority_keeps_what_it_accepts_until_it_says_otherwise(tmp_path: Path) -> None:
    home, now = tmp_path / "authority", datetime.now(UTC)
    acts.init_authority(home, "demo", now=now)
    entry = GatewayEntry(id="gw", address="gw:1", operator="Op", jurisdiction="FR-BRE")

    def publish(accepted: list[str] | None) -> set[str]:
        with acts.opened(home) as authority:
            return set(
                acts.publish_manifest(authority, [], now=now, lifetime=DAY, jurisdictions=accepted)[1].jurisdictions
            )

    assert [publish(each) for each in (None, ["EU", "CH"], None, [])] == [set(), {"EU", "CH"}, {"EU", "CH"}, set()]
    with acts.opened(home) as authority:
        made = acts.certify(authority, entry, CSR, now=now, lifetime=DAY)
    with acts.opened(home) as authority:
        again = ceremonies.renew(authority, "gateway", "gw", now=now, lifetime=DAY)
    assert country_of(made) == "FR"
    with acts.opened(home) as authority:
        renewed = authority.keyring.certificate_of("gateway", "gw")
    assert again
    assert renewed is not None
    assert country_of(renewed.pem.encode()) == "FR"
