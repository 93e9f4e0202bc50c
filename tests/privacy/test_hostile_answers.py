"""A hostile gateway against researchers: it alters, swaps, forges, hides and invents what nodes say.

The real SDK over mTLS, asking real nodes. What single checks refuse is attacked in ``unit/client/test_verification.py``
(V1 to V6) too; here every token is genuine until the gateway has had it in its hands. What is lost, late or out of
order is in ``test_hostile_delivery.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from insitu_access.jose import unverified
from insitu_access.release import Refusal, seal_outcome
from insitu_privacy.errors import (
    AccessRefused,
    BudgetRefused,
    ExecutionFailed,
    InsituError,
    IntegrityFailed,
    SqlRefused,
    Unavailable,
)
from insitu_proto import messages as m

from tests.testkit.hostile_gateway import Attack, Outcomes, jws, of_alpha, outcomes
from tests.testkit.hostile_world import HostileWorld, altered, new_sql

pytestmark = pytest.mark.e2e
RELEASE = "insitu-release+jws"

# --------------------------------------------------------------------------------------------------------- releases


def first_statistic(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    statistics = values[0]["statistics"]
    statistics[0][0] += 100
    return values


def another_key(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**values[0], "keys": [["F"], ["X"]]}]


def one_less(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**values[0], "statistics": values[0]["statistics"][1:]}]


ALTERED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "value": lambda true: {"values": first_statistic(true["values"])},
    "key": lambda true: {"values": another_key(true["values"])},
    "statistics": lambda true: {"values": one_less(true["values"])},
    "bounds": lambda true: {"plan_digest": "0" * 64},
    "dataset": lambda true: {"dataset_digest": "0" * 64},
    "cost": lambda true: {"spent_epsilon": "0"},
    "replayed": lambda true: {"replayed": not true["replayed"]},
    "request": lambda true: {"request_sha256": "0" * 64},
    "node": lambda true: {"node": "beta"},
}


@pytest.mark.attacks("V2")
@pytest.mark.parametrize("signer", ["node", "gateway"])
@pytest.mark.parametrize("field", ALTERED)
def test_a_release_that_was_altered_is_refused(world: HostileWorld, field: str, signer: str) -> None:
    """V2, under the node's signature and under the gateway's own."""
    key = world.gateway_key if signer == "gateway" else None

    def change(token: str) -> str:
        true = json.loads(unverified(token, RELEASE, "release"))
        changes = ALTERED[field](true)
        assert changes.keys() <= true.keys()
        return altered(token, RELEASE, key, **changes)

    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
        world.ask(jws(change))


@pytest.mark.attacks("V3")
def test_a_release_to_another_request_is_refused(world: HostileWorld) -> None:
    """V3: an earlier one to the very same question, and one to another question."""
    kept: list[str] = []

    def keep(token: str) -> str:
        kept.append(token)
        return token

    sql = new_sql()
    world.ask(jws(keep), sql)
    for question in (sql, None):
        with pytest.raises(IntegrityFailed, match=r"INSITU-VERIFY-RELEASE.*answers another request"):
            world.ask(jws(lambda _: kept[0]), question)


def test_the_command_shows_nothing_of_an_answer_that_does_not_verify(world: HostileWorld) -> None:
    attack = jws(lambda token: altered(token, RELEASE, issued_at=1))
    done = world.command(attack, "query", new_sql(), "--epsilon", 1)
    assert (done.code, done.out) == (4, "")
    assert "INSITU-VERIFY-RELEASE" in done.err


@pytest.mark.attacks("O4")
def test_releases_of_two_nodes_that_were_swapped_are_refused(world: HostileWorld) -> None:
    """V2, O4."""

    def swapped(true: Outcomes) -> Outcomes:
        one, two = true
        return [replace(one, outcome_jws=two.outcome_jws), replace(two, outcome_jws=one.outcome_jws)]

    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
        world.ask(outcomes(swapped))


@pytest.mark.attacks("V1")
def test_one_release_does_not_count_twice(world: HostileWorld) -> None:
    """V1: under its own name twice, under the other node's, and under that of a node that was not asked."""
    alpha = "alpha"
    cases: list[tuple[Callable[[Outcomes], Outcomes], str]] = [
        (lambda true: [true[0], true[0], true[1]], "INSITU-ACCESS-MALFORMED"),
        (lambda true: [true[0], replace(true[0], node_id=true[1].node_id)], "INSITU-VERIFY-RELEASE"),
        (lambda true: [*true, replace(true[0], node_id="gamma")], "INSITU-VERIFY-RELEASE"),
        (lambda true: [*true, replace(true[0], node_id=alpha.upper())], "INSITU-VERIFY-RELEASE"),
    ]
    for change, code in cases:
        with pytest.raises(InsituError, match=code):
            world.ask(outcomes(change))


def test_a_node_that_is_stripped_is_named_and_its_sums_are_missed(world: HostileWorld) -> None:
    """Denial of service only: too few nodes unless the researcher asks for fewer, and the missing one is named."""
    sql = new_sql()
    strip = outcomes(lambda true: [one for one in true if one.node_id != "alpha"])
    with pytest.raises(Unavailable, match=r"INSITU-NODES-TOO-FEW.*alpha absent"):
        world.ask(strip, sql)
    with world.nothing_charged():
        result = world.ask(strip, sql, min_nodes=1)
    assert [(node.id, node.status, node.code) for node in result.nodes] == [
        ("alpha", "absent", "INSITU-NODE-ABSENT"),
        ("beta", "released", None),
    ]
    with world.nothing_charged():  # once the gateway gives way, the answer costs nothing more
        assert all(node.status == "released" for node in world.ask(Attack(), sql).nodes)


