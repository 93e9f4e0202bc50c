"""One node in memory: real keys, really signed documents, a real DuckDB site, the production cycle on it.

Knobs: ``grant_with``, ``request_with`` and ``manifest_with`` change one signed document; the rest stays right.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Entry, Party, read_line
from insitu_access.audit.files import lines
from insitu_access.audit.log import AuditLog
from insitu_access.grant import Grant, GrantedDataset, grant_sha256, seal_grant
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_access.manifest import DatasetEntry, Manifest, NodeEntry, seal_manifest
from insitu_access.release import Outcome, open_outcome
from insitu_access.request import BudgetRequest, QueryRequest, seal_request
from insitu_node.admission import Site
from insitu_node.audit import NodeAudit
from insitu_node.custody import Custody
from insitu_node.cycle import Cycle
from insitu_node.engines.base import Engine, EngineLimits, Row
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_node.hooks import Hook, no_hook
from insitu_node.ledger import Ledger
from insitu_node.policy import Policy, Rule
from insitu_node.projects import Projects
from insitu_node.running import Noise
from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import InsituError
from insitu_privacy.plan import QueryParameters, Release, ReleasedValues, Scope
from insitu_privacy.planner import plan_query

from tests.testkit.databases import new_duckdb
from tests.testkit.ledger_memory import MemoryLedger

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NODE = "chu-lille"
CARE = b"""
[dataset]
name = "care"
version = 1
min_units = 0

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
sex = { type = "text", values = ["F", "M"] }
birth_year = { type = "integer", min = 1900, max = 2026 }

