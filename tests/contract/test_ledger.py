"""The ledger's contract, run against every store: the rules L1 to L5 of ``insitu_node.ledger``."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from insitu_node.ledger import Ledger, LedgerFault, Reservation
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_privacy.errors import AccessRefused, BudgetRefused

from tests.testkit.asks import NOW, ask, gaussian_loss, grantable, laplace_loss, values
from tests.testkit.ledger_memory import MemoryLedger


class LedgerContract:
    """Every store passes these."""

    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        raise NotImplementedError

    def test_a_new_request_is_charged(self, ledger: Ledger) -> None:
        got = ledger.reserve(ask("r1", epsilon="1/3"), NOW)
        assert (got.kind, got.first, got.values, got.to_run) == ("new", True, None, True)
        (account,) = ledger.statement("grant-1")
        assert (account.dataset, account.epsilon, account.delta) == ("care", Fraction(1, 3), 0)
        assert account.spent.rho == Fraction(1, 18)

    @pytest.mark.attacks("L2")
    def test_what_was_committed_is_replayed_to_the_same_request_for_ever(self, ledger: Ledger) -> None:
        got = ledger.reserve(ask("r1"), NOW)
        assert ledger.commit(got, values(5), NOW) == values(5)
        for _ in range(3):
            again = ledger.reserve(ask("r1"), NOW + timedelta(days=1))
            assert (again.kind, again.first, again.values, again.to_run) == ("replayed", True, values(5), False)
        assert ledger.statement("grant-1")[0].epsilon == Fraction(1, 10)

    @pytest.mark.attacks("L3")
    def test_the_same_query_under_another_request_id_is_free(self, ledger: Ledger) -> None:
        ledger.commit(ledger.reserve(ask("r1", plan="p"), NOW), values(5), NOW)
        again = ledger.reserve(ask("r2", plan="p"), NOW)
        assert (again.kind, again.first, again.values) == ("replayed", False, values(5))
        assert ledger.statement("grant-1")[0].epsilon == Fraction(1, 10)
        assert ledger.reserve(ask("r2", plan="p"), NOW).kind == "replayed"

    def test_the_same_query_of_another_grant_or_dataset_is_another_charge(self, ledger: Ledger) -> None:
        ledger.commit(ledger.reserve(ask("r1", plan="p"), NOW), values(5), NOW)
        assert ledger.reserve(ask("r2", plan="p", grant="grant-2"), NOW).kind == "new"
        assert ledger.reserve(ask("r3", plan="p", dataset="claims"), NOW).kind == "new"
        assert [account.dataset for account in ledger.statement("grant-1")] == ["care", "claims"]

    @pytest.mark.attacks("L2")
    def test_a_reservation_that_was_cut_off_resumes_under_its_charge(self, ledger: Ledger) -> None:
        first = ledger.reserve(ask("r1", plan="p"), NOW)
        assert ledger.reserve(ask("r1", plan="p"), NOW) == replace(first, kind="resumed")
        other = ledger.reserve(ask("r2", plan="p"), NOW)
        assert (other.kind, other.first, other.charge_id) == ("resumed", False, first.charge_id)
        assert ledger.statement("grant-1")[0].epsilon == Fraction(1, 10)

    @pytest.mark.attacks("L1")
    def test_a_request_id_with_other_bytes_is_refused(self, ledger: Ledger) -> None:
        ledger.reserve(ask("r1"), NOW)
        before = ledger.statement("grant-1"), ledger.entries()
        with pytest.raises(AccessRefused) as caught:
            ledger.reserve(ask("r1", sha="0" * 64), NOW)
        assert caught.value.code == "INSITU-ACCESS-REPLAY"
        assert (ledger.statement("grant-1"), ledger.entries()) == before

    @pytest.mark.attacks("L4")
    def test_the_budget_is_exact_and_a_refusal_writes_nothing(self, ledger: Ledger) -> None:
        for number in range(10):
            ledger.reserve(ask(f"r{number}"), NOW)
        before = ledger.statement("grant-1"), ledger.entries()
        assert before[0][0].epsilon == 1
        for _ in range(2):
            with pytest.raises(BudgetRefused) as caught:
                ledger.reserve(ask("more", epsilon=Fraction(1, 10**40)), NOW)
            assert caught.value.code == "INSITU-BUDGET-EXCEEDED"
        assert (ledger.statement("grant-1"), ledger.entries()) == before

    def test_a_refused_request_may_ask_again_under_a_larger_grant(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetRefused):
            ledger.reserve(ask("r1", epsilon=2), NOW)
        assert ledger.reserve(ask("r1", epsilon=2, budget=grantable(3)), NOW).kind == "new"

    def test_a_failed_charge_stays_spent_and_is_joined_by_nobody(self, ledger: Ledger) -> None:
        failed = ledger.reserve(ask("r1", plan="p"), NOW)
        ledger.fail(failed, NOW)
        ledger.fail(failed, NOW)
        assert ledger.reserve(ask("r1", plan="p"), NOW).kind == "failed"
        assert not ledger.reserve(ask("r1", plan="p"), NOW).to_run
        assert ledger.reserve(ask("r2", plan="p"), NOW).kind == "new"
        assert ledger.statement("grant-1")[0].epsilon == Fraction(2, 10)
        assert [entry.state for entry in ledger.entries()] == ["failed", "reserved"]

    @pytest.mark.attacks("L5")
    def test_only_the_first_values_count(self, ledger: Ledger) -> None:
        got = ledger.reserve(ask("r1"), NOW)
        again = ledger.reserve(ask("r1"), NOW)
        assert ledger.commit(again, values(1), NOW) == values(1)
        assert ledger.commit(got, values(2), NOW) == values(1)
        assert ledger.reserve(ask("r1"), NOW).values == values(1)

    def test_acts_that_the_table_lacks_are_errors(self, ledger: Ledger) -> None:
        got = ledger.reserve(ask("r1"), NOW)
        ledger.fail(got, NOW)
        with pytest.raises(LedgerFault):
            ledger.commit(got, values(1), NOW)
        done = ledger.reserve(ask("r2"), NOW)
        ledger.commit(done, values(1), NOW)
        with pytest.raises(LedgerFault):
            ledger.fail(done, NOW)
        with pytest.raises(LedgerFault):
            ledger.commit(Reservation(charge_id=99, kind="new", first=True), values(1), NOW)

    def test_gaussian_and_laplace_are_added_up_in_one_account(self, ledger: Ledger) -> None:
        budget = grantable(20, accounting="zcdp")
        ledger.reserve(ask("r1", loss=laplace_loss(1, "1e-8"), budget=budget), NOW)
        assert ledger.statement("grant-1")[0].epsilon == 1
        ledger.reserve(ask("r2", loss=gaussian_loss("1/8", "1e-8"), budget=budget), NOW)
        (account,) = ledger.statement("grant-1")
        assert account.spent.pure is None
        assert account.spent.rho == Fraction(5, 8)
        assert account.delta == Fraction("2e-8") + Fraction("5e-7")
        assert 1 < account.epsilon < 20

    def test_entries_tell_what_became_of_every_charge(self, ledger: Ledger) -> None:
        got = ledger.reserve(ask("r1", plan="p"), NOW)
        ledger.reserve(ask("r2", plan="q"), NOW + timedelta(seconds=1))
        ledger.commit(got, values(3), NOW + timedelta(seconds=2))
        ledger.reserve(ask("r3", plan="p"), NOW + timedelta(seconds=3))
        first, second = ledger.entries()
        assert (first.state, first.request_ids, first.plan_digest) == ("released", ("r1", "r3"), "p")
        assert (first.reserved_at, first.settled_at) == (NOW, NOW + timedelta(seconds=2))
        assert first.loss == laplace_loss("1/10")
        assert (first.account_epsilon, second.account_epsilon) == (Fraction(1, 10), Fraction(2, 10))
        assert (second.state, second.settled_at) == ("reserved", None)

    def test_an_unknown_grant_has_no_account(self, ledger: Ledger) -> None:
        assert ledger.statement("nobody") == ()

    @pytest.mark.attacks("L4")
    def test_threads_never_take_the_last_of_the_budget_twice(self, ledger: Ledger) -> None:
        def take(number: int) -> str:
            try:
                return ledger.reserve(ask(f"r{number}", epsilon="1/7"), NOW).kind
            except BudgetRefused:
                return "refused"

        assert Counter(_together(take, 24)) == {"new": 7, "refused": 17}
        assert ledger.statement("grant-1")[0].epsilon == 1

    def test_recent_charges_are_told_by_grant(self, ledger: Ledger) -> None:
        ledger.reserve(ask("r1", plan="p1"), NOW - timedelta(hours=2))
        ledger.reserve(ask("r2", plan="p2"), NOW)
        ledger.reserve(ask("r3", plan="p2"), NOW)  # joins the charge of r2
        ledger.reserve(ask("r4", plan="p2", grant="grant-2"), NOW)
        assert ledger.charged_since("grant-1", NOW - timedelta(hours=1)) == (NOW,)
        assert ledger.charged_since("nobody", NOW - timedelta(hours=1)) == ()

    @pytest.mark.attacks("L3")
    def test_threads_with_one_query_share_one_charge_and_one_answer(self, ledger: Ledger) -> None:
        def run(number: int) -> object:
            got = ledger.reserve(ask(f"r{number}", plan="p"), NOW)
            return got.values if got.values is not None else ledger.commit(got, values(number), NOW)

        assert len({repr(answer) for answer in _together(run, 24)}) == 1
        assert ledger.statement("grant-1")[0].epsilon == Fraction(1, 10)


def _together(act: Callable[[int], object], count: int) -> list[object]:
    """Runs ``act`` in eight threads that start at once."""
    barrier = threading.Barrier(8)

    def worker(index: int) -> list[object]:
        barrier.wait()
        return [act(number) for number in range(index, count, 8)]

    with ThreadPoolExecutor(8) as pool:
        return [result for results in pool.map(worker, range(8)) for result in results]


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = MemoryLedger()
        yield ledger
        ledger.close()


class TestSqliteLedger(LedgerContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.sqlite")
        yield ledger
        ledger.close()
