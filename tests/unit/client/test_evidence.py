"""A saved result can be checked again offline; every change of the file is found. F1 to F6."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from insitu.evidence import read_result, verify_document
from insitu_access.keys import generate_signing_key, load_signing_key
from insitu_access.request import QueryRequest, peek_request, seal_request
from insitu_privacy.errors import AccessRefused, ConfigInvalid, InsituError, IntegrityFailed

from tests.unit.client.world import BUNDLE, BY_SEX, NOW, World


@pytest.fixture
def saved(world: World) -> dict[str, Any]:
    world.now = NOW + timedelta(milliseconds=900)
    world.absent = {"chu-brest"}
    with world.federation() as federation:
        return json.loads(json.dumps(federation.query(BY_SEX, epsilon=1, min_nodes=2).to_json()))


def test_a_saved_result_verifies(world: World, saved: dict[str, Any]) -> None:
    result = verify_document(saved, world.authority.public())
    assert [list(row) for row in result.rows] == saved["rows"]
    assert result.verified


@pytest.mark.attacks("F2")
def test_another_authority_does_not_vouch_for_it(saved: dict[str, Any]) -> None:
    with pytest.raises(AccessRefused):
        verify_document(saved, generate_signing_key().public())


def _set(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("rows", 0, 1, value=2001),
        _set("rows", value=[]),
        _set("columns", 1, "name", value="other"),
        _set("query_id", value="0" * 32),
        _set("dataset", value="claims"),
        _set("spent", "epsilon", value=0.5),
        _set("replayed", value=True),
        _set("nodes", 2, value={"id": "chu-brest", "status": "released", "code": None}),
        _set("nodes", value=None),
        _set("evidence", value=None),
        _set("evidence", "manifest", value=7),
        _set("evidence", "manifest", value="a.b.c"),
        _set("evidence", "request", value="a.b.c"),
        _set("evidence", "grant", value="a.b.c"),
        _set("evidence", "outcomes", value=[]),
        _set("evidence", "outcomes", value={}),
        _set("evidence", "outcomes", "chu-rennes", value="a.b.c"),
        _set("evidence", "dataset", "toml", value="%%%"),
        _set("evidence", "dataset", "files", value={}),
    ],
)
def test_a_changed_file_is_refused(
    world: World, saved: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    document = copy.deepcopy(saved)
    change(document)
    with pytest.raises(InsituError) as caught:
        verify_document(document, world.authority.public())
    assert isinstance(caught.value, (IntegrityFailed, AccessRefused))


@pytest.mark.attacks("F5")
def test_a_node_left_out_changes_the_sums(world: World, saved: dict[str, Any]) -> None:
    document = copy.deepcopy(saved)
    del document["evidence"]["outcomes"]["chu-rennes"]
    with pytest.raises(IntegrityFailed):
        verify_document(document, world.authority.public())


@pytest.mark.attacks("F4")
def test_a_looser_contract_explains_no_result(world: World, saved: dict[str, Any]) -> None:
    looser = BUNDLE.toml.replace(b"min_units = 11", b"min_units = 10")
    assert looser != BUNDLE.toml
    saved["evidence"]["dataset"]["toml"] = base64.b64encode(looser).decode()
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-DATASET"):
        verify_document(saved, world.authority.public())


@pytest.mark.attacks("F4")
@pytest.mark.parametrize(
    "change", [{"sql": BY_SEX.replace("COUNT(*)", "COUNT(DISTINCT person_id)")}, {"plan_digest": "0" * 64}]
)
def test_a_question_of_another_plan_explains_no_result(
    world: World, saved: dict[str, Any], change: dict[str, str]
) -> None:
    """By the researcher, who can sign what was never asked."""
    evidence, key = saved["evidence"], load_signing_key(world.identity / "signing.key")
    request = peek_request(evidence["request"])
    assert isinstance(request, QueryRequest)
    assert seal_request(request, key) == evidence["request"]
    evidence["request"] = seal_request(replace(request, **change), key)
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-PLAN"):
        verify_document(saved, world.authority.public())


@pytest.mark.attacks("F1")
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"rows": 1}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_result_file_is_said_so(world: World, content: bytes) -> None:
    path = world.folder / "result.json"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid):
        read_result(path)


def test_a_missing_result_file_is_said_so(world: World) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read_result(world.folder / "none.json")
    assert caught.value.code == "INSITU-CONFIG-FILE"
