"""Checks a saved result again, from the file and the pinned authority key alone: no network, no trust in who kept it.

F1 the evidence is complete and well formed;
F2 manifest and grant verify against the pinned key, at the time of the request (S1, S2 of ``trust``);
F3 the request is signed by a key of the grant, and names this grant and dataset;
F4 the dataset's bytes have the manifest's digest, and planning the request's SQL again gives the plan it names;
F5 every outcome verifies (V1 to V5 of ``verification``), and as many nodes released as the request asks for;
F6 the rows, columns, nodes and cost in the file are those computed again from the outcomes, improved as it says;
F7 where a first look is told of, F3 to F5 hold of it too, it is the one that is asked before this query, of the same
   nodes and for its share of epsilon, and its cost is part of what was spent.

What is not checked: intervals, which are computed again but may differ between versions; whether a node that is
missing was really away, which the file can say of none that the request cannot do without; whether a first look that
was paid for was left out together with its cost, which the logs of nodes and gateway show.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insitu_access.files import read_file
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import AccessRefused, ConfigInvalid, IntegrityFailed
from insitu_privacy.untrusted import Refusable, read_json
from insitu_proto.messages import NodeOutcome

from insitu.computing import compute
from insitu.looking import SHARE, Looked, parameters_of_look
from insitu.result import Evidence, FirstEvidence, Result
from insitu.trust import Trusted, open_bundle, open_trusted
from insitu.verification import ABSENT, UNVERIFIED, Answer, Sent, compare_rows, open_answers

if TYPE_CHECKING:
    from insitu_access.keys import VerifyingKey
    from insitu_privacy.improve import Improvement
    from insitu_privacy.plan import PrivacyPlan

FILE_LIMIT = 512 * 1024 * 1024
"""A result file that is longer is refused unread."""


def read_result(path: Path) -> Mapping[str, Any]:
    """The JSON document in ``path``. Raises ConfigInvalid."""
    try:
        document = read_json(read_file(path, FILE_LIMIT), limit=FILE_LIMIT, pairs=_unique)
    except Refusable as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=str(error)) from error
    if not isinstance(document, dict) or "evidence" not in document:
        reason = "it is not a result with evidence, as `insitu query --format json` writes it"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason)
    return document


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Of a name that stands twice, other readers could show the other value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refusable("a name stands twice")
    return found


def verify_document(document: Mapping[str, Any], authority: VerifyingKey) -> Result:
    """F1 to F7; the result as computed again. Raises IntegrityFailed or AccessRefused."""
    evidence = _evidence(document["evidence"])
    sent, trusted, needed = _reopen(evidence, authority)
    answers = _answered(sent, evidence, trusted, needed)
    from insitu_privacy.postprocess import Postprocessor

    with Postprocessor() as postprocessor:
        result = compute(replace(sent, improve=_improved(document)), answers, postprocessor, evidence)
    if evidence.first is not None:  # F7
        looked = replace(evidence, request=evidence.first.request, outcomes=evidence.first.outcomes, first=None)
        first, trusted, needed = _reopen(looked, authority)
        _check_first_look(first, sent, evidence.bundle, trusted)
        answers = _answered(first, looked, trusted, needed)
        result = Looked(first=evidence.first, answers=answers).part_of(result)
    _compare(document, result)
    return result


def _check_first_look(first: Sent, sent: Sent, bundle: DatasetBundle, trusted: Trusted) -> None:
    """F7: that what was asked first is what is asked before this query."""
    from insitu_access.request import QueryRequest
    from insitu_privacy.first_look import first_look
    from insitu_privacy.planner import plan_query

    query, look = sent.request, first.request
    assert isinstance(query, QueryRequest)
    assert isinstance(look, QueryRequest)
    entry = trusted.manifest.dataset(query.dataset)
    assert entry is not None, "F4 found it"
    assert sent.plan is not None, "F4 made it"
    dataset, scope = open_bundle(bundle, entry), trusted.grant.scope(query.dataset)
    part = parameters_of_look(look.parameters.epsilon)

    def plan_at(sql: str) -> PrivacyPlan:
        return plan_query(sql, dialect=look.dialect, dataset=dataset, parameters=part, scope=scope, today=query.day)

    found = first_look(query.sql, query.dialect, sent.plan, dataset, plan_at)
    same = (look.dataset, look.nodes, look.parameters) == (query.dataset, query.nodes, part)
    share = look.parameters.epsilon >= SHARE * (look.parameters.epsilon + query.parameters.epsilon)
    if found is None or look.sql != found.sql or not same or not share:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its first look is not one at this query")


def _answered(sent: Sent, evidence: Evidence, trusted: Trusted, needed: int) -> tuple[Answer, ...]:
    """F5."""
    answers = open_answers(sent, _outcomes(evidence), trusted.manifest) if needed else ()
    if sum(answer.status.status == "released" for answer in answers) < needed:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="fewer nodes released than its request asks for")
    return answers


def _improved(document: Mapping[str, Any]) -> tuple[Improvement, ...]:
    """What the file says was done to the releases; files of before do not say."""
    from insitu_privacy.improve import SAID

    said = document.get("improved", [])
    found = tuple(one for one, text in SAID.items() if isinstance(said, list) and text in said)
    if not isinstance(said, list) or len(found) != len(said):
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="it is said to be improved in an unknown way")
    return found


def _evidence(raw: Any) -> Evidence:
    """F1."""
    try:
        files = {str(name): _decode(content) for name, content in raw["dataset"]["files"].items()}
        bundle = DatasetBundle(toml=_decode(raw["dataset"]["toml"]), files=files)
        outcomes = dict(raw["outcomes"].items())
        texts = [raw["manifest"], raw["grant"], raw["request"], *outcomes.values()]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
        first = _first(raw.get("first_look"))
        return Evidence(
            manifest=texts[0], grant=texts[1], request=texts[2], outcomes=outcomes, bundle=bundle, first=first
        )
    except (KeyError, TypeError, AttributeError, binascii.Error, ValueError) as error:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its evidence is malformed") from error


def _first(raw: Any) -> FirstEvidence | None:
    if raw is None:
        return None
    outcomes = dict(raw["outcomes"].items())
    if not all(isinstance(text, str) for text in (raw["request"], *outcomes.values())):
        raise TypeError
    return FirstEvidence(request=raw["request"], outcomes=outcomes)


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _reopen(evidence: Evidence, authority: VerifyingKey) -> tuple[Sent, Trusted, int]:
    """F2 to F4: the request that was sent, with its plan made again; how many nodes must have released.

    None where the query is over public tables alone: then nobody was asked.
    """
    from insitu_access.request import QueryRequest, open_request, peek_request, request_sha256
    from insitu_privacy.planner import plan_query

    at = peek_request(evidence.request).issued_at  # the researcher's own word; F3 verifies it
    trusted = open_trusted(evidence.manifest, evidence.grant, authority=authority, now=at)
    request = open_request(evidence.request, trusted.grant)
    if not isinstance(request, QueryRequest) or request.grant_sha256 != trusted.grant_sha256:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its request is not one for this query and grant")
    entry = trusted.manifest.dataset(request.dataset)
    if entry is None or entry.digest != request.dataset_digest:
        raise AccessRefused("INSITU-ACCESS-DATASET", name=request.dataset)
    plan = plan_query(
        request.sql,
        dialect=request.dialect,
        dataset=open_bundle(evidence.bundle, entry),
        parameters=request.parameters,
        scope=trusted.grant.scope(request.dataset),
        today=request.day,
    )
    if plan.digest != request.plan_digest:
        raise AccessRefused("INSITU-ACCESS-PLAN")
    sent = Sent(request=request, token=evidence.request, sha256=request_sha256(evidence.request), plan=plan)
    return sent, trusted, request.min_nodes if plan.releases else 0


def _outcomes(evidence: Evidence) -> list[NodeOutcome]:
    """The outcomes under the node that each is said to be of; V2 checks that."""
    return [NodeOutcome(node_id=node, status="failed", outcome_jws=token) for node, token in evidence.outcomes.items()]


def _compare(document: Mapping[str, Any], result: Result) -> None:
    """F6."""
    again = json.loads(json.dumps(result.to_json(evidence=False)))  # noqa: TID251  written right here
    try:
        columns = [column["name"] for column in document["columns"]]
        rows = [tuple(row) for row in document["rows"]]
        facts = {name: document[name] for name in ("query_id", "dataset", "columns", "spent", "replayed", "verified")}
        nodes = [_certain(node) for node in document["nodes"]]
    except (KeyError, TypeError) as error:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="the file is malformed") from error
    compare_rows(columns, rows, [column.name for column in result.columns], result.rows)
    facts["first_look"] = document.get("first_look")
    for name, value in facts.items():
        if again[name] != value:
            raise IntegrityFailed("INSITU-VERIFY-RESULT", reason=f"its {name} is another")
    if nodes != again["nodes"]:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its nodes are others")


def _certain(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of a node, as far as it can be shown: one whose outcome did not verify has left none (V7)."""
    absent = (node["status"], node["code"]) == ("failed", UNVERIFIED)
    return {**node, "status": "absent", "code": ABSENT} if absent else dict(node)
