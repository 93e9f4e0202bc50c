"""Checks a saved result again, from the file and the pinned authority key alone: no network, no trust in who kept it.

F1 the evidence is complete and well formed;
F2 manifest and grant verify against the pinned key, at the time of the request (S1, S2 of ``trust``);
F3 the request is signed by a key of the grant, and names this grant and dataset;
F4 the dataset's bytes have the manifest's digest, and planning the request's SQL again gives the plan it names;
F5 every outcome verifies (V1 to V5 of ``verification``), and as many nodes released as the request asks for;
F6 the rows, columns, nodes and cost in the file are those computed again from the outcomes, improved as it says.

What is not checked: intervals, which are computed again but may differ between versions; whether a node that is
missing was really away, which the file can say of none that the request cannot do without.
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
from insitu.result import Evidence, Result
from insitu.trust import Trusted, open_bundle, open_trusted
from insitu.verification import ABSENT, UNVERIFIED, Sent, compare_rows, open_answers

if TYPE_CHECKING:
    from insitu_access.keys import VerifyingKey
    from insitu_privacy.improve import Improvement

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
    """F1 to F6; the result as computed again. Raises IntegrityFailed or AccessRefused."""
    evidence = _evidence(document["evidence"])
    sent, trusted, needed = _reopen(evidence, authority)
    answers = open_answers(sent, _outcomes(evidence), trusted.manifest) if needed else ()  # F5
    if sum(answer.status.status == "released" for answer in answers) < needed:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="fewer nodes released than its request asks for")
    from insitu_privacy.postprocess import Postprocessor

    with Postprocessor() as postprocessor:
        result = compute(replace(sent, improve=_improved(document)), answers, postprocessor, evidence)
    _compare(document, result)
    return result


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
        return Evidence(manifest=texts[0], grant=texts[1], request=texts[2], outcomes=outcomes, bundle=bundle)
    except (KeyError, TypeError, AttributeError, binascii.Error, ValueError) as error:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its evidence is malformed") from error


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
    for name, value in facts.items():
        if again[name] != value:
            raise IntegrityFailed("INSITU-VERIFY-RESULT", reason=f"its {name} is another")
    if nodes != again["nodes"]:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its nodes are others")


def _certain(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of a node, as far as it can be shown: one whose outcome did not verify has left none (V7)."""
    absent = (node["status"], node["code"]) == ("failed", UNVERIFIED)
    return {**node, "status": "absent", "code": ABSENT} if absent else dict(node)
