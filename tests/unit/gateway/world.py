"""A federation around a real gateway: real keys, certificates and signed documents; clients that play the parties.

``Node`` and ``Researcher`` are grpc.aio clients over mTLS. A node's ``behave`` says what it answers to a task; its
knobs make it slow, wrong or silent.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from insitu_access.certificates import CertificateAuthority, Role, create_authority, issue_certificate
from insitu_access.grant import Grant, GrantedDataset, grant_sha256, seal_grant
from insitu_access.identity import Identity, create_keys, load_identity, write_certificate
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_access.manifest import DatasetEntry, GatewayEntry, Manifest, NodeEntry, seal_manifest
from insitu_access.release import BudgetRow, BudgetStatement, NodeRelease, Outcome, refusal_of, seal_outcome
from insitu_access.request import BudgetRequest, QueryRequest, open_request, request_sha256, seal_request
from insitu_gateway.config import Config, Limits
from insitu_gateway.server import Gateway
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import InsituError
from insitu_privacy.plan import PrivacyPlan, QueryParameters, ReleasedValues
from insitu_privacy.planner import plan_query
from insitu_proto import messages as m
from insitu_proto import wire
from insitu_proto.status import from_rpc
from insitu_proto.v1 import insitu_pb2_grpc as stubs

NODES = ("chu-brest", "chu-lille", "chu-rennes")
BY_SEX = "SELECT sex, COUNT(*) AS n FROM person GROUP BY sex"
CARE = b"""
[dataset]
name = "care"
version = 1
title = "Hospital stays"
[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
sex = { type = "text", values = ["F", "M"] }
[tables.chapter]
public = true
source = "chapter.csv"
key = ["code"]
[tables.chapter.columns]
code = { type = "text" }
"""
BUNDLE = DatasetBundle(toml=CARE, files={"chapter.csv": b"code\n" + b"".join(b"%05d\n" % i for i in range(9000))})
ONE_YEAR = timedelta(days=365)
CHANNEL = (
    ("grpc.max_receive_message_length", m.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", m.MAX_MESSAGE_BYTES),
)
Behave = Callable[["Node", m.Task], Awaitable[None]]


def now() -> datetime:
    return datetime.now(UTC)


class World:
    """The authority's work, and a configured gateway. Everything is in ``folder``."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        self.limits = Limits(**{"grace_s": 0.2, "lost_grace_s": 3.0, **limits})
        self.authority = generate_signing_key()
        self.ca = create_authority("demo", not_before=now() - ONE_YEAR, not_after=now() + ONE_YEAR)
        self.identities: dict[str, Identity] = {}
        for name in (*NODES, "stranger"):
            self.identity("node", name)
        for name in ("ada", "bob"):
            self.identity("researcher", name)
        self.identity("gateway", "gw")
        (folder / "care").mkdir()
        (folder / "care/dataset.toml").write_bytes(BUNDLE.toml)
        (folder / "care/chapter.csv").write_bytes(BUNDLE.files["chapter.csv"])
        self.dataset = parse_dataset(BUNDLE)
        self.version = 0
        self.publish()
        self.grant = self.make_grant()
        self.grant_jwt = seal_grant(self.grant, self.authority)

    def identity(
        self, role: Role, name: str, ca: CertificateAuthority | None = None, at: str | None = None
    ) -> Identity:
        folder = self.folder / (at or name)
        create_keys(folder)
        certificate = issue_certificate(
            ca or self.ca,
            role,
            name,
            (folder / "tls.csr").read_bytes(),
            addresses=("127.0.0.1", "localhost") if role == "gateway" else (),
            not_before=now() - timedelta(hours=1),
            not_after=now() + ONE_YEAR,
        )
        issuer = (ca or self.ca).certificate_pem
        write_certificate(folder, certificate=certificate, ca=issuer, authority=self.authority.public())
        self.identities[at or name] = load_identity(folder)
        return self.identities[at or name]

    def publish(self, nodes: Sequence[str] = NODES, **fields: Any) -> None:
        """Write the next manifest."""
        self.version += 1
        values: dict[str, Any] = {
            "federation": "demo",
            "version": self.version,
            "issued_at": now() - timedelta(minutes=1),
            "expires_at": now() + timedelta(days=30),
            "authority_keys": (self.authority.public(),),
            "ca_pem": self.ca.certificate_pem.decode(),
            "nodes": tuple(
                NodeEntry(id=name, organisation=name, jurisdiction="FR", key=self.identities[name].signing.public())
                for name in nodes
            ),
            "gateways": (GatewayEntry(id="gw", address="127.0.0.1:7443", operator="Op", jurisdiction="FR"),),
            "datasets": (DatasetEntry(name="care", version=1, digest=BUNDLE.digest()),),
            "revoked_grants": frozenset(),
        }
        self.manifest = Manifest(**{**values, **fields})
        self.manifest_jws = seal_manifest(self.manifest, self.authority)
        (self.folder / "manifest.jws").write_text(self.manifest_jws)

    def make_grant(self, **fields: Any) -> Grant:
        values: dict[str, Any] = {
            "id": "grant-1",
            "federation": "demo",
            "project": "Stays",
            "purpose": "Research",
            "reference": "CESREES 1",
            "researchers": (self.identities["ada"].signing.public(), self.identities["bob"].signing.public()),
            "datasets": (GrantedDataset(name="care", tables=None),),
            "nodes": NODES,
            "not_before": now() - timedelta(days=1),
            "expires_at": now() + timedelta(days=90),
            "epsilon": Fraction(20),
            "delta": Fraction(1, 10**6),
            "accounting": "zcdp",
        }
        return Grant(**{**values, **fields})

    @property
    def config(self) -> Config:
        return Config(
            id="gw",
            listen="127.0.0.1:0",
            identity=self.folder / "gw",
            state=self.folder / "state",
            manifest=self.folder / "manifest.jws",
            datasets=(self.folder / "care/dataset.toml",),
            limits=self.limits,
        )

    def write_config(self) -> Path:
        path = self.folder / "gateway.toml"
        limits = "\n".join(f"{name} = {value}" for name, value in self.limits.model_dump().items())
        path.write_text(
            f'[gateway]\nid = "gw"\nlisten = "127.0.0.1:0"\nidentity = "gw"\nstate = "state"\n'
            f'manifest = "manifest.jws"\ndatasets = ["care/dataset.toml"]\n[limits]\n{limits}\n'
        )
        return path

    def gateway(self) -> Gateway:
        return Gateway(self.config, clock=now)

    # ------------------------------------------------------------------------------------------------- requests

    def plan(self, sql: str = BY_SEX, epsilon: Fraction = Fraction(1)) -> PrivacyPlan:
        parameters = QueryParameters(epsilon=epsilon, delta=Fraction(1, 10**6))
        return plan_query(
            sql, dialect="duckdb", dataset=self.dataset, parameters=parameters, scope=self.grant.scope("care")
        )

    def query(self, sql: str = BY_SEX, timeout: float = 20, **fields: Any) -> QueryRequest:
        nodes = fields.pop("nodes", NODES)
        values: dict[str, Any] = {
            "request_id": uuid.uuid4().hex,
            "grant_id": self.grant.id,
            "grant_sha256": grant_sha256(self.grant_jwt),
            "dataset": "care",
            "dataset_digest": self.dataset.digest,
            "sql": sql,
            "dialect": "duckdb",
            "parameters": QueryParameters(epsilon=Fraction(1), delta=Fraction(1, 10**6)),
            "plan_digest": fields.get("plan_digest") or self.plan(sql).digest,
            "nodes": nodes,
            "min_nodes": len(nodes),
            "issued_at": now(),
            "deadline": now() + timedelta(seconds=timeout),
        }
        return QueryRequest(**{**values, **fields})

    def budget(self, timeout: float = 20) -> BudgetRequest:
        return BudgetRequest(
            request_id=uuid.uuid4().hex,
            grant_id=self.grant.id,
            grant_sha256=grant_sha256(self.grant_jwt),
            nodes=NODES,
            issued_at=now(),
            deadline=now() + timedelta(seconds=timeout),
        )

    def ask(self, request: QueryRequest | BudgetRequest | None = None, key: SigningKey | None = None) -> m.Ask:
        signing = key or self.identities["ada"].signing
        return m.Ask(request_jws=seal_request(request or self.query(), signing), grant_jwt=self.grant_jwt)

    # ------------------------------------------------------------------------------------------------- parties

    def channel(self, who: str | None, address: str, root: bytes | None = None) -> grpc.aio.Channel:
        identity = self.identities[who] if who else None
        credentials = grpc.ssl_channel_credentials(
            root_certificates=root or self.ca.certificate_pem,
            private_key=identity.tls_key_pem if identity else None,
            certificate_chain=identity.tls_cert_pem if identity else None,
        )
        return grpc.aio.secure_channel(address, credentials, options=CHANNEL)

    @asynccontextmanager
    async def researcher(self, gateway: Gateway | str, who: str = "ada") -> AsyncIterator[Researcher]:
        address = gateway if isinstance(gateway, str) else gateway.address
        async with self.channel(who, address) as channel:
            yield Researcher(stubs.ResearchStub(channel), address)

    @asynccontextmanager
    async def node(self, gateway: Gateway | str, name: str, behave: Behave | None = None) -> AsyncIterator[Node]:
        address = gateway if isinstance(gateway, str) else gateway.address
        async with self.channel(name, address) as channel:
            node = Node(self, name, stubs.FederationStub(channel), behave or release)
            async with node:
                yield node

    @asynccontextmanager
    async def nodes(self, gateway: Gateway | str, behave: Behave | None = None) -> AsyncIterator[list[Node]]:
        async with (
            self.node(gateway, NODES[0], behave) as one,
            self.node(gateway, NODES[1], behave) as two,
            self.node(gateway, NODES[2], behave) as three,
        ):
            yield [one, two, three]

    # ------------------------------------------------------------------------------------------------- outcomes

    def outcome(self, name: str, task: m.Task, number: int = 100, **fields: Any) -> Outcome:
        """A node's true answer to a task: each cell is ``number``, at every node."""
        request = open_request(task.request_jws, self.grant)
        common: dict[str, Any] = {
            "node": name,
            "request_id": request.request_id,
            "request_sha256": request_sha256(task.request_jws),
            "grant_id": request.grant_id,
            "issued_at": now(),
        }
        if isinstance(request, BudgetRequest):
            row = BudgetRow(
                dataset="care",
                epsilon_spent=Fraction(1),
                epsilon_left=Fraction(19),
                delta_spent=Fraction(0),
                delta_left=Fraction(1, 10**6),
            )
            return BudgetStatement(**{**common, "rows": (row,), **fields})
        (planned,) = self.plan(request.sql).releases
        cells = planned.cells or 1
        values = (ReleasedValues(keys=None, statistics=((number,) * cells,) * len(planned.statistics)),)
        release: dict[str, Any] = {
            "dataset": "care",
            "dataset_digest": request.dataset_digest,
            "plan_digest": request.plan_digest,
            "values": values,
            "spent_epsilon": Fraction(1),
            "spent_delta": Fraction(0),
            "replayed": False,
        }
        return NodeRelease(**{**common, **release, **fields})

    def refusal(self, name: str, task: m.Task, error: InsituError) -> Outcome:
        request = open_request(task.request_jws, self.grant)
        sha = request_sha256(task.request_jws)
        return refusal_of(error, node=name, request_id=request.request_id, request_sha256=sha, issued_at=now())

    def sealed(self, name: str, outcome: Outcome) -> str:
        return seal_outcome(outcome, self.identities[name].signing)


@dataclass
class Researcher:
    """Asks and follows; errors come as InsituError."""

    stub: Any
    address: str

    async def ask(self, ask: m.Ask) -> list[m.Event]:
        return [event async for event in self.events(ask)]

    async def finished(self, call: m.Ask | m.Follow, told: Told | None = None) -> m.Finished:
        """The end; ``told`` is shown every event as it comes."""
        last: m.Event | None = None
        async for last in self.events(call):
            if told is not None:
                told.add(last)
        assert isinstance(last, m.Finished)
        return last

    async def events(self, call: m.Ask | m.Follow) -> AsyncIterator[m.Event]:
        reader = wire.EventReader()
        stream = self.stub.Ask(wire.to_ask(call)) if isinstance(call, m.Ask) else self.stub.Follow(wire.to_follow(call))
        try:
            async for message in stream:
                event = reader.read(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            stream.cancel()


@dataclass
class Told:
    """What a researcher has been told so far, for who waits until it has been."""

    events: list[m.Event] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: m.Event) -> None:
        self.events.append(event)
        self.more.set()

    async def until(self, event: m.Event) -> None:
        async with asyncio.timeout(10):
            while event not in self.events:
                self.more.clear()
                await self.more.wait()


@dataclass
class Node:
    """One node's stream. ``tasks`` and ``taken`` are what the gateway has sent."""

    world: World
    name: str
    stub: Any
    behave: Behave
    tasks: list[m.Task] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    beats: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    something: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Node:
        self.call = self.stub.Attach()
        await self.say(m.Hello(node_id=self.name, manifest_version=1, software="test"))
        welcome = wire.from_gateway_message(await self.call.read())
        assert isinstance(welcome, m.Welcome)
        self.manifests.append(welcome.manifest_jws)
        self.reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.call.cancel()
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)

    async def say(self, message: m.NodeMessage) -> None:
        await self.call.write(wire.to_node_message(message))

    async def release(self, task: m.Task, **fields: Any) -> None:
        jws = self.world.sealed(self.name, self.world.outcome(self.name, task, **fields))
        await self.say(m.Outcome(request_id=task.request_id, outcome_jws=jws))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.something.clear()
                await self.something.wait()

    async def _read(self) -> None:
        try:
            while (message := await self.call.read()) is not grpc.aio.EOF:
                await self._got(wire.from_gateway_message(message))
        except grpc.RpcError:
            pass
        finally:
            self.ended.set()
            self.something.set()

    async def _got(self, message: m.GatewayMessage) -> None:
        match message:
            case m.Task():
                self.tasks.append(message)
                await self.behave(self, message)
            case m.Taken():
                self.taken.append(message.request_id)
            case m.ManifestUpdate():
                self.manifests.append(message.manifest_jws)
            case m.Heartbeat():
                self.beats += 1
        self.something.set()


