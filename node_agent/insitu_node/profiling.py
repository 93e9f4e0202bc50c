"""Making a profile: once per dataset version, from a budget of the custodian's own, charged like any query.

A profile is many releases under one charge. Its life is that of a query (``cycle``): all that can fail without data is
done first, the charge is durable before the first row is read, what the ledger stored is what leaves. Beyond that:

H7  without the custodian's ``profile_epsilon`` for a dataset none is made of it; all profiles of a dataset, over all
    its versions, together stay within it. The ledger holds the account, under a name that no grant can have
H8  a version is profiled once: who asks again is shown the one there is, and only ``--refresh`` is charged again. A run
    that a crash cut off is finished under its own charge; one that failed stays spent, and is not tried again by itself
H9  a profile holds what was committed and public facts of the contract, nothing else

``serial`` counts the profiles of a dataset, those that failed too: it is the number of the charge, so that the ledger
knows it whatever becomes of files. What is not here: the measures (``insitu_privacy.profile_measures``), files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Literal

from insitu_access.cli import usage
from insitu_access.data_profile import NodeProfile
from insitu_privacy.accounting import Grantable
from insitu_privacy.data_profile import Measure
from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import BudgetRefused
from insitu_privacy.plan import PrivacyPlan, ReleasedValues, composed
from insitu_privacy.profile_measures import histogram, profile_of, profile_plans

from insitu_node.audit import NodeAudit
from insitu_node.custody import Custody
from insitu_node.engines.base import Engine
from insitu_node.hooks import Hook
from insitu_node.ledger import PROFILES, Ask, Ledger, LedgerEntry, Reservation, State
from insitu_node.profile_store import ProfileStore
from insitu_node.running import Runner, stored

_MOST_BINS = 60_000
"""A bin is at most some 50 bytes of a token that may have 4 MiB: what could not be signed is not charged."""
Plans = tuple[tuple[Measure, PrivacyPlan], ...]

# ----------------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the custodian asks for."""

    epsilon: Fraction | None
    refresh: bool = False
    tables: frozenset[str] | None = None
    """None for all that the node serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A charge for a profile, as the ledger has it."""

    serial: int
    this_version: bool
    state: State
    plan_digest: str
    epsilon: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A profile to be made: under which number, at what cost, and under which charge where it was charged before."""

    serial: int
    epsilon: Fraction
    charged: Past | None = None


def past(entries: Sequence[LedgerEntry], dataset: Dataset) -> tuple[Past, ...]:
    """The charges for profiles of a dataset, in the order made."""
    return tuple(
        Past(
            serial=int(entry.request_ids[0].rpartition("-")[2]),
            this_version=entry.request_ids[0].startswith(_prefix(dataset)),
            state=entry.state,
            plan_digest=entry.plan_digest,
            epsilon=entry.loss.epsilon,
        )
        for entry in entries
        if (entry.grant_id, entry.dataset) == (PROFILES, dataset.name)
    )


def unfinished(charges: Sequence[Past], kept: int | None) -> Past | None:
    """The newest charge of this version that a crash kept from becoming a profile: newer than the one there is."""
    mine = [one for one in charges if one.this_version and one.state != "failed" and one.serial > (kept or 0)]
    return mine[-1] if mine else None


def decided(name: str, charges: Sequence[Past], kept: int | None, wanted: Wanted) -> Step | None:
    """H8: what is to be made, or None where the one there is is to be shown. ``kept`` is its serial.

    Raises BudgetRefused (INSITU-PROFILE-AGAIN), or ConfigInvalid where no epsilon was given and one is needed.
    """
    if kept is not None and not wanted.refresh:
        return None
    begun = unfinished(charges, kept)
    if begun is not None:
        return Step(serial=begun.serial, epsilon=begun.epsilon, charged=begun)
    if not wanted.refresh and any(one.this_version for one in charges):
        raise BudgetRefused("INSITU-PROFILE-AGAIN", name=name, reason="that run failed, and its cost stays spent")
    return anew(charges, wanted)


def anew(charges: Sequence[Past], wanted: Wanted) -> Step:
    """A profile under a charge of its own. Raises ConfigInvalid where no epsilon was given."""
    if wanted.epsilon is None:
        raise usage("what the profile may cost is not said", "Pass --epsilon 1.0: what it costs each person here.")
    return Step(serial=max((one.serial for one in charges), default=0) + 1, epsilon=wanted.epsilon)


def ask_of(dataset: Dataset, step: Step, plans: Plans, budget: Fraction) -> Ask:
    """H7: the charge. Equal for equal plans of one serial, so that who comes back after a crash gets it again."""
    request_id = f"{_prefix(dataset)}{step.serial}"
    digest = hashlib.sha256(f"insitu-profile-v1 {request_id} {dataset.digest}\n".encode())
    for _, plan in plans:
        digest.update(bytes.fromhex(plan.digest))
    return Ask(
        request_id=request_id,
        request_sha256=digest.hexdigest(),
        grant_id=PROFILES,
        budget=Grantable(epsilon=budget, delta=Fraction(0), accounting="pure"),
        dataset=dataset.name,
        plan_digest=digest.hexdigest(),
        loss=composed([plan.loss for _, plan in plans]),
    )


def _prefix(dataset: Dataset) -> str:
    return f"profile-{dataset.digest[:16]}-"


# -------------------------------------------------------------------------------------------------------------- acting


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A profile, and what was done for it now."""

    profile: NodeProfile
    how: Literal["kept", "made", "finished"]
    """``finished``: under a charge that was made before."""


