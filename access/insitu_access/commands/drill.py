"""``insitu-authority drill``: the commands to run when a key is lost or stolen. Runs none of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument

if TYPE_CHECKING:
    from insitu_access.drills import Step


class KeyName(StrEnum):
    """Whose key it is."""

    NODE = "node-key"
    GATEWAY = "gateway-key"
    RESEARCHER = "researcher-key"
    AUTHORITY = "authority-key"
    CA = "ca-key"


def drill(
    key: Annotated[
        KeyName,
        typer.Argument(
            metavar="KEY", help="node-key, gateway-key, researcher-key, authority-key or ca-key.", show_default=False
        ),
    ],
    directory: DirectoryArgument,
    *,
    id_: Annotated[str | None, typer.Option("--id", help="The node, gateway or researcher whose key it is.")] = None,
    grant: Annotated[list[Path] | None, typer.Option(help="A grant that is to go on, your copy; repeat it.")] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Print what to run when a key is lost or stolen: who, which command, in which order, and why. Runs nothing.

    Rehearse it on a federation of `insitu-compose`. Where a whole authority was stolen, do ca-key after authority-key.

    \b
    Example:
      insitu-authority drill node-key authority --id chu-lille
      insitu-authority drill authority-key authority --grant grant.jwt
    """
    from insitu_access.audit.acts import administered
    from insitu_access.authority import opened
    from insitu_access.drills import Scene
    from insitu_access.drills import drill as written

    with opened(directory) as authority:
        scene = Scene(
            directory=directory,
            register=authority.register,
            keyring=authority.keyring,
            grants=tuple(grant or ()),
            mark=f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}",
        )
        steps = written(key.value, scene, id_)
        administered(authority.log, f"drill {key.value}", **({"id": id_} if id_ else {}))
        thumbprint = None if key is KeyName.AUTHORITY else authority.public.thumbprint  # never that of a stolen key
        facts = {"drill": key.value, "id": id_, "thumbprint": thumbprint}
    if format_ is Format.JSON:
        print_facts({**facts, "steps": [_step(each) for each in steps]}, format_)
    else:
        typer.echo("\n".join(_lines(steps, thumbprint)))


def _step(step: Step) -> dict[str, object]:
    return {name.rstrip("_"): value for name, value in asdict(step).items() if value is not None}


def _lines(steps: tuple[Step, ...], thumbprint: str | None) -> list[str]:
    lines = [
        "# $THUMBPRINT is that of the authority's key, told by another way than these files.",
        "# It is the authority_key that step 1 prints." if thumbprint is None else f"# Now: {thumbprint}",
    ]
    for number, step in enumerate(steps, 1):
        lines.append(f"\n# {number}. {step.who}: {step.why}")
        lines.append(step.run if step.run is not None else f"# hand {step.carry} to {step.to} as {step.as_}")
    return lines
