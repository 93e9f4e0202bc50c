"""How a request comes in: checked, stored, launched; or found again, running or finished, after a cut or a restart.

A request is durable before any node or its researcher hears of it, and it is one execution however often it is asked:
the same id with other bytes, or from another researcher, is refused. What happens to it then is ``fanout``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime
from typing import Any

import structlog
from insitu_access.manifest import Manifest
from insitu_privacy.errors import AccessRefused, InsituError, Unavailable
from insitu_proto.messages import Accepted, Ask, Event, Finished, NodeOutcome

from insitu_gateway.admission import Admitted, Grants, admit, check_time
from insitu_gateway.audit import GatewayAudit
from insitu_gateway.config import Limits
from insitu_gateway.execution import begin, resume
from insitu_gateway.fanout import Fanout
from insitu_gateway.journal import Journal
from insitu_gateway.results import Answer, absent, read_answer
from insitu_gateway.running import Running
from insitu_gateway.store import AddRequest, Finish, Stored
from insitu_gateway.tasks import Tasks

log = structlog.get_logger("insitu.gateway")


class Intake:
    """What researchers may do with requests. One for each ``Fanout``."""

    def __init__(
        self,
        *,
        fanout: Fanout,
        journal: Journal,
        manifest: Callable[[], Manifest],
        limits: Limits,
        clock: Callable[[], datetime],
        tasks: Tasks,
        audit: GatewayAudit,
    ) -> None:
        self._fanout = fanout
        self._journal = journal
        self._manifest = manifest
        self._limits = limits
        self._clock = clock
        self._tasks = tasks
        self._audit = audit
        self._grants = Grants()
        self._starting: dict[str, asyncio.Task[Running | Stored]] = {}

    async def ask(self, ask: Ask, owner: str) -> AsyncGenerator[Event]:
        """The events of a request: a new one, or the one it is already. Raises InsituError."""
        try:
            found = await self._asked(ask, owner)
        except InsituError as error:
            self._audit.refused(ask.request_jws, owner, error.code)
            raise
        return self._audit.delivering(_events(found), _id(found), owner, fetched=False)

    async def _asked(self, ask: Ask, owner: str) -> Running | Stored:
        admitted = admit(ask, self._manifest(), self._grants, self._clock())
        found = await self._find_or_start(ask, admitted, owner)
        request_sha256 = found.admitted.sha256 if isinstance(found, Running) else found.request.request_sha256
        if request_sha256 != admitted.sha256 or _owner(found) != owner:
            raise AccessRefused("INSITU-ACCESS-REPLAY")
        return found

    async def follow(self, request_id: str, owner: str) -> AsyncGenerator[Event]:
        """The events of a request that ``owner`` asked. Raises InsituError."""
        found = await self._find(request_id)
        if found is None or _owner(found) != owner:
            raise Unavailable("INSITU-REQUEST-UNKNOWN")
        return self._audit.delivering(_events(found), request_id, owner, fetched=True)

    async def _find_or_start(self, ask: Ask, admitted: Admitted, owner: str) -> Running | Stored:
        request = admitted.request
        if request.request_id in self._fanout.open or request.request_id in self._starting:
            found = await self._find(request.request_id)
            if found is not None:
                return found
        try:
            check_time(admitted, self._clock())
        except InsituError:
            # a researcher that was cut off may ask again after the deadline, for what came of it
            found = await self._find(request.request_id)
            if found is None:
                raise
            return found
        self._check_room(owner)
        running = Running(admitted=admitted, ask=ask, owner=owner, execution=begin(request.nodes))
        return await self._once(request.request_id, self._start(running))

    async def _find(self, request_id: str) -> Running | Stored | None:
        if request_id in self._starting:
            return await asyncio.shield(self._starting[request_id])
        if request_id in self._fanout.open:
            return self._fanout.open[request_id]
        stored = await self._journal.find(request_id)
        if stored is None or stored.finished_at is not None:
            return stored
        # left behind when the store failed; another call may have taken it up meanwhile
        if request_id in self._fanout.open or request_id in self._starting:
            return await self._find(request_id)
        return await self._once(request_id, self._resume(stored))

    async def _once(self, request_id: str, start: Coroutine[Any, Any, Running | Stored]) -> Running | Stored:
        """Start a request on a task of its own: whoever asked may be cut off while it is being stored."""
        task = self._tasks.spawn(start)
        self._starting[request_id] = task
        task.add_done_callback(lambda _: self._starting.pop(request_id, None))
        return await asyncio.shield(task)

    def _check_room(self, owner: str) -> None:
        if self._fanout.stopping:
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="it is stopping")
        pending = len(self._fanout.open) + len(self._starting)
        own = sum(running.owner == owner for running in self._fanout.open.values())
        if pending >= self._limits.open_requests or own >= self._limits.open_requests_per_researcher:
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="too many requests are open")

    async def _start(self, running: Running) -> Running | Stored:
        request = running.admitted.request
        add = AddRequest(
            request_id=running.id,
            request_sha256=running.admitted.sha256,
            owner=running.owner,
            request_jws=running.ask.request_jws,
            grant_jwt=running.ask.grant_jwt,
            nodes=request.nodes,
            deadline=request.deadline,
            accepted_at=self._clock(),
        )
        known = await self._journal.write(add)
        if running.id not in known:
            return self._fanout.launch(running)
        stored = await self._journal.find(running.id)
        if stored is None:
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="its store failed")
        return stored if stored.finished_at is not None else await self._resume(stored)

    async def recover(self) -> None:
        """Take up the requests that were open when the gateway stopped or was killed."""
        for stored in await self._journal.open_requests():
            await self._resume(stored)

    async def _resume(self, stored: Stored) -> Running | Stored:
        ask = Ask(request_jws=stored.request.request_jws, grant_jwt=stored.request.grant_jwt)
        try:
            admitted = admit(ask, self._manifest(), self._grants, self._clock())
        except InsituError as error:
            log.warning("not resumed", request_id=stored.request.request_id, code=error.code)
            return await self._give_up(stored)
        answered = {outcome.node_id: outcome.status for outcome in stored.outcomes}
        running = Running(
            admitted=admitted,
            ask=ask,
            owner=stored.request.owner,
            execution=resume(stored.request.nodes, answered),
            answers={outcome.node_id: self._reread(outcome, admitted) for outcome in stored.outcomes},
            stored=set(answered),
        )
        self._audit.resumed(stored.request)
        log.info("resumed", request_id=running.id, unanswered=len(running.execution.unanswered))
        return self._fanout.launch(running, patient=True)

    def _reread(self, outcome: NodeOutcome, admitted: Admitted) -> Answer:
        if outcome.outcome_jws is None:
            return Answer(outcome=outcome, signed=None)
        again = read_answer(outcome.outcome_jws, outcome.node_id, admitted, self._manifest())
        return Answer(outcome=outcome, signed=again.signed)

    async def _give_up(self, stored: Stored) -> Stored:
        """End a request that may not go on, for its grant ran out or was revoked meanwhile."""
        found = {outcome.node_id: outcome for outcome in stored.outcomes}
        outcomes = tuple(found.get(node) or absent(node) for node in stored.request.nodes)
        name = stored.request.request_id
        await self._journal.write(
            Finish(request_id=name, outcomes=outcomes, result_json=None, finished_at=self._clock())
        )
        return await self._journal.find(name) or stored


def _id(found: Running | Stored) -> str:
    return found.id if isinstance(found, Running) else found.request.request_id


def _owner(found: Running | Stored) -> str:
    return found.owner if isinstance(found, Running) else found.request.owner


def _events(found: Running | Stored) -> AsyncGenerator[Event]:
    return found.events() if isinstance(found, Running) else _told(found)


async def _told(stored: Stored) -> AsyncGenerator[Event]:
    yield Accepted(request_id=stored.request.request_id)
    yield Finished(outcomes=stored.outcomes, result_json=stored.result_json)
