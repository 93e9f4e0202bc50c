"""``insitu-node ledger``: what every project has spent here, and every charge, as it was stored."""

from __future__ import annotations

from fractions import Fraction

from insitu_access.cli import Format, FormatOption, print_facts
from insitu_privacy.errors import ConfigInvalid

from insitu_node.commands.options import ConfigOption
from insitu_node.config import load_config
from insitu_node.ledger import Account, LedgerEntry
from insitu_node.ledger_sqlite import SqliteLedger


def ledger(config: ConfigOption, format_: FormatOption = Format.TEXT) -> None:
    """Show the privacy ledger: accounts by grant and dataset, and every charge in the order made.

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
    print_facts(facts, format_)


def _account(account: Account) -> dict[str, object]:
    return {
        "grant": account.grant_id,
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
