"""The federation's X.509 certificates: the authority's CA, and one certificate per party for mTLS.

A certificate says who a TLS peer is, by one URI, ``insitu://{role}/{id}``, and of a node and a gateway under which law
it stands, by the country (C) of its subject; and nothing of what it may ask: that is the grant's. Keys are P-256,
because gRPC's TLS does not negotiate Ed25519. A gateway's certificate serves TLS and carries its addresses (as a
client, the gateway asks itself for its status); a node's and a researcher's is for TLS clients only and carries none,
so neither can pose as a gateway. From a signing request (CSR) only the public key is taken, its names are ignored.

While the CA changes, ``ca_pem`` holds several CAs, the issuing one first (K11). A certificate is revoked by its serial
number in the manifest, which gateways look at (K10); nodes and researchers do not, so that a gateway's stays good until
its CA is dropped. Not here: TLS itself (gRPC, ``meeting``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Literal, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from insitu_privacy.errors import AccessRefused

from insitu_access.invariants import check, check_name
from insitu_access.payload import Malformed

Role = Literal["gateway", "node", "researcher"]
ROLES: tuple[Role, ...] = get_args(Role)
BACKDATED = timedelta(minutes=5)
"""Certificates start a little earlier than now, for peers whose clock is behind."""
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises over certificates, requests and keys that are malformed, or of kinds it does not know."""
_PARTY_URI = re.compile(r"insitu://(gateway|node|researcher)/([A-Za-z0-9][A-Za-z0-9._-]{0,62})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """The authority's own certificate and its private key."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def create_authority(federation: str, *, not_before: datetime, not_after: datetime) -> CertificateAuthority:
    """A new CA that may issue to parties and to no further CA."""
    check_name(federation, "federation")
    key = generate_private_key(SECP256R1())
    name = _name(f"insitu {federation} CA")
    usage = _key_usage(certificate_authority=True)
    builder = (
        _builder(name, name, key.public_key(), not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    certificate = builder.sign(key, SHA256())
    return CertificateAuthority(certificate_pem=certificate.public_bytes(Encoding.PEM), key_pem=_key_pem(key))


def create_tls_key() -> bytes:
    """A new P-256 key as PKCS #8 PEM."""
    return _key_pem(generate_private_key(SECP256R1()))


def create_csr(tls_key_pem: bytes) -> bytes:
    """A signing request: proves that the sender holds the key. It names nobody; the authority does."""
    key = _read_key(tls_key_pem)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def issue_certificate(
    authority: CertificateAuthority,
    role: Role,
    party_id: str,
    csr: bytes,
    *,
    addresses: Sequence[str] = (),
    country: str | None = None,
    not_before: datetime,
    not_after: datetime,
) -> bytes:
    """The certificate (PEM) of a party for the key of its signing request.

    ``addresses`` are the DNS names and IP addresses a gateway is reached at; other roles have none. ``country`` is
    the one whose law the party is under. Raises Malformed.
    """
    return _issue(
        authority, role, party_id, _csr_key(csr), addresses, country=country, validity=(not_before, not_after)
    )


def renew_certificate(
    authority: CertificateAuthority,
    role: Role,
    party_id: str,
    certificate: bytes,
    *,
    addresses: Sequence[str] = (),
    country: str | None = None,
    not_before: datetime,
    not_after: datetime,
) -> bytes:
    """A certificate (PEM) for the key of one that this party has already. Raises Malformed."""
    if peer_identity(certificate) != (role, party_id):
        raise Malformed("the certificate is of another party")
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except _UNREADABLE as error:
        raise Malformed("the certificate is of a key that is not known") from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise Malformed("the certificate is not for a P-256 key")
    return _issue(authority, role, party_id, key, addresses, country=country, validity=(not_before, not_after))


def _issue(
    authority: CertificateAuthority,
    role: Role,
    party_id: str,
    key: EllipticCurvePublicKey,
    addresses: Sequence[str],
    *,
    country: str | None,
    validity: tuple[datetime, datetime],
) -> bytes:
    check_name(party_id, "id")
    check(bool(addresses) == (role == "gateway"), "a gateway needs an address, other roles have none")
    ca = x509.load_pem_x509_certificate(authority.certificate_pem)
    ca_key = _read_key(authority.key_pem)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"insitu://{role}/{party_id}")]
    names += [_address(address) for address in addresses]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role == "gateway":
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_name(f"{role} {party_id}", country), ca.subject, key, *validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificate_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, SHA256()).public_bytes(Encoding.PEM)


