"""The command ``insitu-compose``: up, down, status.

Standard output holds what was asked for and nothing else, so that scripts can use it: the profile directory alone on
the last line of ``up``, one JSON document under ``--format json``. Progress goes to standard error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from insitu_access import cli
from insitu_access.cli import Format, FormatOption

from insitu_compose import __version__, lifecycle
from insitu_compose.federation import load_federation
from insitu_compose.lifecycle import Standing
from insitu_compose.serve import interruptible, serve

app = cli.new_app(
    "insitu-compose",
    __version__,
    "A whole insitu federation as real processes on this machine, for evaluation, tests and demonstrations.",
)


def _say(line: str) -> None:
    typer.echo(cli.printable(line), err=True)


FileArgument = Annotated[Path, typer.Argument(metavar="FEDERATION.toml", help="What the federation consists of.")]
MaybeFileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FEDERATION.toml]", help="The file given to `up`, where --dir was not.")
]
DirOption = Annotated[
    Path | None,
    typer.Option("--dir", help="Where keys, state and logs live. Default: .insitu/NAME beside FEDERATION.toml."),
]


def _directory(file: Path | None, directory: Path | None) -> Path:
    """The state directory of a command. Raises ConfigInvalid where neither argument says it."""
    if directory is not None:
        return directory
    if file is None:
        raise cli.usage("no directory is given", "Pass --dir DIR, or the FEDERATION.toml that was given to `up`.")
    return default_directory(file)


def default_directory(file: Path) -> Path:
    """``.insitu/NAME`` beside the file."""
    federation = load_federation(file)
    return federation.path.parent / ".insitu" / federation.name


@app.command(epilog="Example: insitu-compose up FEDERATION.toml --dir /tmp/demo --detach")
def up(
    file: FileArgument,
    directory: DirOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once every node is connected.")] = False,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait until all are connected.")] = 60,
) -> None:
    """Make keys, manifest and one grant, start gateway and nodes, wait until every node is connected.

    Prints the profile directory for `insitu --profile`, alone on the last line. Without --detach it stays until
    Ctrl-C and then stops everything. Started again in the same directory it goes on with the same keys and ledgers.
    """
    federation = load_federation(file)
    root = directory or federation.path.parent / ".insitu" / federation.name
    with interruptible():
        try:
            layout, children = lifecycle.up(federation, root, _say, timeout_s=timeout)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        typer.echo(str(layout.profile))
        if not detach:
            _say(f"running; Ctrl-C stops it. Ask with: insitu query SQL --profile {layout.profile}")
            serve(layout, children, _say)


@app.command(epilog="Example: insitu-compose down --dir /tmp/demo")
def down(file: MaybeFileArgument = None, directory: DirOption = None) -> None:
    """End every process that `up` started in the directory; return when they are gone. Keys and ledgers stay."""
    ended = lifecycle.down(_directory(file, directory))
    _say(f"stopped {', '.join(ended)}" if ended else "nothing was running")


@app.command(epilog="Example: insitu-compose status --dir /tmp/demo --format json")
def status(file: MaybeFileArgument = None, directory: DirOption = None, output: FormatOption = Format.TEXT) -> None:
    """Say which processes run and which nodes are connected."""
    cli.print_facts(_facts(lifecycle.standing(_directory(file, directory))), output)


def _facts(standing: Standing) -> dict[str, object]:
    record = standing.record
    return {
        "federation": record.federation,
        "state": standing.state,
        "file": record.file,
        "directory": str(standing.layout.root),
        "profile": str(standing.layout.profile),
        "gateway": record.address,
        "processes": [
            {"name": one.name, "pid": one.pid, "running": one.running, "log": str(standing.layout.log(one.name))}
            for one in standing.processes
        ],
        "nodes": [{"id": node, "connected": node in standing.connected} for node in record.nodes],
    }


def main() -> None:
    """Entry point."""
    cli.run(app, "insitu-compose")
