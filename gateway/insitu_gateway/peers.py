"""Who is at the other end of a call: the role and id in the certificate that TLS has verified.

The server demands a certificate of the federation's CA from every peer, so a peer without one never gets here. What
the certificate does not say is whether the party still takes part: the manifest does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import grpc.aio
from insitu_access.certificates import Role, peer_identity
from insitu_privacy.errors import AccessRefused

_identity = lru_cache(maxsize=4096)(peer_identity)


def require_role(context: grpc.aio.ServicerContext[Any, Any], role: Role) -> str:
    """The id of the peer, which must have ``role``. Raises AccessRefused INSITU-ACCESS-PEER."""
    certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
    found, party = _identity(certificate)
    if found != role:
        raise AccessRefused("INSITU-ACCESS-PEER")
    return party
