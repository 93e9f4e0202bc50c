"""``insitu-authority revoke``: takes a grant back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument


def revoke(
    directory: DirectoryArgument,
    *,
    grant: Annotated[str, typer.Option(help="The grant's id, or its file.", show_default=False)],
    format_: FormatOption = Format.TEXT,
) -> None:
    """Revoke a grant. It takes effect where the next manifest arrives: publish one.

    \b
    Example:
      insitu-authority revoke authority --grant grant.jwt
      insitu-authority manifest authority --dataset care/dataset.toml --out manifest.jws
    """
    from insitu_access.authority import opened, revoke_grant

    with opened(directory) as authority:
        grant_id = grant_id_of(grant)
        revoke_grant(authority, grant_id)
    print_facts({"grant": grant_id, "revoked": True, "next": "publish a manifest"}, format_)


def grant_id_of(text: str) -> str:
    """The id, read from the file if ``text`` names one; whether it was issued here is checked by the register."""
    from insitu_access.files import read_file
    from insitu_access.grant import read_grant
    from insitu_access.jose import unverified

    path = Path(text)
    if not path.is_file():
        return text
    token = read_file(path).decode("ascii", "replace").strip()
    return read_grant(unverified(token, "insitu-grant+jwt", "grant")).id
