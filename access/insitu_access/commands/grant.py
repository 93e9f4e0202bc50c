"""``insitu-authority grant``: signs what the committee decided for one project."""

from __future__ import annotations

import uuid
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import Format, FormatOption, print_facts, usage
from insitu_access.commands.arguments import DirectoryArgument, days, moment, now

if TYPE_CHECKING:
    from insitu_access.grant import GrantedDataset
    from insitu_access.keys import VerifyingKey
    from insitu_access.register import Register


class AccountingName(StrEnum):
    """How the budget is counted: zero-concentrated DP, or epsilons of Laplace noise added up."""

    ZCDP = "zcdp"
    PURE = "pure"


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
    table: Annotated[
        list[str] | None, typer.Option(help="DATASET.TABLE or DATASET.TABLE:COL,COL; else all tables of a dataset.")
    ] = None,
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
    from insitu_access.files import write_file
    from insitu_access.grant import Grant, read_accounting

    start = now() if not_before is None else moment(not_before, "--not-before")
    with opened(directory) as authority:
        made = Grant(
            id=uuid.uuid4().hex,
            federation=authority.register.federation,
            project=project,
            purpose=purpose,
            reference=reference,
            researchers=tuple(_researcher(authority.register, each) for each in researcher),
            datasets=_datasets(dataset, table or []),
            nodes=tuple(node),
            not_before=start,
            expires_at=start + days(lifetime) if expires is None else moment(expires, "--expires"),
            epsilon=_number(epsilon, "--epsilon"),
            delta=_number(delta, "--delta"),
            accounting=read_accounting(accounting.value),
        )
        token = issue_grant(authority, made)
        write_file(out, token.encode() + b"\n")
    print_facts(grant_facts(made), format_)


def _researcher(register: Register, text: str) -> VerifyingKey:
    """A researcher's key: by registered id, by its file, or by the identity directory that holds it."""
    from insitu_access.keys import load_verifying_key

    registered = register.key_of("researcher", text)
    if registered is not None:
        return registered
    path = Path(text)
    return load_verifying_key(path / "signing.pub" if path.is_dir() else path)


def _number(text: str, option: str) -> Fraction:
    from insitu_access.payload import read_number

    value = read_number(text.lower())
    if value is None:
        raise usage(f"{option} is not a number", f"Pass {option} 1, {option} 1/2 or {option} 1e-6.")
    return value


def _datasets(names: list[str], tables: list[str]) -> tuple[GrantedDataset, ...]:
    """The granted datasets; one that no --table names is granted whole."""
    from insitu_access.grant import GrantedDataset

    narrowed: dict[str, dict[str, frozenset[str] | None]] = {}
    for text in tables:
        dataset, table, columns = _table(text)
        if dataset not in names:
            raise usage("a --table names a dataset that no --dataset does", "Pass --dataset for it too.")
        if table in narrowed.setdefault(dataset, {}):
            raise usage("a table is named twice", "Name each table once, with all its columns.")
        narrowed[dataset][table] = columns
    return tuple(GrantedDataset(name=name, tables=narrowed.get(name)) for name in names)


def _table(text: str) -> tuple[str, str, frozenset[str] | None]:
    name, colon, columns = text.partition(":")
    dataset, dot, table = name.rpartition(".")
    if not dot or not dataset or not table or (colon and not columns):
        raise usage("--table must be DATASET.TABLE or DATASET.TABLE:COL,COL", "For example care.visit:day,icd10.")
    return dataset, table, frozenset(columns.split(",")) if colon else None
