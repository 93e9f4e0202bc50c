"""The grant: what the access authority allows one project, as a JWT.

Researchers' keys (RFC 7800 ``cnf``), datasets with tables and columns, nodes, purpose and the reference of the
decision, not-before and expiry, and the privacy budget. The budget is per node and per dataset: each node's ledger
counts on its own. Numbered checks of ``open_grant``:

  G1  a current authority key of the manifest signed it, as a grant (``jose`` J1 to J5)
  G2  its form is exact
  G3  it was issued for this federation
  G4  the manifest does not revoke it
  G5  not-before <= now < expiry; no leeway, the dates are the committee's
  G6  the manifest does not suspend it
  G7  it is the newest revision: an amended grant does not fall back to what it was
  G8  a researcher's key that the manifest revokes is left out; one at least is left

Not here: the local approval a custodian may demand on top, the ledger, and whether a request keeps to the grant
(the node's admission).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Protocol

from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import Accounting, Scope
from insitu_privacy.result_kinds import RESULT_KINDS, ResultKind

from insitu_access import payload
from insitu_access.invariants import (
    check,
    check_column_name,
    check_delta,
    check_epsilon,
    check_line,
    check_moments,
    check_name,
    check_names,
    check_unique,
)
from insitu_access.jose import refusing_malformed, sign, token_sha256, unverified, verify
from insitu_access.keys import SigningKey, VerifyingKey, read_verifying_key
from insitu_access.manifest import Manifest
from insitu_access.payload import Fields, Malformed, as_items, as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedDataset:
    """A dataset, and what of it may be used."""

    name: str
    tables: Mapping[str, frozenset[str] | None] | None = None
    """Tables, and of each the columns (None for all); None for every table."""

    def __post_init__(self) -> None:
        check_name(self.name, "granted dataset")
        check(self.tables is None or bool(self.tables), "granted tables must not be empty")
        for table, columns in (self.tables or {}).items():
            check_column_name(table, "granted table")
            check(columns is None or bool(columns), "granted columns must not be empty")
            for column in columns or ():
                check_column_name(column, "granted column")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One project's permission. A value of this class is well formed; that it holds now is ``open_grant``."""

    id: str
    """The JWT id (jti); revocation names it."""
    federation: str
    """The JWT issuer (iss): the federation whose authority signs."""
    project: str
    purpose: str
    reference: str
    """The decision of the committee, by its own reference."""
    researchers: tuple[VerifyingKey, ...]
    datasets: tuple[GrantedDataset, ...]
    nodes: tuple[str, ...]
    not_before: datetime
    expires_at: datetime
    epsilon: Fraction
    delta: Fraction
    accounting: Accounting
    purpose_code: str | None = None
    """The purpose by its code, which a dataset's policy and a custodian's rules are matched with."""
    revision: int = 1
    """An amended grant keeps its id, and so its account in every ledger; its revision goes up."""
    min_nodes: int = 1
    """A query must ask at least so many nodes, and have no answer with fewer."""
    min_units: int = 0
    """Cells below this are suppressed, also where the dataset asks for less."""
    results: frozenset[ResultKind] | None = None
    """The kinds of results that may be released; None for all."""

    def __post_init__(self) -> None:
        check_name(self.id, "grant id")
        check_name(self.federation, "federation")
        check_line(self.project, "project")
        check_line(self.purpose, "purpose")
        check_line(self.reference, "reference")
        check(bool(self.researchers), "researchers must not be empty")
        check_unique([key.thumbprint for key in self.researchers], "researchers")
        check_names([dataset.name for dataset in self.datasets], "datasets")
        check_names(self.nodes, "nodes")
        check_moments((self.not_before, self.expires_at), "validity of the grant")
        check_epsilon(self.epsilon, "epsilon")
        check_delta(self.delta, "delta")
        if self.purpose_code is not None:
            check_name(self.purpose_code, "purpose_code")
        check(1 <= self.revision < 2**31, "revision must be at least 1")
        check(1 <= self.min_nodes <= len(self.nodes), "min_nodes must be from 1 to the number of nodes")
        check(0 <= self.min_units < 2**31, "min_units must not be negative")
        check(self.results is None or bool(self.results), "results must not be empty")

    def dataset(self, name: str) -> GrantedDataset | None:
        return next((dataset for dataset in self.datasets if dataset.name == name), None)

    def scope(self, name: str) -> Scope:
        """What a query on dataset ``name`` may use. Raises AccessRefused where the grant does not cover it."""
        granted = self.dataset(name)
        if granted is None:
            raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"dataset {name}")
        return Scope(accounting=self.accounting, tables=granted.tables, min_units=self.min_units, results=self.results)


def seal_grant(grant: Grant, key: SigningKey) -> str:
    """The grant signed by the authority."""
    with refusing_malformed("grant"):
        return sign(payload.write(_as_json(grant)), key, "insitu-grant+jwt")


