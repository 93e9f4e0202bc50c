"""``insitu-node audit``: the custodian's evidence; shown, checked against itself and the ledger, exported, sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from insitu_access.audit.options import (
    AboutOption,
    DetailOption,
    KindOption,
    LastOption,
    OutOption,
    SealOption,
    SealOutOption,
    SinceOption,
    WithholdOption,
)
from insitu_access.cli import Format, FormatOption
from insitu_access.commands.arguments import moment

from insitu_node.commands.options import ConfigOption
from insitu_node.config import NodeConfig, load_config

if TYPE_CHECKING:
    from insitu_access.audit.chain import Finding
    from insitu_access.audit.entry import Party
    from insitu_access.audit.log import AuditLog
    from insitu_access.audit.seal import Sealers
    from insitu_access.passphrase import Ask

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""The audit log: who asked what, when and why, and what the node did. It holds no value of the data.

    \b
    Example:
      insitu-node audit show --config node.toml --last 20
      insitu-node audit verify --config node.toml
    """,
)


@app.command()
def show(
    config: ConfigOption,
    *,
    since: SinceOption = None,
    kind: KindOption = None,
    about: AboutOption = None,
    last: LastOption = None,
    details: DetailOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show entries, oldest first.

    \b
    Example: insitu-node audit show --config node.toml --kind request-admitted --since 2026-03-01 --details
    """
    from insitu_access.audit import commands as work

    loaded = load_config(config)
    party, keys = _party(loaded)
    start = None if since is None else moment(since, "--since")
    wanted = work.Wanted(since=start, kinds=kind or (), about=about, last=last, details=details)
    work.show(loaded.state / "audit", party, keys, wanted, format_)


@app.command()
def verify(config: ConfigOption, seal: SealOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Check the whole log: chain, seals, details, and every charge against the ledger. Exit code 4 where it fails.

    \b
    Example: insitu-node audit verify --config node.toml --seal seal-of-march.jws
    """
    from insitu_access.audit import commands as work

    loaded = load_config(config)
    party, keys = _party(loaded)
    work.verify(loaded.state / "audit", party, keys, format_, seals=seal or (), more=_against_ledger(loaded))


@app.command()
def export(
    config: ConfigOption, out: OutOption, withhold: WithholdOption = False, format_: FormatOption = Format.TEXT
) -> None:
    """Seal the log and copy it to one file, for an auditor or the access authority.

    \b
    Example: insitu-node audit export --config node.toml --withhold --out chu-lille.jsonl
    """
    from insitu_access.audit import commands as work

    with opened(load_config(config)) as log:
        work.export(log, out, format_, withhold=withhold)


@app.command()
def seal(config: ConfigOption, out: SealOutOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Seal the log now. Keep the seal elsewhere: `verify --seal` then finds anything cut or rewritten before it.

    \b
    Example: insitu-node audit seal --config node.toml --out seal.jws
    """
    from insitu_access.audit import commands as work

    with opened(load_config(config)) as log:
        work.seal(log, out, format_)


@contextmanager
def opened(config: NodeConfig, ask: Ask | None = None) -> Iterator[AuditLog]:
    """The node's log, for a command beside the running node."""
    from insitu_node.runtime import open_log  # planner and databases: not needed to answer --help

    log = open_log(config, ask)
    try:
        yield log
    finally:
        log.close()


def administered(config: NodeConfig, command: str, **about: str) -> None:
    """Records an act of administration. Raises where it cannot be recorded: call it before the act."""
    from insitu_access.audit.acts import administered as record

    with opened(config) as log:
        record(log, command, **{name: text for name, text in about.items() if text})


def _party(config: NodeConfig) -> tuple[Party, Sealers]:
    """Public halves alone: no passphrase is asked for."""
    from insitu_access.audit.entry import Party
    from insitu_access.identity import sealers

    return Party(role="node", id=config.node_id), (*sealers(config.identity), *config.audit.former())


def _against_ledger(config: NodeConfig) -> list[Finding]:
    from insitu_access.audit.chain import Finding
    from insitu_access.audit.entry import Entry, read_line
    from insitu_access.audit.files import lines
    from insitu_access.payload import Malformed

    from insitu_node.audit import charges_that_differ
    from insitu_node.ledger_sqlite import SqliteLedger

    path = config.state / "ledger.sqlite"
    if not path.exists():
        return []

    def entries() -> Iterator[Entry]:
        for line in lines(config.state / "audit"):
            try:
                yield read_line(line).withheld()
            except Malformed:  # told by the chain
                continue

    store = SqliteLedger(path)
    try:
        before, logged, after = store.entries(), list(entries()), store.entries()
    finally:
        store.close()
    return [Finding(seq=seq, reason=reason) for seq, reason in charges_that_differ(logged, before, after)]
