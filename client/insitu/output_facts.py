"""Catalog, budget and explanation as text for people. The JSON documents are made where the values are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from insitu_privacy.language import spoken
from rich.text import Text

from insitu.bounds_said import counted_said
from insitu.catalog import scalar
from insitu.clipped import clipping_said
from insitu.output import new_table, rich_text

if TYPE_CHECKING:
    from insitu_access.data_profile import NodeProfile
    from insitu_privacy.dataset import Column, Dataset, Table
    from insitu_privacy.plan import Release
    from insitu_privacy.rules import ColumnName, Rules
    from rich.table import Table as RichTable

    from insitu.budget import Budget
    from insitu.catalog import Catalog
    from insitu.explain import Explanation
    from insitu.looking import Look

_VALUES_IN_TABLE = 8


def catalog_text(catalog: Catalog) -> str:
    """Datasets, tables and columns, with what is public about them."""
    grant = catalog.grant
    nodes = ", ".join(f"{node} ({place[0]}, {place[1]})" for node, place in catalog.organisations.items())
    head = (
        f"Federation {catalog.federation}, manifest {catalog.manifest_version}\n"
        f"Grant {grant.id}: {grant.project}, {grant.purpose} ({grant.reference}), until {grant.expires_at:%Y-%m-%d}\n"
        f"Budget at each node and dataset: ε {float(grant.epsilon):g}, δ {float(grant.delta):g}, {grant.accounting}\n"
        f"Nodes: {nodes}\n"
    )
    parts: list[Text | RichTable] = [Text(head)]
    for granted in catalog.datasets:
        dataset = granted.dataset
        about = f"{_rules(dataset)}{_profiles(granted.profiles, grant.nodes)}"
        parts.append(Text(f"Dataset {dataset.name}, version {dataset.version}: {dataset.title}\n{about}"))
        for table, columns in granted.granted():
            parts += [
                Text(f"{table.name}: {_kind(table)}", style="bold"),
                _table(table, columns, dataset.rules),
                Text(),
            ]
    return rich_text(*parts).rstrip("\n") + "\n"


def _rules(dataset: Dataset) -> str:
    rules = [f"a person may be known to {dataset.nodes_per_unit} node(s)"]
    if dataset.min_units:
        rules.append(f"cells below {dataset.min_units} by their noisy count are suppressed")
    legal = dataset.rules
    if legal.purposes:
        rules.append(f"for {' or '.join(legal.purposes)} alone")
    if legal.identifiers:
        names = "; ".join(dict.fromkeys(one.name.said(spoken()) for one in legal.identifiers))
        rules.append(f"at most {legal.at_most_identifiers} potential identifier in a query: {names}")
    return "; ".join(rules) + "\n"


def _profiles(profiles: Mapping[str, NodeProfile], nodes: Sequence[str]) -> str:
    """Which nodes have released a profile, and which have not."""
    there = [
        f"{made.node} (number {made.serial}, {made.issued_at:%Y-%m-%d}, ε {float(made.epsilon):g})"
        for made in profiles.values()
    ]
    missing = [node for node in nodes if node not in profiles]
    lines = [f"profiles of {', '.join(there)}"] if there else []
    lines += [f"no profile of {', '.join(missing)}"] if missing else []
    return "; ".join(lines) + "\n"


def _table(table: Table, columns: list[Column], rules: Rules) -> RichTable:
    view = new_table()
    for name in ("column", "type", "public facts"):
        view.add_column(name)
    for column in columns:
        facts = [one for one in (_facts(table, column), _legal((table.name, column.name), rules)) if one]
        view.add_row(Text(column.name), column.type, Text("; ".join(facts)))
    return view


def _legal(name: ColumnName, rules: Rules) -> str:
    """What the dataset's legal rules say of a column."""
    facts = ["never released"] if name in rules.never_released else []
    for one in rules.identifiers:
        if any(name in part for part in one.parts):
            beside = " with other columns" if len(one.parts) > 1 else ""
            coarse = f", unless by {one.finer_than}" if one.finer_than else ""
            facts.append(f"{one.name.said(spoken())}{beside}{coarse}")
    return "; ".join(facts)


def _kind(table: Table) -> str:
    if table.public:
        return f"public, unique by {', '.join(table.key)}" if table.key else "public"
    if table.unit_path is not None:
        return f"a person's, through {table.unit_path.through} on {', '.join(table.unit_path.on)}"
    rows = "one row per person" if table.one_row_per_unit else "a person's"
    bounds = table.bounds
    if bounds is None or table.one_row_per_unit:
        return rows
    return f"{rows}, up to {bounds.max_rows_per_group} rows in a group, {bounds.max_groups} groups"


def _facts(table: Table, column: Column) -> str:
    facts = []
    if column.name in table.unit:
        facts.append("privacy unit")
    if any(column.name in key for key in table.entity_keys):
        facts.append("entity key")
    if column.values is not None:
        shown = ", ".join(str(scalar(value)) for value in column.values[:_VALUES_IN_TABLE])
        rest = len(column.values) - _VALUES_IN_TABLE
        facts.append(f"{len(column.values)} values: {shown}" + (f" and {rest} more" if rest > 0 else ""))
    if column.minimum is not None or column.maximum is not None:
        ends = ["" if end is None else str(scalar(end)) for end in (column.minimum, column.maximum)]
        facts.append(f"{ends[0]} to {ends[1]}")
    if column.nullable:
        facts.append("may be NULL")
    if column.constant_per_unit:
        facts.append("constant per person")
    if column.references:
        facts.append(f"is {' or '.join(map('.'.join, column.references))}")
    return "; ".join(facts)


