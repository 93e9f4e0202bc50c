"""``insitu-authority init``: the keys and the register of a new authority."""

from __future__ import annotations

from typing import Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument, now


def init(
    directory: DirectoryArgument,
    *,
    federation: Annotated[str, typer.Option(help="The federation's name.", show_default=False)],
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make the authority's keys and an empty register. Refuses to overwrite.

    \b
    Example:
      insitu-authority init authority --federation demo
    """
    from insitu_access.authority import init_authority

    key = init_authority(directory, federation, now=now())
    facts = {"federation": federation, "authority_key": key.thumbprint, "pin": str(directory / "authority.pub")}
    print_facts(facts, format_)
