"""``insitu``: the researcher's command. Subcommands import what they need when they run, so that help is quick."""

from __future__ import annotations

from insitu_access.cli import new_app, run

from insitu import __version__
from insitu.commands import facts, keys, query, setup

SUMMARY = """Ask a federation of hospitals and insurers, in SQL, for differentially private answers.

Example: insitu query "SELECT COUNT(*) AS n FROM person" --epsilon 0.5
"""

app = new_app("insitu", __version__, SUMMARY)
for _command in (setup.connect, facts.catalog, query.explain, query.query, facts.budget, facts.verify, keys.trust):
    app.command()(_command)
app.add_typer(keys.key_app, name="key")


def main() -> None:
    """Entry point of the console script."""
    run(app, "insitu")
