"""What a node decides about its stream to a gateway, without touching it: when to dial, whom to believe alive, what to
send again. Pure: time and chance are handed in.

An outcome is kept until the gateway says it has stored it (``Taken``), and sent again on every new stream until then.
What is lost with the process is not lost: the gateway sends the task again and the ledger answers it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from insitu_proto.messages import Outcome, Task

_SILENT_BEATS = 3
_KEPT_OUTCOMES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter: any moment up to a bound that doubles; nodes do not dial in step."""

    first_s: float = 0.25
    longest_s: float = 30.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds before the next attempt after ``failures`` in a row; ``chance`` is uniform in [0, 1)."""
        bound = min(self.longest_s, self.first_s * 2.0 ** min(failures, 32))
        return chance * bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """Whether the other side still speaks: it sends something at least every ``heartbeat_s``."""

    heartbeat_s: float
    heard_at: float

    def heard(self, at: float) -> Liveness:
        """After any message."""
        return Liveness(heartbeat_s=self.heartbeat_s, heard_at=at)

    def is_dead(self, at: float) -> bool:
        """Whether too many beats have been missed."""
        return at - self.heard_at > _SILENT_BEATS * self.heartbeat_s


Verdict = Literal["run", "busy", "running"] | Outcome


class Outbox:
    """The requests of one gateway that are under way, and the outcomes it has not confirmed."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._running: set[str] = set()
        self._waiting: OrderedDict[str, Outcome] = OrderedDict()

    def take(self, task: Task) -> Verdict:
        """What to do with a task: run it, refuse it as busy, go on running it, or send the outcome it already has."""
        if task.request_id in self._waiting:
            return self._waiting[task.request_id]
        if task.request_id in self._running:
            return "running"
        if len(self._running) >= self._room:
            return "busy"
        self._running.add(task.request_id)
        return "run"

    def done(self, outcome: Outcome) -> None:
        """An outcome is ready; it waits to be confirmed. The oldest are let go first: the ledger has them."""
        self._running.discard(outcome.request_id)
        self._waiting[outcome.request_id] = outcome
        while len(self._waiting) > _KEPT_OUTCOMES:
            self._waiting.popitem(last=False)

    def dropped(self, request_id: str) -> None:
        """A request ended without an outcome."""
        self._running.discard(request_id)

    def taken(self, request_id: str) -> None:
        """The gateway has stored an outcome."""
        self._waiting.pop(request_id, None)

    def unconfirmed(self) -> tuple[Outcome, ...]:
        """What to send again on a new stream, oldest first."""
        return tuple(self._waiting.values())


def hold_s(elapsed_s: float, every_s: float) -> float:
    """How long to hold an answer that took ``elapsed_s``, so that it leaves at a whole multiple of ``every_s``."""
    return 0.0 if every_s <= 0 else -elapsed_s % every_s
