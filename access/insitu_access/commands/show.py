"""``insitu-authority show``: what a manifest, grant, request, release or certificate says, and whether it verifies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts, usage

if TYPE_CHECKING:
    from insitu_access.commands.facts import Facts
    from insitu_access.jose import Typ

PathOption = Path | None


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to show.", show_default=False)],
    *,
    authority: Annotated[PathOption, typer.Option(help="authority.pub: verifies a manifest or a grant.")] = None,
    key: Annotated[PathOption, typer.Option(help="signing.pub of who signed a request or an outcome.")] = None,
    ca: Annotated[PathOption, typer.Option(help="ca.pem: verifies a certificate.")] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Decode a signed file. Says whether its signature was verified; fails where it does not verify.

    Only the signature is verified: whether a manifest or grant is in force now, its dates and the current manifest say.

    \b
    Example:
      insitu-authority show grant.jwt --authority authority/authority.pub
    """
    from insitu_access.files import read_file

    data = read_file(file)
    if data.startswith(b"-----BEGIN CERTIFICATE-----"):
        verified, facts = _certificate(file, data, _only(ca, "--ca", authority, key))
    else:
        verified, facts = _token(file, data.decode("ascii", "replace").strip(), authority, key, ca)
    print_facts({"verified": verified, **facts}, format_)
    if not verified and format_ is Format.TEXT:
        typer.echo("NOT verified: anybody could have written this. Pass the key it should be signed with.", err=True)


def _certificate(file: Path, pem: bytes, ca: Path | None) -> tuple[bool, Facts]:
    from insitu_access.certificates import is_issued_by
    from insitu_access.commands.facts import certificate_facts
    from insitu_access.files import KEY_LIMIT, read_file, unreadable

    facts = certificate_facts(pem)
    if ca is None:
        return False, facts
    if not is_issued_by(pem, read_file(ca, KEY_LIMIT)):
        raise unreadable(file, "it was not issued by that CA")
    return True, facts


def _token(file: Path, text: str, authority: Path | None, key: Path | None, ca: Path | None) -> tuple[bool, Facts]:
    from insitu_access.commands import facts as say
    from insitu_access.files import unreadable
    from insitu_access.grant import read_grant
    from insitu_access.jose import unverified_typ
    from insitu_access.manifest import read_manifest
    from insitu_access.release import outcome_typ, read_outcome
    from insitu_access.request import read_request

    token = text.rpartition("\n")[2]  # before a manifest there may be successions
    typ, outcome = unverified_typ(token), outcome_typ(token)
    if typ == "insitu-manifest+jws":
        verified, data = _manifest(text, _only(authority, "--authority", key, ca))
        return verified, say.manifest_facts(read_manifest(data))
    if typ == "insitu-grant+jwt":
        verified, data = _payload(token, "insitu-grant+jwt", _only(authority, "--authority", key, ca))
        return verified, say.grant_facts(read_grant(data))
    if typ == "insitu-request+jws":
        verified, data = _payload(token, "insitu-request+jws", _only(key, "--key", authority, ca))
        return verified, say.request_facts(read_request(data))
    if outcome is not None:
        verified, data = _payload(token, outcome, _only(key, "--key", authority, ca))
        return verified, say.outcome_facts(read_outcome(data, outcome))
    raise unreadable(file, "it is no manifest, grant, request, release or certificate of insitu")


def _manifest(text: str, key: Path | None) -> tuple[bool, bytes]:
    """The manifest's payload, verified by the key or the one that succeeded it."""
    from insitu_access.jose import unverified, verify
    from insitu_access.keys import load_verifying_key
    from insitu_access.succession import follow

    if key is None:
        return False, unverified(text.rpartition("\n")[2], "insitu-manifest+jws", "file")
    followed = follow(text, load_verifying_key(key))
    return True, verify(followed.token, [followed.key], "insitu-manifest+jws", "file")


def _payload(token: str, typ: Typ, key: Path | None) -> tuple[bool, bytes]:
    """Whether the token was verified, and its payload. Raises where it does not verify by ``key``."""
    from insitu_access.jose import unverified, verify
    from insitu_access.keys import load_verifying_key

    if key is None:
        return False, unverified(token, typ, "file")
    return True, verify(token, [load_verifying_key(key)], typ, "file")


def _only(fitting: Path | None, name: str, *others: Path | None) -> Path | None:
    """The option that verifies this kind of file; another one would verify nothing, so it is refused."""
    if any(other is not None for other in others):
        raise usage(f"this file is verified with {name}", f"Pass {name} alone.")
    return fitting