class Profiler:
    """Makes profiles of one dataset. One at a time: who opens it holds the lock of the store."""

    def __init__(
        self,
        *,
        node: str,
        dataset: Dataset,
        engine: Engine,
        budget: Fraction,
        ledger: Ledger,
        custody: Custody,
        runner: Runner,
        audit: NodeAudit,
        store: ProfileStore,
        clock: Callable[[], datetime],
        hook: Hook,
    ) -> None:
        self._node = node
        self._dataset = dataset
        self._engine = engine
        self._budget = budget
        self._ledger = ledger
        self._custody = custody
        self._runner = runner
        self._audit = audit
        self._store = store
        self._clock = clock
        self._hook = hook

    def profile(self, wanted: Wanted) -> Made:
        """The profile there is, or a new one. Raises InsituError."""
        name = self._dataset.name
        self._custody.check_running()  # C1
        kept = self._store.kept(name)
        charges = past(self._ledger.entries(), self._dataset)
        step = decided(name, charges, None if kept is None else kept.serial, wanted)
        if step is None:
            assert kept is not None
            return Made(profile=kept, how="kept")
        step, plans = self._planned(step, charges, wanted)
        ask = ask_of(self._dataset, step, plans, self._budget)
        self._audit.profiling(name, step.epsilon)
        reservation, values = self._values(ask, [plan for _, plan in plans])
        made = self._assembled(step, plans, values)
        self._audit.profiled(reservation, made)  # E10: on the disk before the profile is there to be given out
        self._store.keep(made)
        return Made(profile=made, how="made" if reservation.kind == "new" else "finished")

    def _planned(self, step: Step, charges: Sequence[Past], wanted: Wanted) -> tuple[Step, Plans]:
        """The plans; a charge that other plans were made for is not resumed, and not charged again unasked."""
        plans = self._plans(step.epsilon, wanted.tables)
        if step.charged is None or ask_of(self._dataset, step, plans, self._budget).plan_digest == (
            step.charged.plan_digest
        ):
            return step, plans
        if not wanted.refresh:
            reason = "it was cut off, and was of other tables or by another version of insitu: it cannot be finished"
            raise BudgetRefused("INSITU-PROFILE-AGAIN", name=self._dataset.name, reason=reason)
        step = anew(charges, wanted)
        return step, self._plans(step.epsilon, wanted.tables)

    def _plans(self, epsilon: Fraction, tables: Collection[str] | None) -> Plans:
        served = self._engine.tables.keys() & (self._dataset.tables.keys() if tables is None else tables)
        plans = profile_plans(self._dataset, epsilon, served)
        if not plans:
            raise usage(
                f"dataset {self._dataset.name} has no measure to profile here",
                "Map its tables in node.toml and name such as are not public with --table.",
            )
        if sum(measure.bins for measure, _ in plans) > _MOST_BINS:
            raise usage(f"{len(plans)} measures are too many for one profile", "Name fewer tables with --table.")
        return plans

    def _values(self, ask: Ask, plans: Sequence[PrivacyPlan]) -> tuple[Reservation, tuple[ReleasedValues, ...]]:
        statements = self._runner.prepare(plans, self._engine)
        known = self._ledger.find(ask)
        if known is not None and not known.to_run:
            reservation = self._runner.reserve(ask, None)
            return reservation, stored(reservation)
        with self._engine.session() as session:
            self._hook("before-reserve")
            reservation = self._reserve(ask)
            self._audit.running(ask, reservation, statements)
            return reservation, self._runner.run(plans, statements, session, reservation, lambda _: None)

    def _reserve(self, ask: Ask) -> Reservation:
        try:
            return self._runner.reserve(ask, None)
        except BudgetRefused:
            raise BudgetRefused("INSITU-PROFILE-BUDGET", name=ask.dataset) from None

    def _assembled(self, step: Step, plans: Plans, values: tuple[ReleasedValues, ...]) -> NodeProfile:
        """H9: of the stored values alone."""
        histograms = tuple(histogram(measure, plan, one) for (measure, plan), one in zip(plans, values, strict=True))
        return NodeProfile(
            node=self._node,
            serial=step.serial,
            epsilon=step.epsilon,
            issued_at=self._clock().replace(microsecond=0),
            profile=profile_of(self._dataset, histograms),
        )
