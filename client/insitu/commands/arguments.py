"""Arguments that several subcommands share, and how the SQL of a query is read."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from insitu_privacy.errors import ConfigInvalid

from insitu.planning import TIMEOUT_S, Options

SQL_LIMIT = 256 * 1024
"""Bytes; no more of a file or of standard input is read, and the planner refuses what is longer."""


class Facts(StrEnum):
    """Formats of commands that print facts."""

    table = "table"
    json = "json"


class Rows(StrEnum):
    """Formats of a result."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    arrow = "arrow"


class Mechanism(StrEnum):
    """Noise mechanisms a request may name."""

    auto = "auto"
    laplace = "laplace"
    gaussian = "gaussian"


Sql = Annotated[
    str | None, typer.Argument(metavar="SQL", help="The query; - reads standard input.", show_default=False)
]
File = Annotated[Path | None, typer.Option("-f", "--file", help="Read the SQL from a file.", show_default=False)]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="Needed only where the grant covers several.", show_default=False)
]
Epsilon = Annotated[str | None, typer.Option("--epsilon", help="Privacy loss at each node.", show_default=False)]
Delta = Annotated[
    str | None, typer.Option("--delta", help="At each node; default a twentieth of the grant's.", show_default=False)
]
Accuracy = Annotated[
    str | None,
    typer.Option(
        "--accuracy", help="In place of --epsilon: the least that is expected to reach ±50, or ±5%.", show_default=False
    ),
]
MechanismName = Annotated[Mechanism, typer.Option("--mechanism", help="The noise; auto takes the more accurate.")]
MaxRows = Annotated[
    int | None,
    typer.Option("--max-rows-per-group", help="In place of the dataset's contribution bound.", show_default=False),
]
MaxGroups = Annotated[
    int | None, typer.Option("--max-groups", help="In place of the dataset's contribution bound.", show_default=False)
]
Nodes = Annotated[str | None, typer.Option("--nodes", help="Ask these alone, as a,b.", show_default=False)]
MinNodes = Annotated[
    int | None, typer.Option("--min-nodes", help="How many must answer; default all asked.", show_default=False)
]
Improve = Annotated[
    str | None,
    typer.Option(
        "--improve", help="At no cost, and said in the answer: non-negative, consistent, or both.", show_default=False
    ),
]
FirstLook = Annotated[
    bool,
    typer.Option(
        "--first-look/--no-first-look",
        help="Where conditions leave a guess, a tenth of epsilon tells first how many rows a person has.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the nodes.")]
Dialect = Annotated[str, typer.Option("--dialect", help="What the SQL is written in: duckdb, postgres, tsql ...")]
ProfileDir = Annotated[
    Path | None,
    typer.Option("--profile", help="What `insitu connect` wrote; default INSITU_PROFILE, else insitu/default in the "
                 "platform's configuration folder.", show_default=False),
]  # fmt: skip
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]


def read_sql(sql: str | None, file: Path | None) -> str:
    """The SQL from the argument, the file or standard input; exactly one of them."""
    if (sql is None) == (file is None):
        reason = "no SQL was given" if sql is None else "SQL was given twice"
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason=reason, hint="Pass it as an argument, or -f FILE, or - .")
    if file is None and sql != "-":
        return str(sql)
    name = str(file or "standard input")
    try:
        raw = sys.stdin.buffer.read(SQL_LIMIT + 1) if file is None or str(file) == "-" else _read(file)
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=name, reason=error.strerror or "unreadable") from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=name, reason="it is not UTF-8 text") from error


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(SQL_LIMIT + 1)


def options(
    *,
    dataset: str | None,
    epsilon: str | None,
    delta: str | None,
    accuracy: str | None,
    mechanism: Mechanism,
    max_rows_per_group: int | None,
    max_groups: int | None,
    nodes: str | None,
    min_nodes: int | None,
    timeout: float = TIMEOUT_S,
    dialect: str,
    improve: str | None = None,
    first_look: bool = True,
) -> Options:
    """The flags as one value."""
    if accuracy is not None and epsilon is not None:
        hint = "Pass one of the two."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="--accuracy stands in place of --epsilon", hint=hint)
    return Options(
        dataset=dataset,
        epsilon=epsilon,
        accuracy=accuracy,
        delta=delta,
        mechanism=mechanism.value,
        max_rows_per_group=max_rows_per_group,
        max_groups=max_groups,
        nodes=None if nodes is None else [one.strip() for one in nodes.split(",") if one.strip()],
        min_nodes=min_nodes,
        timeout=timeout,
        dialect=dialect,
        improve=() if improve is None else improve.split(","),
        first_look=first_look,
    )


def warn(lines: tuple[str, ...]) -> None:
    """Warnings, on standard error."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)
