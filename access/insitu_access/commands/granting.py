"""How the options of ``grant`` and ``amend`` are read."""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from insitu_access.cli import usage

if TYPE_CHECKING:
    from insitu_privacy.result_kinds import ResultKind

    from insitu_access.grant import GrantedDataset
    from insitu_access.keys import VerifyingKey
    from insitu_access.register import Register


class AccountingName(StrEnum):
    """How the budget is counted: zero-concentrated DP, or epsilons of Laplace noise added up."""

    ZCDP = "zcdp"
    PURE = "pure"


class ResultName(StrEnum):
    """Kinds of results: counts of rows, persons and entities; sums and what is made of them; quantiles; groups that
    are chosen by their size."""

    COUNTS = "counts"
    SUMS = "sums"
    QUANTILES = "quantiles"
    SELECTED_GROUPS = "selected-groups"


PurposeCode = Annotated[
    str | None, typer.Option(help="The purpose by its code, as datasets and custodians' rules name it.")
]
Researchers = Annotated[
    list[str] | None, typer.Option("--researcher", help="signing.pub, identity directory or registered id; repeat it.")
]
Tables = Annotated[
    list[str] | None,
    typer.Option("--table", help="DATASET.TABLE or DATASET.TABLE:COL,COL; else all tables of a dataset."),
]
MinNodes = Annotated[int | None, typer.Option(min=1, help="Nodes that a query must ask, and be answered by.")]
MinUnits = Annotated[int | None, typer.Option(min=0, help="Cells below this are suppressed.")]
Results = Annotated[
    list[ResultName] | None, typer.Option("--result", help="A kind of result that is allowed; repeat it; else all.")
]


def researcher_of(register: Register, text: str) -> VerifyingKey:
    """A researcher's key: by registered id, by its file, or by the identity directory that holds it."""
    from insitu_access.keys import load_verifying_key

    registered = register.key_of("researcher", text)
    if registered is not None:
        return registered
    path = Path(text)
    return load_verifying_key(path / "signing.pub" if path.is_dir() else path)


def number_of(text: str, option: str) -> Fraction:
    from insitu_access.payload import read_number

    value = read_number(text.lower())
    if value is None:
        raise usage(f"{option} is not a number", f"Pass {option} 1, {option} 1/2 or {option} 1e-6.")
    return value


def datasets_of(names: list[str], tables: list[str]) -> tuple[GrantedDataset, ...]:
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


def results_of(names: list[ResultName] | None) -> frozenset[ResultKind] | None:
    """The allowed kinds of results; None for all."""
    from insitu_access.grant import read_results

    return None if not names else read_results([name.value for name in names])
