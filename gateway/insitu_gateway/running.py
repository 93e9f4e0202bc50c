"""One open request in memory: its execution, what nodes answered, its timers, and who watches it.

Watchers see a state, not a queue: each is told what changed since it last looked, at most every ``PACE_S``, so that a
slow or silent watcher costs nothing and a quick request sends no progress that nobody could read. What happens when is
decided in ``execution`` and done in ``fanout``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from insitu_privacy.errors import InsituError
from insitu_privacy.plan import PrivacyPlan
from insitu_proto.messages import Accepted, Ask, Event, Finished, NodeProgress, Stage, Task

from insitu_gateway.admission import Admitted
from insitu_gateway.execution import Execution
from insitu_gateway.results import Answer, absent

PACE_S = 0.05


@dataclass(slots=True, kw_only=True, eq=False)
class Running:
    """Mutable, of the event loop alone."""

    admitted: Admitted
    ask: Ask
    owner: str
    execution: Execution
    answers: dict[str, Answer] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    """Nodes whose outcome is durable, so that they were told to forget it."""
    plan: asyncio.Task[PrivacyPlan | None] | None = None
    deadline: asyncio.TimerHandle | None = None
    linger: asyncio.TimerHandle | None = None
    grace: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    end: asyncio.Future[Finished | InsituError] = field(default_factory=asyncio.Future)
    watchers: set[asyncio.Event] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The request id."""
        return self.admitted.request.request_id

    @property
    def task(self) -> Task:
        """What nodes are sent."""
        return Task(request_id=self.id, request_jws=self.ask.request_jws, grant_jwt=self.ask.grant_jwt)

    @property
    def ordered(self) -> tuple[Answer, ...]:
        """One answer for each node, in the request's order."""
        given = self.answers
        return tuple(given.get(node) or Answer(outcome=absent(node), signed=None) for node in self.execution.stages)

    def stop_timers(self) -> None:
        """Nothing will happen by itself any more."""
        for timer in (self.deadline, self.linger, *self.grace.values()):
            if timer is not None:
                timer.cancel()
        self.grace.clear()

    def changed(self) -> None:
        """Wake the watchers."""
        for watcher in self.watchers:
            watcher.set()

    def conclude(self, end: Finished | InsituError) -> None:
        """Tell the watchers the end."""
        if not self.end.done():
            self.end.set_result(end)
        self.changed()

    async def events(self) -> AsyncGenerator[Event]:
        """What a researcher is told, from now to the end. Raises the error that it ends with."""
        yield Accepted(request_id=self.id)
        told: dict[str, Stage] = {}
        changed = asyncio.Event()
        self.watchers.add(changed)
        try:
            while not self.end.done():
                await asyncio.wait((self.end,), timeout=PACE_S)
                if self.end.done():
                    break
                changed.clear()
                for node, stage in self.execution.stages.items():
                    if told.get(node) != stage:
                        told[node] = stage
                        yield NodeProgress(node_id=node, stage=stage)
                await changed.wait()
        finally:
            self.watchers.discard(changed)
        end = self.end.result()
        if isinstance(end, InsituError):
            raise end
        yield end
