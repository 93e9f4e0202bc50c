"""``insitu-authority``: the command of the access committee. Works offline, on one directory."""

from __future__ import annotations

from insitu_access import __version__
from insitu_access.cli import new_app, run
from insitu_access.commands.amend import amend
from insitu_access.commands.audit import app as audit
from insitu_access.commands.cert import cert
from insitu_access.commands.drill import drill
from insitu_access.commands.enrolment import enrol, invite, renew
from insitu_access.commands.grant import grant
from insitu_access.commands.init import init
from insitu_access.commands.keys import keys, passphrase, reseal, retire, rotate
from insitu_access.commands.manifest import manifest
from insitu_access.commands.revoke import revoke
from insitu_access.commands.show import show
from insitu_access.commands.suspend import resume, suspend

PROGRAM = "insitu-authority"

app = new_app(
    PROGRAM,
    __version__,
    """The access authority of an insitu federation: certifies parties, publishes the manifest, grants and revokes.

    \b
    Example, from nothing to a grant:
      insitu-authority init authority --federation demo
      insitu-authority cert authority --role node --id chu-lille --out lille --organisation "CHU de Lille" \\
          --jurisdiction FR
      insitu-authority manifest authority --dataset care/dataset.toml --out manifest.jws
      insitu-authority grant authority --project stays --purpose "Length of stay" --reference CEREES-2026-17 \\
          --researcher alice --dataset care --node chu-lille --epsilon 5 --delta 1e-6 --out grant.jwt
    """,
)
for command in (init, cert, manifest, grant, amend, suspend, resume, revoke, show):
    app.command()(command)
app.add_typer(audit, name="audit")
app.command()(invite)
app.command()(enrol)
app.command()(renew)
app.command()(keys)
app.command()(rotate)
app.command()(retire)
app.command()(reseal)
app.command()(passphrase)
app.command()(drill)


def main() -> None:
    """The console script."""
    run(app, PROGRAM)


if __name__ == "__main__":
    main()
