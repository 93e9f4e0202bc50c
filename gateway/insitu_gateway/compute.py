"""Threads that plan, merge and post-process, so that the event loop never waits for any of it.

``warm`` does once, before anybody asks, what is slow the first time: imports, and DuckDB's first query. What goes
wrong here costs the result and never the request: researchers compute the result from the outcomes by themselves.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from insitu_access.request import QueryRequest
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import PrivacyPlan, QueryParameters, ReleasedValues, Scope

from insitu_gateway.results import Answer, build_result

if TYPE_CHECKING:
    from insitu_privacy.postprocess import Postprocessor

T = TypeVar("T")


class Compute:
    """A few threads, each with a post-processor of its own."""

    def __init__(self, workers: int, memory_limit_mb: int, timeout_s: float) -> None:
        self._memory = memory_limit_mb
        self._timeout = timeout_s
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="compute")
        self._own = threading.local()
        self._made: list[Postprocessor] = []

    async def plan(self, request: QueryRequest, dataset: Dataset, scope: Scope) -> PrivacyPlan:
        """The gateway's own plan. Raises Refused where there is none, or it is not the one that was signed."""
        return await self.run(lambda: _plan(request, dataset, scope))

    async def result(self, request: QueryRequest, plan: PrivacyPlan, answers: Sequence[Answer]) -> bytes:
        """The result JSON."""
        return await self.run(lambda: build_result(request, plan, answers, self._postprocessor()))

    async def run(self, act: Callable[[], T]) -> T:
        """Run ``act`` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def warm(self) -> None:
        """Do now what is slow the first time."""
        await self.run(lambda: _rehearse(self._postprocessor()))
        # the garbage collector need not walk all that was imported again and again: each time nobody is served
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """End the threads; does not wait for what is still being computed."""
        gc.unfreeze()  # else what is never walked is never freed either, and native modules complain
        self._threads.shutdown(wait=False, cancel_futures=True)
        for postprocessor in self._made:
            postprocessor.close()

    def _postprocessor(self) -> Postprocessor:
        from insitu_privacy.postprocess import Postprocessor  # duckdb, numpy and pyarrow: not needed to connect

        if not hasattr(self._own, "postprocessor"):
            self._own.postprocessor = Postprocessor(self._memory, self._timeout)
            self._made.append(self._own.postprocessor)
        found: Postprocessor = self._own.postprocessor
        return found


def _plan(request: QueryRequest, dataset: Dataset, scope: Scope) -> PrivacyPlan:
    from insitu_privacy.planner import plan_query  # sqlglot

    plan = plan_query(
        request.sql,
        dialect=request.dialect,
        dataset=dataset,
        parameters=request.parameters,
        scope=scope,
        today=request.day,
    )
    if plan.digest != request.plan_digest:
        raise AccessRefused("INSITU-ACCESS-PLAN")
    return plan


def _rehearse(postprocessor: Postprocessor) -> None:
    """Plan and answer one query over a dataset of its own."""
    from insitu_privacy.dataset_file import parse_dataset
    from insitu_privacy.merge import merge
    from insitu_privacy.planner import plan_query

    toml = b"""
    [dataset]
    name = "rehearsal"
    version = 1
    title = "Rehearsal"
    [tables.person]
    unit = "id"
    one_row_per_unit = true
    [tables.person.columns]
    id = { type = "integer" }
    sex = { type = "text", values = ["F", "M"] }
    """
    dataset = parse_dataset(DatasetBundle(toml=toml, files={}))
    parameters = QueryParameters(epsilon=Fraction(1), delta=Fraction(1, 10**6))
    sql = "SELECT sex, count(*) AS n FROM person GROUP BY sex"
    scope = Scope(accounting="zcdp")
    plan = plan_query(sql, dialect="duckdb", dataset=dataset, parameters=parameters, scope=scope)
    width = len(plan.releases[0].statistics)
    values = ReleasedValues(keys=None, statistics=((100, 100),) * width)
    postprocessor.run(plan, merge(plan, [[values]]))