def open_grant(token: str, manifest: Manifest, *, now: datetime) -> Grant:
    """The verified grant, valid now under a verified manifest.

    Raises AccessRefused: INSITU-ACCESS-SIGNATURE or -MALFORMED (G1, G2), -NOT-GRANTED (G3), -GRANT-REVOKED (G4),
    -GRANT-EXPIRED (G5), -GRANT-SUSPENDED (G6), -GRANT-AMENDED (G7), -WRONG-KEY (G8).
    """
    grant = read_grant(verify(token, manifest.authority_keys, "insitu-grant+jwt", "grant"))  # G1, G2
    if grant.federation != manifest.federation:  # G3
        raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"federation {manifest.federation}")
    if grant.id in manifest.revoked_grants:  # G4
        raise AccessRefused("INSITU-ACCESS-GRANT-REVOKED")
    if not grant.not_before <= now < grant.expires_at:  # G5
        start, end = (f"{moment:%Y-%m-%d %H:%M} UTC" for moment in (grant.not_before, grant.expires_at))
        raise AccessRefused("INSITU-ACCESS-GRANT-EXPIRED", start=start, end=end)
    if grant.id in manifest.suspended_grants:  # G6
        raise AccessRefused("INSITU-ACCESS-GRANT-SUSPENDED")
    newest = manifest.grant_revisions.get(grant.id, 1)
    if grant.revision < newest:  # G7
        raise AccessRefused("INSITU-ACCESS-GRANT-AMENDED", version=grant.revision, known=newest)
    return _without_revoked_keys(grant, manifest.revoked_keys)


def _without_revoked_keys(grant: Grant, revoked: frozenset[str]) -> Grant:
    """G8."""
    left = tuple(key for key in grant.researchers if key.thumbprint not in revoked)
    if not left:
        raise AccessRefused("INSITU-ACCESS-WRONG-KEY")
    return grant if len(left) == len(grant.researchers) else replace(grant, researchers=left)


class Asked(Protocol):
    """What of a query ``check_nodes`` looks at."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those it asks."""

    @property
    def min_nodes(self) -> int:
        """How many must answer."""


def check_nodes(grant: Grant, asked: Asked) -> None:
    """Raises AccessRefused (INSITU-ACCESS-MIN-NODES) where fewer nodes are asked, or would do, than the grant says."""
    least = min(len(asked.nodes), asked.min_nodes)
    if least < grant.min_nodes:
        raise AccessRefused("INSITU-ACCESS-MIN-NODES", needed=grant.min_nodes, asked=least)


def grant_sha256(token: str) -> str:
    """Hex SHA-256 of a grant's token: what requests bind."""
    return token_sha256(token)


def peek_grant(token: str) -> Grant:
    """What a grant's token says, its signature NOT checked: for finding and showing it. Raises AccessRefused."""
    return read_grant(unverified(token, "insitu-grant+jwt", "grant"))


def read_grant(data: bytes) -> Grant:
    """G2: the grant that payload bytes say, unverified. Raises INSITU-ACCESS-MALFORMED."""
    with refusing_malformed("grant"), payload.read(data) as claims:
        with claims.fields("cnf") as cnf, cnf.fields("jwks") as jwks:
            researchers = jwks.items("keys", read_verifying_key)
        return Grant(
            id=claims.text("jti"),
            federation=claims.text("iss"),
            project=claims.text("project"),
            purpose=claims.text("purpose"),
            reference=claims.text("reference"),
            researchers=researchers,
            datasets=claims.items("datasets", _read_dataset),
            nodes=claims.texts("nodes"),
            not_before=claims.moment("nbf"),
            expires_at=claims.moment("exp"),
            epsilon=claims.number("epsilon"),
            delta=claims.number("delta"),
            accounting=read_accounting(claims.text("accounting")),
            purpose_code=claims.optional_text("purpose_code"),
            revision=claims.integer("revision"),
            min_nodes=claims.integer("min_nodes"),
            min_units=claims.integer("min_units"),
            results=_read_results(claims),
        )


def read_accounting(text: str) -> Accounting:
    """The accounting that ``text`` names. Raises Malformed."""
    if text == "zcdp":
        return "zcdp"
    if text == "pure":
        return "pure"
    raise Malformed("accounting must be zcdp or pure")


def read_results(names: Iterable[str]) -> frozenset[ResultKind]:
    """The kinds of results that ``names`` are. Raises Malformed."""
    by_name: dict[str, ResultKind] = {kind: kind for kind in RESULT_KINDS}
    found = list(names)
    check(set(found) <= by_name.keys(), f"results must be of {', '.join(RESULT_KINDS)}")
    check_unique(found, "results")
    return frozenset(by_name[name] for name in found)


def _read_results(claims: Fields) -> frozenset[ResultKind] | None:
    found = claims.optional_items("results", as_text)
    return None if found is None else read_results(found)


def _read_dataset(value: object, path: str) -> GrantedDataset:
    with Fields(value, path) as fields:
        return GrantedDataset(name=fields.text("name"), tables=fields.optional_mapping("tables", _read_columns))


def _read_columns(value: object, path: str) -> frozenset[str] | None:
    return None if value is None else frozenset(as_items(value, path, as_text))


def _as_json(grant: Grant) -> dict[str, object]:
    return {
        "jti": grant.id,
        "iss": grant.federation,
        "project": grant.project,
        "purpose": grant.purpose,
        "reference": grant.reference,
        "cnf": {"jwks": {"keys": [key.as_json() for key in grant.researchers]}},
        "datasets": [_dataset_as_json(dataset) for dataset in grant.datasets],
        "nodes": list(grant.nodes),
        "nbf": payload.seconds_down(grant.not_before),
        "exp": payload.seconds_up(grant.expires_at),
        "epsilon": str(grant.epsilon),
        "delta": str(grant.delta),
        "accounting": grant.accounting,
        "purpose_code": grant.purpose_code,
        "revision": grant.revision,
        "min_nodes": grant.min_nodes,
        "min_units": grant.min_units,
        "results": None if grant.results is None else sorted(grant.results),
    }


def _dataset_as_json(dataset: GrantedDataset) -> dict[str, object]:
    if dataset.tables is None:
        return {"name": dataset.name, "tables": None}
    tables = {table: None if columns is None else sorted(columns) for table, columns in dataset.tables.items()}
    return {"name": dataset.name, "tables": tables}
