"""``insitu-node``: the custodian's command."""

from __future__ import annotations

from insitu_access.cli import new_app
from insitu_access.cli import run as run_app

from insitu_node import __version__
from insitu_node.commands.audit import app as audit
from insitu_node.commands.check import check
from insitu_node.commands.halt import halt, resume
from insitu_node.commands.keys import init, key_app, trust
from insitu_node.commands.ledger import ledger
from insitu_node.commands.profile import profile
from insitu_node.commands.projects import app as projects
from insitu_node.commands.run import run
from insitu_node.commands.status import status

PROGRAM = "insitu-node"

app = new_app(
    PROGRAM,
    __version__,
    """A node of an insitu federation: it stands beside a database and answers with noisy aggregates only.

    \b
    Example:
      insitu-node check --config node.toml
      insitu-node run --config node.toml
      insitu-node ledger --config node.toml
    """,
)
app.command("init")(init)
app.command("check")(check)
app.command("run")(run)
app.command("ledger")(ledger)
app.add_typer(audit, name="audit")
app.command("trust")(trust)
app.add_typer(key_app, name="key")
app.command("status")(status)
app.add_typer(projects, name="projects")
app.command("profile")(profile)
app.command("halt")(halt)
app.command("resume")(resume)


def main() -> None:
    """The console script."""
    run_app(app, PROGRAM)


if __name__ == "__main__":
    main()
