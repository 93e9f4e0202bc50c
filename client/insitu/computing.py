"""From verified answers to the result: adds up the nodes' integers and runs the query's outer SQL, on this side."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from insitu.result import Column, Evidence, Result, Spent
from insitu.verification import Answer, Sent

if TYPE_CHECKING:
    from insitu_access.release import NodeRelease
    from insitu_privacy.postprocess import Postprocessor

LEVEL = 0.95


def compute(sent: Sent, answers: Sequence[Answer], postprocessor: Postprocessor, evidence: Evidence) -> Result:
    """The result of a query whose answers passed ``verification.open_answers``."""
    from insitu_privacy.merge import merge

    plan = sent.plan
    if plan is None:
        raise TypeError("a budget request has no result")
    releases = _releases(answers)
    table = postprocessor.run(plan, merge(plan, [release.values for release in releases]), level=LEVEL)
    return Result(
        query_id=sent.request.request_id,
        dataset=plan.dataset,
        columns=tuple(Column(name=one.name, type=one.type, noisy=one.noisy) for one in table.columns),
        rows=table.rows,
        intervals=table.intervals,
        level=LEVEL,
        nodes=tuple(answer.status for answer in answers),
        clipping=tuple(None for _ in table.columns),
        spent=Spent(
            epsilon=max((release.spent_epsilon for release in releases), default=Fraction(0)),
            delta=max((release.spent_delta for release in releases), default=Fraction(0)),
        ),
        replayed=bool(releases) and all(release.replayed for release in releases),
        verified=True,
        warnings=table.warnings,
        evidence=evidence,
    )


def _releases(answers: Sequence[Answer]) -> list[NodeRelease]:
    from insitu_access.release import NodeRelease

    return [answer.opened for answer in answers if isinstance(answer.opened, NodeRelease)]
