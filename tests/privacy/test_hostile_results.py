"""Result files in hostile hands: whoever keeps one changes it, and `insitu verify` has the file alone. F1 to F6.

Genuine results of a real federation, pieced together anew. Single changes of one file are in
``unit/client/test_evidence.py``; here every signature in the file is genuine and its rows are what its releases add up to.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import insitu
import pytest
from insitu.evidence import read_result, verify_document
from insitu_privacy.errors import AccessRefused, ConfigInvalid, IntegrityFailed

from tests.testkit.hostile_gateway import Attack
from tests.testkit.hostile_world import HostileWorld, altered, new_sql

pytestmark = pytest.mark.e2e
Document = dict[str, Any]


def saved(result: insitu.Result) -> Document:
    return json.loads(json.dumps(result.to_json()))


@pytest.fixture(scope="module")
def pair(world: HostileWorld) -> tuple[Document, Document, Document]:
    """Two results of one question, and one of another."""
    sql = new_sql()
    return saved(world.ask(Attack(), sql)), saved(world.ask(Attack(), sql)), saved(world.ask(Attack()))


def code(world: HostileWorld, document: Document) -> str:
    try:
        verify_document(document, world.authority.public())
    except (IntegrityFailed, AccessRefused) as error:
        return error.code
    return "verified"


def test_genuine_results_verify(world: HostileWorld, pair: tuple[Document, ...]) -> None:
    assert [code(world, document) for document in pair] == ["verified"] * 3


@pytest.mark.attacks("F5")
def test_a_node_that_was_stripped_with_its_rows_is_missed(world: HostileWorld, pair: tuple[Document, ...]) -> None:
    """F5: the rest adds up and is signed, and the signed request asks for more nodes than are left."""
    fewer = saved(world.ask(Attack(), min_nodes=1))
    assert code(world, fewer) == "verified"
    for document, expected in ((pair[0], "INSITU-VERIFY-RESULT"), (fewer, "verified")):
        stripped = copy.deepcopy(document)
        del stripped["evidence"]["outcomes"]["alpha"]
        only = _recomputed(world, stripped)
        assert code(world, only) == expected
        only["nodes"][0] = {"id": "alpha", "status": "refused", "code": "INSITU-NODE-DENIED"}
        assert code(world, only) == "INSITU-VERIFY-RESULT"


def _recomputed(world: HostileWorld, document: Document) -> Document:
    """The file that an attacker makes: all that follows from the outcomes that are left is right."""
    from insitu.computing import compute
    from insitu.evidence import _evidence, _outcomes, _reopen
    from insitu.verification import open_answers
    from insitu_privacy.postprocess import Postprocessor

    evidence = _evidence(document["evidence"])
    sent, trusted, *_ = _reopen(evidence, world.authority.public())
    with Postprocessor() as postprocessor:
        answers = open_answers(sent, _outcomes(evidence), trusted.manifest)
        return saved(compute(sent, answers, postprocessor, evidence))


SWAPS: dict[str, Callable[[Document, Document, Document], None]] = {
    "a release of the same question": lambda mine, same, _: mine["evidence"]["outcomes"].update(
        alpha=same["evidence"]["outcomes"]["alpha"]
    ),
    "all releases of another question": lambda mine, _, other: mine["evidence"].update(
        outcomes=other["evidence"]["outcomes"]
    ),
    "the rows": lambda mine, _, other: mine.update(rows=other["rows"]),
    "the request": lambda mine, same, _: mine["evidence"].update(request=same["evidence"]["request"]),
    "the whole evidence": lambda mine, _, other: mine.update(evidence=other["evidence"]),
    "the whole evidence of the same question": lambda mine, same, _: mine.update(evidence=same["evidence"]),
    "two nodes": lambda mine, *_: mine["evidence"].update(
        outcomes=dict(zip(mine["evidence"]["outcomes"], reversed(mine["evidence"]["outcomes"].values()), strict=True))
    ),
    "a node's name": lambda mine, *_: mine["evidence"]["outcomes"].update(gamma=mine["evidence"]["outcomes"]["beta"]),
    "a column's type": lambda mine, *_: mine["columns"][1].update(type="text"),
    "a node's status": lambda mine, *_: mine["nodes"][0].update(status="refused", code="INSITU-NODE-DENIED"),
    "a node twice": lambda mine, *_: mine["nodes"].append(mine["nodes"][0]),
    "verified": lambda mine, *_: mine.update(verified=False),
    "beyond floats": lambda mine, *_: mine.update(rows=[["F", 10**400], ["M", 10**400]]),
}


@pytest.mark.attacks("F5", "F6")
@pytest.mark.parametrize("what", SWAPS)
def test_parts_of_other_results_do_not_fit(world: HostileWorld, pair: tuple[Document, ...], what: str) -> None:
    document = copy.deepcopy(pair[0])
    SWAPS[what](document, *copy.deepcopy(pair[1:]))  # type: ignore[call-arg]
    assert code(world, document) in ("INSITU-VERIFY-RELEASE", "INSITU-VERIFY-RESULT")


@pytest.mark.attacks("F2", "F3")
def test_another_manifest_or_grant_does_not_fit(world: HostileWorld, pair: tuple[Document, ...]) -> None:
    """F2, F3: of another authority, altered, of another time, with another node's key, with the grant revoked."""
    from insitu_access.keys import generate_signing_key

    stranger, later = generate_signing_key(), datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    nodes = world.manifest.nodes
    other = (nodes[0].__class__(id="alpha", organisation="x", jurisdiction="FR", key=stranger.public()), *nodes[1:])
    genuine = pair[0]["evidence"]["manifest"]
    cases = [
        ({"manifest": world.next_manifest(stranger)}, "INSITU-ACCESS-SIGNATURE"),
        ({"manifest": altered(genuine, "insitu-manifest+jws", version=9)}, "INSITU-ACCESS-SIGNATURE"),
        ({"manifest": world.next_manifest(issued_at=later)}, "INSITU-ACCESS-MANIFEST"),
        ({"manifest": world.next_manifest(nodes=other)}, "INSITU-VERIFY-RELEASE"),
        ({"manifest": world.next_manifest(revoked_grants=frozenset({world.grant.id}))}, "INSITU-ACCESS-GRANT-REVOKED"),
        ({"manifest": world.next_manifest(datasets=())}, "INSITU-ACCESS-DATASET"),
        ({"grant": world.new_grant(id="other")}, "INSITU-ACCESS-MALFORMED"),
        ({"grant": world.new_grant(epsilon=world.grant.epsilon * 2)}, "INSITU-VERIFY-RESULT"),
        ({"grant": world.new_grant(stranger)}, "INSITU-ACCESS-SIGNATURE"),
    ]
    for change, expected in cases:
        document = copy.deepcopy(pair[0])
        document["evidence"].update(change)
        assert code(world, document) == expected, change


@pytest.mark.attacks("F1")
def test_the_command_reads_the_file_that_others_read(
    world: HostileWorld, pair: tuple[Document, ...], tmp_path: Path
) -> None:
    """A name that stands twice could show other readers other rows; nothing of the network is needed."""
    path = tmp_path / "result.json"
    text = json.dumps(pair[0])
    path.write_text(text)
    done = world.command(Attack(), "verify", path, "--format", "json")
    assert (done.code, done.json["verified"], done.json["nodes"]) == (0, True, ["alpha", "beta"])
    path.write_text('{"rows": [["F", 1], ["M", 1]], ' + text[1:])
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-INVALID"):
        read_result(path)
    forged = copy.deepcopy(pair[0])
    forged["rows"][0][1] += 1
    path.write_text(json.dumps(forged))
    done = world.command(Attack(), "verify", path)
    assert done.code == 4
    assert "INSITU-VERIFY-RESULT" in done.err
