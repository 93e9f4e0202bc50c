"""What researchers hold: a result file as ``insitu query --format json`` writes it, its signatures verified.

The chain is verified from the key that the authority had then: manifest, grant, request, each outcome by a key that its
manifest gives for that time.
What is not here: whether the rows follow from the outcomes (``insitu verify`` of the researcher's own command).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from insitu_privacy.errors import AccessRefused, ConfigInvalid, IntegrityFailed
from insitu_privacy.untrusted import Refusable, read_json

from insitu_access.audit.chain import CLOCK_LEEWAY
from insitu_access.audit.seal import Sealers, key_of
from insitu_access.audit.trail import Answered, Receipt
from insitu_access.files import read_file
from insitu_access.grant import grant_sha256, open_grant
from insitu_access.jose import token_sha256
from insitu_access.manifest import FormerKey, Manifest, verify_manifest
from insitu_access.release import NodeRelease, open_outcome
from insitu_access.request import open_request, peek_request, request_sha256

_FILE_LIMIT = 512 * 2**20


def read_receipts(path: Path, authority: Sealers) -> tuple[Receipt, ...]:
    """The receipts in a result file: of its request and, where it has one, of the first look that was asked before.

    ``authority`` is the authority's key, and those before it. Raises ConfigInvalid, and AccessRefused or
    IntegrityFailed where one is forged.
    """
    evidence = _evidence(path)
    manifest = _manifest(evidence["manifest"], authority)
    parts = [evidence, evidence["first_look"]] if evidence.get("first_look") is not None else [evidence]
    return tuple(_receipt(path.name, evidence, part["request"], part["outcomes"], manifest) for part in parts)


def _receipt(
    name: str, evidence: Mapping[str, Any], request_jws: str, outcomes: Mapping[str, str], manifest: Manifest
) -> Receipt:
    at = peek_request(request_jws).issued_at
    grant = open_grant(evidence["grant"], manifest, now=at)
    request = open_request(request_jws, grant)
    sha256 = request_sha256(request_jws)
    return Receipt(
        name=name,
        request_id=request.request_id,
        request_sha256=sha256,
        grant_id=grant.id,
        grant_sha256=grant_sha256(evidence["grant"]),
        manifest_version=manifest.version,
        manifest_sha256=token_sha256(evidence["manifest"]),
        at=request.issued_at,
        outcomes={node: _answered(node, token, manifest, sha256, at) for node, token in outcomes.items()},
    )


def _manifest(token: str, authority: Sealers) -> Manifest:
    """The manifest, by a key that was the authority's when it was issued. Raises AccessRefused."""
    refused = AccessRefused("INSITU-ACCESS-SIGNATURE", what="manifest")
    for each in authority:
        try:
            manifest = verify_manifest(token, key_of(each))
        except AccessRefused as error:
            refused = error
            continue
        if not isinstance(each, FormerKey) or manifest.issued_at <= each.until + CLOCK_LEEWAY:
            return manifest
    raise refused


def _answered(node: str, token: str, manifest: Manifest, sha256: str, at: datetime) -> Answered:
    entry = manifest.node(node)
    if entry is None:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="result file", reason="it names a node that is not listed")
    outcome = open_outcome(token, entry.keys_at(at), node=node)
    if outcome.request_sha256 != sha256:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it answers another request")
    release = outcome if isinstance(outcome, NodeRelease) else None
    return Answered(
        sha256=token_sha256(token),
        released=release is not None,
        replayed=release is not None and release.replayed,
        spent_epsilon=release.spent_epsilon if release else None,
    )


def _evidence(path: Path) -> Mapping[str, Any]:
    try:
        evidence = read_json(read_file(path, _FILE_LIMIT), limit=_FILE_LIMIT)["evidence"]
        look = evidence.get("first_look")
        texts = [evidence["manifest"], evidence["grant"], *_signed(evidence), *(() if look is None else _signed(look))]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (Refusable, KeyError, TypeError, AttributeError) as error:
        reason = "it is not a result with evidence, as `insitu query --format json` writes it"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason) from error
    found: Mapping[str, Any] = evidence
    return found


def _signed(part: Mapping[str, Any]) -> list[object]:
    """A request, its outcomes and their nodes."""
    outcomes = dict(part["outcomes"].items())
    return [part["request"], *outcomes, *outcomes.values()]
