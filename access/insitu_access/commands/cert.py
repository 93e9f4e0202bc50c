"""``insitu-authority cert``: registers a party and certifies its TLS key."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts, usage
from insitu_access.commands.arguments import DirectoryArgument, days, now, required

if TYPE_CHECKING:
    from insitu_access.authority import Party
    from insitu_access.keys import VerifyingKey


class RoleName(StrEnum):
    """Who a certificate is for."""

    NODE = "node"
    GATEWAY = "gateway"
    RESEARCHER = "researcher"


def cert(
    directory: DirectoryArgument,
    *,
    role: Annotated[RoleName, typer.Option(help="Who the party is.", show_default=False)],
    id_: Annotated[str, typer.Option("--id", help="Its name in the federation.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Its identity directory.", show_default=False)],
    organisation: Annotated[str | None, typer.Option(help="Who runs the node.")] = None,
    operator: Annotated[str | None, typer.Option(help="Who runs the gateway.")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="ISO 3166 code of the law it is under.")] = None,
    address: Annotated[str | None, typer.Option(help="host:port the gateway is reached at.")] = None,
    also: Annotated[list[str] | None, typer.Option(help="A further DNS name or IP of the gateway.")] = None,
    csr: Annotated[Path | None, typer.Option(help="Signing request of a TLS key made on site.")] = None,
    signing_key: Annotated[Path | None, typer.Option(help="signing.pub of a key made on site.")] = None,
    lifetime: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days the certificate is valid.")] = 365,
    replace: Annotated[bool, typer.Option("--replace", help="Let the id have a new signing key.")] = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Register a node, gateway or researcher, and write its identity directory.

    All keys are made in the directory --out, unless they were made on site: then give --csr and --signing-key
    (a gateway has no signing key to register), and only tls.pem, ca.pem and authority.pub are written.

    \b
    Examples:
      insitu-authority cert authority --role node --id chu-lille --out lille --organisation "CHU de Lille" \\
          --jurisdiction FR
      insitu-authority cert authority --role gateway --id gw --out gw --address gw.example.org:7443 \\
          --operator "Health Data Hub" --jurisdiction FR
      insitu-authority cert authority --role researcher --id alice --out for-alice --csr tls.csr \\
          --signing-key signing.pub
    """
    from insitu_access.authority import certify, opened
    from insitu_access.files import KEY_LIMIT, read_file
    from insitu_access.identity import write_certificate

    with opened(directory) as authority:
        key = _signing_key(role, out, csr, signing_key)
        party = _party(role, id_, key, organisation=organisation, operator=operator, law=jurisdiction, address=address)
        request = read_file(csr or out / "tls.csr", KEY_LIMIT)
        certificate = certify(
            authority,
            party,
            request,
            now=now(),
            lifetime=days(lifetime),
            also=also or (),
            replace_key=replace,
            key=key,
        )
        write_certificate(out, certificate=certificate, ca=authority.ca_bundle, authority=authority.public)
    print_facts(
        {"role": role.value, "id": id_, "identity": str(out), "signing_key": key.thumbprint if key else None}, format_
    )


def _signing_key(role: RoleName, out: Path, csr: Path | None, signing_key: Path | None) -> VerifyingKey | None:
    """The party's public signing key: as handed in, or of the keys in ``out``, made there if there are none."""
    from insitu_access.identity import create_keys
    from insitu_access.keys import load_verifying_key

    if csr is None and signing_key is None:
        # tls.csr is written last, so where it stands the keys are whole: renewal uses them again
        return load_verifying_key(out / "signing.pub") if (out / "tls.csr").exists() else create_keys(out)
    if csr is None:
        raise usage("--signing-key is for keys made on site, with their --csr", "Pass both.")
    if signing_key is not None:
        return load_verifying_key(signing_key)
    if role is RoleName.GATEWAY:
        return None
    raise usage(f"a {role.value} whose keys were made on site needs --signing-key too", "Pass both.")


def _party(
    role: RoleName,
    party_id: str,
    key: VerifyingKey | None,
    *,
    organisation: str | None,
    operator: str | None,
    law: str | None,
    address: str | None,
) -> Party:
    """What the register holds of the party."""
    from insitu_access.manifest import GatewayEntry, NodeEntry
    from insitu_access.register import ResearcherEntry

    if role is RoleName.GATEWAY:
        return GatewayEntry(
            id=party_id,
            address=required(address, "--address", role.value),
            operator=required(operator, "--operator", role.value),
            jurisdiction=required(law, "--jurisdiction", role.value),
        )
    if key is None:  # excluded by _signing_key
        raise TypeError("only a gateway has no signing key")
    if role is RoleName.RESEARCHER:
        return ResearcherEntry(id=party_id, key=key)
    return NodeEntry(
        id=party_id,
        organisation=required(organisation, "--organisation", role.value),
        jurisdiction=required(law, "--jurisdiction", role.value),
        key=key,
    )
