"""The life of one request at the gateway: a table of transitions per node, and when the whole is finished.

Pure: no clock, no network, no store. ``TRANSITIONS`` says which step leads from which stage to which; a pair that is
not there raises ``ImpossibleStep``. A node that is away is not final until the request is finished: it may come back
and be sent its task as long as others are still at work. ``fanout`` turns the world into steps and acts on the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, cast

from insitu_proto.messages import Stage, Status

Step = Literal[
    "sent",  # the task was handed to the node's stream
    "admitted", "reserved", "executed",  # the node's own word of how far it is
    "released", "refused", "failed",  # the node's outcome
    "lost",  # the node's stream broke
    "away",  # it has not come back for as long as is waited for
    "deadline",
]  # fmt: skip

ANSWERS: tuple[Status, ...] = ("released", "refused", "failed")
ANSWERED: frozenset[Stage] = frozenset(ANSWERS)
ENDED: frozenset[Stage] = ANSWERED | {"absent"}
IN_HAND: frozenset[Stage] = frozenset({"sent", "admitted", "reserved", "executed"})
_PROGRESS: tuple[Stage, ...] = ("sent", "admitted", "reserved", "executed")


class ImpossibleStep(Exception):
    """A step that no transition of the table allows."""

    def __init__(self, stage: Stage | None, step: Step) -> None:
        super().__init__(f"no transition from {stage or 'a node that was not asked'} by {step}")


def _table() -> dict[tuple[Stage, Step], Stage]:
    table: dict[tuple[Stage, Step], Stage] = {}
    waiting: tuple[Stage, ...] = ("queued", "lost", "absent")
    for stage in (*waiting, *_PROGRESS):
        table[stage, "sent"] = "sent"
        table[stage, "deadline"] = "absent"
        # also from a node that is not known to have it: it may keep an outcome from before a restart of the gateway
        table |= {(stage, cast("Step", answer)): answer for answer in ANSWERS}
    for index, stage in enumerate(_PROGRESS):
        table[stage, "lost"] = "lost"
        table |= {(stage, cast("Step", later)): later for later in _PROGRESS[index + 1 :]}
    table["queued", "away"] = "absent"
    table["lost", "away"] = "absent"
    return table


TRANSITIONS: Mapping[tuple[Stage, Step], Stage] = MappingProxyType(_table())


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How far each node is with one request."""

    stages: Mapping[str, Stage]

    @property
    def finished(self) -> bool:
        """Whether every node has answered or is given up."""
        return all(stage in ENDED for stage in self.stages.values())

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The nodes without an outcome, those that are away included."""
        return tuple(node for node, stage in self.stages.items() if stage not in ANSWERED)


def begin(nodes: Iterable[str]) -> Execution:
    """A request that no node has yet."""
    return Execution(stages=dict.fromkeys(nodes, "queued"))


def resume(nodes: Iterable[str], answered: Mapping[str, Stage]) -> Execution:
    """A request from the store after a restart: what was not answered may or may not have reached its node."""
    return Execution(stages={node: answered.get(node, "lost") for node in nodes})


def advance(execution: Execution, node: str, step: Step) -> Execution:
    """The execution after ``step`` of ``node``. Raises ImpossibleStep."""
    stage = execution.stages.get(node)
    if stage is None or execution.finished:
        raise ImpossibleStep(stage, step)
    if (stage, step) not in TRANSITIONS:
        raise ImpossibleStep(stage, step)
    return replace(execution, stages={**execution.stages, node: TRANSITIONS[stage, step]})


def expire(execution: Execution) -> Execution:
    """The execution at its deadline: finished, the nodes without an outcome absent."""
    late: dict[str, Stage] = {node: TRANSITIONS[execution.stages[node], "deadline"] for node in execution.unanswered}
    return replace(execution, stages={**execution.stages, **late})
