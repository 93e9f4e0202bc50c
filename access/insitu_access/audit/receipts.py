"""What researchers hold: a result file as ``insitu query --format json`` writes it, its signatures verified.

The chain is verified from the authority's key: manifest, grant, request, each outcome by the key its manifest gives.
What is not here: whether the rows follow from the outcomes (``insitu verify`` of the researcher's own command).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from insitu_privacy.errors import AccessRefused, ConfigInvalid, IntegrityFailed

from insitu_access.audit.trail import Answered, Receipt
from insitu_access.files import read_file
from insitu_access.grant import grant_sha256, open_grant
from insitu_access.jose import token_sha256
from insitu_access.keys import VerifyingKey
from insitu_access.manifest import Manifest, verify_manifest
from insitu_access.release import NodeRelease, open_outcome
from insitu_access.request import open_request, peek_request, request_sha256

_FILE_LIMIT = 512 * 2**20


def read_receipt(path: Path, authority: VerifyingKey) -> Receipt:
    """The receipt in a result file. Raises ConfigInvalid, and AccessRefused or IntegrityFailed where it is forged."""
    manifest_jws, grant_jwt, request_jws, outcomes = _texts(path)
    manifest = verify_manifest(manifest_jws, authority)
    at = peek_request(request_jws).issued_at
    grant = open_grant(grant_jwt, manifest, now=at)
    request = open_request(request_jws, grant)
    sha256 = request_sha256(request_jws)
    return Receipt(
        name=path.name,
        request_id=request.request_id,
        request_sha256=sha256,
        grant_id=grant.id,
        grant_sha256=grant_sha256(grant_jwt),
        manifest_version=manifest.version,
        manifest_sha256=token_sha256(manifest_jws),
        at=request.issued_at,
        outcomes={node: _answered(node, token, manifest, sha256) for node, token in outcomes.items()},
    )


def _answered(node: str, token: str, manifest: Manifest, sha256: str) -> Answered:
    entry = manifest.node(node)
    if entry is None:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="result file", reason="it names a node that is not listed")
    outcome = open_outcome(token, entry.key, node=node)
    if outcome.request_sha256 != sha256:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it answers another request")
    release = outcome if isinstance(outcome, NodeRelease) else None
    return Answered(
        sha256=token_sha256(token),
        released=release is not None,
        replayed=release is not None and release.replayed,
        spent_epsilon=release.spent_epsilon if release else None,
    )


def _texts(path: Path) -> tuple[str, str, str, Mapping[str, str]]:
    try:
        evidence = json.loads(read_file(path, _FILE_LIMIT))["evidence"]
        texts = [evidence[name] for name in ("manifest", "grant", "request")]
        outcomes = dict(evidence["outcomes"].items())
        if not all(isinstance(text, str) for text in (*texts, *outcomes, *outcomes.values())):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = "it is not a result with evidence, as `insitu query --format json` writes it"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason) from error
    return texts[0], texts[1], texts[2], outcomes
