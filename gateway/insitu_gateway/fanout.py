"""Turns the world into steps of executions, and acts on them: tasks out, outcomes in, timers, the store.

An outcome is durable before its node is told that it was taken; it is stored with the end of its request, or after
``LINGER_S`` where the request goes on: until then the node keeps it. So the gateway may be killed at any instant: what
it had not stored, nodes send again.

Runs in one event loop; blocks it for nothing but small signatures. One node's failure stays its own.
Not here: how requests come in (``intake``), what travels (``service``), what a step leads to (``execution``), what is
merged (``results``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import cast

import structlog
from insitu_access.manifest import Manifest
from insitu_access.request import QueryRequest
from insitu_privacy.errors import InsituError, Unavailable
from insitu_privacy.plan import PrivacyPlan
from insitu_proto.messages import (
    Answered,
    Finished,
    Hello,
    ManifestUpdate,
    NodeMessage,
    Outcome,
    Progress,
    Taken,
)

from insitu_gateway.admission import Admitted
from insitu_gateway.audit import GatewayAudit
from insitu_gateway.compute import Compute
from insitu_gateway.config import Limits
from insitu_gateway.documents import Datasets
from insitu_gateway.execution import IN_HAND, Execution, ImpossibleStep, Step, advance, expire
from insitu_gateway.journal import Journal
from insitu_gateway.registry import Connection, Registry
from insitu_gateway.results import Answer, read_answer
from insitu_gateway.running import Running
from insitu_gateway.store import AddOutcome, Finish
from insitu_gateway.tasks import Tasks

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
        tasks: Tasks,
        audit: GatewayAudit,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._compute = compute
        self._manifest = manifest
        self._datasets = datasets
        self._limits = limits
        self._clock = clock
        self._tasks = tasks
        self._audit = audit
        self.open: dict[str, Running] = {}
        """By request id: durable, launched, and not yet finished."""
        self.stopping = False

    # -------------------------------------------------------------------------------------------------- executions

    def launch(self, running: Running, *, patient: bool = False) -> Running:
        """Send out the tasks of a request that is durable.

        ``patient`` after a restart: that nodes are away is then the gateway's doing, so they have until the deadline.
        """
        self.open[running.id] = running
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
            running.plan = self._tasks.spawn(self._plan(running.admitted, running.admitted.request))
        if running.execution.finished:  # it was killed between the last outcome and the end
            self._tasks.spawn(self._finish(running))
        return running

    def _send(self, running: Running, node: str, connection: Connection) -> None:
        connection.send(running.task)
        self._audit.note("task-sent", request_id=running.id, node=node)
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
            self._tasks.spawn(self._finish(running))
        else:
            running.changed()

    async def _finish(self, running: Running) -> None:
        """Tell the outcomes, then merge them, store all of it, and tell the end."""
        running.stop_timers()
        answers = running.ordered
        outcomes = tuple(answer.outcome for answer in answers)
        running.answer(Answered(outcomes=outcomes))
        await asyncio.sleep(_AFTER_S)
        result = await self._result(running, answers)
        finish = Finish(request_id=running.id, outcomes=outcomes, result_json=result, finished_at=self._clock())
        try:
            await self._journal.write(finish)
        except Unavailable as error:
            # it stays open in the store, and is taken up when it is asked again or the gateway restarts
            self.open.pop(running.id, None)
            running.conclude(error)
            return
        self.open.pop(running.id, None)
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
        self._audit.connected(hello)
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
        if not self._registry.detach(node, connection) or self.stopping:
            return  # a newer stream took its place; or it is the gateway that goes, which is no node's absence
        self._audit.note("node-disconnected", node=node)
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
            for running in self.open.values()
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
        running = self.open.get(message.request_id)
        if running is None or message.stage not in ("admitted", "reserved", "executed"):
            return
        try:
            self._step(running, node, message.stage)
        except ImpossibleStep as error:
            log.debug("progress ignored", node=node, request_id=running.id, reason=str(error))

    async def _outcome(self, node: str, connection: Connection, message: Outcome) -> None:
        running = self.open.get(message.request_id)
        if running is None:
            self._audit.outcome(message.request_id, node, message.outcome_jws, None)
            connection.send(Taken(request_id=message.request_id))  # it came too late to matter
            return
        answer = await self._read(message.outcome_jws, node, running) if self._awaits(running, node) else None
        self._audit.outcome(message.request_id, node, message.outcome_jws, answer)
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
            self._tasks.spawn(self._keep_answers(running))

    async def _keep_answers(self, running: Running) -> None:
        fresh = [node for node in running.answers if node not in running.stored]
        writes = [AddOutcome(request_id=running.id, outcome=running.answers[node].outcome) for node in fresh]
        await self._journal.write(*writes)
        self._take(running, [node for node in fresh if node not in running.stored])

    # ------------------------------------------------------------------------------------------------------- the end

    async def close(self) -> None:
        """Stop acting, end all streams, and wait for what is being stored."""
        self.stopping = True
        for running in self.open.values():
            running.stop_timers()
        for _, connection in self._registry.connected():
            connection.close()
        await self._tasks.settle(self._limits.result_timeout_s + 1)
        for running in list(self.open.values()):
            running.conclude(Unavailable("INSITU-GATEWAY-FAILED", reason="it is stopping"))
