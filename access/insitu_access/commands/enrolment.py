"""``insitu-authority invite``, ``enrol`` and ``renew``: how a party comes to its certificate, by files alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts, usage
from insitu_access.commands.arguments import DirectoryArgument, days, now, required
from insitu_access.commands.cert import RoleName

if TYPE_CHECKING:
    from insitu_access.authority import Authority
    from insitu_access.keyring import Invited
    from insitu_access.keys import VerifyingKey
    from insitu_access.manifest import GatewayEntry, NodeEntry

Text = str | None


def invite(
    directory: DirectoryArgument,
    *,
    role: Annotated[RoleName, typer.Option(help="Who the party will be.", show_default=False)],
    id_: Annotated[str, typer.Option("--id", help="Its name in the federation.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The invitation to write: a secret.", show_default=False)],
    organisation: Annotated[Text, typer.Option(help="Who runs the node; of a known node, as before.")] = None,
    operator: Annotated[Text, typer.Option(help="Who runs the gateway; of a known gateway, as before.")] = None,
    jurisdiction: Annotated[Text, typer.Option(help="ISO 3166 code of the law it is under.")] = None,
    address: Annotated[Text, typer.Option(help="host:port the gateway is reached at.")] = None,
    also: Annotated[list[str] | None, typer.Option(help="A further DNS name or IP of the gateway.")] = None,
    lifetime: Annotated[int, typer.Option("--days", min=1, max=90, help="Days it can be used.")] = 14,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Invite a party to enrol: it makes its keys on site, and this file lets it hand in the public halves, once.

    Hand the file over where nobody else reads it, and tell the party the thumbprint of your key by another way. A party
    that is registered is invited again when its keys are lost or stolen: its present key vouches for no other from now
    on, and what it had counts no longer once it enrols. An invitation that it had before is void.

    \b
    Example:
      insitu-authority invite authority --role node --id chu-lille --organisation "CHU de Lille" --jurisdiction FR \\
          --out chu-lille.invitation
    """
    from insitu_access.authority import opened
    from insitu_access.ceremonies import invite as make
    from insitu_access.files import check_writable, write_private_file
    from insitu_access.keys import generate_signing_key

    voucher = generate_signing_key()
    with opened(directory) as authority:
        given = {"organisation": organisation, "operator": operator, "jurisdiction": jurisdiction, "address": address}
        made = _invited(authority, role, id_, voucher.public(), given=given, also=tuple(also or ()), lifetime=lifetime)
        check_writable(out, new=True)
        write_private_file(out, make(authority, made, voucher).encode() + b"\n")
        thumbprint = authority.public.thumbprint
    facts = {"role": role.value, "id": id_, "invitation": str(out), "expires_at": made.expires_at.isoformat()}
    print_facts({**facts, "authority_key": thumbprint, "next": _after_invite(role, id_, out)}, format_)


