"""One request and what came of it: sent, its outcomes gathered and verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from insitu_privacy.errors import IntegrityFailed
from insitu_proto.messages import Ask

from insitu.delivery import Delivered, Delivery
from insitu.progress import Progress
from insitu.standing import Standing
from insitu.transport import Transport
from insitu.trust import Trusted
from insitu.verification import Answer, Sent, open_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """Verified answers, and what they were verified by."""

    sent: Sent
    delivered: Delivered
    answers: tuple[Answer, ...]
    trusted: Trusted

    @property
    def outcomes(self) -> Mapping[str, str]:
        """By node, its signed outcome as it came."""
        return {one.node_id: one.outcome_jws for one in self.delivered.outcomes if one.outcome_jws}

    @property
    def released(self) -> tuple[str, ...]:
        """The nodes that released."""
        return tuple(one.status.id for one in self.answers if one.status.status == "released")


class Exchange:
    """Asks in the name of one profile."""

    def __init__(self, transport: Transport, standing: Standing, clock: Callable[[], datetime]) -> None:
        self._transport, self._standing, self._clock = transport, standing, clock

    def ask(self, sent: Sent, trusted: Trusted, progress: Progress) -> Exchanged:
        """Raises Unavailable where no gateway is reached in time, IntegrityFailed where an answer is forged."""
        delivered = self.deliver(sent, trusted, progress)
        answers, trusted = self._opened(sent, delivered, trusted)
        return Exchanged(sent=sent, delivered=delivered, answers=answers, trusted=trusted)

    def deliver(self, sent: Sent, trusted: Trusted, progress: Progress) -> Delivered:
        """What came, as it came: nothing is verified yet."""
        ask = Ask(request_jws=sent.token, grant_jwt=trusted.grant_token)
        delivery = Delivery(self._transport, progress, clock=self._clock)
        return delivery.run(ask, sent.request.request_id, sent.request.deadline)

    def _opened(self, sent: Sent, delivered: Delivered, trusted: Trusted) -> tuple[tuple[Answer, ...], Trusted]:
        """A node may have changed its key since the manifest was fetched: before it is called a forger, that is fetched
        again, once."""
        try:
            return open_answers(sent, delivered.outcomes, trusted.manifest), trusted
        except IntegrityFailed:
            newer = self._standing.refresh()
            if newer.manifest.version == trusted.manifest.version:
                raise
            return open_answers(sent, delivered.outcomes, newer.manifest), newer
