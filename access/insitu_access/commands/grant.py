"""``insitu-authority grant``: signs what the committee decided for one project."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_access.commands.arguments import DirectoryArgument, days, moment, now
from insitu_access.commands.granting import (
    AccountingName,
    MinNodes,
    MinUnits,
    PurposeCode,
    Results,
    Tables,
    datasets_of,
    number_of,
    researcher_of,
    results_of,
)


def grant(
    directory: DirectoryArgument,
    *,
    project: Annotated[str, typer.Option(help="The project's name.", show_default=False)],
    purpose: Annotated[str, typer.Option(help="What the data may be used for.", show_default=False)],
    reference: Annotated[str, typer.Option(help="The decision, by its own reference.", show_default=False)],
    researcher: Annotated[
        list[str], typer.Option(help="signing.pub, identity directory or registered id; repeat it.", show_default=False)
    ],
    dataset: Annotated[list[str], typer.Option(help="A dataset by name; repeat it.", show_default=False)],
    node: Annotated[list[str], typer.Option(help="A node that may be asked; repeat it.", show_default=False)],
    epsilon: Annotated[str, typer.Option(help="Budget per node and dataset.", show_default=False)],
    delta: Annotated[str, typer.Option(help="Budget per node and dataset.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    accounting: Annotated[AccountingName, typer.Option(help="How the budget is counted.")] = AccountingName.ZCDP,
    table: Tables = None,
    purpose_code: PurposeCode = None,
    min_nodes: MinNodes = None,
    min_units: MinUnits = None,
    result: Results = None,
    lifetime: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days until it expires.")] = 90,
    not_before: Annotated[str | None, typer.Option(help="Date or time it starts; else now.")] = None,
    expires: Annotated[str | None, typer.Option(help="Date or time it ends, in place of --days.")] = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Sign a grant for one project: who, what, where, until when, and how much.

    \b
    Example:
      insitu-authority grant authority --project stays --purpose "Length of stay" --reference CEREES-2026-17 \\
          --researcher alice/signing.pub --dataset care --table care.visit:day,icd10 --node chu-lille \\
          --epsilon 5 --delta 1e-6 --accounting zcdp --days 90 --out grant.jwt
    """
    from insitu_access.authority import issue_grant, opened
    from insitu_access.commands.facts import grant_facts
    from insitu_access.files import check_writable, write_file
    from insitu_access.grant import Grant, read_accounting

    start = now() if not_before is None else moment(not_before, "--not-before")
    with opened(directory) as authority:
        made = Grant(
            id=uuid.uuid4().hex,
            federation=authority.register.federation,
            project=project,
            purpose=purpose,
            reference=reference,
            researchers=tuple(researcher_of(authority.register, each) for each in researcher),
            datasets=datasets_of(dataset, table or []),
            nodes=tuple(node),
            not_before=start,
            expires_at=start + days(lifetime) if expires is None else moment(expires, "--expires"),
            epsilon=number_of(epsilon, "--epsilon"),
            delta=number_of(delta, "--delta"),
            accounting=read_accounting(accounting.value),
            purpose_code=purpose_code,
            min_nodes=min_nodes or 1,
            min_units=min_units or 0,
            results=results_of(result),
        )
        check_writable(out)
        token = issue_grant(authority, made)
        write_file(out, token.encode() + b"\n")
    print_facts(grant_facts(made), format_)