def budget_text(budget: Budget) -> str:
    """One line for each account."""
    view = new_table()
    view.add_column("node")
    view.add_column("dataset")
    for name in ("ε spent", "ε left", "δ spent", "δ left"):
        view.add_column(name, justify="right")
    for line in budget.lines:
        numbers = (line.epsilon_spent, line.epsilon_left, line.delta_spent, line.delta_left)
        view.add_row(Text(line.node), Text(line.dataset), *(f"{float(number):.6g}" for number in numbers))
    missing = "\n".join(f"missing: {node.id} {node.status} {node.code}" for node in budget.missing)
    return rich_text(Text(f"Grant {budget.grant}"), view, *([Text(missing)] if missing else []))


def explanation_text(explanation: Explanation) -> str:
    """What is released, how accurate it will be, what it costs, and what each node runs."""
    plan = explanation.plan
    epsilon, delta = explanation.person_level
    parts: list[Text | RichTable] = []
    if explanation.look is not None:
        parts.append(Text(f"{_look_said(explanation.look)}\n"))
    for release, reason in zip(plan.releases, explanation.reasons, strict=True):
        parts += [Text(_release_head(release, reason)), _statistics(explanation, release)]
    expected = new_table()
    expected.add_column("column")
    expected.add_column("±", justify="right")
    expected.add_column("clipping", justify="right")
    for column, width, cut in zip(plan.output, explanation.expected, explanation.clipping, strict=True):
        reach = "exact" if not column.noisy else "?" if width is None else f"{width:,.4g}"
        expected.add_row(Text(column.name), reach, "" if not column.noisy else "?" if cut is None else f"{cut:.2%}")
    cost = (
        f"Cost at each node: ε {float(explanation.loss.epsilon):g}, δ {float(explanation.loss.delta):g}\n"
        f"Cost for a person known to {plan.nodes_per_unit} node(s): ε {float(epsilon):g}, δ {float(delta):g}\n"
        + "".join(f"Warning: {one}\n" for one in explanation.warnings)
    )
    sql = "\n\n".join(f"-- each node, {dialect}\n{text}" for dialect, text in explanation.node_sql.items())
    head = Text(f"\nExpected {explanation.level:.0%} intervals, {len(explanation.nodes)} nodes, the widest of any row")
    return rich_text(
        *parts,
        head,
        expected,
        *_clipping_unknown(explanation),
        *_epsilon_table(explanation),
        Text(f"\n{cost}\n-- afterwards\n{plan.postprocessing}\n\n{sql}"),
    )


_SEEN = {"rows": "rows", "distinct": "groups"}


def _look_said(look: Look) -> str:
    """That part of epsilon is spent first, on what."""
    seen = " and ".join(dict.fromkeys(_SEEN[one.kind] for one in look.first.measures))
    return (
        f"A first look at the {seen} of each person in this query takes ε {float(look.plan.loss.epsilon):g}:\n"
        "bounds are chosen by it; those below are a guess without it (--no-first-look)"
    )


def _clipping_unknown(explanation: Explanation) -> list[Text]:
    """Why there are question marks for clipping."""
    columns = zip(explanation.plan.output, explanation.clipping, strict=True)
    noisy = [(column.name, cut) for column, cut in columns if column.noisy]
    if all(cut is not None for _, cut in noisy):
        return []
    return [Text(clipping_said(noisy, explanation.profiled))]


def _epsilon_table(explanation: Explanation) -> list[Text | RichTable]:
    """What other epsilons would buy, for the noisy columns."""
    noisy = [place for place, column in enumerate(explanation.plan.output) if column.noisy]
    if not noisy or not explanation.epsilon_table:
        return []
    view = new_table()
    view.add_column("ε", justify="right")
    for place in noisy:
        view.add_column(Text(f"{explanation.plan.output[place].name} ±"), justify="right")
    for step in explanation.epsilon_table:
        view.add_row(f"{float(step.epsilon):g}", *(_reach(*step.reach[place]) for place in noisy))
    return [
        Text(
            "\nWhat each ε would buy: the widest interval of any row, and the widest in shares of its value\n"
            "(groups are as large as profiles let expect, else of 1,000 rows at each node)"
        ),
        view,
    ]


def _reach(width: float | None, share: float | None) -> str:
    if width is None:
        return "?"
    return f"{width:,.4g}" if share is None else f"{width:,.4g} ({share:.2%})"


def _release_head(release: Release, reason: str) -> str:
    lines = [f"{release.mechanism.capitalize()} noise; {counted_said(release)} ({reason})"]
    if release.tree is not None:
        lines.append(f"A tree of counts over {release.tree.leaves} values: quantiles are read from it")
    if release.threshold is not None:
        lines.append(f"Groups are released above {release.threshold.tau} persons by a noisy count at one node")
    elif release.cells is None:
        lines.append(f"For the groups that {release.tree.keys_of if release.tree else ''} releases")
    elif release.keys:
        lines.append(f"All {release.cells} groups are released")
    lines += [f"  {key.name}: {key.reason}" for key in release.keys]
    if release.suppress_below:
        lines.append(f"Cells below {release.suppress_below} by their noisy count are suppressed")
    return "\n".join(lines) + "\n"


def _statistics(explanation: Explanation, release: Release) -> RichTable:
    view = new_table()
    view.add_column("statistic")
    for name in ("a person adds up to", "scale", "± of the sum over nodes"):
        view.add_column(name, justify="right")
    for statistic in explanation.to_json()["releases"][explanation.plan.releases.index(release)]["statistics"]:
        most = statistic["linf"] * statistic["one"]
        scale = statistic["scale"] * statistic["one"]
        view.add_row(statistic["kind"], f"{most:,.6g}", f"{scale:,.6g}", f"{statistic['half_width']:,.4g}")
    return view