async def release(node: Node, task: m.Task) -> None:
    """A node as it should be."""
    await node.release(task)


async def silent(node: Node, task: m.Task) -> None:
    """A node that never answers."""


def forget_address(config: Path, address: str) -> Path:
    """Configure ``address``; returns the file in which the gateway will say where it listens."""
    config.write_text(config.read_text().replace("127.0.0.1:0", address))
    written = config.parent / "state/address"
    written.unlink(missing_ok=True)
    return written


@asynccontextmanager
async def process(config: Path, address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The gateway as a process of its own, ready; killed at the end if it still lives. Its log is in ``log``."""
    written = forget_address(config, address)
    log = config.parent / "log"
    command = (sys.executable, "-m", "insitu_gateway.commands.main", "run", "--config", str(config))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with log.open("wb") as file:  # a pipe that nobody reads would stop the gateway when it is full
        started = await asyncio.create_subprocess_exec(*command, env=environment, stderr=file, stdout=file)
    try:
        while not written.exists():
            assert started.returncode is None, log.read_text()
            await asyncio.sleep(0.02)
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run an async test body; a test that hangs fails."""

    async def limited() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(limited())


def statuses(finished: m.Finished) -> dict[str, tuple[str, str | None]]:
    return {outcome.node_id: (outcome.status, outcome.code) for outcome in finished.outcomes}


RELEASED = dict.fromkeys(NODES, ("released", None))
