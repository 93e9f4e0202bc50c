"""A hostile gateway against nodes: it asks for itself, changes what was asked, asks again, and lies about the authority.

Real node processes over mTLS. What single checks refuse is attacked in ``unit/node/test_admission.py`` (A1 to A10) and
``contract/test_ledger.py`` (L1 to L5); here the bytes come from a gateway that has genuine documents to work with.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from insitu_access.jose import sign, token_sha256, unverified
from insitu_access.keys import generate_signing_key
from insitu_access.release import NodeRelease, Refusal
from insitu_privacy.errors import AccessRefused, InsituError, IntegrityFailed
from insitu_proto import messages as m
from insitu_proto.v1 import insitu_pb2 as pb

from tests.e2e.small import NODES
from tests.testkit.hostile_gateway import Attack, wait_until
from tests.testkit.hostile_world import HostileWorld, altered, new_sql

pytestmark = pytest.mark.e2e
REQUEST, GRANT = "insitu-request+jws", "insitu-grant+jwt"


def refused(world: HostileWorld, task: m.Task, node: str = "alpha") -> str:
    """The code with which a node refuses a task, by its own signature; nothing was charged for it."""
    with world.nothing_charged():
        number = len(world.gateway.outcomes(node, task.request_id)) + 1
        world.gateway.say(node, task)
        answer = world.gateway.answer(node, task.request_id, number)
    assert isinstance(answer, Refusal), answer
    return answer.code


def released(world: HostileWorld, task: m.Task, node: str = "alpha") -> NodeRelease:
    number = len(world.gateway.outcomes(node, task.request_id)) + 1
    world.gateway.say(node, task)
    answer = world.gateway.answer(node, task.request_id, number)
    assert isinstance(answer, NodeRelease), answer
    return answer


# ---------------------------------------------------------------------------------------- what was asked is changed

CHANGES: dict[str, Any] = {
    "sql": "SELECT COUNT(*) AS n FROM person WHERE birth_year = 1931",
    "nodes": ["alpha"],
    "min_nodes": 1,
    "request_id": "0" * 32,
    "deadline": 4_000_000_000,
    "issued_at": 1,
    "plan_digest": "0" * 64,
    "grant_sha256": "0" * 64,
}


@pytest.mark.attacks("R2")
@pytest.mark.parametrize("field", [*CHANGES, "epsilon"])
def test_a_request_that_was_altered_on_its_way_is_refused_by_the_node(world: HostileWorld, field: str) -> None:
    """R2. The node's refusal is of the altered bytes, so that it does not pass for an answer to the true ones (V3)."""

    def change(token: str) -> str:
        true = json.loads(unverified(token, REQUEST, "request"))
        assert field in true or field in true["parameters"]
        epsilon = {"parameters": {**true["parameters"], "epsilon": "19"}}
        return altered(token, REQUEST, **(epsilon if field == "epsilon" else {field: CHANGES[field]}))

    def to_node(_: str, message: m.GatewayMessage) -> list[m.GatewayMessage]:
        if not isinstance(message, m.Task):
            return [message]
        sent.append(message.request_id)
        return [replace(message, request_jws=change(message.request_jws))]

    def pass_on(event: m.Event) -> list[m.Event]:
        if not isinstance(event, m.Answered):
            return [event]
        tokens = {node: world.gateway.outcomes(node, sent[0])[0] for node in NODES}
        return [m.Answered(outcomes=tuple(replace(one, outcome_jws=tokens[one.node_id]) for one in event.outcomes))]

    sent: list[str] = []
    with world.nothing_charged(), pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
        world.ask(Attack(to_node=to_node, event=pass_on))
    for node in NODES:
        answer = world.gateway.answer(node, sent[0])
        assert isinstance(answer, Refusal)
        assert answer.code == "INSITU-ACCESS-SIGNATURE"


