"""One query's life at the node: admit, reserve, execute, noise, commit, seal.

The order is the guarantee (DESIGN.md section 4, Budget). All that can fail without data is done before the budget is
touched: admission, rendering, the mechanisms' claims, a connection to the database. Then:

    reserve    durable, and in the audit log with the statements, before the first byte of data is read
    execute    exact cells, in memory only
    noise      the cells become noisy integers, once
    commit     durable, before anything leaves; what the ledger stored is what leaves
    seal       the node's signature; the answer is in the audit log before it leaves (``audit``)

A crash before commit leaves a reserved charge that the same query resumes: nothing had left. A failure after reserve
is told as one constant error and stays spent (P4). While the node is being stopped nothing is told: the charge stays
reserved, and the gateway sends the request again.

What is not here: threads and streams (``connection``), which request may run (``admission``), who pays (``ledger``),
and the run itself, which profiles share (``running``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from fractions import Fraction

import structlog
from insitu_access.keys import SigningKey
from insitu_access.manifest import Manifest
from insitu_access.release import BudgetRow, BudgetStatement, NodeRelease, Outcome, refusal_of, seal_outcome
from insitu_access.request import request_sha256
from insitu_privacy.accounting import Grantable
from insitu_privacy.errors import ExecutionFailed, InsituError
from insitu_privacy.plan import ReleasedValues
from insitu_proto.messages import MAX_OUTCOME_CHARS

from insitu_node.admission import AdmittedBudget, AdmittedQuery, Site, admit
from insitu_node.audit import NodeAudit
from insitu_node.custody import Custody
from insitu_node.engines.base import Engine
from insitu_node.hooks import Hook, no_hook
from insitu_node.ledger import Account, Ask, Ledger, Reservation
from insitu_node.policy import RATE_WINDOW, budget
from insitu_node.running import Noise, Progress, Runner, Stopped, place, stored
from insitu_node.turns import Turns

_log = structlog.get_logger("insitu.node.cycle")


class Cycle:
    """Answers tasks. Safe from several threads."""

    def __init__(
        self,
        *,
        site: Site,
        signing: Callable[[], SigningKey],
        manifest: Callable[[datetime], Manifest],
        ledger: Ledger,
        custody: Custody,
        engines: Mapping[str, Engine],
        noise: Noise,
        cap_key: str,
        clock: Callable[[], datetime],
        audit: NodeAudit,
        hook: Hook = no_hook,
    ) -> None:
        self._site = site
        self._signing = signing
        self._manifest = manifest
        self._ledger = ledger
        self.custody = custody
        self._engines = engines
        self._clock = clock
        self.audit = audit
        self._hook = hook
        self._turns = Turns()
        self._stopping = threading.Event()
        self._runner = Runner(
            ledger=ledger,
            custody=custody,
            noise=noise,
            cap_key=cap_key,
            clock=clock,
            audit=audit,
            hook=hook,
            stopping=self._stopping.is_set,
        )

    def stop(self) -> None:
        """From now on nothing is answered; what runs is interrupted and keeps its charge, to be resumed."""
        self._stopping.set()
        for engine in self._engines.values():
            engine.close()

    def answer(self, request_id: str, request_jws: str, grant_jwt: str, progress: Progress) -> str:
        """The sealed outcome of a task, whatever it is. Raises Stopped, and nothing else that a request can cause.

        ``request_id`` is the gateway's word, used to address a refusal of what cannot be read.
        """
        try:
            self.audit.received(request_id, request_jws, grant_jwt)
            outcome = self._outcome(request_jws, grant_jwt, progress)
        except InsituError as error:
            self._runner.stop_quietly()
            return self.refuse(request_id, request_jws, error)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, its text must not leave the node
            self._runner.stop_quietly()
            _log.error("request failed", request_id=request_id, error=type(error).__name__, at=place(error))
            return self.refuse(request_id, request_jws, ExecutionFailed("INSITU-NODE-FAILED"))
        sealed = seal_outcome(outcome, self._signing())
        self._hook("after-seal")
        if len(sealed) > MAX_OUTCOME_CHARS:  # no gateway could take it, today or on any later try
            return self.refuse(request_id, request_jws, ExecutionFailed("INSITU-NODE-FAILED"))
        self.audit.answered(outcome, sealed)
        self._hook("after-audit")
        return sealed

    def refuse(self, request_id: str, request_jws: str, error: InsituError) -> str:
        """A sealed refusal."""
        refusal = refusal_of(
            error,
            node=self._site.node_id,
            request_id=request_id,
            request_sha256=request_sha256(request_jws),
            issued_at=self._clock(),
        )
        _log.info("request refused", request_id=request_id, code=error.code)
        sealed = seal_outcome(refusal, self._signing())
        self.audit.answered(refusal, sealed)
        return sealed

    def _outcome(self, request_jws: str, grant_jwt: str, progress: Progress) -> Outcome:
        now = self._clock()
        self.custody.check_running()
        manifest = self._manifest(now)
        self.custody.check_manifest(manifest.issued_at, now)
        site = replace(self._site, key=self._signing().public())  # keys change while the node runs
        admitted = admit(request_jws, grant_jwt, site=site, manifest=manifest, now=now)
        self.audit.admitted(admitted, request_jws)
        cap = self.custody.standing(admitted.grant, grant_jwt, now).cap
        if isinstance(admitted, AdmittedBudget):
            progress("admitted")
            return self._statement(admitted, budget(admitted.grant, cap))
        self.custody.check_hours(now)
        progress("admitted")
        ask = _ask(admitted, budget(admitted.grant, cap))
        with self._turns.take(ask.key):
            reservation, values = self._values(admitted, ask, progress)
        _log.info("request released", request_id=ask.request_id, replayed=reservation.kind == "replayed")
        return self._release(admitted, reservation, values)

    def _values(
        self, admitted: AdmittedQuery, ask: Ask, progress: Progress
    ) -> tuple[Reservation, tuple[ReleasedValues, ...]]:
        """The values of a query: stored ones, or new ones under a charge of their own."""
        known = self._ledger.find(ask)
        if known is not None and not known.to_run:
            return _known(self._reserve(admitted, ask))
        if known is None:
            now = self._clock()
            self.custody.check_rate(now, self._ledger.charged_since(ask.grant_id, now - RATE_WINDOW))
        engine = self._engines[admitted.request.dataset]
        statements = self._runner.prepare((admitted.plan,), engine)
        with engine.session() as session:
            self._hook("before-reserve")
            reservation = self._reserve(admitted, ask)
            if not reservation.to_run:
                return _known(reservation)
            self.audit.running(ask, reservation, statements)
            progress("reserved")
            values = self._runner.run((admitted.plan,), statements, session, reservation, progress)
            return reservation, values

    def _reserve(self, admitted: AdmittedQuery, ask: Ask) -> Reservation:
        return self._runner.reserve(ask, admitted.grant.expires_at)

    def _release(
        self, admitted: AdmittedQuery, reservation: Reservation, values: tuple[ReleasedValues, ...]
    ) -> NodeRelease:
        replayed = reservation.kind == "replayed" and not reservation.first
        loss = admitted.plan.loss
        return NodeRelease(
            node=self._site.node_id,
            request_id=admitted.request.request_id,
            request_sha256=admitted.request_sha256,
            grant_id=admitted.grant.id,
            dataset=admitted.request.dataset,
            dataset_digest=admitted.plan.dataset_digest,
            plan_digest=admitted.plan.digest,
            values=values,
            spent_epsilon=Fraction(0) if replayed else loss.epsilon,
            spent_delta=Fraction(0) if replayed else loss.delta,
            replayed=replayed,
            issued_at=self._clock(),
        )

    def _statement(self, admitted: AdmittedBudget, held_to: Grantable) -> BudgetStatement:
        grant = admitted.grant
        accounts = {account.dataset: account for account in self._ledger.statement(grant.id)}
        served = [dataset.name for dataset in grant.datasets if dataset.name in self._site.datasets]
        return BudgetStatement(
            node=self._site.node_id,
            request_id=admitted.request.request_id,
            request_sha256=admitted.request_sha256,
            grant_id=grant.id,
            rows=tuple(_row(name, accounts.get(name), held_to.epsilon, held_to.delta) for name in sorted(served)),
            issued_at=self._clock(),
        )


def _ask(admitted: AdmittedQuery, held_to: Grantable) -> Ask:
    grant = admitted.grant
    return Ask(
        request_id=admitted.request.request_id,
        request_sha256=admitted.request_sha256,
        grant_id=grant.id,
        budget=held_to,
        dataset=admitted.request.dataset,
        plan_digest=admitted.plan.digest,
        loss=admitted.plan.loss,
    )


def _known(reservation: Reservation) -> tuple[Reservation, tuple[ReleasedValues, ...]]:
    return reservation, stored(reservation)


def _row(dataset: str, account: Account | None, epsilon: Fraction, delta: Fraction) -> BudgetRow:
    spent = (Fraction(0), Fraction(0)) if account is None else (account.epsilon, account.delta)
    return BudgetRow(
        dataset=dataset,
        epsilon_spent=spent[0],
        epsilon_left=max(Fraction(0), epsilon - spent[0]),
        delta_spent=spent[1],
        delta_left=max(Fraction(0), delta - spent[1]),
    )
