"""Random lives of a ledger: the durable store, reopened at will, says the same as the one in memory."""

from __future__ import annotations

import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from insitu_node.ledger import Ask, LedgerFault, Reservation
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_privacy.errors import Refused
from insitu_privacy.plan import Loss

from tests.testkit.asks import NOW, ask, gaussian_loss, grantable, laplace_loss, values
from tests.testkit.ledger_memory import MemoryLedger

small = st.fractions(min_value=0, max_value=1, max_denominator=50)
losses = st.one_of(small.map(laplace_loss), small.map(lambda rho: gaussian_loss(rho / 20)))
accountings = st.sampled_from(["pure", "zcdp"])


class LedgerLife(RuleBasedStateMachine):
    """Two ledgers, told the same."""

    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.durable = SqliteLedger(self.folder / "ledger.sqlite")
        self.memory = MemoryLedger()
        self.refused_so_far = 0
        self.highest: dict[tuple[str, str], Fraction] = {}

    def teardown(self) -> None:
        self.durable.close()
        shutil.rmtree(self.folder)

    @rule(
        target=reservations,
        request=st.integers(0, 12),
        plan=st.integers(0, 4),
        grant=st.sampled_from(["g1", "g2"]),
        loss=losses,
        accounting=accountings,
    )
    def reserve(
        self, request: int, plan: int, grant: str, loss: Loss, accounting: str
    ) -> tuple[Reservation, Reservation] | None:
        one = ask(
            f"r{request}",
            plan=f"p{plan}",
            grant=grant,
            sha=f"{request} {plan % 2}",
            loss=loss,
            budget=grantable(5, accounting=accounting),
        )
        before = self.memory.entries()
        left, right = self._try(self.durable, one), self._try(self.memory, one)
        if isinstance(left, str) or isinstance(right, str):
            assert left == right
            assert self.memory.entries() == before
            return None
        assert (left.kind, left.first, left.values) == (right.kind, right.first, right.values)
        return left, right

    @staticmethod
    def _try(ledger: SqliteLedger | MemoryLedger, one: Ask) -> Reservation | str:
        try:
            return ledger.reserve(one, NOW)
        except Refused as error:
            return error.code

    @rule(pair=reservations, number=st.integers(0, 1000))
    def commit(self, pair: tuple[Reservation, Reservation] | None, number: int) -> None:
        if pair is None:
            return
        answers = []
        for ledger, reservation in zip((self.durable, self.memory), pair, strict=True):
            try:
                answers.append(repr(ledger.commit(reservation, values(number), NOW)))
            except LedgerFault:
                answers.append("fault")
        assert answers[0] == answers[1]

    @rule(pair=consumes(reservations))
    def fail(self, pair: tuple[Reservation, Reservation] | None) -> None:
        if pair is None:
            return
        answers = []
        for ledger, reservation in zip((self.durable, self.memory), pair, strict=True):
            try:
                ledger.fail(reservation, NOW)
                answers.append("ok")
            except LedgerFault:
                answers.append("fault")
        assert answers[0] == answers[1]

    @rule()
    def reopen(self) -> None:
        self.durable.close()
        self.durable = SqliteLedger(self.folder / "ledger.sqlite")

    @invariant()
    def both_say_the_same(self) -> None:
        for grant in ("g1", "g2"):
            assert self.durable.statement(grant) == self.memory.statement(grant)
        left = [(e.state, sorted(e.request_ids), e.loss, e.account_epsilon) for e in self.durable.entries()]
        right = [(e.state, sorted(e.request_ids), e.loss, e.account_epsilon) for e in self.memory.entries()]
        assert left == right

    @invariant()
    def nothing_is_ever_unspent(self) -> None:
        for grant in ("g1", "g2"):
            for account in self.durable.statement(grant):
                key = account.grant_id, account.dataset
                assert account.spent.rho >= self.highest.get(key, Fraction(0))
                self.highest[key] = account.spent.rho


TestLedgerLife = LedgerLife.TestCase
TestLedgerLife.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
