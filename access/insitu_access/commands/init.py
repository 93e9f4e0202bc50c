"""``insitu-authority init``: the keys and the register of a new authority."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument, now


def init(
    directory: DirectoryArgument,
    *,
    federation: Annotated[str, typer.Option(help="The federation's name.", show_default=False)],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Put the private keys under the passphrase in this file.")
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make the authority's keys and an empty register. Refuses to overwrite.

    `insitu-authority passphrase` puts the keys under a passphrase that you type.

    \b
    Example:
      insitu-authority init authority --federation demo
    """
    from insitu_access.authority import init_authority
    from insitu_access.passphrase import from_file

    passphrase = None if passphrase_file is None else from_file(passphrase_file)
    key = init_authority(directory, federation, now=now(), passphrase=passphrase)
    facts = {"federation": federation, "authority_key": key.thumbprint, "pin": str(directory / "authority.pub")}
    print_facts(facts, format_)
