"""A federation in memory behind the SDK's transport: real keys, really signed documents, releases and plans.

``World`` writes a researcher's profile with the real identity files and answers calls as a gateway with its nodes
would. Its knobs make nodes refuse, be away or lie, and the gateway cut streams or alter what it passes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

from insitu.client import Federation
from insitu.profile import Profile, create_profile
from insitu.transport import Call, GetManifest, Reply
from insitu_access.certificates import create_authority, issue_certificate
from insitu_access.grant import Grant, GrantedDataset, open_grant, seal_grant
from insitu_access.identity import create_keys, write_certificate
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_access.manifest import DatasetEntry, GatewayEntry, Manifest, NodeEntry, seal_manifest
from insitu_access.release import BudgetRow, BudgetStatement, NodeRelease, Outcome, Refusal, refusal_of, seal_outcome
from insitu_access.request import BudgetRequest, QueryRequest, open_request, request_sha256
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import InsituError, RemoteError, Unavailable
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.planner import plan_query
from insitu_privacy.postprocess import Postprocessor
from insitu_proto.messages import (
    Accepted,
    Answered,
    Ask,
    DatasetRef,
    Finished,
    Follow,
    GetProfiles,
    ManifestUpdate,
    NodeOutcome,
    NodeProgress,
    Profiles,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NODES = ("chu-lille", "chu-rennes", "chu-brest")
CARE = b"""
[dataset]
name = "care"
version = 1
title = "Hospital stays"
nodes_per_unit = 2
min_units = 11

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
sex = { type = "text", values = ["F", "M"] }
town = { type = "text" }
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

