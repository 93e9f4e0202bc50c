"""Running plans under a charge: execute, noise, commit. The part of a query's life that a profile has as well.

The order is the guarantee (``cycle`` says it in full): ``prepare`` while a mistake is still free, then ``reserve``,
then ``run``. A failure after data may have been read is one constant error and stays spent (P4). What leaves is what
the ledger stored, never what was drawn (L5).

What is not here: who asked, whether they may, and what is made of the values (``cycle``, ``profiling``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import structlog
from insitu_privacy.errors import ExecutionFailed
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.render import render

from insitu_node.audit import NodeAudit
from insitu_node.custody import Custody
from insitu_node.engines.base import Engine, Row, Session
from insitu_node.fitness import Shapes
from insitu_node.hooks import Hook
from insitu_node.ledger import Ask, Ledger, Reservation

Stage = Literal["admitted", "reserved", "executed"]
Progress = Callable[[Stage], None]

_log = structlog.get_logger("insitu.node.running")


class Stopped(Exception):
    """The node is being stopped in the middle of a request: nothing is to be answered."""


class Noise(Protocol):
    """The mechanisms, as a run uses them (``insitu_node.noise`` in production)."""

    def check(self, release: Release) -> None:
        """Recomputes the loss of a release. Raises ExecutionFailed where it exceeds the plan's claim."""

    def draw(self, release: Release, rows: list[Row], before: Mapping[str, ReleasedValues]) -> ReleasedValues:
        """Makes exact rows noisy. ``before`` holds the plan's releases before this one: it may follow their keys."""


class Runner:
    """Runs plans. Safe from several threads."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        custody: Custody,
        noise: Noise,
        cap_key: str,
        clock: Callable[[], datetime],
        audit: NodeAudit,
        hook: Hook,
        stopping: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._custody = custody
        self._noise = noise
        self._cap_key = cap_key
        self._clock = clock
        self._audit = audit
        self._hook = hook
        self._stopping = stopping
        self._shapes = Shapes()

    def prepare(self, plans: Iterable[PrivacyPlan], engine: Engine) -> list[str]:
        """The statements, and all that depends on plans alone, done while a mistake is still free."""
        releases = [release for plan in plans for release in plan.releases]
        for release in releases:
            self._noise.check(release)
            self._shapes.check(engine, release.relation.scans())
        return [
            render(release, dialect=engine.dialect, tables=engine.tables, cap_key=self._cap_key) for release in releases
        ]

    def reserve(self, ask: Ask, grant_expires: datetime | None) -> Reservation:
        """The charge of an ask, in the ledger and in the audit log. Raises what the ledger refuses with."""
        with self._audit.in_order:
            reservation = self._ledger.reserve(ask, self._clock())
            self._hook("after-reserve")
            self._audit.reserved(ask, reservation, grant_expires)
        return reservation

    def run(
        self,
        plans: Sequence[PrivacyPlan],
        statements: Sequence[str],
        session: Session,
        reservation: Reservation,
        progress: Progress,
    ) -> tuple[ReleasedValues, ...]:
        """The values that the ledger stored, in the order of the plans' releases.

        Raises ExecutionFailed, and the charge has failed; Stopped or AccessRefused, and it stays, to be resumed.
        """
        try:
            exact = [session.execute(statement) for statement in statements]
            self.stop_quietly()
            self._hook("after-execute")
            progress("executed")
            values = self._drawn(plans, exact)
            self._hook("after-noise")
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001  # constant from here on, whatever it is
            self.stop_quietly()
            _log.error("run failed", error=type(error).__name__, at=place(error))
            with self._audit.in_order:
                self._ledger.fail(reservation, self._clock())
                self._audit.settled(reservation, "failed")
            raise ExecutionFailed("INSITU-NODE-FAILED") from None
        self._custody.check_running()  # halted while it ran: nothing leaves, and the charge stays, to be resumed
        self._hook("before-commit")
        with self._audit.in_order:
            stored = self._ledger.commit(reservation, values, self._clock())
            self._hook("after-commit")
            self._audit.settled(reservation, "released")
        return stored

    def stop_quietly(self) -> None:
        """Raises Stopped where the node is being stopped."""
        if self._stopping():
            raise Stopped from None

    def _drawn(self, plans: Sequence[PrivacyPlan], exact: Sequence[list[Row]]) -> tuple[ReleasedValues, ...]:
        """Each plan's in its order: a release may follow the keys of one before it."""
        left, values = iter(exact), list[ReleasedValues]()
        for plan in plans:
            made: dict[str, ReleasedValues] = {}
            for release in plan.releases:
                made[release.name] = self._noise.draw(release, next(left), made)
            values += made.values()
        return tuple(values)


def stored(reservation: Reservation) -> tuple[ReleasedValues, ...]:
    """The values of a charge that is not to be run. Raises ExecutionFailed where its one run failed."""
    if reservation.values is None:  # the same request is told the same again
        raise ExecutionFailed("INSITU-NODE-FAILED")
    return reservation.values


def place(error: BaseException) -> str:
    """Where an error was raised: file and line, no text of it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "unknown" if frame is None else f"{frame.tb_frame.f_code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}"
