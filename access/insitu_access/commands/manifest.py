"""``insitu-authority manifest``: publishes the next version of the federation's root document."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument, days, now


def manifest(
    directory: DirectoryArgument,
    *,
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    dataset: Annotated[
        list[Path] | None, typer.Option(help="A dataset.toml that is served; repeat it. None: as the last manifest.")
    ] = None,
    jurisdiction: Annotated[
        list[str] | None,
        typer.Option(
            help="A country a gateway may be in, or EU; repeat it. `any` for all. None: as the last manifest."
        ),
    ] = None,
    lifetime: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days until it expires.")] = 30,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Sign the next manifest: the register as it stands, and the datasets as they are on disk.

    Hand the file to the operators of the gateways. Nodes and researchers never go back to an older version. They turn
    away from a gateway in a jurisdiction that it does not accept, where it names any.

    \b
    Example:
      insitu-authority manifest authority --dataset care/dataset.toml --jurisdiction EU --out manifest.jws
    """
    from insitu_access.authority import opened, publish_manifest
    from insitu_access.commands.facts import ANY, manifest_facts
    from insitu_access.files import check_writable, write_file

    check_writable(out)
    with opened(directory) as authority:
        accepted = [] if jurisdiction == [ANY] else jurisdiction or None
        token, made = publish_manifest(
            authority, dataset or None, now=now(), lifetime=days(lifetime), jurisdictions=accepted
        )
        write_file(out, token.encode() + b"\n")
    print_facts(manifest_facts(made), format_)
