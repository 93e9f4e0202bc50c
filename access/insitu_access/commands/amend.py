"""``insitu-authority amend``: the next revision of a grant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from insitu_access.cli import Format, FormatOption, print_facts, usage
from insitu_access.commands.arguments import DirectoryArgument, days, moment, now
from insitu_access.commands.granting import (
    MinNodes,
    MinUnits,
    PurposeCode,
    Researchers,
    Results,
    Tables,
    datasets_of,
    number_of,
    researcher_of,
    results_of,
)

if TYPE_CHECKING:
    from insitu_access.grant import Grant


def amend(
    directory: DirectoryArgument,
    *,
    grant: Annotated[Path, typer.Option(help="The grant's file, of its newest revision.", show_default=False)],
    reference: Annotated[str, typer.Option(help="The decision to amend, by its own reference.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    purpose: Annotated[str | None, typer.Option(help="What the data may be used for.")] = None,
    purpose_code: PurposeCode = None,
    researcher: Researchers = None,
    dataset: Annotated[list[str] | None, typer.Option(help="A dataset by name; repeat it.")] = None,
    table: Tables = None,
    node: Annotated[list[str] | None, typer.Option(help="A node that may be asked; repeat it.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="Budget per node and dataset, what is spent included.")] = None,
    delta: Annotated[str | None, typer.Option(help="Budget per node and dataset, what is spent included.")] = None,
    lifetime: Annotated[
        int | None, typer.Option("--days", min=1, max=3650, help="Days from now until it ends.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Date or time it ends, in place of --days.")] = None,
    min_nodes: MinNodes = None,
    min_units: MinUnits = None,
    result: Results = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Amend a grant: sign its next revision, with what is named here changed. Accounts at the nodes go on.

    The new revision counts as soon as the researcher asks with it; the one before is refused once the next manifest has
    arrived.

    \b
    Example:
      insitu-authority amend authority --grant grant.jwt --reference CEREES-2026-44 --epsilon 8 --days 180 --out new.jwt
      insitu-authority manifest authority --dataset care/dataset.toml --out manifest.jws
    """
    from dataclasses import replace

    from insitu_access.authority import amend_grant, opened
    from insitu_access.commands.facts import grant_facts
    from insitu_access.files import check_writable, write_file

    if table and not dataset:
        raise usage("--table without --dataset", "Name all datasets and tables of the amended grant.")
    with opened(directory) as authority:
        before = _before(grant)
        changes: dict[str, Any] = {
            "purpose": purpose,
            "purpose_code": purpose_code,
            "researchers": tuple(researcher_of(authority.register, each) for each in researcher or ()) or None,
            "datasets": datasets_of(dataset, table or []) if dataset else None,
            "nodes": tuple(node or ()) or None,
            "epsilon": number_of(epsilon, "--epsilon") if epsilon else None,
            "delta": number_of(delta, "--delta") if delta else None,
            "expires_at": moment(expires, "--expires") if expires else now() + days(lifetime) if lifetime else None,
            "min_nodes": min_nodes,
            "min_units": min_units,
            "results": results_of(result),
        }
        named = {name: value for name, value in changes.items() if value is not None}
        made = replace(before, reference=reference, revision=before.revision + 1, **named)
        check_writable(out)
        token = amend_grant(authority, made)
        write_file(out, token.encode() + b"\n")
    print_facts(grant_facts(made), format_)


def _before(path: Path) -> Grant:
    """The grant of a file; that it is this authority's, and its newest revision, the register says."""
    from insitu_access.files import read_file
    from insitu_access.grant import peek_grant

    token = read_file(path).decode("ascii", "replace").strip()
    return peek_grant(token)
