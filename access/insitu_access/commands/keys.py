"""``insitu-authority keys``, ``rotate``, ``retire``, ``reseal`` and ``passphrase``: the authority's own keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument, now
from insitu_access.commands.enrolment import check_one

if TYPE_CHECKING:
    from insitu_access.authority import Authority
    from insitu_access.keyring import Certified, Former, Invited


def keys(directory: DirectoryArgument, *, format_: FormatOption = Format.TEXT) -> None:
    """Show every key and certificate that counts now: who has which, until when, and what waits to be retired.

    \b
    Example:
      insitu-authority keys authority
    """
    from insitu_access.authority import opened

    with opened(directory) as authority:
        print_facts(_facts(authority), format_)


def rotate(
    directory: DirectoryArgument,
    *,
    key: Annotated[bool, typer.Option("--key", help="The key that signs manifests and grants.")] = False,
    ca: Annotated[bool, typer.Option("--ca", help="The CA that issues certificates.")] = False,
    stolen: Annotated[bool, typer.Option("--stolen", help="Let nothing count that the present key signed.")] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Change the authority's own signing key, or its CA. The former one still counts until `retire`.

    A new signing key is signed by the former one, so that everybody follows with the next manifest and pins it without
    being asked. With --stolen it is not: everybody must pin the new key by hand, and grants must be resealed.
    Where it was cut off, run it again: no other command does anything before.

    \b
    Example:
      insitu-authority rotate authority --key
      insitu-authority manifest authority --out manifest.jws
    """
    from insitu_access.authority import opened
    from insitu_access.ceremonies import rotate_ca, rotate_key

    check_one(key, ca)
    check_one(not stolen or key)
    with opened(directory, finishes="key" if key else "ca") as authority:
        if key:
            made = rotate_key(authority, now=now(), stolen=stolen)
            facts = {"authority_key": made.thumbprint, "pin": str(directory / "authority.pub"), "pin_by_hand": stolen}
        else:
            rotate_ca(authority, now=now())
            facts = {"ca": str(directory / "ca.pem"), "former_cas": len(authority.keyring.former_cas) + 1}
    print_facts({**facts, "next": "publish a manifest"}, format_)


def retire(
    directory: DirectoryArgument,
    *,
    key: Annotated[bool, typer.Option("--key", help="Grants that former authority keys signed.")] = False,
    ca: Annotated[bool, typer.Option("--ca", help="Certificates of former CAs.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where a party has none of the new CA yet.")] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """End an overlap: from the next manifest on, former authority keys or former CAs count no longer.

    A CA is not retired while a party has no certificate of the new one: it could not connect any more. With --anyway it
    is, for a party that has left, or a CA in a thief's hands that cannot wait.

    \b
    Example:
      insitu-authority retire authority --ca
      insitu-authority manifest authority --out manifest.jws
    """
    from insitu_access.authority import opened
    from insitu_access.ceremonies import retire as end

    check_one(key, ca)
    with opened(directory) as authority:
        end(authority, cas=ca, keys=key, anyway=anyway)
    print_facts({"retired": "former authority keys" if key else "former CAs", "next": "publish a manifest"}, format_)


def reseal(
    directory: DirectoryArgument,
    *,
    grant: Annotated[Path, typer.Option(help="A grant that was issued here.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    researcher: Annotated[
        str | None, typer.Option(help="A researcher of the grant, whose present key it is to name too.")
    ] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Sign a grant again with the authority's present key: the same grant, whose budget goes on.

    Researchers' keys that were lost or stolen are left out; --researcher adds the present key of one whom the grant
    names already (`amend` adds another person). The grant is known by its digest in the register: what a thief signed
    with a former key is not resealed.

    \b
    Example:
      insitu-authority reseal authority --grant grant.jwt --out grant.jwt
    """
    from insitu_access.authority import opened
    from insitu_access.ceremonies import reseal as again
    from insitu_access.commands.facts import grant_facts
    from insitu_access.files import check_writable, read_file, write_file
    from insitu_access.grant import peek_grant

    token = read_file(grant).decode("ascii", "replace").strip()
    check_writable(out)
    with opened(directory) as authority:
        made = again(authority, token, researcher=researcher)
        write_file(out, made.encode() + b"\n")
    print_facts(grant_facts(peek_grant(made)), format_)


def passphrase(
    directory: DirectoryArgument,
    *,
    file: Annotated[Path | None, typer.Option("--passphrase-file", help="The new passphrase, on one line.")] = None,
    none: Annotated[bool, typer.Option("--no-passphrase", help="Leave the keys to the mode of their files.")] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Put the authority's private keys under a passphrase, or under another one.

    The present one comes from INSITU_PASSPHRASE_FILE or the terminal.

    \b
    Example:
      insitu-authority passphrase authority
    """
    from insitu_access.audit.acts import administered
    from insitu_access.authority import opened
    from insitu_access.keys import relock
    from insitu_access.passphrase import asking, choose

    ask = asking()
    with opened(directory, ask) as authority:
        passphrase = choose(file, none=none)
        administered(authority.log, "passphrase", set="no" if none else "yes")
        relock([directory / "authority.key", directory / "ca.key"], ask, lambda: passphrase)
    print_facts({"authority": str(directory), "passphrase": not none}, format_)


def _facts(authority: Authority) -> dict[str, object]:
    moment, keyring = now(), authority.keyring
    return {
        "federation": authority.register.federation,
        "authority_key": authority.public.thumbprint,
        "former_authority_keys": [key.thumbprint for key in keyring.former_authority_keys],
        "successions": len(keyring.successions),
        "former_cas": len(keyring.former_cas),
        "parties": [_certified(each, authority) for each in keyring.certified],
        "former": [_former(each) for each in keyring.former if moment < each.until],
        "invitations": [_invited(each) for each in keyring.invited if not each.used and moment < each.expires_at],
        "revoked_certificates": sorted(keyring.revoked_at(moment)),
    }


def _certified(each: Certified, authority: Authority) -> dict[str, object]:
    from insitu_access.certificates import is_issued_by, serial_of, validity

    pem = each.pem.encode()
    return {
        "role": each.role,
        "id": each.id,
        "key": None if each.key is None else each.key.thumbprint,
        "certificate": serial_of(pem),
        "expires_at": validity(pem)[1].isoformat(),
        "of_the_present_ca": is_issued_by(pem, authority.ca.certificate_pem),
    }


def _former(each: Former) -> dict[str, object]:
    key = None if each.key is None else each.key.thumbprint
    return {"role": each.role, "id": each.id, "key": key, "until": each.until.isoformat()}


def _invited(each: Invited) -> dict[str, object]:
    return {"role": each.role, "id": each.id, "expires_at": each.expires_at.isoformat()}
