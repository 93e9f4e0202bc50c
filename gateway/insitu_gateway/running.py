"""One open request in memory: its execution, what nodes answered, its timers, and who watches it.

Watchers see a state, not a queue: each is told what changed since it last looked, at most every ``PACE_S``, so that a
slow or silent watcher costs nothing and a quick request sends no progress that nobody could read. What happens when is
decided in ``execution`` and done in ``fanout``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from insitu_privacy.errors import InsituError
from insitu_privacy.plan import PrivacyPlan
from insitu_proto.messages import Accepted, Answered, Ask, Event, Finished, NodeProgress, Stage, Task

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
    answered: asyncio.Future[Answered] = field(default_factory=asyncio.Future)
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

    def answer(self, outcomes: Answered) -> None:
        """Tell the watchers the outcomes: what a researcher waits for. That they are stored comes with the end."""
        self.answered.set_result(outcomes)
        self.changed()

    def conclude(self, end: Finished | InsituError) -> None:
        """Tell the watchers the end."""
        if not self.end.done():
            self.end.set_result(end)
        self.changed()

    async def events(self) -> AsyncGenerator[Event]:
        """What a researcher is told, from now to the end. Raises the error that it ends with."""
        yield Accepted(request_id=self.id)
        async with aclosing(self._progress()) as progress:
            async for event in progress:
                yield event
        if self.answered.done():
            yield self.answered.result()
        await asyncio.wait((self.end,))
        end = self.end.result()
        if isinstance(end, InsituError):
            raise end
        yield end

    async def _progress(self) -> AsyncGenerator[NodeProgress]:
        told: dict[str, Stage] = {}
        changed = asyncio.Event()
        self.watchers.add(changed)
        ends = (self.answered, self.end)
        try:
            while True:
                done, _ = await asyncio.wait(ends, timeout=PACE_S, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return
                changed.clear()
                for node, stage in self.execution.stages.items():
                    if told.get(node) != stage:
                        told[node] = stage
                        yield NodeProgress(node_id=node, stage=stage)
                await changed.wait()
        finally:
            self.watchers.discard(changed)
