"""Looks at a gateway's certificate before anything is said to it.

gRPC verifies the chain and shows a client nothing of it. So a gateway is met first: one TLS handshake, verified by the
federation's CAs, from which its certificate is taken. Then the channel is opened with that certificate as its only
trust anchor:

  W5  what was looked at is what is talked to: a channel opened with it reaches the holder of that certificate alone

The own private key is never on the disk in the clear: ``ssl`` reads keys from files only, so it gets one that is
encrypted under a secret of the moment. Not here: what a certificate must say (``jurisdiction``).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from insitu_privacy.errors import Unavailable

from insitu_access.identity import Identity
from insitu_access.manifest import split_address

MEETING_SECONDS = 10.0
_NOT_MET = (OSError, ValueError)
"""Of sockets and TLS, and of addresses and certificates that are none."""

NO_DETOUR = (
    # only configured addresses are contacted: no proxy that the environment names, and of DNS the address alone
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.dns_enable_srv_queries", 0),
)
"""Options of every channel that insitu opens (W3)."""


def certificate_at(address: str, identity: Identity, anchors: bytes, *, seconds: float = MEETING_SECONDS) -> bytes:
    """The certificate (PEM) of who answers at an address, verified by ``anchors``. Blocks.

    Raises Unavailable (INSITU-GATEWAY-UNREACHABLE) where nobody answers, or nobody with a certificate that counts.
    """
    try:
        host, port = split_address(address)
        context = _context(identity, anchors)
        with (
            socket.create_connection((host, port), seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as shaken,
        ):
            found = shaken.getpeercert(binary_form=True)
    except _NOT_MET:
        raise _unreachable(address) from None
    return _pem(found, address)


async def meet(address: str, identity: Identity, anchors: bytes, *, seconds: float = MEETING_SECONDS) -> bytes:
    """``certificate_at``, for who waits in an event loop."""
    try:
        host, port = split_address(address)
        context = _context(identity, anchors)
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except _NOT_MET:
        raise _unreachable(address) from None
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return _pem(found, address)


def _pem(found: bytes | None, address: str) -> bytes:
    if found is None:
        raise _unreachable(address)
    return ssl.DER_cert_to_PEM_cert(found).encode()


def _unreachable(address: str) -> Unavailable:
    return Unavailable("INSITU-GATEWAY-UNREACHABLE", address=address)


def _context(identity: Identity, anchors: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # demands a certificate, and the host's name in it
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=anchors.decode())
    context.set_alpn_protocols(["h2"])
    secret = secrets.token_bytes(32).hex().encode()
    locked = load_pem_private_key(identity.tls_key_pem, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tls.pem"
        path.write_bytes(locked + identity.tls_cert_pem)
        context.load_cert_chain(path, password=secret)
    return context
