"""Options that the three parties' ``audit`` commands share. Loads nothing else, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SinceOption = Annotated[str | None, typer.Option(help="Entries from this date or time on, in ISO 8601.")]
KindOption = Annotated[list[str] | None, typer.Option(help="Entries of this kind; repeat it.")]
AboutOption = Annotated[str | None, typer.Option("--about", help="Entries that name this request, grant or node.")]
LastOption = Annotated[int | None, typer.Option(min=1, help="The last entries of those that are asked for.")]
DetailOption = Annotated[bool, typer.Option("--details", help="With the SQL, where this log has it.")]
SealOption = Annotated[list[Path] | None, typer.Option("--seal", help="A seal kept from before; repeat it.")]
OutOption = Annotated[Path, typer.Option(help="The file to write.", show_default=False)]
SealOutOption = Annotated[Path | None, typer.Option("--out", help="The file to write it to; else standard output.")]
WithholdOption = Annotated[bool, typer.Option("--withhold", help="Leave SQL out: a copy for others still verifies.")]
