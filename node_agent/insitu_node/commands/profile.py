"""``insitu-node profile``: the differentially private histograms of a dataset, made once and public from then on."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer
from insitu_access.cli import Format, FormatOption, print_facts, usage

from insitu_node.commands.options import ConfigOption
from insitu_node.config import load_config

if TYPE_CHECKING:
    from insitu_access.data_profile import NodeProfile

    from insitu_node.config import NodeConfig
    from insitu_node.profile_site import Account
    from insitu_node.profiling import Made, Wanted
    from insitu_node.runtime import Served

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="As node.toml names it.", show_default=False)]
EpsilonOption = Annotated[
    str | None, typer.Option("--epsilon", metavar="E", help="What it costs each person here, from profile_epsilon.")
]
RefreshOption = Annotated[bool, typer.Option("--refresh", help="Make another one, and be charged again.")]
TableOption = Annotated[
    list[str] | None, typer.Option("--table", help="Profile this table alone; repeat for more. Else all.")
]


def profile(
    dataset: DatasetArgument,
    config: ConfigOption,
    *,
    epsilon: EpsilonOption = None,
    refresh: RefreshOption = False,
    table: TableOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Release noisy histograms of a dataset: rows and values per person, values of numbers and dates.

    Made once for each version of the dataset, from a budget of its own, which node.toml sets:
    [datasets.NAME] profile_epsilon = 2.0. It is public from then on: gateways and researchers get it, and
    choose bounds by it. Asked again, the same one is shown and nothing is charged, whatever --epsilon says.

    \b
    Example: insitu-node profile care --epsilon 1.0 --config node.toml
    """
    from insitu_node.profile_site import dataset_of
    from insitu_node.profiling import Wanted

    loaded = load_config(config)
    own = dataset_of(loaded, dataset)
    unknown = sorted(set(table or ()) - {one.name for one in own.dataset.tables.values() if not one.public})
    if unknown:
        raise usage(f"dataset {dataset} has no protected table {unknown[0]}", "Name one of its tables with --table.")
    wanted = Wanted(epsilon=_exact(epsilon), refresh=refresh, tables=frozenset(table) if table else None)
    _print(loaded, own, _made(loaded, own, wanted), format_)


def _made(config: NodeConfig, own: Served, wanted: Wanted) -> Made:
    """Where there is one and no other is asked for, no key, ledger or database is opened."""
    from insitu_node.hooks import hook_from
    from insitu_node.log import log_to_stderr
    from insitu_node.profile_site import open_profiler, store_of
    from insitu_node.profiling import Made

    kept = store_of(config, own).kept(own.dataset.name)
    if kept is not None and not wanted.refresh:
        return Made(profile=kept, how="kept")
    log_to_stderr(config.node_id)
    with open_profiler(config, own, hook=hook_from(os.environ)) as profiler:
        return profiler.profile(wanted)


def _exact(text: str | None) -> Fraction | None:
    from insitu_access.payload import read_number

    if text is None:
        return None
    number = read_number(text)
    if number is None or number <= 0:
        raise usage("--epsilon is not a number above 0", "Pass --epsilon 1.0 or --epsilon 1/2.")
    return number


def _print(config: NodeConfig, own: Served, made: Made, format_: Format) -> None:
    from insitu_node.profile_site import account_of

    account = account_of(config, own)
    if format_ is Format.JSON:
        print_facts(_facts(made, account), format_)
        return
    from insitu_node.commands.profile_text import show

    show(made, account, own.dataset)


def _facts(made: Made, account: Account) -> dict[str, object]:
    one: NodeProfile = made.profile
    return {
        "node": one.node,
        "dataset": one.profile.dataset,
        "dataset_digest": one.profile.dataset_digest,
        "serial": one.serial,
        "epsilon": float(one.epsilon),
        "issued_at": f"{one.issued_at:%Y-%m-%dT%H:%M:%SZ}",
        "how": made.how,
        "charged": made.how == "made",
        "epsilon_spent": float(account.spent),
        "epsilon_budget": None if account.budget is None else float(account.budget),
        "histograms": [
            {
                "table": each.measure.table,
                "kind": each.measure.kind,
                "column": each.measure.column,
                "edges": [int(edge) if edge.denominator == 1 else float(edge) for edge in each.measure.edges],
                "counts": list(each.counts),
                "deviation": each.deviation,
            }
            for each in one.profile.histograms
        ],
    }
