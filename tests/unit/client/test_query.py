"""A query through the SDK against the in-memory federation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import count

import insitu
import pytest
from insitu.delivery import Delivery
from insitu.evidence import verify_document
from insitu.transport import Reply
from insitu.verification import NodesTooFew
from insitu_access.release import NodeRelease, Outcome
from insitu_privacy.errors import (
    AccessRefused,
    BudgetRefused,
    ExecutionFailed,
    IntegrityFailed,
    ParameterRefused,
    RemoteError,
    Span,
    SqlRefused,
    Unavailable,
)
from insitu_privacy.plan import ReleasedValues
from insitu_proto.messages import Accepted, Ask, Follow

from tests.unit.client.world import BY_SEX, NODES, NOW, World


def test_a_query_adds_up_the_nodes_and_is_verified(world: World) -> None:
    stages: list[tuple[str, str]] = []
    with world.federation() as federation:
        result = federation.query(BY_SEX, epsilon=0.5, progress=lambda node, stage: stages.append((node, stage)))
    assert [column.name for column in result.columns] == ["sex", "n"]
    assert [row[0] for row in result.rows] == ["F", "M"]
    assert result.rows[0][1] == 3 * 1000
    assert result.verified
    assert not result.replayed
    assert [node.status for node in result.nodes] == ["released"] * 3
    assert result.spent.epsilon == Fraction(1, 2)
    low, high = result.intervals[0][1]
    assert low < 3000 < high
    assert result.intervals[0][0] is None
    assert set(stages) == {(node, "released") for node in NODES}


def test_the_json_document_is_the_interface(world: World) -> None:
    with world.federation() as federation:
        document = federation.query(BY_SEX, epsilon="1/2").to_json()
    again = json.loads(json.dumps(document, allow_nan=False))
    assert set(again) == {
        "query_id", "dataset", "columns", "rows", "intervals", "level", "nodes", "clipping", "spent", "replayed",
        "verified", "warnings", "improved", "suppression", "without_profile", "first_look", "evidence",
    }  # fmt: skip
    assert again["columns"] == [{"name": "sex", "type": "text"}, {"name": "n", "type": "integer"}]
    assert again["clipping"] == [None, 0]
    assert again["suppression"] == {"below": 11, "rows": []}
    assert again["spent"] == {"epsilon": 0.5, "delta": pytest.approx(0.0, abs=1e-6)}
    assert again["nodes"][0] == {"id": "chu-lille", "status": "released", "code": None}
    assert set(again["evidence"]) == {"manifest", "grant", "request", "outcomes", "dataset", "first_look"}


def test_an_improved_answer_says_so_and_the_gateway_is_held_against_the_plain_one(world: World) -> None:
    sql = "SELECT sex, COUNT(*) AS n FROM person GROUP BY ROLLUP (sex)"
    with world.federation() as federation:
        plain = federation.query(sql, epsilon=1)
        result = federation.query(sql, epsilon=1, improve=("non-negative", "consistent"))
        with pytest.raises(ParameterRefused, match="improvement"):
            federation.query(sql, epsilon=1, improve=["better"])
    assert plain.to_json()["improved"] == []
    assert result.to_json()["improved"] == ["non-negative counts", "consistent marginals"]
    assert result.rows != plain.rows
    assert "improved, at no cost: non-negative counts, consistent marginals" in str(result)
    assert "improved" not in str(plain)
    document = json.loads(json.dumps(result.to_json()))
    again = verify_document(document, world.authority.public())
    assert (again.rows, again.improved) == (result.rows, result.improved)
    for wrong in ([], ["better"], "non-negative counts", None, ["consistent marginals"] * 2):
        with pytest.raises(IntegrityFailed):
            verify_document(document | {"improved": wrong}, world.authority.public())


def test_what_could_not_be_made_consistent_is_not_said_to_be(world: World) -> None:
    with world.federation() as federation:
        result = federation.query(BY_SEX, epsilon=1, improve=("non-negative", "consistent"))
    assert result.improved == ("non-negative counts",)
    assert any("nothing to make consistent" in one for one in result.warnings)
    again = verify_document(json.loads(json.dumps(result.to_json())), world.authority.public())
    assert again.improved == result.improved


def test_a_gateway_that_alters_rows_is_found_where_the_answer_is_improved(world: World) -> None:
    world.gateway_result = lambda result: result | {"rows": [["F", 1], ["M", 2]]}
    with world.federation() as federation, pytest.raises(IntegrityFailed):
        federation.query(BY_SEX, epsilon=1, improve=["non-negative"])


def test_a_query_over_public_tables_is_free_and_asks_nobody(world: World) -> None:
    with world.federation() as federation:
        federation.query(BY_SEX, epsilon=1)
        before = len(world.calls)
        result = federation.query("SELECT label, LENGTH(code) AS width FROM chapter WHERE code > 'A' ORDER BY code")
        assert len(world.calls) == before
    assert result.rows == (("Tumours", 1),)
    assert [column.type for column in result.columns] == ["text", "integer"]
    assert (result.spent.epsilon, result.spent.delta, result.nodes) == (0, 0, ())
    assert result.intervals == ((None, None),)
    assert "nothing was spent" in result.warnings[0]
    document = json.loads(json.dumps(result.to_json()))
    assert verify_document(document, world.authority.public()).rows == result.rows


def test_a_query_over_persons_still_needs_an_epsilon(world: World) -> None:
    with world.federation() as federation, pytest.raises(ParameterRefused) as refused:
        federation.query(BY_SEX)
    assert refused.value.code == "INSITU-PARAM-EPSILON"


def test_the_same_query_again_is_a_replay_and_a_warm_federation_makes_one_call(world: World) -> None:
    with world.federation() as federation:
        federation.query(BY_SEX, epsilon=1)
        before = len(world.calls)
        assert federation.query(BY_SEX, epsilon=1).replayed
        assert [type(call) for call in world.calls[before:]] == [Ask]


def test_keys_that_nodes_selected_are_united(world: World) -> None:
    with world.federation() as federation:
        result = federation.query("SELECT town, COUNT(*) AS n FROM person GROUP BY town ORDER BY n DESC", epsilon=1)
    assert [row[0] for row in result.rows] == ["Lille", "Brest"]
    assert result.rows[0][1] == 3 * 6000


def test_an_answer_says_where_no_group_was_named(world: World) -> None:
    def nothing(outcome: Outcome) -> Outcome:
        assert isinstance(outcome, NodeRelease)
        (values,) = outcome.values
        return replace(outcome, values=(ReleasedValues(keys=(), statistics=((),) * len(values.statistics)),))

    def first(outcome: Outcome) -> Outcome:
        assert isinstance(outcome, NodeRelease) and outcome.values[0].keys is not None  # noqa: PT018
        (values,) = outcome.values
        return replace(
            outcome,
            values=(ReleasedValues(keys=values.keys[:1], statistics=tuple(one[:1] for one in values.statistics)),),
        )

    by_town = "SELECT town, COUNT(*) AS n FROM person GROUP BY town"
    with world.federation() as federation:
        assert federation.query(by_town, epsilon=1).warnings == ()
        world.alter["chu-brest"] = first
        assert "1 of 2 groups did not reach" in federation.query(by_town, epsilon=2).warnings[0]
        world.alter["chu-brest"] = nothing
        assert "persons at chu-brest" in federation.query(by_town, epsilon=3).warnings[0]


def test_a_quoted_alias_stands_as_it_was_written(world: World) -> None:
    sql = 'SELECT sex AS Sexe, COUNT(*) AS "Ma colonne" FROM person GROUP BY sex ORDER BY "Ma colonne" DESC'
    with world.federation() as federation:
        result = federation.query(sql, epsilon=1)
    assert [column.name for column in result.columns] == ["sexe", "Ma colonne"]


def test_only_the_nodes_asked_for_are_asked(world: World) -> None:
    with world.federation() as federation:
        result = federation.query(BY_SEX, epsilon=1, nodes=["chu-rennes", "chu-lille"])
    assert [node.id for node in result.nodes] == ["chu-lille", "chu-rennes"]
    assert result.rows[0][1] == 2000


# -- nodes that do not answer ----------------------------------------------------------------------------------------


def test_a_missing_node_is_an_error_unless_fewer_are_accepted(world: World) -> None:
    world.absent = {"chu-brest"}
    with world.federation() as federation:
        with pytest.raises(NodesTooFew) as caught:
            federation.query(BY_SEX, epsilon=1)
        assert "2 of 3 nodes answered, 3 are needed" in caught.value.line()
        assert "chu-brest absent INSITU-NODE-ABSENT" in caught.value.line()
        result = federation.query(BY_SEX, epsilon=1, min_nodes=2)
    assert [(node.status, node.code) for node in result.nodes] == [
        ("released", None),
        ("released", None),
        ("absent", "INSITU-NODE-ABSENT"),
    ]
    assert result.rows[0][1] == 2000


def test_a_code_that_all_nodes_give_is_the_error(world: World) -> None:
    world.refusing = dict.fromkeys(NODES, BudgetRefused("INSITU-BUDGET-EXCEEDED"))
    with world.federation() as federation, pytest.raises(RemoteError) as caught:
        federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-BUDGET-EXCEEDED"
    assert "insitu budget" in caught.value.remedy


def test_different_codes_are_listed(world: World) -> None:
    world.refusing = {
        "chu-lille": BudgetRefused("INSITU-BUDGET-EXCEEDED"),
        "chu-brest": ExecutionFailed("INSITU-NODE-FAILED"),
    }
    world.absent = {"chu-rennes"}
    with world.federation() as federation, pytest.raises(NodesTooFew) as caught:
        federation.query(BY_SEX, epsilon=1, min_nodes=1)
    assert [(node.status, node.code) for node in caught.value.nodes] == [
        ("refused", "INSITU-BUDGET-EXCEEDED"),
        ("absent", "INSITU-NODE-ABSENT"),
        ("failed", "INSITU-NODE-FAILED"),
    ]
    assert "min-nodes 0" not in caught.value.line()


def test_a_nodes_refusal_of_the_sql_carries_the_sql(world: World) -> None:
    error = SqlRefused("INSITU-SQL-TYPE", span=Span(start=7, end=10), name="a", type="b", hint="c")
    world.refusing = dict.fromkeys(NODES, error)
    with world.federation() as federation, pytest.raises(RemoteError) as caught:
        federation.query(BY_SEX, epsilon=1)
    assert caught.value.span == Span(start=7, end=10)
    assert caught.value.sql == BY_SEX


# -- the network -----------------------------------------------------------------------------------------------------


def test_a_cut_stream_is_followed_with_the_same_request(world: World) -> None:
    world.cuts = 3
    with world.federation() as federation:
        result = federation.query(BY_SEX, epsilon=1)
    asked = [call for call in world.calls if isinstance(call, (Ask, Follow))]
    assert [type(call) for call in asked] == [Ask, Follow, Follow, Follow]
    assert {call.request_id for call in asked[1:]} == {result.query_id}
    assert len(world.requests) == 1


def test_a_gateway_that_dies_after_the_outcomes_is_not_needed_any_more(world: World) -> None:
    world.dies_before_the_end = True
    with world.federation() as federation:
        result = federation.query(BY_SEX, epsilon=1)
    assert result.verified
    assert [node.status for node in result.nodes] == ["released"] * len(world.nodes)
    assert sum(isinstance(call, (Ask, Follow)) for call in world.calls) == 1


def test_a_gateway_that_forgot_the_request_is_asked_again(world: World) -> None:
    world.cuts = 1
    with world.federation() as federation:
        federation.refresh()

        class Forgetful(dict):
            def __contains__(self, key: object) -> bool:
                asked = sum(isinstance(call, Ask) for call in world.calls)
                return asked > 1 and super().__contains__(key)

        world.requests = Forgetful()
        result = federation.query(BY_SEX, epsilon=1)
    assert result.verified
    asks = [call for call in world.calls if isinstance(call, Ask)]
    assert len(asks) == 2
    assert asks[0] == asks[1]


def _delivery(world: World) -> Delivery:
    """On a clock that goes on by a second whenever it is read."""
    ticks = count()
    return Delivery(world, lambda *_: None, clock=lambda: NOW + timedelta(seconds=next(ticks)), sleep=lambda _: None)


def test_an_unreachable_gateway_is_said_so_long_before_the_deadline(world: World) -> None:
    world.unreachable = 10_000
    with pytest.raises(Unavailable) as caught:
        _delivery(world).run(Ask(request_jws="x", grant_jwt="y"), "0" * 32, NOW + timedelta(seconds=60))
    assert caught.value.code == "INSITU-GATEWAY-UNREACHABLE"
    assert len(world.calls) < 5


def test_an_accepted_request_is_followed_until_the_deadline(world: World) -> None:
    class Cutting(World):
        def _events(self, call: Ask | Follow) -> Iterator[Reply]:
            yield Accepted(request_id="0" * 32)
            raise Unavailable("INSITU-GATEWAY-UNREACHABLE", address="gw.test:8443")

    cutting = Cutting(world.folder / "cutting")
    with pytest.raises(Unavailable):
        _delivery(cutting).run(Ask(request_jws="x", grant_jwt="y"), "0" * 32, NOW + timedelta(seconds=60))
    assert len(cutting.calls) > 15
    assert {type(call) for call in cutting.calls[1:]} == {Follow}


def test_what_the_gateway_refuses_is_final(world: World) -> None:
    world.refuse_call = RemoteError("INSITU-ACCESS-PEER", "the peer's certificate is not known", "Ask for another.")
    with world.federation() as federation, pytest.raises(RemoteError) as caught:
        federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-ACCESS-PEER"
    assert sum(isinstance(call, Ask) for call in world.calls) == 1


# -- before anything is sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": 0}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": -1}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": "one"}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": float("nan")}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": float("inf")}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": "1e999999999"}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": "1/0"}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": True}, "INSITU-PARAM-EPSILON"),
        ({"epsilon": 1, "delta": 1}, "INSITU-PARAM-DELTA"),
        ({"epsilon": 1, "delta": -1e-9}, "INSITU-PARAM-DELTA"),
        ({"epsilon": 1, "mechanism": "exact"}, "INSITU-PARAM-MECHANISM"),
        ({"epsilon": 1, "max_groups": 0}, "INSITU-PARAM-BOUND"),
        ({"epsilon": 1, "max_rows_per_group": 2.5}, "INSITU-PARAM-BOUND"),
        ({"epsilon": 1, "nodes": ["chu-nantes"]}, "INSITU-PARAM-NODES"),
        ({"epsilon": 1, "nodes": []}, "INSITU-PARAM-NODES"),
        ({"epsilon": 1, "min_nodes": 4}, "INSITU-PARAM-BOUND"),
        ({"epsilon": 1, "nodes": ["chu-lille"], "min_nodes": 2}, "INSITU-PARAM-BOUND"),
        ({"epsilon": 1, "dataset": "claims"}, "INSITU-PARAM-DATASET"),
        ({"epsilon": 1, "timeout": 0}, "INSITU-PARAM-TIMEOUT"),
        ({"epsilon": 1, "timeout": float("inf")}, "INSITU-PARAM-TIMEOUT"),
    ],
)
def test_bad_parameters_are_refused_here(world: World, options: dict[str, object], code: str) -> None:
    with world.federation() as federation:
        with pytest.raises(ParameterRefused) as caught:
            federation.query(BY_SEX, **options)
        assert caught.value.code == code
        assert not any(isinstance(call, Ask) for call in world.calls)


def test_bad_sql_is_refused_here_and_underlined(world: World) -> None:
    sql = "SELECT sex,\n  COUNT(*) AS n\nFROM persn GROUP BY sex"
    with world.federation() as federation, pytest.raises(SqlRefused) as caught:
        federation.query(sql, epsilon=1)
    assert caught.value.code == "INSITU-SQL-UNKNOWN-TABLE"
    assert caught.value.sql == sql
    assert "persn" in insitu_underline(caught.value)


def insitu_underline(error: SqlRefused) -> str:
    from insitu_privacy.errors import underline

    assert error.span is not None
    return underline(error.sql, error.span)


def test_what_is_not_granted_is_refused_here(world: World) -> None:
    from dataclasses import replace

    from insitu_access.grant import GrantedDataset

    tables = {"person": frozenset({"person_id", "sex"}), "chapter": None}
    world.grant = replace(world.grant, datasets=(GrantedDataset(name="care", tables=tables),))
    world.seal()
    with world.federation() as federation:
        assert federation.query(BY_SEX, epsilon=1).verified
        with pytest.raises((AccessRefused, SqlRefused)):
            federation.query("SELECT COUNT(*) AS n FROM visit", epsilon=1)


def test_delta_defaults_to_a_twentieth_of_the_grants(world: World) -> None:
    with world.federation() as federation:
        plan = federation.explain("SELECT town, COUNT(*) AS n FROM person GROUP BY town").plan
    assert plan.loss.epsilon == 1
    assert plan.loss.delta == Fraction("1e-6") / 20


def test_a_float_is_the_decimal_it_is_written_as(world: World) -> None:
    with world.federation() as federation:
        assert federation.explain(BY_SEX, epsilon=0.1).plan.loss.epsilon == Fraction(1, 10)
        assert federation.explain(BY_SEX, epsilon=1e30).plan.loss.epsilon == 10**30


def test_the_package_offers_what_the_sdk_page_names() -> None:
    for name in insitu.__all__:
        assert getattr(insitu, name) is not None
    with pytest.raises(AttributeError):
        _ = insitu.nothing
