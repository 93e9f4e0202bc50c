"""Plays the access authority, the custodians, the operator and the researcher at their key ceremonies.

Every key, certificate, manifest and grant is made by the real ``insitu-authority`` command, run once per act in the
order in which the committee would: a federation on one machine differs from one in earnest in who holds the keys,
not in how they are made.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from insitu_compose.federation import Federation, Node
from insitu_compose.layout import Layout
from insitu_compose.programs import run

_COMMAND = "insitu-authority"
RESEARCHER = "researcher"


def make_trust(federation: Federation, layout: Layout, address: str) -> None:
    """All keys and signed documents of the federation, for a gateway at ``address``. Raises ProgramFailed."""
    run(_COMMAND, "init", layout.authority, "--federation", federation.name)
    _certify_gateway(federation, layout, address)
    for node in federation.file.node:
        _certify_node(node, layout)
    _certify(layout, "researcher", RESEARCHER, layout.researcher_identity)
    datasets = [str(part) for path in federation.datasets.values() for part in ("--dataset", path)]
    accepted = [part for each in federation.file.federation.jurisdictions for part in ("--jurisdiction", each)]
    run(_COMMAND, "manifest", layout.authority, *datasets, *accepted, "--out", layout.manifest)
    _grant(federation, layout)


def _certify(layout: Layout, role: str, party: str, out: Path, *options: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    run(_COMMAND, "cert", layout.authority, "--role", role, "--id", party, "--out", out, *options)


def _certify_gateway(federation: Federation, layout: Layout, address: str) -> None:
    gateway = federation.file.gateway
    options = ("--address", address, "--operator", gateway.operator, "--jurisdiction", gateway.jurisdiction)
    _certify(layout, "gateway", gateway.id, layout.gateway_identity, *options)


def _certify_node(node: Node, layout: Layout) -> None:
    options = ("--organisation", node.organisation or node.id, "--jurisdiction", node.jurisdiction)
    _certify(layout, "node", node.id, layout.node_identity(node.id), *options)


def _grant(federation: Federation, layout: Layout) -> None:
    grant = federation.file.grant
    repeated = [("--researcher", str(layout.researcher_identity))]
    repeated += [("--dataset", name) for name in federation.datasets]
    repeated += [("--table", table) for table in grant.tables]
    repeated += [("--node", node.id) for node in federation.file.node]
    repeated += [("--purpose-code", grant.purpose_code)] if grant.purpose_code is not None else []
    run(
        _COMMAND,
        "grant",
        layout.authority,
        "--project",
        grant.project,
        "--purpose",
        grant.purpose,
        "--reference",
        grant.reference,
        *(part for pair in repeated for part in pair),
        "--epsilon",
        number(grant.epsilon),
        "--delta",
        number(grant.delta),
        "--accounting",
        grant.accounting,
        "--days",
        str(grant.days),
        "--out",
        layout.grant,
    )


def number(value: Fraction) -> str:
    """An exact number as commands take it: ``20``, ``1/1000000``."""
    return str(value)