@pytest.mark.attacks("R1", "A5")
def test_a_gateway_cannot_sign_for_a_researcher(world: HostileWorld) -> None:
    """R2, J2 to J5: its own key, a key of its own making under the researcher's name, no key, another kind of token."""
    task = world.task()
    own = world.gateway_key
    payload = unverified(task.request_jws, REQUEST, "request")
    header, body, _ = task.request_jws.split(".")
    theirs = sign(payload, generate_signing_key(), REQUEST).split(".")[2]
    unsigned = "eyJhbGciOiJub25lIn0." + body + "."
    cases = {
        altered(task.request_jws, REQUEST, own, request_id=uuid.uuid4().hex): "INSITU-ACCESS-WRONG-KEY",
        ".".join((header, body, theirs)): "INSITU-ACCESS-SIGNATURE",
        unsigned: "INSITU-ACCESS-MALFORMED",
        task.grant_jwt: "INSITU-ACCESS-MALFORMED",
        world.manifest_token: "INSITU-ACCESS-MALFORMED",
    }
    for token, code in cases.items():
        assert refused(world, replace(task, request_id=uuid.uuid4().hex, request_jws=token)) == code


# ------------------------------------------------------------------------------------------------------------ grants


@pytest.mark.attacks("R4", "G1")
def test_another_projects_grant_does_not_carry_a_request(world: HostileWorld) -> None:
    """R4, A6: a larger grant of the same researcher, of another researcher, and one that the gateway signed itself."""
    task = world.task()
    stranger = generate_signing_key()
    own = world.gateway_key
    cases = {
        world.new_grant(id="larger", project="larger"): "INSITU-ACCESS-MALFORMED",
        world.new_grant(id="others", researchers=(stranger.public(),)): "INSITU-ACCESS-WRONG-KEY",
        world.new_grant(own): "INSITU-ACCESS-SIGNATURE",
        altered(task.grant_jwt, GRANT, sub="other"): "INSITU-ACCESS-SIGNATURE",
        world.manifest_token: "INSITU-ACCESS-MALFORMED",
    }
    for grant, code in cases.items():
        assert refused(world, replace(task, grant_jwt=grant)) == code
    assert isinstance(released(world, task), NodeRelease)


@pytest.mark.attacks("A6", "G7")
def test_a_request_is_bound_to_its_revision_of_the_grant(world: HostileWorld) -> None:
    """A6, G7: neither a wider revision that came later, nor, once amended, the one before."""
    first = world.new_grant(id="amended", epsilon=world.grant.epsilon / 2)
    second = world.new_grant(id="amended", revision=2)
    old, new = world.task(grant=first), world.task(grant=second)
    assert refused(world, replace(old, grant_jwt=second)) == "INSITU-ACCESS-MALFORMED"
    assert refused(world, replace(new, grant_jwt=first)) == "INSITU-ACCESS-MALFORMED"
    world.publish(world.next_manifest(grant_revisions={"amended": 2}))
    assert refused(world, old) == "INSITU-ACCESS-GRANT-AMENDED"
    assert isinstance(released(world, new), NodeRelease)


# --------------------------------------------------------------------------------------------------- asking again


@pytest.mark.attacks("L1", "L2", "L3", "L5")
def test_the_same_request_asked_again_and_again_is_one_draw_of_noise(world: HostileWorld) -> None:
    """L1 to L3, L5: one after the other, twenty at once, and to each node under other names of the gateway's own."""
    task = world.task(deadline=datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=30))
    first = {node: released(world, task, node) for node in NODES}
    with world.nothing_charged():
        for node in NODES:
            for _ in range(5):
                assert released(world, task, node).values == first[node].values
        names = [uuid.uuid4().hex for _ in range(20)]
        for name in names:
            world.gateway.say("alpha", replace(task, request_id=name))
        for name in names:
            again = world.gateway.answer("alpha", name)
            assert isinstance(again, NodeRelease)
            assert again.values == first["alpha"].values
            assert again.request_id == task.request_id
    fresh = {released(world, world.task(), node).values for _ in range(6) for node in NODES}
    assert len(fresh) > 1  # other questions are other draws; any two may be equal


@pytest.mark.attacks("L2", "L3")
def test_one_task_sent_many_times_at_once_runs_once(world: HostileWorld) -> None:
    """L2: before there is anything stored to answer with."""
    task, charged = world.task(), len(world.ledgers()["alpha"])
    names = [uuid.uuid4().hex for _ in range(8)]
    for name in names:
        world.gateway.say("alpha", replace(task, request_id=name))
    answers = [world.gateway.answer("alpha", name) for name in names]
    assert all(isinstance(answer, NodeRelease) for answer in answers)
    assert len({answer.values for answer in answers if isinstance(answer, NodeRelease)}) == 1
    assert len(world.ledgers()["alpha"]) == charged + 1


