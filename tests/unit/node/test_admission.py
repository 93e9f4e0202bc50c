"""Every numbered check of admission, refused with its code, and nothing spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from insitu_access.grant import GrantedDataset, grant_sha256
from insitu_access.jose import SIZE_LIMITS, sign
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import DatasetEntry
from insitu_access.request import BudgetRequest, QueryRequest
from insitu_node.admission import AdmittedBudget, AdmittedQuery, admit
from insitu_privacy.errors import AccessRefused, Refused, SqlRefused

from tests.testkit.node_world import NODE, NodeWorld


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    return NodeWorld(folder=tmp_path)


def refused(
    world: NodeWorld,
    request: QueryRequest | BudgetRequest | str | None = None,
    grant_jwt: str | None = None,
) -> str:
    asked = world.query() if request is None else request
    token = asked if isinstance(asked, str) else world.sealed(asked)
    with pytest.raises(Refused) as caught:
        admit(token, grant_jwt or world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)
    return caught.value.code


def test_a_right_request_is_admitted_with_its_plan(world: NodeWorld) -> None:
    request = world.query()
    found = admit(world.sealed(request), world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)
    assert isinstance(found, AdmittedQuery)
    assert (found.request, found.grant) == (request, world.grant)
    assert found.plan.digest == request.plan_digest


def test_a_budget_request_is_admitted(world: NodeWorld) -> None:
    token = world.sealed(world.budget_request())
    found = admit(token, world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)
    assert isinstance(found, AdmittedBudget)


@pytest.mark.attacks("A1")
def test_a1_too_long(world: NodeWorld) -> None:
    assert refused(world, "a" * (SIZE_LIMITS["insitu-request+jws"] + 1)) == "INSITU-ACCESS-MALFORMED"
    assert refused(world, grant_jwt="a" * (SIZE_LIMITS["insitu-grant+jwt"] + 1)) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("A2")
def test_a2_the_manifest_does_not_list_this_node(world: NodeWorld) -> None:
    world.manifest_with(nodes=())
    assert refused(world) == "INSITU-ACCESS-MANIFEST"


@pytest.mark.attacks("A2")
def test_a2_the_manifest_lists_another_key(world: NodeWorld) -> None:
    entry = world.manifest.nodes[0]
    world.manifest_with(nodes=(replace(entry, key=generate_signing_key().public()),))
    assert refused(world) == "INSITU-ACCESS-MANIFEST"


@pytest.mark.attacks("A3", "G1")
def test_a3_a_grant_of_somebody_else(world: NodeWorld) -> None:
    assert refused(world, grant_jwt=world.grant_jwt(generate_signing_key())) == "INSITU-ACCESS-SIGNATURE"


@pytest.mark.attacks("A3")
def test_a3_something_else_in_place_of_a_grant(world: NodeWorld) -> None:
    assert refused(world, grant_jwt=world.manifest_jws()) == "INSITU-ACCESS-MALFORMED"
    assert refused(world, grant_jwt="no token") == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("A3", "G5")
@pytest.mark.parametrize("start", [timedelta(days=-20), timedelta(seconds=1)])
def test_a3_a_grant_that_is_not_valid_now(world: NodeWorld, start: timedelta) -> None:
    world.grant_with(not_before=world.now + start, expires_at=world.now + start + timedelta(days=5))
    assert refused(world) == "INSITU-ACCESS-GRANT-EXPIRED"


@pytest.mark.attacks("A3", "G4")
def test_a3_a_revoked_grant(world: NodeWorld) -> None:
    world.manifest_with(revoked_grants=frozenset({"grant-1"}))
    assert refused(world) == "INSITU-ACCESS-GRANT-REVOKED"


@pytest.mark.attacks("A3", "G3")
def test_a3_a_grant_of_another_federation(world: NodeWorld) -> None:
    world.grant_with(federation="other")
    assert refused(world) == "INSITU-ACCESS-NOT-GRANTED"


@pytest.mark.attacks("A3", "A5", "G8")
def test_a3_a_researchers_key_that_was_revoked(world: NodeWorld) -> None:
    """The thief of one key of a grant that others go on using."""
    other = generate_signing_key()
    world.grant_with(researchers=(world.researcher.public(), other.public()))
    world.manifest_with(revoked_keys=frozenset({world.researcher.thumbprint}))
    assert refused(world) == "INSITU-ACCESS-WRONG-KEY"
    token = world.sealed(world.query(), other)
    assert admit(token, world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)


@pytest.mark.attacks("A4")
def test_a4_the_grant_does_not_name_this_node(world: NodeWorld) -> None:
    world.grant_with(nodes=("chu-rennes",))
    assert refused(world) == "INSITU-ACCESS-NOT-GRANTED"


@pytest.mark.attacks("A5", "R2")
def test_a5_a_request_signed_by_a_stranger(world: NodeWorld) -> None:
    token = world.sealed(world.query(), generate_signing_key())
    assert refused(world, token) == "INSITU-ACCESS-WRONG-KEY"


@pytest.mark.attacks("A5", "R2")
def test_a5_a_request_that_was_altered(world: NodeWorld) -> None:
    head, body, _ = world.sealed(world.query()).split(".")
    other = world.sealed(world.query()).split(".")[2]
    assert refused(world, f"{head}.{body}.{other}") == "INSITU-ACCESS-SIGNATURE"


@pytest.mark.attacks("A5", "R3")
def test_a5_a_request_with_an_unknown_field(world: NodeWorld) -> None:
    token = sign(b'{"kind": "query", "surprise": 1}', world.researcher, "insitu-request+jws")
    assert refused(world, token) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("A6")
def test_a6_a_request_made_under_another_token_of_the_same_grant(world: NodeWorld) -> None:
    request = world.query()
    world.grant_with(epsilon=world.grant.epsilon + 1)
    assert refused(world, request) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("A6", "R4")
def test_a6_a_request_that_names_another_grant(world: NodeWorld) -> None:
    assert refused(world, world.query(grant_id="grant-2")) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("A6")
def test_a6_a_request_for_other_nodes(world: NodeWorld) -> None:
    assert refused(world, world.query(nodes=("chu-rennes",))) == "INSITU-ACCESS-WRONG-NODE"


@pytest.mark.attacks("A7")
def test_a7_past_its_deadline(world: NodeWorld) -> None:
    request = world.query(issued_at=world.now - timedelta(hours=1), deadline=world.now)
    assert refused(world, request) == "INSITU-ACCESS-STALE"


@pytest.mark.attacks("A7")
def test_a7_from_the_future(world: NodeWorld) -> None:
    late = world.now + timedelta(minutes=6)
    assert refused(world, world.query(issued_at=late, deadline=late + timedelta(minutes=1))) == "INSITU-ACCESS-STALE"
    soon = world.now + timedelta(minutes=4)
    request = world.query(issued_at=soon, deadline=soon + timedelta(minutes=1))
    token = world.sealed(request)
    assert admit(token, world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)


@pytest.mark.attacks("A8")
def test_a8_a_dataset_that_is_not_granted(world: NodeWorld) -> None:
    world.grant_with(datasets=(GrantedDataset(name="claims"),))
    assert refused(world) == "INSITU-ACCESS-NOT-GRANTED"


@pytest.mark.attacks("A8")
def test_a8_another_digest_in_the_request(world: NodeWorld) -> None:
    assert refused(world, world.query(dataset_digest="0" * 64)) == "INSITU-ACCESS-DATASET"


@pytest.mark.attacks("A8")
def test_a8_another_digest_in_the_manifest(world: NodeWorld) -> None:
    world.manifest_with(datasets=(DatasetEntry(name="care", version=1, digest="0" * 64),))
    assert refused(world) == "INSITU-ACCESS-DATASET"
    assert refused(world, world.query(dataset_digest="0" * 64)) == "INSITU-ACCESS-DATASET"


def test_a8_a_dataset_that_is_not_served_here(world: NodeWorld) -> None:
    world.site = replace(world.site, datasets={})
    assert refused(world) == "INSITU-ACCESS-DATASET"


@pytest.mark.attacks("A9")
@pytest.mark.parametrize(
    ("nodes", "least"), [((NODE,), 1), ((NODE, "chu-rennes"), 1), ((NODE, "chu-rennes"), 2), ((NODE, "b", "c"), 2)]
)
def test_a9_fewer_nodes_than_the_grant_says(world: NodeWorld, nodes: tuple[str, ...], least: int) -> None:
    """Whether fewer are asked, or fewer need answer, so that one hospital's numbers could be told alone."""
    world.grant_with(nodes=(NODE, "chu-rennes", "b", "c"), min_nodes=3)
    assert refused(world, world.query(nodes=nodes, min_nodes=least)) == "INSITU-ACCESS-MIN-NODES"
    enough = world.sealed(world.query(nodes=(NODE, "b", "c"), min_nodes=3))
    assert admit(enough, world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)


