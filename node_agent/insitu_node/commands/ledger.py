"""``insitu-node ledger``: what every project has spent here, and every charge, as it was stored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_privacy.errors import ConfigInvalid

from insitu_node.commands.options import ConfigOption
from insitu_node.config import load_config
from insitu_node.ledger import PROFILES, Account, LedgerEntry
from insitu_node.ledger_sqlite import SqliteLedger

if TYPE_CHECKING:
    from rich.table import Table


def ledger(config: ConfigOption, format_: FormatOption = Format.TEXT) -> None:
    """Show the privacy ledger: accounts by grant and dataset, and every charge in the order made.

    Profiles have an account of their own, which stands under (profile) in place of a grant.

    \b
    Example: insitu-node ledger --config node.toml --format json
    """
    loaded = load_config(config)
    path = loaded.state / "ledger.sqlite"
    if not path.exists():
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason="there is no ledger yet")
    store = SqliteLedger(path)
    try:
        entries = store.entries()
        grants = sorted({entry.grant_id for entry in entries})
        accounts = [account for grant in grants for account in store.statement(grant)]
    finally:
        store.close()
    facts = {
        "node": loaded.node_id,
        "accounts": [_account(account) for account in accounts],
        "charges": [_charge(entry) for entry in entries],
    }
    if format_ is Format.JSON:
        print_facts(facts, format_)
    else:
        _show(loaded.node_id, accounts, entries)


def _show(node: str, accounts: Sequence[Account], entries: Sequence[LedgerEntry]) -> None:
    """The same as tables, for people; ids of requests and plans by their first characters."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    projects = [account for account in accounts if not _is_profile(account)]
    profiles = [account for account in accounts if _is_profile(account)]
    console.print(f"Node {node}: what every project has spent here, per grant and dataset")
    console.print(
        _table(
            ("grant", "dataset", "ε spent", "δ spent", "ρ spent"),
            [(a.grant_id, a.dataset, _g(a.epsilon), _g(a.delta), _g(a.spent.rho)) for a in projects],
        )
    )
    if profiles:
        console.print("\nWhat profiles have spent (insitu-node profile), from the custodian's own budget, per dataset")
        console.print(_table(("dataset", "ε spent"), [(a.dataset, _g(a.epsilon)) for a in profiles]))
    console.print("\nEvery charge, in the order made; the account is what was spent with it in all")
    console.print(
        _table(
            ("charge", "reserved (UTC)", "state", "ε", "δ", "account ε", "grant", "dataset", "plan", "requests"),
            [
                (
                    str(one.charge_id),
                    f"{one.reserved_at:%Y-%m-%d %H:%M:%S}",
                    one.state,
                    _g(one.loss.epsilon),
                    _g(one.loss.delta),
                    _g(one.account_epsilon),
                    one.grant_id,
                    one.dataset,
                    one.plan_digest[:12],
                    f"{one.request_ids[0][:12]}{f' and {len(one.request_ids) - 1} more' * (len(one.request_ids) > 1)}",
                )
                for one in entries
            ],
        )
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _is_profile(one: Account | LedgerEntry) -> bool:
    return one.grant_id == PROFILES


def _g(value: Fraction) -> str:
    return f"{float(value):.6g}"


def _account(account: Account) -> dict[str, object]:
    return {
        "grant": account.grant_id,
        "profile": _is_profile(account),
        "dataset": account.dataset,
        "epsilon_spent": float(account.epsilon),
        "delta_spent": float(account.delta),
        "rho_spent": float(account.spent.rho),
        "pure_epsilon_spent": _number(account.spent.pure),
    }


def _charge(entry: LedgerEntry) -> dict[str, object]:
    return {
        "charge": entry.charge_id,
        "grant": entry.grant_id,
        "profile": _is_profile(entry),
        "dataset": entry.dataset,
        "state": entry.state,
        "plan": entry.plan_digest,
        "requests": list(entry.request_ids),
        "epsilon": float(entry.loss.epsilon),
        "delta": float(entry.loss.delta),
        "rho": float(entry.loss.rho),
        "account_epsilon": float(entry.account_epsilon),
        "account_delta": float(entry.account_delta),
        "reserved_at": int(entry.reserved_at.timestamp()),
        "settled_at": None if entry.settled_at is None else int(entry.settled_at.timestamp()),
    }


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
