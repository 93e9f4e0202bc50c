"""Turns the world into steps of executions, and acts on them: tasks out, outcomes in, timers, the store.

A request is durable before any node or its researcher hears of it. An outcome is durable before its node is told that
it was taken; it is stored with the end of its request, or after ``LINGER_S`` where the request goes on: until then the
node keeps it. So the gateway may be killed at any instant: what it had not stored, researchers and nodes send again.

Runs in one event loop; blocks it for nothing but small signatures. One node's or researcher's failure stays its own.
Not here: what travels (``service``), what a stage leads to (``execution``), what is merged (``results``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime
from typing import Any, cast

import structlog
from insitu_access.manifest import Manifest
from insitu_access.request import QueryRequest
from insitu_privacy.errors import AccessRefused, InsituError, Unavailable
from insitu_privacy.plan import PrivacyPlan
from insitu_proto.messages import (
    Accepted,
    Ask,
    Event,
    Finished,
    Hello,
    ManifestUpdate,
    NodeMessage,
    Outcome,
    Progress,
    Taken,
)

from insitu_gateway.admission import Admitted, Grants, admit, check_time
from insitu_gateway.compute import Compute
from insitu_gateway.config import Limits
from insitu_gateway.documents import Datasets
from insitu_gateway.execution import IN_HAND, Execution, ImpossibleStep, Step, advance, begin, expire, resume
from insitu_gateway.journal import Journal
from insitu_gateway.registry import Connection, Registry
from insitu_gateway.results import Answer, absent, read_answer
from insitu_gateway.running import Running
from insitu_gateway.store import AddOutcome, AddRequest, Finish, Stored

LINGER_S = 0.05
_AFTER_S = 0.002
"""What nobody waits for yet starts this much later, so as not to stand in the way of what somebody waits for."""
_INLINE_CHARS = 64 * 1024
"""A larger outcome is verified off the event loop."""

log = structlog.get_logger("insitu.gateway")


class Fanout:
    """All open requests and all connected nodes of this gateway."""

    def __init__(
        self,
        *,
        journal: Journal,
        registry: Registry,
        compute: Compute,
        manifest: Callable[[], Manifest],
        datasets: Datasets,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._compute = compute
        self._manifest = manifest
        self._datasets = datasets
        self._limits = limits
        self._clock = clock
        self._grants = Grants()
        self._open: dict[str, Running] = {}
        self._starting: dict[str, asyncio.Task[Running | Stored]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    # ------------------------------------------------------------------------------------------------ researchers

    async def ask(self, ask: Ask, owner: str) -> AsyncGenerator[Event]:
        """The events of a request: a new one, or the one it is already. Raises InsituError."""
        admitted = admit(ask, self._manifest(), self._grants, self._clock())
        found = await self._find_or_start(ask, admitted, owner)
        request_sha256 = found.admitted.sha256 if isinstance(found, Running) else found.request.request_sha256
        if request_sha256 != admitted.sha256 or _owner(found) != owner:
            raise AccessRefused("INSITU-ACCESS-REPLAY")
        return _events(found)

    async def follow(self, request_id: str, owner: str) -> AsyncGenerator[Event]:
        """The events of a request that ``owner`` asked. Raises InsituError."""
        found = await self._find(request_id)
        if found is None or _owner(found) != owner:
            raise Unavailable("INSITU-REQUEST-UNKNOWN")
        return _events(found)

    async def _find_or_start(self, ask: Ask, admitted: Admitted, owner: str) -> Running | Stored:
        request = admitted.request
        if request.request_id in self._open or request.request_id in self._starting:
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
        if request_id in self._open:
            return self._open[request_id]
        stored = await self._journal.find(request_id)
        if stored is None or stored.finished_at is not None:
            return stored
        # finished between the two looks, or left behind when the store failed
        if request_id in self._open or request_id in self._starting:
            return await self._find(request_id)
        return await self._once(request_id, self._resume(stored))

    async def _once(self, request_id: str, start: Coroutine[Any, Any, Running | Stored]) -> Running | Stored:
        """Start a request on a task of its own: whoever asked may be cut off while it is being stored."""
        task = self._spawn(start)
        self._starting[request_id] = task
        task.add_done_callback(lambda _: self._starting.pop(request_id, None))
        return await asyncio.shield(task)

    def _check_room(self, owner: str) -> None:
        if self._stopping:
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="it is stopping")
        pending = len(self._open) + len(self._starting)
        own = sum(running.owner == owner for running in self._open.values())
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
        known = await self._stored(add)
        if running.id not in known:
            return self._launch(running)
        stored = await self._journal.find(running.id)
        if stored is None:
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="its store failed")
        return stored if stored.finished_at is not None else await self._resume(stored)

    async def _stored(self, *writes: AddRequest | AddOutcome | Finish) -> frozenset[str]:
        try:
            return await self._journal.write(*writes)
        except Exception as error:
            log.exception("store failed")
            raise Unavailable("INSITU-GATEWAY-FAILED", reason="its store failed") from error

    # -------------------------------------------------------------------------------------------------- executions

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
        log.info("resumed", request_id=running.id, unanswered=len(running.execution.unanswered))
        return self._launch(running, patient=True)

    def _reread(self, outcome: Any, admitted: Admitted) -> Answer:
        if outcome.outcome_jws is None:
            return Answer(outcome=outcome, signed=None)
        again = read_answer(outcome.outcome_jws, outcome.node_id, admitted, self._manifest())
        return Answer(outcome=outcome, signed=again.signed)

    async def _give_up(self, stored: Stored) -> Stored:
        """End a request that may not go on, for its grant ran out or was revoked meanwhile."""
        found = {outcome.node_id: outcome for outcome in stored.outcomes}
        outcomes = tuple(found.get(node) or absent(node) for node in stored.request.nodes)
        name = stored.request.request_id
        await self._stored(Finish(request_id=name, outcomes=outcomes, result_json=None, finished_at=self._clock()))
        return await self._journal.find(name) or stored

    def _launch(self, running: Running, *, patient: bool = False) -> Running:
        """Send out the tasks of a request that is durable.

        ``patient`` after a restart: that nodes are away is then the gateway's doing, so they have until the deadline.
        """
        self._open[running.id] = running
        loop = asyncio.get_running_loop()
        left = (running.admitted.request.deadline - self._clock()).total_seconds()
        running.deadline = loop.call_later(max(0.0, left), self._expire, running)
        for node in running.execution.unanswered:
            connection = self._registry.connection(node)
            if connection is not None:
                self._send(running, node, connection)
            elif not patient:
                self._wait_for(running, node)
        if isinstance(running.admitted.request, QueryRequest):
            running.plan = self._spawn(self._plan(running.admitted, running.admitted.request))
        if running.execution.finished:  # it was killed between the last outcome and the end
            self._spawn(self._finish(running))
        return running

    def _send(self, running: Running, node: str, connection: Connection) -> None:
        connection.send(running.task)
        self._step(running, node, "sent")

    def _wait_for(self, running: Running, node: str) -> None:
        stage = running.execution.stages[node]
        seconds = self._limits.grace_s if stage == "queued" else self._limits.lost_grace_s
        self._no_longer_wait_for(running, node)
        running.grace[node] = asyncio.get_running_loop().call_later(seconds, self._away, running, node)

    def _no_longer_wait_for(self, running: Running, node: str) -> None:
        timer = running.grace.pop(node, None)
        if timer is not None:
            timer.cancel()

    def _away(self, running: Running, node: str) -> None:
        running.grace.pop(node, None)
        if running.execution.stages[node] in ("queued", "lost"):
            self._step(running, node, "away")

    def _expire(self, running: Running) -> None:
        if not running.execution.finished:
            self._move(running, expire(running.execution))

    def _step(self, running: Running, node: str, step: Step) -> None:
        self._move(running, advance(running.execution, node, step))

    def _move(self, running: Running, execution: Execution) -> None:
        running.execution = execution
        if execution.finished:
            self._spawn(self._finish(running))
        else:
            running.changed()

    async def _finish(self, running: Running) -> None:
        """Merge, store, tell."""
        running.stop_timers()
        answers = running.ordered
        outcomes = tuple(answer.outcome for answer in answers)
        result = await self._result(running, answers)
        finish = Finish(request_id=running.id, outcomes=outcomes, result_json=result, finished_at=self._clock())
        try:
            await self._stored(finish)
        except Unavailable as error:
            # it stays open in the store, and is taken up when it is asked again or the gateway restarts
            self._open.pop(running.id, None)
            running.conclude(error)
            return
        self._open.pop(running.id, None)
        running.conclude(Finished(outcomes=outcomes, result_json=result))
        fresh = [node for node in running.answers if node not in running.stored]
        asyncio.get_running_loop().call_later(_AFTER_S, self._take, running, fresh)
        grant = running.admitted.grant.id
        log.info("finished", request_id=running.id, grant_id=grant, statuses=[outcome.status for outcome in outcomes])

    def _take(self, running: Running, nodes: list[str]) -> None:
        """Tell nodes that their outcome is durable."""
        for node in nodes:
            running.stored.add(node)
            connection = self._registry.connection(node)
            if connection is not None:
                connection.send(Taken(request_id=running.id))

    # ------------------------------------------------------------------------------------------------------ results

    async def _plan(self, admitted: Admitted, request: QueryRequest) -> PrivacyPlan | None:
        dataset = self._datasets.dataset(request.dataset_digest)
        if dataset is None:
            return None
        await asyncio.sleep(_AFTER_S)
        try:
            return await self._compute.plan(request, dataset, admitted.grant.scope(request.dataset))
        except InsituError as error:
            log.info("no plan", request_id=request.request_id, code=error.code)
        except Exception:
            log.exception("planning failed", request_id=request.request_id)
        return None

    async def _result(self, running: Running, answers: tuple[Answer, ...]) -> bytes | None:
        request = running.admitted.request
        released = [answer for answer in answers if answer.outcome.status == "released"]
        if running.plan is None or not isinstance(request, QueryRequest) or len(released) < request.min_nodes:
            return None
        if any(answer.signed is None for answer in released):  # stored before a node changed its key
            return None
        try:
            async with asyncio.timeout(self._limits.result_timeout_s):
                plan = await asyncio.shield(running.plan)
                return None if plan is None else await self._compute.result(request, plan, answers)
        except TimeoutError:
            log.warning("no result in time", request_id=running.id)
        except InsituError as error:
            log.info("no result", request_id=running.id, code=error.code)
        except Exception:
            log.exception("merging failed", request_id=running.id)
        return None

    # -------------------------------------------------------------------------------------------------------- nodes

    def attached(self, connection: Connection, hello: Hello) -> None:
        """A node has connected: send it what it has not answered."""
        node = hello.node_id
        before = self._registry.attach(connection, hello, self._clock())
        if before is not None:
            before.close()
        for running in self._at_work_for(node):
            if running.execution.stages[node] in IN_HAND:
                self._step(running, node, "lost")
            self._no_longer_wait_for(running, node)
            self._send(running, node, connection)

    def detached(self, node: str, connection: Connection) -> None:
        """A node's stream has ended."""
        if not self._registry.detach(node, connection):
            return  # a newer stream took its place
        for running in self._at_work_for(node):
            if running.execution.stages[node] in IN_HAND:
                self._step(running, node, "lost")
                self._wait_for(running, node)

    def manifest_changed(self, manifest: Manifest, jws: str) -> None:
        """Hand the newer manifest to every node, and drop those that are no longer in it."""
        for node, connection in self._registry.connected():
            if manifest.node(node) is None:
                connection.close()
            else:
                connection.send(ManifestUpdate(manifest_jws=jws))

    def _at_work_for(self, node: str) -> list[Running]:
        return [
            running
            for running in self._open.values()
            if not running.execution.finished and node in running.execution.unanswered
        ]

    async def heard(self, node: str, connection: Connection, message: NodeMessage) -> None:
        """A node's message on its current stream."""
        self._registry.heard(node, self._clock())
        if isinstance(message, Progress):
            self._progress(node, message)
        elif isinstance(message, Outcome):
            await self._outcome(node, connection, message)

    def _progress(self, node: str, message: Progress) -> None:
        running = self._open.get(message.request_id)
        if running is None or message.stage not in ("admitted", "reserved", "executed"):
            return
        try:
            self._step(running, node, message.stage)
        except ImpossibleStep as error:
            log.debug("progress ignored", node=node, request_id=running.id, reason=str(error))

    async def _outcome(self, node: str, connection: Connection, message: Outcome) -> None:
        running = self._open.get(message.request_id)
        if running is None:
            if message.request_id not in self._starting:
                connection.send(Taken(request_id=message.request_id))  # it came too late to matter
            return
        answer = await self._read(message.outcome_jws, node, running) if self._awaits(running, node) else None
        if answer is None or not self._awaits(running, node):  # the deadline may have passed meanwhile
            if node in running.stored or (running.execution.finished and node not in running.answers):
                connection.send(Taken(request_id=running.id))
            return
        running.answers[node] = answer
        self._no_longer_wait_for(running, node)
        if answer.outcome.code is not None:
            log.info("not released", request_id=running.id, node=node, code=answer.outcome.code)
        self._step(running, node, cast("Step", answer.outcome.status))  # an answer is never "absent"
        if not running.execution.finished and running.linger is None:
            running.linger = asyncio.get_running_loop().call_later(LINGER_S, self._keep, running)

    def _awaits(self, running: Running, node: str) -> bool:
        return not running.execution.finished and node in running.execution.unanswered

    async def _read(self, token: str, node: str, running: Running) -> Answer:
        manifest = self._manifest()
        if len(token) <= _INLINE_CHARS:
            return read_answer(token, node, running.admitted, manifest)
        return await self._compute.run(lambda: read_answer(token, node, running.admitted, manifest))

    def _keep(self, running: Running) -> None:
        running.linger = None
        if not running.execution.finished:  # else they are stored with the end
            self._spawn(self._keep_answers(running))

    async def _keep_answers(self, running: Running) -> None:
        fresh = [node for node in running.answers if node not in running.stored]
        writes = [AddOutcome(request_id=running.id, outcome=running.answers[node].outcome) for node in fresh]
        await self._stored(*writes)
        self._take(running, [node for node in fresh if node not in running.stored])

    # ------------------------------------------------------------------------------------------------------- the end

    async def close(self) -> None:
        """Stop acting, end all streams, and wait for what is being stored."""
        self._stopping = True
        for running in self._open.values():
            running.stop_timers()
        for _, connection in self._registry.connected():
            connection.close()
        pending = [task for task in self._tasks if not task.done()]
        if pending:
            await asyncio.wait(pending, timeout=self._limits.result_timeout_s + 1)
        for running in list(self._open.values()):
            running.conclude(Unavailable("INSITU-GATEWAY-FAILED", reason="it is stopping"))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, InsituError):
            log.error("task failed", exc_info=error)


def _owner(found: Running | Stored) -> str:
    return found.owner if isinstance(found, Running) else found.request.owner


def _events(found: Running | Stored) -> AsyncGenerator[Event]:
    return found.events() if isinstance(found, Running) else _told(found)


async def _told(stored: Stored) -> AsyncGenerator[Event]:
    yield Accepted(request_id=stored.request.request_id)
    yield Finished(outcomes=stored.outcomes, result_json=stored.result_json)
