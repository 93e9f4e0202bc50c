"""``insitu query`` and ``insitu explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from insitu.commands import arguments as a

Target = Annotated[Path | None, typer.Option("-o", "--output", help="Write to a file.", show_default=False)]


def query(
    sql: a.Sql = None,
    *,
    file: a.File = None,
    dataset: a.DatasetName = None,
    epsilon: a.Epsilon = None,
    delta: a.Delta = None,
    accuracy: a.Accuracy = None,
    mechanism: a.MechanismName = a.Mechanism.auto,
    max_rows_per_group: a.MaxRows = None,
    max_groups: a.MaxGroups = None,
    nodes: a.Nodes = None,
    min_nodes: a.MinNodes = None,
    timeout: a.Timeout = 60.0,
    dialect: a.Dialect = "duckdb",
    improve: a.Improve = None,
    first_look: a.FirstLook = True,
    form: Annotated[a.Rows | None, typer.Option("--format", help="Default: by the suffix of -o, else table.")] = None,
    output: Target = None,
    profile: a.ProfileDir = None,
    quiet: a.Quiet = False,
) -> None:
    """Ask the nodes, verify every release, and print the answer.

    Example: insitu query "SELECT sex, COUNT(*) AS n FROM person GROUP BY sex" --epsilon 0.5 --format json
    """
    text = a.read_sql(sql, file)
    chosen = a.options(
        dataset=dataset,
        epsilon=epsilon,
        delta=delta,
        accuracy=accuracy,
        mechanism=mechanism,
        max_rows_per_group=max_rows_per_group,
        max_groups=max_groups,
        nodes=nodes,
        min_nodes=min_nodes,
        timeout=timeout,
        dialect=dialect,
        improve=improve,
        first_look=first_look,
    )
    from insitu.client import connect
    from insitu.output import check_target, choose_format, write_result
    from insitu.progress import Reporter

    wanted = choose_format(form.value if form else None, output)
    check_target(wanted, output)
    with connect(profile) as federation:
        with Reporter(quiet=quiet) as reporter:
            result = federation.query_with(text, chosen, progress=reporter)
        a.warn(result.warnings)
        write_result(result, wanted, output)


def explain(
    sql: a.Sql = None,
    *,
    file: a.File = None,
    dataset: a.DatasetName = None,
    epsilon: a.Epsilon = None,
    delta: a.Delta = None,
    accuracy: a.Accuracy = None,
    mechanism: a.MechanismName = a.Mechanism.auto,
    max_rows_per_group: a.MaxRows = None,
    max_groups: a.MaxGroups = None,
    nodes: a.Nodes = None,
    min_nodes: a.MinNodes = None,
    timeout: a.Timeout = 60.0,
    dialect: a.Dialect = "duckdb",
    improve: a.Improve = None,
    first_look: a.FirstLook = True,
    form: Annotated[a.Facts | None, typer.Option("--format", help="Default: by the suffix of -o, else table.")] = None,
    output: Target = None,
    profile: a.ProfileDir = None,
) -> None:
    """Show what a query would release and cost.

    And how accurate it would be, and what each node would run. Spends nothing. Epsilon is 1 unless given.

    Example: insitu explain "SELECT COUNT(*) AS n FROM person" --epsilon 0.1
    """
    text = a.read_sql(sql, file)
    chosen = a.options(
        dataset=dataset,
        epsilon=epsilon,
        delta=delta,
        accuracy=accuracy,
        mechanism=mechanism,
        max_rows_per_group=max_rows_per_group,
        max_groups=max_groups,
        nodes=nodes,
        min_nodes=min_nodes,
        timeout=timeout,
        dialect=dialect,
        improve=improve,
        first_look=first_look,
    )
    from insitu.client import connect
    from insitu.output import FACT_SUFFIXES, choose_format, json_bytes, write_bytes

    wanted = choose_format(form.value if form else None, output, FACT_SUFFIXES)
    with connect(profile) as federation:
        explanation = federation.explain_with(text, chosen)
        write_bytes(json_bytes(explanation.to_json()) if wanted == "json" else str(explanation).encode(), output)