@pytest.mark.attacks("A10")
def test_a10_another_plan_than_the_signed_one(world: NodeWorld) -> None:
    assert refused(world, world.query(plan_digest="0" * 64)) == "INSITU-ACCESS-PLAN"


@pytest.mark.attacks("A10")
def test_a10_a_cheaper_plan_than_what_is_asked(world: NodeWorld) -> None:
    dear, cheap = world.query(epsilon="1"), world.query(epsilon="1/2")
    assert refused(world, replace(dear, plan_digest=cheap.plan_digest)) == "INSITU-ACCESS-PLAN"


def test_a10_sql_that_is_refused_says_where(world: NodeWorld) -> None:
    request = world.query("SELECT person_id, COUNT(*) FROM visit GROUP BY person_id", plan_digest="0" * 64)
    with pytest.raises(SqlRefused) as caught:
        admit(world.sealed(request), world.grant_jwt(), site=world.site, manifest=world.manifest, now=world.now)
    assert caught.value.span is not None


@pytest.mark.attacks("A10")
def test_a10_the_grants_scope_binds_the_plan(world: NodeWorld) -> None:
    world.grant_with(datasets=(GrantedDataset(name="care", tables={"visit": None}),))
    assert refused(world) in {"INSITU-ACCESS-NOT-GRANTED", "INSITU-SQL-UNKNOWN-TABLE"}


def test_the_first_check_that_fails_names_the_code(world: NodeWorld) -> None:
    request = world.query(nodes=("chu-rennes",), dataset_digest="0" * 64)
    world.manifest_with(nodes=())
    assert refused(world, request) == "INSITU-ACCESS-MANIFEST"
    assert grant_sha256(world.grant_jwt()) == request.grant_sha256
    assert NODE not in request.nodes


def test_access_refusals_are_refusals(world: NodeWorld) -> None:
    with pytest.raises(AccessRefused):
        admit("x", "y", site=world.site, manifest=world.manifest, now=world.now)
