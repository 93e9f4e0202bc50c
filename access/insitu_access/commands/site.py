"""What the key commands of node, gateway and researcher share: options, and comparing of thumbprints (K3, K9).

Not here: which directory and which state (each party's own commands).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import usage

if TYPE_CHECKING:
    from insitu_access.audit.log import AuditLog
    from insitu_access.enrolment import Invitation
    from insitu_access.keys import VerifyingKey

TokenOption = Annotated[
    Path, typer.Option("--token", metavar="FILE", help="The invitation of the access authority.", show_default=False)
]
FingerprintOption = Annotated[
    str | None,
    typer.Option(help="Thumbprint of the authority's key, as it told you by another way; else you are asked."),
]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="Put the private keys under the passphrase in this file.")
]
NoPassphraseOption = Annotated[
    bool, typer.Option("--no-passphrase", help="Leave the keys to the mode of their files: for unattended services.")
]
AnswerArgument = Annotated[
    Path, typer.Argument(metavar="ANSWER", help="What the access authority sent back.", show_default=False)
]
AuthorityArgument = Annotated[
    Path, typer.Argument(metavar="AUTHORITY.pub", help="The authority's new public key.", show_default=False)
]


def now() -> datetime:
    """The clock, in whole seconds as signed objects hold it."""
    return datetime.now(UTC).replace(microsecond=0)


def invitation(path: Path, fingerprint: str | None) -> Invitation:
    """The invitation, once a person has compared the authority key that it names. Raises AccessRefused."""
    from insitu_access.enrolment import peek_authority
    from insitu_access.site import invitation_text, read_invitation

    token = invitation_text(path)
    return read_invitation(path, fingerprint or _compared(peek_authority(token)), now=now())


def authority_key(path: Path, fingerprint: str | None) -> tuple[VerifyingKey, str]:
    """The key in a file, and the thumbprint that a person confirmed."""
    from insitu_access.keys import load_verifying_key

    key = load_verifying_key(path)
    return key, fingerprint or _compared(key)


@contextmanager
def continued(log: AbstractContextManager[AuditLog], *, lost: bool) -> Iterator[AuditLog | None]:
    """The party's audit log, opened before an act so that the act is not done where it cannot be recorded.

    None where the keys are ``lost`` and cannot be read: the log goes on when new ones are installed.
    """
    from insitu_privacy.errors import ConfigInvalid

    with ExitStack() as stack:
        try:
            found = stack.enter_context(log)
        except ConfigInvalid:
            if not lost:
                raise
            found = None
        yield found


def answer_text(path: Path) -> str:
    """The answer in a file."""
    from insitu_access.files import read_file

    return read_file(path, 2**18).decode("ascii", "replace")


def _compared(key: VerifyingKey) -> str:
    """Asks on the terminal; without one, the thumbprint must be passed: nobody has compared it."""
    if not sys.stdin.isatty():
        raise usage("nobody has compared the authority's key", "Pass --fingerprint, as the authority told you.")
    typer.echo(f"The authority's key has the thumbprint {key.thumbprint}", err=True)
    return str(
        typer.prompt("Ask the authority by telephone for its thumbprint, and type what it says", err=True)
    ).strip()