@pytest.mark.attacks("L3")
def test_a_researcher_led_to_ask_again_averages_nothing(world: HostileWorld) -> None:
    """L3: a gateway that loses every answer, and a researcher who signs the question anew each time."""
    sql = new_sql()
    lost = Attack(event=lambda event: [m.Answered(outcomes=())] if isinstance(event, m.Answered) else [event])
    with pytest.raises(InsituError, match="INSITU-NODES-TOO-FEW"):
        world.ask(lost, sql)
    with world.nothing_charged():
        for _ in range(2):
            with pytest.raises(InsituError, match="INSITU-NODES-TOO-FEW"):
                world.ask(lost, sql)
        first = world.ask(Attack(), sql)
        assert first.rows == world.ask(Attack(), sql).rows
    assert first.replayed


@pytest.mark.attacks("A7")
def test_an_old_request_is_not_answered(world: HostileWorld) -> None:
    """A7: kept until its deadline has passed, whether it was answered before or not."""
    now = datetime.now(UTC).replace(microsecond=0)
    answered, kept = (world.task(deadline=now + timedelta(seconds=3)) for _ in range(2))
    released(world, answered)
    time.sleep(max(0.0, (now + timedelta(seconds=3.1) - datetime.now(UTC)).total_seconds()))
    assert refused(world, answered) == "INSITU-ACCESS-STALE"
    assert refused(world, kept) == "INSITU-ACCESS-STALE"


def test_requests_in_another_order_get_their_own_answers(world: HostileWorld) -> None:
    """DoS at most: nothing in a request depends on another."""
    tasks = [world.task() for _ in range(4)]
    for task in reversed(tasks):
        world.gateway.say("alpha", task)
    for task in tasks:
        assert world.gateway.answer("alpha", task.request_id).request_sha256 == token_sha256(task.request_jws)


@pytest.mark.attacks("A6")
def test_a_request_goes_to_no_node_but_its_own(world: HostileWorld) -> None:
    """A6."""
    task = world.task(nodes=("beta",), min_nodes=1)
    assert refused(world, task, "alpha") == "INSITU-ACCESS-WRONG-NODE"


# ------------------------------------------------------------------------------------------------------- manifests


@pytest.mark.attacks("M1", "A2")
@pytest.mark.parametrize("kind", ["older", "own", "altered", "expired", "future", "grant"])
def test_a_node_believes_no_manifest_but_a_newer_one_of_the_authority(world: HostileWorld, kind: str) -> None:
    """M1 to M5, and M3 also when it is dialled again: it hangs up, notes it, and keeps what it had."""
    token, code = world.false_manifests()[kind]
    before, counted = world.node_manifest("alpha"), len(world.refused_manifests("alpha"))

    def welcome(node: str, message: m.GatewayMessage) -> list[m.GatewayMessage]:
        lies = kind == "older" and node == "alpha" and isinstance(message, m.Welcome)
        return [replace(message, manifest_jws=token)] if lies else [message]  # type: ignore[type-var]

    with world.attacking(Attack(to_node=welcome)):
        dialled = world.gateway.hellos("alpha")
        world.gateway.say("alpha", m.ManifestUpdate(manifest_jws=token))
        wait_until(lambda: world.gateway.hellos("alpha") > dialled)
        wait_until(lambda: len(world.refused_manifests("alpha")) >= counted + (2 if kind == "older" else 1))
    assert set(world.refused_manifests("alpha")[counted:]) == {code}
    assert world.node_manifest("alpha") == before


@pytest.fixture
def newer(world: HostileWorld) -> Iterator[tuple[str, str]]:
    """A manifest with a revoked grant and another dataset, which nodes have; the one before it, and the grant."""
    before, datasets = world.manifest_token, world.manifest.datasets
    other = replace(datasets[0], digest="0" * 64)
    world.publish(world.next_manifest(revoked_grants=frozenset({"revoked"}), datasets=(other,)))
    yield before, world.new_grant(id="revoked")
    world.publish(world.next_manifest(datasets=datasets))


