"""``insitu-authority audit``: the authority's own log, and all parties' logs held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from insitu_access.cli import EXIT_INTEGRITY, Format, FormatOption, print_facts, printable
from insitu_access.commands.arguments import DirectoryArgument, moment, now

if TYPE_CHECKING:
    from insitu_access.audit.entry import Party
    from insitu_access.audit.log import AuditLog
    from insitu_access.audit.seal import Sealers

Logs = Annotated[list[Path] | None, typer.Option(help="An exported log, or a state directory; repeat it.")]

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="""The audit logs: the authority's own, and all parties' logs held against each other.

    \b
    Example:
      insitu-authority audit verify authority
      insitu-authority audit reconcile authority --node lille.jsonl --gateway gw.jsonl --receipt result.json
    """,
)


@app.command()
def show(
    directory: DirectoryArgument,
    *,
    since: SinceOption = None,
    kind: KindOption = None,
    about: AboutOption = None,
    last: LastOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Show entries of the authority's own log, oldest first.

    \b
    Example: insitu-authority audit show authority --kind grant-issued
    """
    from insitu_access.audit import commands as work

    party, keys = _party(directory)
    start = None if since is None else moment(since, "--since")
    wanted = work.Wanted(since=start, kinds=kind or (), about=about, last=last)
    work.show(directory / "audit", party, keys, wanted, format_)


@app.command()
def verify(directory: DirectoryArgument, seal: SealOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Check the authority's own log, chain and seals. Exit code 4 where it fails.

    \b
    Example: insitu-authority audit verify authority
    """
    from insitu_access.audit import commands as work

    party, keys = _party(directory)
    work.verify(directory / "audit", party, keys, format_, seals=seal or ())


@app.command()
def export(directory: DirectoryArgument, out: OutOption, format_: FormatOption = Format.TEXT) -> None:
    """Seal the authority's own log and copy it to one file.

    \b
    Example: insitu-authority audit export authority --out authority.jsonl
    """
    from insitu_access.audit import commands as work

    with _opened(directory) as log:
        work.export(log, out, format_, withhold=False)


@app.command()
def seal(directory: DirectoryArgument, out: SealOutOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Seal the authority's own log now, and hand out the seal.

    \b
    Example: insitu-authority audit seal authority --out seal.jws
    """
    from insitu_access.audit import commands as work

    with _opened(directory) as log:
        work.seal(log, out, format_)


@app.command()
def reconcile(
    directory: DirectoryArgument,
    *,
    node: Logs = None,
    gateway: Logs = None,
    receipt: Annotated[list[Path] | None, typer.Option(help="A researcher's result file; repeat it.")] = None,
    key: Annotated[
        list[Path] | None, typer.Option(help="signing.pub of a party that was certified without it; repeat it.")
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Hold the logs of nodes, gateways and the authority, and researchers' result files, against each other.

    Each log is verified first, with the keys that were certified here. Then every request, outcome, charge, grant and
    manifest must stand in all logs that should have it. One line for each that does not, and exit code 4. Hand in the
    logs of all gateways: a request that no gateway has is an omission.

    \b
    Example:
      insitu-authority audit reconcile authority --node lille.jsonl --node rennes.jsonl --gateway gw.jsonl \\
          --receipt result.json
    """
    from insitu_access.audit.reconciling import reconcile_files
    from insitu_access.cli import usage
    from insitu_access.keys import load_verifying_key

    if not node and not gateway and not receipt:
        raise usage("there is nothing to compare", "Pass --node, --gateway or --receipt.")
    keys = [load_verifying_key(path) for path in key or ()]
    facts, lines = reconcile_files(directory, node or (), gateway or (), receipt or (), extra=keys, now=now())
    if format_ is Format.JSON:
        print_facts(facts, format_)
    else:
        for line in lines:
            typer.echo(printable(line))
    if not facts["agree"]:
        raise typer.Exit(EXIT_INTEGRITY)


@contextmanager
def _opened(directory: Path) -> Iterator[AuditLog]:
    from insitu_access.authority import opened

    with opened(directory) as authority:
        yield authority.log


def _party(directory: Path) -> tuple[Party, Sealers]:
    """Public halves alone: no passphrase is asked for."""
    from insitu_access.audit.entry import Party
    from insitu_access.keyring import load_keyring
    from insitu_access.keys import load_verifying_key
    from insitu_access.register import load_register

    party = Party(role="authority", id=load_register(directory).federation)
    return party, [load_verifying_key(directory / "authority.pub"), *load_keyring(directory).signed_before]
