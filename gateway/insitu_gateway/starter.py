"""The ``gateway.toml`` that a new gateway starts from: what the invitation knows filled in, the rest explained."""

from __future__ import annotations

from pathlib import Path

from insitu_access.enrolment import Invitation
from insitu_access.files import unreadable, write_file

_TEXT = """\
# The gateway {id} of the federation {federation}. Paths are relative to this file. See docs/operating/gateway.md
# Put manifest.jws and the datasets in place, then: insitu-gateway check --config gateway.toml

[gateway]
id = "{id}"
listen = "0.0.0.0:{port}"           # the manifest says {address}
identity = "identity"               # keys, certificate and the pinned authority key: this folder never leaves the site
state = "state"                     # requests, releases and results
manifest = "manifest.jws"           # from the access authority; read again when it changes
datasets = [{datasets}]             # your copies of the contracts, for researchers to fetch

[limits]
open_requests_per_researcher = 64
"""


def starter(invitation: Invitation) -> str:
    """The text of the file."""
    address = invitation.address or "gateway.example.org:8443"
    return _TEXT.format(
        id=invitation.id,
        federation=invitation.federation,
        address=address,
        port=address.rpartition(":")[2],
        datasets=", ".join(f'"{name}/dataset.toml"' for name in invitation.datasets),
    )


def write_starter(directory: Path, invitation: Invitation) -> Path:
    """Write it, where there is none. Raises ConfigInvalid."""
    path = directory / "gateway.toml"
    if path.exists():
        raise unreadable(path, "it exists and is not overwritten")
    write_file(path, starter(invitation).encode(), 0o600)
    return path
