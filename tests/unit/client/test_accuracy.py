"""An accuracy instead of an epsilon: the least that is expected to reach it, and a refusal where none does."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from insitu.accuracy import Accuracy, Most, Reach, least_epsilon, read_accuracy
from insitu.client import Federation
from insitu_privacy.errors import ParameterRefused, RemoteError

from tests.unit.client.world import BY_SEX, World


@pytest.mark.parametrize(
    ("text", "most", "relative"),
    [
        ("±50", 50, False),
        ("50", 50, False),
        ("+-0.5", 0.5, False),
        ("+/- 7", 7, False),
        (" ±5% ", 0.05, True),
        ("±1 000", 1000, False),
        ("±12\u202f000.5", 12000.5, False),
        ("±1\u00a0000\u2009000", 1e6, False),
    ],
)
def test_accuracies_are_read(text: str, most: float, relative: bool) -> None:
    assert read_accuracy(text) == Accuracy(most, relative)


@pytest.mark.parametrize(
    "text", ["", "±", "±0", "0%", "-5", "±5%%", "5 rows", "1e9", "±٣", "nan", "±" + "9" * 40, "±1 00", 5, None, True]
)
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ParameterRefused) as refused:
        read_accuracy(text)
    assert refused.value.code == "INSITU-PARAM-ACCURACY"


@pytest.mark.parametrize("text", ["±5,5%", "±1,000"])
def test_a_comma_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ParameterRefused) as refused:
        read_accuracy(text)
    assert "follow a point" in refused.value.remedy


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("most", [1, 20, 10**6])
def test_the_least_epsilon_is_found_whatever_the_noise_does(power: float, most: int) -> None:
    asked = []

    def columns_at(epsilon: Fraction) -> list[Reach]:
        asked.append(epsilon)
        return [(3 / float(epsilon) ** power, None), (1 / float(epsilon) ** power, None)]

    found = least_epsilon(Accuracy(10, relative=False), Most(Fraction(most)), columns_at)
    exact = 0.3 ** (1 / power)
    assert exact <= found <= exact * 1.02
    assert len(asked) <= 21


def test_what_the_grant_does_not_allow_is_refused_with_what_it_buys() -> None:
    with pytest.raises(ParameterRefused, match=r"±5 is out of reach: all of the grant's epsilon, 2, buys ±15"):
        least_epsilon(Accuracy(5, relative=False), Most(Fraction(2)), lambda epsilon: [(30 / float(epsilon), None)])


def test_what_cannot_be_foretold_is_refused() -> None:
    with pytest.raises(ParameterRefused, match="cannot be promised"):
        least_epsilon(Accuracy(0.05, relative=True), Most(Fraction(2)), lambda _: [(3.0, None)])


@pytest.mark.parametrize(("accuracy", "width"), [("±50", 50), ("±5%", 150)])
def test_explain_shows_the_epsilon_that_reaches_it(world: World, accuracy: str, width: float) -> None:
    """Groups have 1,000 rows at each of three nodes: 5% of them are 150."""
    with world.federation() as federation:
        found = federation.explain(BY_SEX, accuracy=accuracy).to_json()
        wider = federation.explain(BY_SEX, epsilon=found["cost"]["epsilon"] * 0.9).to_json()
    assert width * 0.9 < found["expected_intervals"][1] <= width
    assert wider["expected_intervals"][1] > width
    assert not world.released


def test_a_query_spends_that_epsilon(world: World) -> None:
    with world.federation() as federation:
        foretold = federation.explain(BY_SEX, accuracy="±50").to_json()["cost"]["epsilon"]
        assert float(federation.query(BY_SEX, accuracy="±50").spent.epsilon) == pytest.approx(foretold)


@pytest.mark.parametrize("accuracy", [5, 0.05])
def test_a_number_is_refused_like_any_other_mistake(world: World, accuracy: Any) -> None:
    with world.federation() as federation:
        for ask in (federation.explain, federation.query):
            with pytest.raises(ParameterRefused, match="an accuracy is text"):
                ask(BY_SEX, accuracy=accuracy)


# -- what is left of the grant -----------------------------------------------------------------------------------------


def test_what_is_spent_already_is_not_promised_again(world: World) -> None:
    world.left = {"chu-rennes": Fraction("0.0512"), "chu-brest": Fraction(3)}
    with world.federation() as federation:
        for ask in (federation.explain, federation.query):
            with pytest.raises(
                ParameterRefused, match=r"what is left of the grant, ε 0\.0512 at chu-rennes, buys ±98"
            ) as no:
                ask(BY_SEX, accuracy="±50")
            assert "costs nothing at the --epsilon" in no.value.remedy
        assert not world.released
        assert federation.query(BY_SEX, accuracy="±50", nodes=["chu-lille"]).spent.epsilon > 0


def test_of_nothing_nothing_can_be_bought(world: World) -> None:
    world.left = {"chu-lille": Fraction(0)}
    with world.federation() as federation, pytest.raises(ParameterRefused, match="ε 0 at chu-lille, buys nothing"):
        federation.query(BY_SEX, accuracy="±50")


def test_an_epsilon_at_which_no_noise_is_possible_does_not_reach_it() -> None:
    def columns_at(epsilon: Fraction) -> list[Reach]:
        if epsilon < 1:
            raise ParameterRefused("INSITU-PARAM-MECHANISM", value="gaussian", reason="this epsilon is too small")
        return [(1 / float(epsilon), None)]

    wide = Accuracy(1e6, relative=False)
    assert 1 <= least_epsilon(wide, Most(Fraction(20)), columns_at) <= 1.02
    with pytest.raises(ParameterRefused, match=r"ε 0\.5 at n2, buys nothing"):
        least_epsilon(wide, Most(Fraction(1, 2), "n2"), columns_at)
    with pytest.raises(ParameterRefused, match="too small"):
        least_epsilon(wide, Most(Fraction(1, 2)), columns_at)


def test_explain_needs_no_gateway_for_it(world: World) -> None:
    """The dataset and the manifest are at hand; the gateway is given up after its patience, which a clock of whole seconds soon has."""

    def clock() -> datetime:
        world.now += timedelta(seconds=1)
        return world.now

    with Federation(world.profile(), world, clock=clock) as federation:
        federation.explain(BY_SEX)
        world.unreachable = 1_000_000
        assert federation.explain(BY_SEX, accuracy="±50").plan.loss.epsilon > 0


def test_where_no_node_tells_what_is_left_it_is_all_of_the_grant(world: World) -> None:
    world.grant = replace(world.grant, epsilon=Fraction(1))
    world.seal()
    world.left = {node: Fraction("0.01") for node in world.nodes}
    with world.federation() as federation:
        world.absent = set(world.nodes)
        assert federation.explain(BY_SEX, accuracy="±50").plan.loss.epsilon > Fraction("0.01")
        world.absent = set()
        world.refuse_call = RemoteError("INSITU-GATEWAY-BUSY", "too many requests", "Wait.")
        assert federation.explain(BY_SEX, accuracy="±50").plan.loss.epsilon > Fraction("0.01")
        with pytest.raises(ParameterRefused, match="all of the grant's epsilon, 1, buys"):
            federation.explain(BY_SEX, accuracy="±0.1")


def test_both_at_once_are_refused(world: World) -> None:
    with world.federation() as federation, pytest.raises(ParameterRefused, match="epsilon was given too"):
        federation.explain(BY_SEX, accuracy="±50", epsilon=1)


def test_over_public_tables_alone_there_is_nothing_to_find(world: World) -> None:
    with world.federation() as federation:
        assert federation.query("SELECT COUNT(*) AS n FROM chapter", accuracy="±50").spent.epsilon == 0