@pytest.mark.attacks("M3")
def test_nodes_and_researchers_who_are_shown_different_manifests(world: HostileWorld, newer: tuple[str, str]) -> None:
    """A split view: whoever has the newer one refuses. M3, G4 where a grant was revoked, A8 where a dataset changed."""
    before, revoked = newer
    held_back = Attack(manifest=lambda _: before)
    with world.attacking(held_back):
        tasks = {world.task(grant=revoked): "INSITU-ACCESS-GRANT-REVOKED", world.task(): "INSITU-ACCESS-DATASET"}
    for task, code in tasks.items():
        assert refused(world, task) == code
    knows = pytest.raises(AccessRefused, match="INSITU-ACCESS-GRANT-REVOKED")
    with world.researcher(revoked) as federation, world.nothing_charged(), knows:
        federation.query(new_sql(), epsilon=1)
    with world.researcher() as federation, world.nothing_charged():
        federation.refresh()
        with world.attacking(held_back), pytest.raises(AccessRefused, match="INSITU-ACCESS-MANIFEST-OLD"):
            federation.refresh()


@pytest.mark.attacks("C6")
def test_a_revocation_can_be_withheld_from_a_node_for_a_while(world: HostileWorld) -> None:
    """M5, C6: until its manifest is too old (``unit/node/test_custody.py``), and only for who still signs requests."""
    withheld, before = world.new_grant(id="withheld"), world.manifest_token
    task = world.task(grant=withheld)

    def stale(node: str, message: m.GatewayMessage) -> list[m.GatewayMessage]:
        if node != "alpha" or not isinstance(message, m.Welcome | m.ManifestUpdate):
            return [message]
        return [replace(message, manifest_jws=before)] if isinstance(message, m.Welcome) else []

    with world.attacking(Attack(to_node=stale)):
        world.publish(world.next_manifest(revoked_grants=frozenset({"withheld"})), nodes=["beta"])
        assert refused(world, task, "beta") == "INSITU-ACCESS-GRANT-REVOKED"
        assert released(world, task, "alpha").request_id == task.request_id
    world.gateway.drop("alpha")
    wait_until(lambda: world.node_manifest("alpha") == world.manifest_token)
    assert refused(world, task, "alpha") == "INSITU-ACCESS-GRANT-REVOKED"


# ------------------------------------------------------------------------------------------------------- bad bytes


@pytest.mark.parametrize("kind", ["empty", "half filled and long", "long"])
def test_a_message_that_no_gateway_sends_costs_the_connection_alone(world: HostileWorld, kind: str) -> None:
    """A1, and sizes before parsing: the node hangs up, dials again and answers."""
    task = world.task()
    bad = {
        "empty": pb.GatewayMessage(),
        "half filled and long": pb.GatewayMessage(task=pb.Task(request_id="x", request_jws="x" * 5_000_000)),
        "long": pb.GatewayMessage(manifest=pb.Manifest(manifest_jws="x" * 70_000_000)),
    }[kind]
    sent: list[str] = []

    def once(node: str, message: m.GatewayMessage) -> list[Any]:
        if node != "alpha" or sent or not isinstance(message, m.Taken):
            return [message]
        sent.append(node)
        return [bad]

    dialled = world.gateway.hellos("alpha")
    with world.nothing_charged(), world.attacking(Attack(to_node=once)):
        world.gateway.say("alpha", m.Taken(request_id="x"))
        wait_until(lambda: world.gateway.hellos("alpha") > dialled)
    assert released(world, task).request_id == task.request_id


def test_names_of_tasks_reach_no_log_and_no_signature_unread(world: HostileWorld) -> None:
    """A task under a name that is no request id: what is refused cannot be signed, so nothing is said at all."""
    with world.nothing_charged():
        strange = "../../x\n\x1b[2J"
        world.gateway.say("alpha", m.Task(request_id=strange, request_jws="a.b.c", grant_jwt="a.b.c"))
        probe = world.task()
        assert refused(world, replace(probe, grant_jwt=world.manifest_token)) == "INSITU-ACCESS-MALFORMED"
        assert world.gateway.outcomes("alpha", strange) == []
    assert "\x1b" not in world.parties.logs()