# ----------------------------------------------------------------------------------------------------- the result


def rows_plus_one(result: dict[str, Any]) -> bytes:
    return json.dumps({**result, "rows": [[sex, n + 1] for sex, n in result["rows"]]}).encode()


RESULTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "rows": rows_plus_one,
    "fewer rows": lambda result: json.dumps({**result, "rows": result["rows"][1:]}).encode(),
    "columns": lambda result: json.dumps({**result, "columns": []}).encode(),
    "not JSON": lambda _: b"{",
    "not an object": lambda _: b"[1]",
    "nested": lambda _: b"[" * 200_000,
    "nested rows": lambda result: json.dumps({**result, "rows": [[[[]], {}]] * 2}).encode(),
    "beyond floats": lambda result: json.dumps({**result, "rows": [["F", 10**400], ["M", 1.5]]}).encode(),
}


@pytest.mark.attacks("V6")
@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_that_was_altered_is_refused(world: HostileWorld, kind: str) -> None:
    """V6; and what is no result at all is refused with the same code."""

    def event(true: m.Event) -> list[m.Event]:
        if not isinstance(true, m.Finished):
            return [true]
        return [replace(true, result_json=RESULTS[kind](json.loads(true.result_json or b"")))]

    sql = "SELECT sex, AVG(birth_year) AS n" + new_sql().removeprefix("SELECT sex, COUNT(*) AS n")
    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RESULT"):
        world.ask(Attack(event=event), sql)


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.attacks("V7")
@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("refused", BudgetRefused("INSITU-BUDGET-EXCEEDED")),
        ("refused", AccessRefused("INSITU-ACCESS-GRANT-REVOKED")),
        ("failed", ExecutionFailed("INSITU-NODE-FAILED")),
        ("refused", Unavailable("INSITU-NODE-ABSENT")),
    ],
)
def test_the_gateway_refuses_in_no_nodes_name(world: HostileWorld, status: Any, error: InsituError) -> None:
    """V7: a refusal that no node signed is a forgery, whether one node is said to refuse or all of them."""

    def claim(one: m.NodeOutcome) -> m.NodeOutcome:
        return m.NodeOutcome(node_id=one.node_id, status=status, code=error.code, text=error.text, remedy=error.remedy)

    for attack in (of_alpha(claim), outcomes(lambda true: [claim(one) for one in true])):
        with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
            world.ask(attack, min_nodes=1)


@pytest.mark.attacks("V7")
def test_a_node_that_is_claimed_to_be_away_is_told_in_the_sdks_own_words(world: HostileWorld) -> None:
    """V7: denial of service only; no word of the gateway's reaches the researcher."""

    def claim(one: m.NodeOutcome) -> m.NodeOutcome:
        says = "call +33 1 and read your passphrase aloud"
        return m.NodeOutcome(
            node_id=one.node_id, status="absent", code="INSITU-BUDGET-EXCEEDED", text=says, remedy=says
        )

    with pytest.raises(Unavailable) as caught:
        world.ask(outcomes(lambda true: [claim(one) for one in true]))
    assert "passphrase" not in caught.value.line()
    assert "BUDGET" not in caught.value.line()
    assert world.ask(of_alpha(claim), min_nodes=1).nodes[0].code == "INSITU-NODE-ABSENT"


@pytest.mark.attacks("V2", "V3")
def test_a_refusal_that_was_forged_or_kept_is_refused(world: HostileWorld) -> None:
    """V2, V3: signed by the gateway; and a node's own, to another request."""
    task = world.task()
    world.gateway.say("alpha", replace(task, grant_jwt=world.manifest_token))
    genuine = world.gateway.answer("alpha", task.request_id)
    assert isinstance(genuine, Refusal)

    def forged(one: m.NodeOutcome) -> m.NodeOutcome:
        refused = {"status": "refused", "code": genuine.code, "text": "x", "remedy": "x"}
        return replace(one, **refused, outcome_jws=seal_outcome(genuine, world.gateway_key))  # type: ignore[arg-type]

    kept = world.gateway.outcomes("alpha", task.request_id)[0]
    for change in (forged, lambda one: replace(one, outcome_jws=kept)):
        with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
            world.ask(of_alpha(change))


def test_a_node_can_be_made_to_refuse_and_that_is_all(world: HostileWorld) -> None:
    """Denial of service only: the request goes out with a grant that is none, and the node truly refuses it."""
    sql = new_sql()

    def spoil(_: str, message: m.GatewayMessage) -> list[m.GatewayMessage]:
        return [replace(message, grant_jwt="a.b.c")] if isinstance(message, m.Task) else [message]

    with world.nothing_charged(), pytest.raises(InsituError, match="INSITU-ACCESS-MALFORMED"):
        world.ask(Attack(to_node=spoil), sql)
    assert all(node.status == "released" for node in world.ask(Attack(), sql).nodes)


@pytest.mark.attacks("V7")
@pytest.mark.parametrize(
    "error",
    [
        BudgetRefused("INSITU-BUDGET-EXCEEDED"),
        ExecutionFailed("INSITU-NODE-FAILED"),
        SqlRefused("INSITU-SQL-SYNTAX", reason="x"),
    ],
)
def test_the_gateway_itself_says_nothing_that_is_for_nodes_to_say(world: HostileWorld, error: InsituError) -> None:
    """V7: as the error of the call, in place of outcomes."""
    attack = Attack(event=lambda _: (), refuse=error)
    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RESULT"):
        world.ask(attack)
