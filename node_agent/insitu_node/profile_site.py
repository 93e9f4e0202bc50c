"""Puts together what making a profile needs, beside a running node or without one.

A statement of a profile may take longer than one of a query: nobody but the custodian sees how long, and a profile that
ran out of time would stay spent. What is not here: what is made and when (``profiling``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

from insitu_access.cli import usage
from insitu_access.files import make_directory
from insitu_access.passphrase import asking
from insitu_privacy.errors import BudgetRefused

from insitu_node.audit import NodeAudit
from insitu_node.config import NodeConfig
from insitu_node.custody import Custody
from insitu_node.hooks import Hook
from insitu_node.ledger import PROFILES
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_node.noise import Mechanisms
from insitu_node.profile_store import ProfileStore
from insitu_node.profiling import Past, Profiler, past
from insitu_node.projects import Projects
from insitu_node.running import Runner
from insitu_node.runtime import Served, open_engine, open_log, served, utc_now
from insitu_node.state import cap_key, lock_state

_STATEMENT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What profiles of a dataset have cost, and may cost; and the charges, in the order made."""

    spent: Fraction
    budget: Fraction | None
    charges: tuple[Past, ...]


def dataset_of(config: NodeConfig, name: str) -> Served:
    """A dataset of the node. Raises ConfigInvalid."""
    own = served(config)
    if name not in own:
        raise usage(f"this node serves no dataset {name}", f"Datasets are: {', '.join(sorted(own))}.")
    return own[name]


def store_of(config: NodeConfig, own: Served) -> ProfileStore:
    """Where the node keeps the profiles of one dataset."""
    return ProfileStore(config.state, config.node_id, {own.dataset.name: own.dataset.digest})


def account_of(config: NodeConfig, own: Served) -> Account:
    """As the ledger has it."""
    path = config.state / "ledger.sqlite"
    if not path.exists():
        return Account(spent=Fraction(0), budget=own.config.profile_epsilon, charges=())
    ledger = SqliteLedger(path)
    try:
        accounts, entries = ledger.statement(PROFILES), ledger.entries()
    finally:
        ledger.close()
    spent = sum((one.epsilon for one in accounts if one.dataset == own.dataset.name), Fraction(0))
    return Account(spent=spent, budget=own.config.profile_epsilon, charges=past(entries, own.dataset))


@contextmanager
def open_profiler(config: NodeConfig, own: Served, *, hook: Hook) -> Iterator[Profiler]:
    """H7: a profiler, alone at it until the context ends. Raises BudgetRefused where the custodian set no budget."""
    name, budget = own.dataset.name, own.config.profile_epsilon
    if budget is None:
        raise BudgetRefused("INSITU-PROFILE-NONE", name=name)
    store, ask = store_of(config, own), asking()
    with ExitStack() as stack:
        stack.enter_context(lock_state(store.directory))
        temporary = config.state / "tmp" / f"profile-{name}"
        make_directory(temporary)
        limits = replace(
            config.limits, workers=1, statement_timeout_s=max(config.limits.statement_timeout_s, _STATEMENT_S)
        )
        engine = open_engine(own, base=config.base, limits=limits, temporary=temporary)
        stack.callback(engine.close)
        ledger = SqliteLedger(config.state / "ledger.sqlite")
        stack.callback(ledger.close)
        projects = Projects(config.state)
        stack.callback(projects.close)
        custody = Custody(config.policy, projects)
        secret = cap_key(config.state)
        log = open_log(config, ask)
        stack.callback(log.close)
        audit = NodeAudit(log, clock=utc_now, cap_key=secret)
        audit.agree(ledger)  # what a crash of an earlier run kept from the log
        runner = Runner(
            ledger=ledger,
            custody=custody,
            noise=Mechanisms(),
            cap_key=secret,
            clock=utc_now,
            audit=audit,
            hook=hook,
            stopping=lambda: False,
        )
        yield Profiler(
            node=config.node_id,
            dataset=own.dataset,
            engine=engine,
            budget=budget,
            ledger=ledger,
            custody=custody,
            runner=runner,
            audit=audit,
            store=store,
            clock=utc_now,
            hook=hook,
        )
