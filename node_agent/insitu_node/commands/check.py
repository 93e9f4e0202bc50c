"""``insitu-node check``: whether configuration, identity, datasets and databases fit together.

For the custodian's eyes: exact counts of rows that break a declaration go to this terminal and nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from insitu_access.cli import EXIT_REFUSED, Format, FormatOption, print_facts
from insitu_privacy.errors import InsituError

from insitu_node.commands.jurisdictions import jurisdiction_facts, manifest_of
from insitu_node.commands.options import ConfigOption
from insitu_node.config import NodeConfig, load_config

if TYPE_CHECKING:
    from insitu_node.fitness import Finding
    from insitu_node.runtime import Served


def check(config: ConfigOption, format_: FormatOption = Format.TEXT) -> None:
    """Check the configuration, the identity, and every table against its contract. Changes nothing.

    Says in which jurisdictions a gateway may be, by the policy and by the manifest.

    \b
    Example: insitu-node check --config node.toml
    """
    from insitu_node.runtime import identity_of, served  # planner and databases: not needed to answer --help

    loaded = load_config(config)
    identity = identity_of(loaded)
    found = {name: _findings(loaded, own) for name, own in served(loaded).items()}
    fits = not any(finding.level == "error" for items in found.values() for finding in items)
    facts = {
        "node": loaded.node_id,
        "key": identity.signing.thumbprint,
        "fits": fits,
        "jurisdictions": jurisdiction_facts(loaded, manifest_of(loaded)),
        "findings": [{"dataset": name, **asdict(finding)} for name, items in found.items() for finding in items],
    }
    print_facts(facts, format_)
    if not fits:
        raise typer.Exit(EXIT_REFUSED)


def _findings(config: NodeConfig, own: Served) -> list[Finding]:
    from insitu_node.fitness import Finding, findings
    from insitu_node.runtime import open_engine

    try:
        engine = open_engine(own, base=config.base, limits=config.limits, temporary=None)
    except InsituError as error:
        return [Finding(level="error", table="*", column=None, text=error.text)]
    try:
        return findings(own.dataset, engine)
    finally:
        engine.close()