def enrol(
    directory: DirectoryArgument,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="What the party sent.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="The answer to write.", show_default=False)],
    lifetime: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days the certificate is valid.")] = 365,
    overlap: Annotated[int, typer.Option(min=0, max=365, help="Days the former key of a party still counts.")] = 30,
    fingerprint: Annotated[Text, typer.Option(help="Thumbprint the party told you; refuse any other key.")] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Certify the keys of an enrolment: by its invitation, which is used up, or by the present key of the party.

    Compare the thumbprint it prints with the party before you publish the next manifest: only then does the key count.

    \b
    Example:
      insitu-authority enrol authority request.jws --out chu-lille.answer
    """
    from insitu_access.authority import opened
    from insitu_access.ceremonies import enrol as take
    from insitu_access.files import KEY_LIMIT, check_writable, read_file, write_file

    token = read_file(request, KEY_LIMIT * 4).decode("ascii", "replace").strip()
    _check_key(token, fingerprint)
    check_writable(out)
    with opened(directory) as authority:
        signed, answer = take(authority, token, now=now(), lifetime=days(lifetime), overlap=days(overlap))
        write_file(out, signed.encode() + b"\n")
    facts: dict[str, object] = {
        "role": answer.role,
        "id": answer.id,
        "key": None if answer.key is None else answer.key.thumbprint,
        "former_key_until": None if answer.former_until is None else answer.former_until.isoformat(),
        "answer": str(out),
    }
    print_facts({**facts, "next": _after_enrol(answer.role)}, format_)


def renew(
    directory: DirectoryArgument,
    *,
    out: Annotated[Path, typer.Option(help="The answer to write; with --all, their folder.", show_default=False)],
    role: Annotated[RoleName | None, typer.Option(help="Who the party is.")] = None,
    id_: Annotated[Text, typer.Option("--id", help="Its name in the federation.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every party that has a certificate.")] = False,
    lifetime: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days the certificate is valid.")] = 365,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Renew certificates for the keys that parties have: before they expire, or when the CA has changed.

    \b
    Example:
      insitu-authority renew authority --role node --id chu-lille --out chu-lille.answer
      insitu-authority renew authority --all --out answers
    """
    from insitu_access.authority import opened
    from insitu_access.ceremonies import renew as again
    from insitu_access.files import check_writable, make_directory, write_file

    written = []
    with opened(directory) as authority:
        if everyone:
            make_directory(out)
            known = authority.keyring.certified
            parties = [(each.role, each.id, out / f"{each.role}-{each.id}.answer") for each in known]
        else:
            named = required(role.value if role else None, "--role", "renewal")
            parties = [(RoleName(named).value, required(id_, "--id", "renewal"), out)]
    for each, party_id, path in parties:
        check_writable(path)
        with opened(directory) as authority:  # opened anew: each renewal is written before the next is made
            write_file(path, again(authority, each, party_id, now=now(), lifetime=days(lifetime)).encode() + b"\n")
        written.append({"role": each, "id": party_id, "answer": str(path)})
    print_facts({"renewed": written, "next": "each party installs its answer"}, format_)


def _invited(
    authority: Authority,
    role: RoleName,
    party_id: str,
    key: VerifyingKey,
    *,
    given: dict[str, Text],
    also: tuple[str, ...],
    lifetime: int,
) -> Invited:
    from insitu_access.keyring import Invited

    register, known = authority.register, dict[str, Text]()
    registered: tuple[NodeEntry | GatewayEntry, ...] = register.nodes if role is RoleName.NODE else register.gateways
    for party in registered:
        if party.id == party_id:
            known = {name: getattr(party, name, None) for name in given}
    needed = {"node": ("organisation", "jurisdiction"), "gateway": ("operator", "jurisdiction", "address")}
    details: dict[str, Text] = dict.fromkeys(given)
    for name in needed.get(role.value, ()):
        details[name] = required(given[name] or known.get(name), f"--{name}", role.value)
    present = authority.keyring.certificate_of(role.value, party_id)
    return Invited(
        key=key,
        role=role.value,
        id=party_id,
        organisation=details["organisation"],
        operator=details["operator"],
        jurisdiction=details["jurisdiction"],
        address=details["address"],
        also=also or (present.also if present else ()),
        expires_at=now() + days(lifetime),
    )


def _check_key(token: str, fingerprint: Text) -> None:
    from insitu_privacy.errors import AccessRefused

    from insitu_access.enrolment import peek_enrolment

    key = peek_enrolment(token).key
    if fingerprint is not None and key.thumbprint != fingerprint:
        raise AccessRefused("INSITU-KEY-FINGERPRINT", what="enrolled key", name=key.thumbprint)


def _after_invite(role: RoleName, party_id: str, out: Path) -> str:
    command = {
        "node": f"insitu-node init --token {out.name} --out {party_id}",
        "gateway": f"insitu-gateway init --token {out.name} --out {party_id}",
        "researcher": f"insitu key new {party_id} --token {out.name}",
    }
    return f"the party runs: {command[role.value]}"


def _after_enrol(role: str) -> str:
    if role == "researcher":
        return "the party installs the answer; grants name the new key when they are issued or amended"
    return "publish a manifest; the party installs the answer"


def check_one(*chosen: bool) -> None:
    """Exactly one of some flags."""
    if sum(chosen) != 1:
        raise usage("exactly one thing to do must be named", "See --help.")
