"""The async twin gives what the SDK gives, several queries at once."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from insitu import aio, client
from insitu_privacy.errors import ParameterRefused

from tests.unit.client.world import BY_SEX, World


def test_the_twin_answers_as_the_sdk_does(world: World) -> None:
    async def main() -> None:
        async with aio.Federation(world.federation()) as federation:
            plan = await federation.explain(BY_SEX, epsilon=1)
            results = await asyncio.gather(*(federation.query(BY_SEX, epsilon=one) for one in (1, 2, 3)))
            assert [float(result.spent.epsilon) for result in results] == [1, 2, 3]
            assert {result.rows for result in results} == {(("F", 3000), ("M", 3030))}
            assert plan.plan.loss.epsilon == 1
            assert (await federation.budget()).grant == (await federation.catalog()).grant.id
            with pytest.raises(ParameterRefused):
                await federation.query(BY_SEX)

    asyncio.run(main())


def test_both_take_the_same_parameters() -> None:
    named = set(inspect.signature(client.Federation.query).parameters) - {"self", "sql", "progress"}
    assert named == set(aio.Parameters.__annotations__)
    assert named == set(inspect.signature(client.Federation.explain).parameters) - {"self", "sql"}
