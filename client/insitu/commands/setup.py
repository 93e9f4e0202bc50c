"""``insitu connect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def connect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The profile to write.")],
    *,
    gateway: Annotated[list[str], typer.Option("--gateway", help="host:port; may be given several times.")],
    identity: Annotated[Path, typer.Option("--identity", help="What `insitu-authority cert` wrote for you.")],
    grant: Annotated[Path, typer.Option("--grant", help="The grant, as the authority sent it.")],
    name: Annotated[str | None, typer.Option("--name", help="The federation's name; default its own.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="The dataset to use when none is named.")] = None,
) -> None:
    """Write a profile once all of it verifies.

    That is the manifest, the grant, your own key in it, and the datasets.

    Example: insitu connect ~/.config/insitu/default --gateway gw.example:8443 --identity me --grant grant.jwt
    """
    from insitu.connecting import write_profile

    written = write_profile(folder, gateways=tuple(gateway), identity=identity, grant=grant, name=name, dataset=dataset)
    typer.echo(written)
