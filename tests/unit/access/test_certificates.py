"""Certificates: what they say, to whom they are issued, and that TLS believes them for their role only."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from insitu_access.certificates import (
    CertificateAuthority,
    create_authority,
    create_csr,
    create_tls_key,
    is_issued_by,
    issue_certificate,
    key_matches,
    peer_identity,
    validity,
)
from insitu_access.payload import Malformed
from insitu_privacy.errors import AccessRefused

from tests.unit.access.world import DAY, NOW

# the TLS library has a clock of its own, so these are valid for long
VALID = {"not_before": NOW - 3650 * DAY, "not_after": NOW + 3650 * DAY}
CA = create_authority("demo", **VALID)
OTHER_CA = create_authority("demo", **VALID)


def issued(role, party_id="a", *, authority: CertificateAuthority = CA, addresses=()) -> tuple[bytes, bytes]:
    key = create_tls_key()
    return key, issue_certificate(authority, role, party_id, create_csr(key), addresses=addresses, **VALID)


@pytest.mark.parametrize(("role", "addresses"), [("node", ()), ("researcher", ()), ("gateway", ["127.0.0.1"])])
def test_a_certificate_names_one_party(role, addresses) -> None:
    key, certificate = issued(role, "chu-lille.2", addresses=addresses)
    assert peer_identity(certificate) == (role, "chu-lille.2")
    assert key_matches(key, certificate)
    assert not key_matches(create_tls_key(), certificate)
    assert is_issued_by(certificate, CA.certificate_pem)
    assert not is_issued_by(certificate, OTHER_CA.certificate_pem)
    assert validity(certificate) == (VALID["not_before"], VALID["not_after"])


def test_a_gateways_certificate_carries_its_addresses_only() -> None:
    _, certificate = issued("gateway", addresses=["gw.example.org", "127.0.0.1", "::1"])
    names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["gw.example.org"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_only_gateways_have_addresses() -> None:
    with pytest.raises(Malformed):
        issued("gateway")
    with pytest.raises(Malformed):
        issued("node", addresses=["localhost"])


@pytest.mark.parametrize("party_id", ["", "a/b", "a b", "../a", "é", "a" * 64, "a\n", "a%2fb", "a?b", "a#b"])
def test_ids_are_plain_names(party_id: str) -> None:
    with pytest.raises(Malformed):
        issued("node", party_id)


def test_the_ca_issues_no_further_ca() -> None:
    extensions = x509.load_pem_x509_certificate(CA.certificate_pem).extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    _, leaf = issued("node")
    leaf_constraints = x509.load_pem_x509_certificate(leaf).extensions.get_extension_for_class(x509.BasicConstraints)
    assert leaf_constraints.critical
    assert not leaf_constraints.value.ca


def test_names_in_a_signing_request_are_ignored() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    forged = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("insitu://gateway/gw"), x509.DNSName("gw")])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway gw")]))
        .add_extension(forged, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    certificate = issue_certificate(CA, "node", "a", csr.public_bytes(Encoding.PEM), **VALID)
    assert peer_identity(certificate) == ("node", "a")
    assert "gw" not in x509.load_pem_x509_certificate(certificate).subject.rfc4514_string()


def _csr(key, algorithm) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def _forged_csr() -> bytes:
    """A request for one key, signed by another: as from someone who does not hold the key."""
    mine = x509.load_pem_x509_csr(create_csr(create_tls_key())).public_bytes(Encoding.DER)
    theirs = x509.load_pem_x509_csr(create_csr(create_tls_key())).public_bytes(Encoding.DER)
    points = [x509.load_der_x509_csr(der).public_key().public_numbers().x.to_bytes(32, "big") for der in (mine, theirs)]
    return (
        ssl.DER_cert_to_PEM_cert(mine.replace(points[0], points[1]))
        .replace("CERTIFICATE", "CERTIFICATE REQUEST")
        .encode()
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        lambda: CA.certificate_pem,
        lambda: _csr(rsa.generate_private_key(65537, 2048), SHA256()),
        lambda: _csr(ec.generate_private_key(ec.SECP384R1()), SHA512()),
        lambda: _csr(ed25519.Ed25519PrivateKey.generate(), None),
        _forged_csr,
    ],
)
def test_other_signing_requests_are_refused(make) -> None:
    with pytest.raises(Malformed):
        issue_certificate(CA, "node", "a", make(), **VALID)


def _certificate_with(*names: x509.GeneralName) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


URI = x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    "names",
    [
        (), (x509.DNSName("insitu://node/a"),), (URI("insitu://root/a"),), (URI("insitu://node/a/b"),),
        (URI("insitu://node/"),), (URI("insitu://node/a?x"),), (URI("https://node/a"),), (URI("insitu:node/a"),),
        (URI("insitu://node/a"), URI("insitu://gateway/a")), (URI("insitu://node/a"), URI("https://example.org")),
        (URI("INSITU://node/a"),), (URI("insitu://Node/a"),),
    ],
)  # fmt: skip
def test_a_peer_is_named_by_exactly_one_uri(names) -> None:
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-PEER"):
        peer_identity(_certificate_with(*names))


def test_garbage_is_no_certificate() -> None:
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-PEER"):
        peer_identity(b"garbage")
    assert not is_issued_by(b"garbage", CA.certificate_pem)
    assert not is_issued_by(CA.certificate_pem, b"garbage")
    assert not key_matches(create_tls_key(), b"garbage")
    with pytest.raises(Malformed):
        validity(b"garbage")


def _context(folder: Path, purpose: ssl.Purpose, role, *, authority: CertificateAuthority = CA) -> ssl.SSLContext:
    addresses = ["localhost"] if role == "gateway" else ()
    key, certificate = issued(role, authority=authority, addresses=addresses)
    (folder / "key").write_bytes(key)
    (folder / "cert").write_bytes(certificate)
    context = ssl.create_default_context(purpose, cadata=CA.certificate_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A whole mTLS handshake in memory. Raises ssl.SSLError where either side does not believe the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(5):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not ends


def test_tls_believes_parties_in_their_role(tmp_path: Path) -> None:
    server = _context(tmp_path, ssl.Purpose.CLIENT_AUTH, "gateway")
    for role in ("node", "researcher", "gateway"):
        handshake(_context(tmp_path, ssl.Purpose.SERVER_AUTH, role), server)


def test_tls_refuses_another_ca_and_a_node_as_gateway(tmp_path: Path) -> None:
    node = _context(tmp_path, ssl.Purpose.SERVER_AUTH, "node")
    with pytest.raises(ssl.SSLError, match="verify failed"):
        handshake(node, _context(tmp_path, ssl.Purpose.CLIENT_AUTH, "gateway", authority=OTHER_CA))
    with pytest.raises(ssl.SSLError, match="verify failed"):
        handshake(node, _context(tmp_path, ssl.Purpose.CLIENT_AUTH, "node"))
    stranger = _context(tmp_path, ssl.Purpose.SERVER_AUTH, "node", authority=OTHER_CA)
    with pytest.raises(ssl.SSLError, match="verify failed"):
        handshake(stranger, _context(tmp_path, ssl.Purpose.CLIENT_AUTH, "gateway"))


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="after"):
        create_authority("demo", not_before=NOW, not_after=NOW - timedelta(days=1))
