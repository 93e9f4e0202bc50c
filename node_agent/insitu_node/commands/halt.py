"""``insitu-node halt`` and ``resume``: the emergency stop."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer
from insitu_access.cli import Format, FormatOption, print_facts

from insitu_node.commands.options import ConfigOption

Reason = Annotated[str, typer.Option(help="Why, for the record.")]
By = Annotated[str | None, typer.Option(help="Who decides; else the user of this machine.")]


def halt(config: ConfigOption, reason: Reason = "", by: By = None, format_: FormatOption = Format.TEXT) -> None:
    """Stop answering at once, whoever asks, also after a restart, until ``insitu-node resume``.

    A node that is running stays connected and refuses; what runs now is not released.

    \b
    Example: insitu-node halt --reason "incident 17" --config node.toml
    """
    _set(config, reason, by, format_, halted=True)


def resume(config: ConfigOption, reason: Reason = "", by: By = None, format_: FormatOption = Format.TEXT) -> None:
    """Answer again after ``insitu-node halt``.

    \b
    Example: insitu-node resume --reason "incident 17 closed" --config node.toml
    """
    _set(config, reason, by, format_, halted=False)


def _set(config: Path, reason: str, by: str | None, format_: Format, *, halted: bool) -> None:
    from insitu_access.files import make_directory

    from insitu_node.config import load_config
    from insitu_node.projects import Halt, Projects
    from insitu_node.runtime import utc_now

    loaded = load_config(config)
    make_directory(loaded.state)
    store = Projects(loaded.state)
    try:
        store.set_halt(Halt(halted=halted, reason=reason, by=by or getpass.getuser(), at=utc_now()))
    finally:
        store.close()
    print_facts({"node": loaded.node_id, "halted": halted}, format_)
