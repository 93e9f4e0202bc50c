"""From verified answers to the result: adds up the nodes' integers and runs the query's outer SQL, on this side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from insitu.result import Cell, Column, Evidence, Result, Spent, Suppression
from insitu.verification import Answer, Sent

if TYPE_CHECKING:
    from insitu_access.release import NodeRelease
    from insitu_privacy.improve import Improvement
    from insitu_privacy.merge import MergedRelease
    from insitu_privacy.plan import PrivacyPlan
    from insitu_privacy.postprocess import Postprocessor

LEVEL = 0.95
_FREE = "the query reads public tables alone: no node was asked, and nothing was spent"


def compute(sent: Sent, answers: Sequence[Answer], postprocessor: Postprocessor, evidence: Evidence) -> Result:
    """The result of a query whose answers passed ``verification.open_answers``, improved as is asked."""
    plan = _plan(sent)
    releases = _releases(answers)
    improve = sent.improve if releases else ()
    table = postprocessor.run(plan, _merged(plan, releases), level=LEVEL, improve=improve)
    below = max((release.suppress_below for release in plan.releases), default=0)
    return Result(
        query_id=sent.request.request_id,
        dataset=plan.dataset,
        columns=tuple(Column(name=one.name, type=one.type, noisy=one.noisy) for one in table.columns),
        rows=table.rows,
        intervals=table.intervals,
        level=LEVEL,
        nodes=tuple(answer.status for answer in answers),
        clipping=tuple(None for _ in table.columns),
        spent=spent_on(answers),
        replayed=bool(releases) and all(release.replayed for release in releases),
        verified=True,
        improved=_improved(improve, table.warnings),
        suppression=Suppression(below=below, rows=table.suppressed) if below else None,
        warnings=(*_unnamed(plan, answers), *table.warnings, *(() if plan.releases else (_FREE,))),
        evidence=evidence,
    )


def spent_on(answers: Sequence[Answer]) -> Spent:
    """The largest charge of any node that released."""
    releases = _releases(answers)
    return Spent(
        epsilon=max((release.spent_epsilon for release in releases), default=Fraction(0)),
        delta=max((release.spent_delta for release in releases), default=Fraction(0)),
    )


def merged_answers(plan: PrivacyPlan, answers: Sequence[Answer]) -> tuple[MergedRelease, ...]:
    """What all nodes that released say together."""
    return _merged(plan, _releases(answers))


def plain_rows(sent: Sent, answers: Sequence[Answer], postprocessor: Postprocessor) -> tuple[tuple[Cell, ...], ...]:
    """The rows as the gateway computes them too: nothing improved."""
    plan = _plan(sent)
    silent = replace(plan, output=tuple(replace(column, noisy=False) for column in plan.output))
    return postprocessor.run(silent, _merged(plan, _releases(answers)), level=LEVEL).rows


def _improved(wanted: Sequence[Improvement], warnings: Sequence[str]) -> tuple[str, ...]:
    """What was done: where nothing could be made consistent a warning says so, and nothing else says that it was."""
    from insitu_privacy.improve import NOTHING_TO_FIT, SAID

    return tuple(SAID[one] for one in wanted if one != "consistent" or NOTHING_TO_FIT not in warnings)


def _plan(sent: Sent) -> PrivacyPlan:
    if sent.plan is None:
        raise TypeError("a budget request has no result")
    return sent.plan


def _merged(plan: PrivacyPlan, releases: Sequence[NodeRelease]) -> tuple[MergedRelease, ...]:
    from insitu_privacy.merge import merge

    return merge(plan, [release.values for release in releases], [release.node for release in releases])


def _unnamed(plan: PrivacyPlan, answers: Sequence[Answer]) -> tuple[str, ...]:
    """Where groups are selected by a noisy threshold, what is missing from the sums."""
    from insitu_access.release import NodeRelease

    opened = [answer.opened for answer in answers if isinstance(answer.opened, NodeRelease)]
    found = []
    for index, release in enumerate(plan.releases):
        if release.threshold is None:
            continue
        named = {one.node: set(one.values[index].keys or ()) for one in opened}
        every = set().union(*named.values())
        silent = [node for node, keys in named.items() if not keys]
        partial = sum(any(key not in keys for keys in named.values()) for key in every)
        if silent:
            found.append(
                f"no group reached the threshold of {release.threshold.tau} persons at {', '.join(silent)}: "
                "the sums hold nothing of what is there"
            )
        elif partial:
            found.append(
                f"{partial} of {len(every)} groups did not reach the threshold of {release.threshold.tau} persons "
                "at every node: their sums hold only what other nodes named"
            )
    return tuple(found)


def _releases(answers: Sequence[Answer]) -> list[NodeRelease]:
    from insitu_access.release import NodeRelease

    return [answer.opened for answer in answers if isinstance(answer.opened, NodeRelease)]
