"""What researchers hold: a result file as ``insitu query --format json`` writes it, its signatures verified.

The chain is verified from the key that the authority had then: manifest, grant, request, each outcome by a key that its
manifest gives for that time.
What is not here: whether the rows follow from the outcomes (``insitu verify`` of the researcher's own command).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

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


def read_receipt(path: Path, authority: Sealers) -> Receipt:
    """The receipt in a result file. ``authority`` is the authority's key, and those before it.

    Raises ConfigInvalid, and AccessRefused or IntegrityFailed where it is forged.
    """
    manifest_jws, grant_jwt, request_jws, outcomes = _texts(path)
    manifest = _manifest(manifest_jws, authority)
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


def _texts(path: Path) -> tuple[str, str, str, Mapping[str, str]]:
    try:
        evidence = read_json(read_file(path, _FILE_LIMIT), limit=_FILE_LIMIT)["evidence"]
        texts = [evidence[name] for name in ("manifest", "grant", "request")]
        outcomes = dict(evidence["outcomes"].items())
        if not all(isinstance(text, str) for text in (*texts, *outcomes, *outcomes.values())):
            raise TypeError
    except (Refusable, KeyError, TypeError, AttributeError) as error:
        reason = "it is not a result with evidence, as `insitu query --format json` writes it"
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason=reason) from error
    return texts[0], texts[1], texts[2], outcomes
