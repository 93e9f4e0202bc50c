"""``insitu-gateway audit``: the operator's evidence; shown, checked, exported, sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from insitu_access.audit.options import (
    AboutOption,
    KindOption,
    LastOption,
    OutOption,
    SealOption,
    SealOutOption,
    SinceOption,
)
from insitu_access.cli import Format, FormatOption
from insitu_access.commands.arguments import moment

from insitu_gateway.commands.arguments import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from insitu_access.audit.entry import Party
    from insitu_access.audit.log import AuditLog
    from insitu_access.audit.seal import Sealers
    from insitu_access.passphrase import Ask

    from insitu_gateway.config import Config

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""The audit log: requests, outcomes, connections and deliveries, sealed with the gateway's key.

    \b
    Example:
      insitu-gateway audit show --config gateway.toml --last 20
      insitu-gateway audit verify --config gateway.toml
    """,
)


@app.command()
def show(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    since: SinceOption = None,
    kind: KindOption = None,
    about: AboutOption = None,
    last: LastOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show entries, oldest first.

    \b
    Example: insitu-gateway audit show --config gateway.toml --kind request-accepted --since 2026-03-01
    """
    from insitu_access.audit import commands as work

    loaded = _load(config)
    party, keys = _party(loaded)
    start = None if since is None else moment(since, "--since")
    wanted = work.Wanted(since=start, kinds=kind or (), about=about, last=last)
    work.show(loaded.state / "audit", party, keys, wanted, format_)


@app.command()
def verify(config: ConfigOption = DEFAULT_CONFIG, seal: SealOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Check the whole log, chain and seals. Exit code 4 where it fails.

    \b
    Example: insitu-gateway audit verify --config gateway.toml
    """
    from insitu_access.audit import commands as work

    loaded = _load(config)
    party, keys = _party(loaded)
    work.verify(loaded.state / "audit", party, keys, format_, seals=seal or ())


@app.command()
def export(out: OutOption, config: ConfigOption = DEFAULT_CONFIG, format_: FormatOption = Format.TEXT) -> None:
    """Seal the log and copy it to one file, for the access authority.

    \b
    Example: insitu-gateway audit export --config gateway.toml --out gw.jsonl
    """
    from insitu_access.audit import commands as work

    with opened(_load(config)) as log:
        work.export(log, out, format_, withhold=False)


@app.command()
def seal(config: ConfigOption = DEFAULT_CONFIG, out: SealOutOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Seal the log now. Keep the seal elsewhere: `verify --seal` then finds anything cut or rewritten before it.

    \b
    Example: insitu-gateway audit seal --config gateway.toml --out seal.jws
    """
    from insitu_access.audit import commands as work

    with opened(_load(config)) as log:
        work.seal(log, out, format_)


def _load(path: ConfigOption) -> Config:
    from insitu_gateway.config import load_config

    return load_config(path)


@contextmanager
def opened(config: Config, ask: Ask | None = None) -> Iterator[AuditLog]:
    """The gateway's log, for a command beside the running gateway."""
    from datetime import UTC, datetime

    from insitu_gateway.server import open_log

    log = open_log(config, lambda: datetime.now(UTC), ask)
    try:
        yield log
    finally:
        log.close()


def _party(config: Config) -> tuple[Party, Sealers]:
    """Public halves alone: no passphrase is asked for."""
    from insitu_access.audit.entry import Party
    from insitu_access.identity import sealers

    return Party(role="gateway", id=config.id), (*sealers(config.identity), *config.audit.former())
