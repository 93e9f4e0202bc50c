"""The ``node.toml`` that a new node starts from: what the invitation knows filled in, the rest explained in place."""

from __future__ import annotations

from pathlib import Path

from insitu_access.enrolment import Invitation
from insitu_access.files import unreadable, write_file

_HEAD = """\
# The node {id} of the federation {federation}. Paths are relative to this file. See docs/operating/node.md
# Fill in the datasets, then: insitu-node check --config node.toml

[node]
id = "{id}"
identity = "identity"               # keys, certificate and the pinned authority key: this folder never leaves the site
state = "state"                     # the ledger and the last manifest: back it up, and never roll it back
"""
_GATEWAY = """
[[gateway]]
address = "{address}"
"""
_DATASET = """
[datasets.{name}]
contract = "{name}/dataset.toml"    # your copy of the contract that the access authority published
engine = "duckdb"                   # or postgres
database = "{name}.duckdb"          # a file; for postgres a URL such as postgresql://insitu@db.internal/{name}
# profile_epsilon = 1.0             # what profiles may cost each person in all: see docs/operating/profiles.md
[datasets.{name}.tables]
# person = "SELECT id AS person_id, sex, birth_year FROM patients WHERE NOT opted_out"
"""
_TAIL = """
[limits]
workers = 2                         # requests that run at once
queue = 64                          # requests that may wait; more are refused as busy
statement_timeout_s = 60

[policy]
# jurisdictions = ["FR"]            # where a gateway may be, besides what the manifest accepts; "EU" is its 27 states
"""


def starter(invitation: Invitation) -> str:
    """The text of the file."""
    gateways = invitation.gateways or ("gateway.example.org:8443",)
    parts = [_HEAD.format(id=invitation.id, federation=invitation.federation)]
    parts += [_GATEWAY.format(address=address) for address in gateways]
    parts += [_DATASET.format(name=name) for name in invitation.datasets or ("example",)]
    return "".join([*parts, _TAIL])


def write_starter(directory: Path, invitation: Invitation) -> Path:
    """Write it, where there is none. Raises ConfigInvalid."""
    path = directory / "node.toml"
    if path.exists():
        raise unreadable(path, "it exists and is not overwritten")
    write_file(path, starter(invitation).encode(), 0o600)
    return path
