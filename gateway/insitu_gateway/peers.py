"""Who is at the other end of a call: the role and id in the certificate that TLS has verified (T1).

The server demands a certificate of the federation's CA from every peer, so a peer without one never gets here. What
the certificate does not say is whether the party still takes part: the manifest does, and it names the certificates
whose key was lost or replaced (K10).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import grpc.aio
from insitu_access.certificates import Role, peer_identity, serial_of
from insitu_privacy.errors import AccessRefused

_identity = lru_cache(maxsize=4096)(peer_identity)
_serial = lru_cache(maxsize=4096)(serial_of)


def require_role(context: grpc.aio.ServicerContext[Any, Any], role: Role, revoked: Collection[str]) -> str:
    """The id of the peer, which must have ``role`` by a certificate that is not ``revoked``.

    Raises AccessRefused INSITU-ACCESS-PEER.
    """
    found, party = _identity(_certificate(context))
    if found != role or serial(context) in revoked:
        raise AccessRefused("INSITU-ACCESS-PEER")
    return party


def serial(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The serial number of the peer's certificate."""
    return _serial(_certificate(context))


def _certificate(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    return next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