[tables.visit]
unit = "person_id"
entity_keys = [["visit_id"]]
max_rows_per_group = 20
max_groups = 10
[tables.visit.columns]
person_id = { type = "integer" }
visit_id = { type = "integer" }
day = { type = "date", min = 2015-01-01, max = 2026-12-31 }
amount = { type = "decimal", min = 0, max = 50000 }
"""
BUNDLE = DatasetBundle(toml=CARE, files={})
SITE_SQL = (
    "CREATE TABLE person AS SELECT i AS person_id, CASE WHEN i % 3 = 0 THEN 'F' ELSE 'M' END AS sex,"
    " (1950 + i % 60)::INTEGER AS birth_year FROM range(900) t(i)",
    "CREATE TABLE visit AS SELECT i % 900 AS person_id, i AS visit_id, DATE '2020-01-01' + (i % 300)::INTEGER AS day,"
    " (i % 1000) / 10.0 AS amount FROM range(2700) t(i)",
)
PARTY = Party(role="node", id=NODE)
CAP_KEY = "c0ffee" + "0" * 58
BY_SEX = "SELECT sex, COUNT(*) AS n FROM person GROUP BY sex"
LIMITS = EngineLimits(statement_timeout_s=20, memory_limit_mb=512, workers=2, threads=2, temporary=None)


class ExactNoise:
    """No noise at all, for tests that look at what else happens. Counts its draws."""

    def __init__(self) -> None:
        self.draws = 0
        self.fails: Exception | None = None
        self.claims: InsituError | None = None

    def check(self, release: Release) -> None:
        if self.claims is not None:
            raise self.claims

    def draw(self, release: Release, rows: list[Row], before: Mapping[str, ReleasedValues]) -> ReleasedValues:
        self.draws += 1
        if self.fails is not None:
            raise self.fails
        width = len(release.keys)
        found = {row[:width]: row[width:] for row in rows}
        empty = (0,) * len(release.statistics)
        cells = (
            [found.get((value,), empty) for value in release.keys[0].domain or ()] if width else list(found.values())
        )
        return ReleasedValues(
            keys=None,
            statistics=tuple(
                tuple(int(cell[j]) + 1000 * self.draws for cell in cells)  # type: ignore[arg-type]
                for j in range(len(release.statistics))
            ),
        )


def care() -> Dataset:
    return parse_dataset(BUNDLE)


def care_engine(folder: Path, *, visit: str = "visit") -> DuckDBEngine:
    path = folder / "site.duckdb"
    if not path.exists():
        new_duckdb(path, *SITE_SQL)
    return DuckDBEngine(
        dataset=care(),
        bundle=BUNDLE,
        database=path,
        schema=None,
        mapping={"person": "person", "visit": visit},
        base=folder,
        limits=LIMITS,
    )


@dataclass
class NodeWorld:
    """The parties around one node, and the node."""

    folder: Path
    authority: SigningKey = field(default_factory=generate_signing_key)
    researcher: SigningKey = field(default_factory=generate_signing_key)
    node_key: SigningKey = field(default_factory=generate_signing_key)
    now: datetime = NOW
    ledger: Ledger = field(default_factory=MemoryLedger)
    noise: Noise = field(default_factory=ExactNoise)
    hook: Hook = no_hook
    engine: Engine | None = None
    audit_folder: Path | None = None
    policy: Policy = field(default_factory=lambda: Policy(rules=(Rule(every_grant=True),)))

    def __post_init__(self) -> None:
        self.dataset = care()
        self.projects = Projects(self.folder)
        self.site = Site(node_id=NODE, key=self.node_key.public(), datasets={"care": self.dataset})
        self.manifest = Manifest(
            federation="demo",
            version=3,
            issued_at=self.now - timedelta(days=1),
            expires_at=self.now + timedelta(days=30),
            authority_keys=(self.authority.public(),),
            ca_pem="-",
            nodes=(NodeEntry(id=NODE, organisation="CHU", jurisdiction="FR", key=self.node_key.public()),),
            gateways=(),
            datasets=(DatasetEntry(name="care", version=1, digest=self.dataset.digest),),
            revoked_grants=frozenset(),
        )
        self.grant = Grant(
            id="grant-1",
            federation="demo",
            project="stays",
            purpose="Length of stay",
            reference="CEREES-1",
            researchers=(self.researcher.public(),),
            datasets=(GrantedDataset(name="care"),),
            nodes=(NODE,),
            not_before=self.now - timedelta(days=1),
            expires_at=self.now + timedelta(days=10),
            epsilon=Fraction(2),
            delta=Fraction(1, 10**6),
            accounting="zcdp",
        )

    def manifest_with(self, **changes: Any) -> None:
        self.manifest = replace(self.manifest, **changes)

    def grant_with(self, **changes: Any) -> None:
        self.grant = replace(self.grant, **changes)

    def manifest_jws(self) -> str:
        return seal_manifest(self.manifest, self.authority)

    def grant_jwt(self, key: SigningKey | None = None) -> str:
        return seal_grant(self.grant, key or self.authority)

    def query(self, sql: str = BY_SEX, *, epsilon: str = "1", **changes: Any) -> QueryRequest:
        """A request that is right unless ``changes`` make it wrong."""
        parameters = QueryParameters(epsilon=Fraction(epsilon), delta=Fraction(1, 10**7), mechanism="laplace")
        digest = "0" * 64
        if "plan_digest" not in changes:
            scope = Scope(accounting=self.grant.accounting)
            plan = plan_query(sql, dialect="duckdb", dataset=self.dataset, parameters=parameters, scope=scope)
            digest = plan.digest
        right = QueryRequest(
            request_id=uuid.uuid4().hex,
            grant_id=self.grant.id,
            grant_sha256=grant_sha256(self.grant_jwt()),
            dataset="care",
            dataset_digest=self.dataset.digest,
            sql=sql,
            dialect="duckdb",
            parameters=parameters,
            plan_digest=digest,
            nodes=(NODE,),
            min_nodes=1,
            issued_at=self.now,
            deadline=self.now + timedelta(seconds=60),
        )
        return replace(right, **changes)

    def budget_request(self) -> BudgetRequest:
        return BudgetRequest(
            request_id=uuid.uuid4().hex,
            grant_id=self.grant.id,
            grant_sha256=grant_sha256(self.grant_jwt()),
            nodes=(NODE,),
            issued_at=self.now,
            deadline=self.now + timedelta(seconds=60),
        )

    def sealed(self, request: QueryRequest | BudgetRequest, key: SigningKey | None = None) -> str:
        return seal_request(request, key or self.researcher)

    def cycle(self, clock: Callable[[], datetime] | None = None, log: AuditLog | None = None) -> Cycle:
        """The node, started anew; on ``log`` where that is open already."""
        self.engine = self.engine or care_engine(self.folder)
        return Cycle(
            site=self.site,
            signing=lambda: self.node_key,
            manifest=lambda _: self.manifest,
            ledger=self.ledger,
            custody=Custody(self.policy, self.projects),
            engines={"care": self.engine},
            noise=self.noise,
            cap_key=CAP_KEY,
            clock=clock or (lambda: self.now),
            audit=NodeAudit(log or self.log(), clock=clock or (lambda: self.now), cap_key=CAP_KEY),
            hook=self.hook,
        )

    def log(self) -> AuditLog:
        """The node's audit log: real files."""
        return AuditLog(self.audit_folder or self.folder / "audit", PARTY, self.node_key, clock=lambda: self.now)

    def logged(self) -> list[Entry]:
        """What stands in it, checked: it must verify."""
        report, _ = check_lines(lines(self.folder / "audit"), PARTY, [self.node_key.public()])
        assert report.findings == ()
        return [read_line(line) for line in lines(self.folder / "audit")]

    def opened(self, jws: str) -> Outcome:
        return open_outcome(jws, self.node_key.public(), node=NODE)

    def ask(self, cycle: Cycle, request: QueryRequest | BudgetRequest, stages: list[str] | None = None) -> Outcome:
        """What the node answers."""
        said: list[str] = [] if stages is None else stages
        return self.opened(cycle.answer(request.request_id, self.sealed(request), self.grant_jwt(), said.append))
