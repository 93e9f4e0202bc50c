"""``insitu-authority suspend`` and ``resume``: a grant that may not be used for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument
from insitu_access.commands.revoke import grant_id_of

GrantOption = Annotated[str, typer.Option("--grant", help="The grant's id, or its file.", show_default=False)]


def suspend(directory: DirectoryArgument, *, grant: GrantOption, format_: FormatOption = Format.TEXT) -> None:
    """Suspend a grant until ``resume``. It takes effect where the next manifest arrives: publish one.

    \b
    Example:
      insitu-authority suspend authority --grant grant.jwt
      insitu-authority manifest authority --dataset care/dataset.toml --out manifest.jws
    """
    _set(directory, grant, format_, suspended=True)


def resume(directory: DirectoryArgument, *, grant: GrantOption, format_: FormatOption = Format.TEXT) -> None:
    """Let a suspended grant be used again, from the next manifest on.

    \b
    Example:
      insitu-authority resume authority --grant grant.jwt
      insitu-authority manifest authority --dataset care/dataset.toml --out manifest.jws
    """
    _set(directory, grant, format_, suspended=False)


def _set(directory: DirectoryArgument, grant: str, format_: Format, *, suspended: bool) -> None:
    from insitu_access.authority import opened, suspend_grant

    with opened(directory) as authority:
        grant_id = grant_id_of(grant)
        suspend_grant(authority, grant_id, suspended=suspended)
    print_facts({"grant": grant_id, "suspended": suspended, "next": "publish a manifest"}, format_)
