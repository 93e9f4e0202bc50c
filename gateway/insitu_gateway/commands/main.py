"""``insitu-gateway``: the operator's command. Subcommands import what they need when they run: help is quick."""

from __future__ import annotations

from insitu_access.cli import new_app
from insitu_access.cli import run as run_app

from insitu_gateway import __version__
from insitu_gateway.commands.audit import app as audit
from insitu_gateway.commands.check import check
from insitu_gateway.commands.keys import init, key_app, trust
from insitu_gateway.commands.run import run
from insitu_gateway.commands.status import status

PROGRAM = "insitu-gateway"

app = new_app(
    PROGRAM,
    __version__,
    """The gateway of an insitu federation: carries requests to the nodes and their releases back.

    \b
    Example:
      insitu-gateway check --config gateway.toml
      insitu-gateway run --config gateway.toml
      insitu-gateway status --config gateway.toml
    """,
)
for command in (check, run, status):
    app.command()(command)
app.add_typer(audit, name="audit")
app.command()(init)
app.command()(trust)
app.add_typer(key_app, name="key")


def main() -> None:
    """The console script."""
    run_app(app, PROGRAM)


if __name__ == "__main__":
    main()
