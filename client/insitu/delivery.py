"""Brings one signed request to its outcomes over a network that may fail: ask, follow, ask again, until the deadline.

The same signed bytes are sent every time, so a gateway joins the execution it already has and a node gives the
release it already made: however often this retries, the request is charged once. Only a lost connection is retried;
what a gateway or a node refuses is final. Before the gateway has accepted the request, a gateway that cannot be
reached is given up after ``PATIENCE_S``; after that, not before the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from insitu_privacy.errors import InsituError, Unavailable
from insitu_proto.messages import Accepted, Answered, Ask, Finished, Follow, NodeOutcome, NodeProgress

from insitu.progress import Progress
from insitu.transport import Reply, Transport

PATIENCE_S = 3.0
SLACK = timedelta(seconds=5)
"""How long after the deadline the gateway may still take to say that it has passed."""
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_LOST = frozenset({"INSITU-GATEWAY-UNREACHABLE", "INSITU-GATEWAY-FAILED"})
_UNKNOWN = "INSITU-REQUEST-UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The outcomes of a request. The gateway's own result comes after them, while the answer is computed here."""

    outcomes: tuple[NodeOutcome, ...]
    rest: Iterator[Reply]

    def gateway_result(self) -> bytes | None:
        """Waits for the end, once. None where the gateway has no result, or is gone: nothing here depends on it."""
        try:
            return next((event.result_json for event in self.rest if isinstance(event, Finished)), None)
        except InsituError:
            return None


class Delivery:
    """One request on its way. ``clock`` and ``sleep`` are injected; ``run`` blocks."""

    def __init__(
        self,
        transport: Transport,
        progress: Progress,
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._progress = progress
        self._clock = clock
        self._sleep = sleep
        self._accepted = False

    def run(self, ask: Ask, request_id: str, deadline: datetime) -> Delivered:
        """The outcomes of the request. Raises what the gateway refuses, or Unavailable when the deadline is past."""
        last = deadline + SLACK
        patience = min(last, self._clock() + timedelta(seconds=PATIENCE_S))
        call: Ask | Follow = ask
        attempt = 0
        while True:
            try:
                return self._listen(call, last)
            except InsituError as error:
                if error.code == _UNKNOWN and isinstance(call, Follow):
                    call = ask
                elif error.code not in _LOST or self._clock() >= (last if self._accepted else patience):
                    raise
                elif self._accepted:
                    call = Follow(request_id=request_id)
            if self._clock() >= last:
                raise Unavailable("INSITU-GATEWAY-FAILED", reason="it did not answer before the deadline")
            self._sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
            attempt += 1

    def _listen(self, call: Ask | Follow, last: datetime) -> Delivered:
        left = max(0.1, (last - self._clock()).total_seconds())
        replies = self._transport.call(call, timeout_s=left)
        for event in replies:
            if isinstance(event, (Answered, Finished)):
                for outcome in event.outcomes:  # stages in between may be left out, also the last
                    self._progress(outcome.node_id, outcome.status)
                rest = iter((event,)) if isinstance(event, Finished) else replies
                return Delivered(outcomes=event.outcomes, rest=rest)
            if isinstance(event, Accepted):
                self._accepted = True
            elif isinstance(event, NodeProgress):
                self._accepted = True
                self._progress(event.node_id, event.stage)
        raise Unavailable("INSITU-GATEWAY-FAILED", reason="it ended the answer early")