[tables.chapter]
public = true
source = "chapter.csv"
key = ["code"]
[tables.chapter.columns]
code = { type = "text" }
label = { type = "text" }
"""
BUNDLE = DatasetBundle(toml=CARE, files={"chapter.csv": b"code,label\nA,Infections\nB,Tumours\n"})
BY_SEX = "SELECT sex, COUNT(*) AS n FROM person GROUP BY sex"
Alter = Callable[[Outcome], Outcome]


def example_values(release: Release) -> ReleasedValues:
    """What a node releases: counts of some thousand that differ by cell."""
    cells = release.cells
    if cells is not None:
        columns = tuple(tuple(1000 + 10 * i + j for i in range(cells)) for j in range(release.width))
        return ReleasedValues(keys=None, statistics=columns)
    keys = (("Brest",), ("Lille",))
    return ReleasedValues(keys=keys, statistics=tuple((5000, 6000) for _ in release.statistics))


@dataclass
class World:
    """One federation, one researcher. Change ``manifest`` or ``grant`` and call ``seal`` to publish the change."""

    folder: Path
    nodes: tuple[str, ...] = NODES
    now: datetime = NOW
    refusing: dict[str, InsituError] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    alter: dict[str, Alter] = field(default_factory=dict)
    """By node: changes an outcome before the node signs it, as a node with a fault would."""
    forge: Callable[[dict[str, str]], dict[str, str]] = field(default=lambda tokens: tokens)
    """Changes the signed outcomes on their way, as a hostile gateway would."""
    gateway_result: Callable[[dict[str, object]], dict[str, object] | None] = field(default=lambda result: result)
    cuts: int = 0
    dies_before_the_end: bool = False
    """How many of the next streams end in the middle."""
    unreachable: int = 0
    """How many of the next calls find no gateway."""
    refuse_call: InsituError | None = None
    calls: list[Call] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    """The tokens that the gateway serves, whatever dataset is asked about."""
    refuse_profiles: InsituError | None = None
    bundle: DatasetBundle = BUNDLE
    served: DatasetBundle | None = None
    left: dict[str, Fraction] = field(default_factory=dict)
    """By node: what is left of the grant's epsilon, where it is not 18.5."""
    left_delta: Fraction = Fraction("1e-6")
    values: Callable[[Release], ReleasedValues] = example_values
    """What every node releases."""

    def __post_init__(self) -> None:
        self.authority = generate_signing_key()
        self.keys = {node: generate_signing_key() for node in self.nodes}
        self.ca = create_authority("demo", not_before=self.now, not_after=self.now + timedelta(days=365))
        self.identity = self.folder / "identity"
        self.researcher = create_keys(self.identity)
        certificate = issue_certificate(
            self.ca,
            "researcher",
            "ada",
            (self.identity / "tls.csr").read_bytes(),
            not_before=self.now,
            not_after=self.now + timedelta(days=365),
        )
        write_certificate(
            self.identity, certificate=certificate, ca=self.ca.certificate_pem, authority=self.authority.public()
        )
        self.manifest = Manifest(
            federation="demo",
            version=3,
            issued_at=self.now - timedelta(days=1),
            expires_at=self.now + timedelta(days=30),
            authority_keys=(self.authority.public(),),
            ca_pem=self.ca.certificate_pem.decode(),
            nodes=tuple(
                NodeEntry(id=node, organisation=node.upper(), jurisdiction="FR", key=key.public())
                for node, key in self.keys.items()
            ),
            gateways=(GatewayEntry(id="gw", address="gw.test:8443", operator="Op", jurisdiction="FR"),),
            datasets=(DatasetEntry(name="care", version=1, digest=self.bundle.digest()),),
            revoked_grants=frozenset(),
        )
        self.grant = Grant(
            id="grant-1",
            federation="demo",
            project="Stays",
            purpose="Research",
            reference="CESREES 1",
            researchers=(self.researcher,),
            datasets=(GrantedDataset(name="care"),),
            nodes=self.nodes,
            not_before=self.now - timedelta(days=1),
            expires_at=self.now + timedelta(days=20),
            epsilon=Fraction(20),
            delta=Fraction("1e-6"),
            accounting="zcdp",
        )
        self.seal()
        self.requests: dict[str, tuple[str, Finished]] = {}
        self.released: set[tuple[str, str]] = set()

    # -- set-up ------------------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """Sign the manifest and the grant as they are now."""
        self.manifest_token = seal_manifest(self.manifest, self.authority)
        self.grant_token = seal_grant(self.grant, self.authority)
        (self.folder / "grant.jwt").write_text(self.grant_token)

    def publish(self, **changes: object) -> None:
        """A next manifest."""
        self.manifest = replace(self.manifest, version=self.manifest.version + 1, **changes)
        self.seal()

    def profile(self, name: str = "profile") -> Profile:
        return create_profile(
            self.folder / name,
            federation="demo",
            gateways=("gw.test:8443",),
            identity=self.identity,
            grant=self.folder / "grant.jwt",
        )

    def federation(self) -> Federation:
        return Federation(self.profile(), self, clock=lambda: self.now)

    # -- the transport -----------------------------------------------------------------------------------------------

    def call(self, call: Call, *, timeout_s: float) -> Iterator[Reply]:
        assert timeout_s > 0
        self.calls.append(call)
        if self.unreachable:
            self.unreachable -= 1
            raise Unavailable("INSITU-GATEWAY-UNREACHABLE", address="gw.test:8443")
        if isinstance(call, GetManifest):
            yield ManifestUpdate(manifest_jws=self.manifest_token)
        elif isinstance(call, DatasetRef):
            yield self.served or self.bundle
        elif isinstance(call, GetProfiles):
            if self.refuse_profiles is not None:
                raise self.refuse_profiles
            yield Profiles(profile_jws=tuple(self.profiles))
        else:
            yield from self._events(call)

    def require(self, check: Callable[[bytes], None]) -> None:
        self.required = check

    def believe(self, ca_pem: bytes) -> None:
        self.believed = ca_pem

    def close(self) -> None:
        """Nothing is open."""

    def _events(self, call: Ask | Follow) -> Iterator[Reply]:
        if self.refuse_call is not None:
            raise self.refuse_call
        if isinstance(call, Follow):
            if call.request_id not in self.requests:
                raise RemoteError("INSITU-REQUEST-UNKNOWN", "no such request is known here", "Check the request id.")
            token, finished = self.requests[call.request_id]
        else:
            token = call.request_jws
            request_id, finished = self._run(token)
            self.requests[request_id] = (token, finished)
            yield Accepted(request_id=request_id)
        for outcome in finished.outcomes:
            yield NodeProgress(node_id=outcome.node_id, stage=outcome.status)
            if self.cuts:
                self.cuts -= 1
                raise Unavailable("INSITU-GATEWAY-UNREACHABLE", address="gw.test:8443")
        yield Answered(outcomes=finished.outcomes)
        if self.dies_before_the_end:
            raise Unavailable("INSITU-GATEWAY-UNREACHABLE", address="gw.test:8443")
        yield finished

    # -- gateway and nodes -------------------------------------------------------------------------------------------

    def _run(self, token: str) -> tuple[str, Finished]:
        grant = open_grant(self.grant_token, self.manifest, now=self.now)
        request = open_request(token, grant)
        assert request.grant_sha256 == request_sha256(self.grant_token)
        plan = self.plan(request) if isinstance(request, QueryRequest) else None
        opened = {node: self._answer(node, request, token, plan) for node in request.nodes if node not in self.absent}
        tokens = {node: seal_outcome(outcome, self.key(node)) for node, outcome in opened.items()}
        outcomes = [_passed_on(node, jws, opened.get(node)) for node, jws in self.forge(tokens).items()]
        outcomes += [
            NodeOutcome(
                node_id=node, status="absent", code="INSITU-NODE-ABSENT", text="the node is away", remedy="Ask later."
            )
            for node in request.nodes
            if node in self.absent
        ]
        result = self._merged(plan, [one for one in opened.values() if isinstance(one, NodeRelease)])
        return request.request_id, Finished(outcomes=tuple(outcomes), result_json=result)

    def key(self, node: str) -> SigningKey:
        return self.keys[node]

    def plan(self, request: QueryRequest) -> PrivacyPlan:
        plan = plan_query(
            request.sql,
            dialect=request.dialect,
            dataset=parse_dataset(self.bundle),
            parameters=request.parameters,
            scope=self.grant.scope(request.dataset),
            today=request.day,
        )
        assert plan.digest == request.plan_digest
        return plan

    def _answer(
        self, node: str, request: QueryRequest | BudgetRequest, token: str, plan: PrivacyPlan | None
    ) -> Outcome:
        said = {
            "node": node,
            "request_id": request.request_id,
            "request_sha256": request_sha256(token),
            "issued_at": self.now,
        }
        outcome: Outcome
        if node in self.refusing:
            outcome = refusal_of(self.refusing[node], **said)
        elif plan is None:
            row = BudgetRow(
                dataset="care",
                epsilon_spent=Fraction(3, 2),
                epsilon_left=self.left.get(node, Fraction(37, 2)),
                delta_spent=Fraction(0),
                delta_left=self.left_delta,
            )
            outcome = BudgetStatement(**said, grant_id=request.grant_id, rows=(row,))
        else:
            outcome = NodeRelease(
                **said,
                grant_id=request.grant_id,
                dataset=plan.dataset,
                dataset_digest=plan.dataset_digest,
                plan_digest=plan.digest,
                values=tuple(self.values(release) for release in plan.releases),
                spent_epsilon=plan.loss.epsilon,
                spent_delta=plan.loss.delta,
                replayed=(node, plan.digest) in self.released,
            )
            self.released.add((node, plan.digest))
        return self.alter.get(node, lambda it: it)(outcome)

    def _merged(self, plan: PrivacyPlan | None, releases: list[NodeRelease]) -> bytes | None:
        if plan is None or not releases:
            return None
        try:
            with Postprocessor() as postprocessor:
                table = postprocessor.run(plan, merge(plan, [release.values for release in releases]))
        except InsituError:
            return None
        result: dict[str, object] = {
            "columns": [{"name": column.name, "type": column.type} for column in table.columns],
            "rows": [list(row) for row in table.rows],
        }
        changed = self.gateway_result(result)
        return None if changed is None else json.dumps(changed).encode()


def _passed_on(node: str, token: str, opened: Outcome | None) -> NodeOutcome:
    if isinstance(opened, Refusal):
        return NodeOutcome(
            node_id=node,
            status="refused",
            code=opened.code,
            text=opened.text,
            remedy=opened.remedy,
            outcome_jws=token,
        )
    return NodeOutcome(node_id=node, status="released", outcome_jws=token)
