"""Signed objects as facts to print: the same names as in the payloads, times in ISO 8601, keys by thumbprint."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from insitu_access.certificates import country_of, peer_identity, validity
from insitu_access.enrolment import Answer
from insitu_access.files import KEY_LIMIT, read_file, read_private_file
from insitu_access.grant import Grant, GrantedDataset
from insitu_access.identity import FORMER, NEXT
from insitu_access.jurisdiction import accepted_gateways
from insitu_access.keys import VerifyingKey, load_verifying_key
from insitu_access.manifest import Manifest, dataset_as_json
from insitu_access.release import BudgetStatement, NodeRelease, Outcome, Refusal
from insitu_access.request import BudgetRequest, QueryRequest
from insitu_access.site import Requested

Facts = dict[str, object]
ANY = "any"
"""What is printed, and typed, for accepted jurisdictions where none is named."""


def manifest_facts(manifest: Manifest) -> Facts:
    return {
        "kind": "manifest",
        "federation": manifest.federation,
        "version": manifest.version,
        "issued_at": _iso(manifest.issued_at),
        "expires_at": _iso(manifest.expires_at),
        "authority_keys": [key.thumbprint for key in manifest.authority_keys],
        "nodes": [
            {
                "id": node.id,
                "organisation": node.organisation,
                "jurisdiction": node.jurisdiction,
                "key": node.key.thumbprint,
                "former_keys": [{"key": each.key.thumbprint, "until": _iso(each.until)} for each in node.former],
            }
            for node in manifest.nodes
        ],
        "gateways": [
            {
                "id": each.id,
                "address": each.address,
                "operator": each.operator,
                "jurisdiction": each.jurisdiction,
                "accepted": each.id in accepted_gateways(manifest),
            }
            for each in manifest.gateways
        ],
        "datasets": [dataset_as_json(dataset) for dataset in manifest.datasets],
        "revoked_grants": sorted(manifest.revoked_grants),
        "revoked_certificates": sorted(manifest.revoked_certificates),
        "revoked_keys": sorted(manifest.revoked_keys),
        "suspended_grants": sorted(manifest.suspended_grants),
        "grant_revisions": dict(manifest.grant_revisions),
        "jurisdictions": sorted(manifest.jurisdictions) or ANY,
    }


def grant_facts(grant: Grant) -> Facts:
    return {
        "kind": "grant",
        "id": grant.id,
        "federation": grant.federation,
        "project": grant.project,
        "purpose": grant.purpose,
        "reference": grant.reference,
        "researchers": [key.thumbprint for key in grant.researchers],
        "datasets": [_dataset_facts(dataset) for dataset in grant.datasets],
        "nodes": list(grant.nodes),
        "not_before": _iso(grant.not_before),
        "expires_at": _iso(grant.expires_at),
        "epsilon": str(grant.epsilon),
        "delta": str(grant.delta),
        "accounting": grant.accounting,
        "purpose_code": grant.purpose_code,
        "revision": grant.revision,
        "min_nodes": grant.min_nodes,
        "min_units": grant.min_units,
        "results": None if grant.results is None else sorted(grant.results),
    }


def request_facts(request: QueryRequest | BudgetRequest) -> Facts:
    common: Facts = {
        "kind": "query request" if isinstance(request, QueryRequest) else "budget request",
        "request_id": request.request_id,
        "grant_id": request.grant_id,
        "nodes": list(request.nodes),
        "issued_at": _iso(request.issued_at),
        "deadline": _iso(request.deadline),
    }
    if isinstance(request, BudgetRequest):
        return common
    return common | {
        "dataset": request.dataset,
        "dialect": request.dialect,
        "sql": request.sql,
        "epsilon": str(request.parameters.epsilon),
        "delta": str(request.parameters.delta),
        "plan_digest": request.plan_digest,
    }


def outcome_facts(outcome: Outcome) -> Facts:
    common: Facts = {
        "node": outcome.node,
        "request_id": outcome.request_id,
        "request_sha256": outcome.request_sha256,
        "issued_at": _iso(outcome.issued_at),
    }
    if isinstance(outcome, Refusal):
        return {"kind": "refusal", **common, "code": outcome.code, "text": outcome.text, "remedy": outcome.remedy}
    if isinstance(outcome, BudgetStatement):
        return {"kind": "budget statement", **common, "grant_id": outcome.grant_id, "rows": _row_facts(outcome)}
    return {"kind": "release", **common, **_release_facts(outcome)}


def requested_facts(requested: Requested) -> Facts:
    """What a party is told of the keys it has made."""
    return {
        "role": requested.role,
        "id": requested.id,
        "key": requested.key.thumbprint,
        "send": str(requested.path),
        "next": "send that file to the access authority, tell it the key's thumbprint, and install its answer",
    }


def installed_facts(answer: Answer) -> Facts:
    """What a party is told when an answer is in place."""
    return {
        "role": answer.role,
        "id": answer.id,
        "key": None if answer.key is None else answer.key.thumbprint,
        "former_key_until": None if answer.former_until is None else _iso(answer.former_until),
        "certificate_expires": _iso(validity(answer.certificate_pem.encode())[1]),
    }


def identity_facts(directory: Path, pin: VerifyingKey) -> Facts:
    """The keys in a directory, read without their private halves: no passphrase is asked for."""
    from insitu_access.sealed_key import is_sealed

    role, party_id = peer_identity(read_file(directory / "tls.pem", KEY_LIMIT))
    pending = directory / NEXT / "signing.pub"
    return {
        "role": role,
        "id": party_id,
        "key": load_verifying_key(directory / "signing.pub").thumbprint,
        "passphrase": is_sealed(read_private_file(directory / "signing.key")),
        "former_key_kept": (directory / FORMER / "signing.key").exists(),
        "waiting_for_an_answer": load_verifying_key(pending).thumbprint if pending.exists() else None,
        "certificate_expires": _iso(validity(read_file(directory / "tls.pem", KEY_LIMIT))[1]),
        "pinned_authority_key": load_verifying_key(directory / "authority.pub").thumbprint,
        "authority_key": pin.thumbprint,
    }


def certificate_facts(pem: bytes) -> Facts:
    role, party_id = peer_identity(pem)
    start, end = validity(pem)
    return {
        "kind": "certificate",
        "role": role,
        "id": party_id,
        "country": country_of(pem),
        "not_before": _iso(start),
        "expires_at": _iso(end),
    }


def _release_facts(release: NodeRelease) -> Facts:
    return {
        "grant_id": release.grant_id,
        "dataset": release.dataset,
        "plan_digest": release.plan_digest,
        "cells": [len(values.statistics[0]) if values.statistics else 0 for values in release.values],
        "spent_epsilon": str(release.spent_epsilon),
        "spent_delta": str(release.spent_delta),
        "replayed": release.replayed,
    }


def _row_facts(statement: BudgetStatement) -> list[Facts]:
    return [
        {
            "dataset": row.dataset,
            "epsilon_spent": str(row.epsilon_spent),
            "epsilon_left": str(row.epsilon_left),
            "delta_spent": str(row.delta_spent),
            "delta_left": str(row.delta_left),
        }
        for row in statement.rows
    ]


def _dataset_facts(dataset: GrantedDataset) -> Facts:
    if dataset.tables is None:
        return {"name": dataset.name, "tables": None}
    tables = {table: None if columns is None else sorted(columns) for table, columns in dataset.tables.items()}
    return {"name": dataset.name, "tables": tables}


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