def peer_identity(cert_pem: bytes) -> tuple[Role, str]:
    """Role and id that a certificate names; TLS has checked the chain to the federation's CA.

    Raises AccessRefused INSITU-ACCESS-PEER unless exactly one URI names a party.
    """
    try:
        names = x509.load_pem_x509_certificate(cert_pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except _UNREADABLE as error:
        raise AccessRefused("INSITU-ACCESS-PEER") from error
    found = _PARTY_URI.fullmatch(uris[0]) if len(uris) == 1 else None
    role = next((role for role in ROLES if found is not None and role == found[1]), None)
    if found is None or role is None:
        raise AccessRefused("INSITU-ACCESS-PEER")
    return role, found[2]


def country_of(cert_pem: bytes) -> str | None:
    """The country (C) in a certificate's subject; None where it names none, or not one alone."""
    try:
        named = x509.load_pem_x509_certificate(cert_pem).subject.get_attributes_for_oid(NameOID.COUNTRY_NAME)
    except ValueError:
        return None
    return str(named[0].value) if len(named) == 1 else None


def key_matches(key_pem: bytes, cert_pem: bytes) -> bool:
    """Whether a certificate is that of a private key."""
    try:
        return x509.load_pem_x509_certificate(cert_pem).public_key() == _read_key(key_pem).public_key()
    except _UNREADABLE:
        return False


def is_issued_by(cert_pem: bytes, ca_pem: bytes) -> bool:
    """Whether the CA signed the certificate; of several in ``ca_pem``, one of them."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        authorities = x509.load_pem_x509_certificates(ca_pem)
    except _UNREADABLE:
        return False
    return any(_directly_issued(certificate, ca) for ca in authorities)


def _directly_issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def is_whole(authority: CertificateAuthority) -> bool:
    """Whether a CA's certificate is of its private key. Raises Malformed."""
    own = _read_key(authority.key_pem).public_key()
    try:
        return own == x509.load_pem_x509_certificate(authority.certificate_pem).public_key()
    except _UNREADABLE as error:
        raise Malformed("it is not a certificate in PEM") from error


def serial_of(cert_pem: bytes) -> str:
    """The serial number in hex: what a revocation names. Raises Malformed."""
    try:
        return f"{x509.load_pem_x509_certificate(cert_pem).serial_number:x}"
    except _UNREADABLE as error:
        raise Malformed("it is not a certificate in PEM") from error


def validity(cert_pem: bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate is valid. Raises Malformed."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
    except _UNREADABLE as error:
        raise Malformed("it is not a certificate in PEM") from error
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str, country: str | None = None) -> x509.Name:
    named = [] if country is None else [x509.NameAttribute(NameOID.COUNTRY_NAME, country)]
    return x509.Name([*named, x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _address(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _key_usage(*, certificate_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_authority,
        key_cert_sign=certificate_authority,
        crl_sign=certificate_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_key(key_pem: bytes) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(key_pem, password=None)
    except _UNREADABLE as error:
        raise Malformed("it is not an unencrypted private key in PEM") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise Malformed("a TLS key must be a P-256 key")
    return key


def _csr_key(csr: bytes) -> EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr)
        key, proven = request.public_key(), request.is_signature_valid
    except _UNREADABLE as error:
        raise Malformed("the signing request is not a CSR in PEM") from error
    if not proven:
        raise Malformed("the signing request is not signed by its own key")
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise Malformed("the signing request is not for a P-256 key")
    return key
