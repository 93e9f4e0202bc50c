"""A small federation whose nodes are real processes, and whose gateway is hostile; researchers are the real SDK.

The authority's key is at hand, so that what a gateway could have kept or got (older manifests, other projects' grants)
is really signed. Every question is another one, so that none is a replay.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import insitu
from insitu.planning import Options
from insitu.signing import sign_query
from insitu_access import payload
from insitu_access.grant import Grant, read_grant, seal_grant
from insitu_access.identity import load_identity
from insitu_access.jose import Typ, sign, unverified
from insitu_access.keys import SigningKey, generate_signing_key, load_signing_key
from insitu_access.manifest import Manifest, seal_manifest, verify_manifest
from insitu_access.request import QueryRequest, seal_request
from insitu_proto.messages import Task

from tests.e2e.small import NODES, Parties, build, stop
from tests.e2e.world import BIN
from tests.testkit.audit_logs import entries
from tests.testkit.hostile_gateway import Attack, HostileGateway, wait_until
from tests.testkit.typed import Done

_YEARS = itertools.count(1901)


def new_sql() -> str:
    """A question that nobody has asked before."""
    return f"SELECT sex, COUNT(*) AS n FROM person WHERE birth_year <> {next(_YEARS)} GROUP BY sex"


@dataclass
class HostileWorld:
    """The parties, the gateway among them that has been turned."""

    parties: Parties
    gateway: HostileGateway
    profiles: Iterator[int] = field(default_factory=itertools.count)

    # ------------------------------------------------------------------------------------------------- the researcher

    @property
    def profile(self) -> Path:
        return self.parties.dir / "profile"

    @contextmanager
    def researcher(self, grant: str | None = None, *, fresh: bool = False) -> Iterator[insitu.Federation]:
        """The SDK on a copy of the profile: under another grant, or ``fresh`` as if it had never fetched anything."""
        folder = self.parties.dir.parent / f"profile-{next(self.profiles)}"
        shutil.copytree(self.profile, folder)
        if grant is not None:
            (folder / "grant.jwt").write_text(grant)
        if fresh:
            (folder / "manifest.jws").unlink()
            shutil.rmtree(folder / "datasets")
        with insitu.connect(folder) as federation:
            yield federation

    def ask(self, attack: Attack, sql: str | None = None, **options: Any) -> insitu.Result:
        """A query while the gateway attacks."""
        with self.attacking(attack), self.researcher() as federation:
            return federation.query(sql or new_sql(), epsilon=1, **{"timeout": 10, **options})

    def command(self, attack: Attack, *words: object) -> Done:
        """`insitu` as a process of its own, while the gateway attacks."""
        line = [str(BIN / "insitu"), *map(str, words), "--profile", str(self.profile)]
        with self.attacking(attack):
            done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def attacking(self, attack: Attack) -> Iterator[None]:
        """Honest again at the end, with every node connected, and dialling without delay when it is cut off."""
        dialled = {node: self.gateway.hellos(node) for node in NODES}
        self.gateway.attack = attack
        try:
            yield
        finally:
            self.gateway.attack = Attack()
            wait_until(lambda: self.gateway.connected(*NODES))
            for node in NODES:
                if self.gateway.hellos(node) > dialled[node]:
                    self.gateway.drop(node)  # an orderly end: the node's back-off begins anew

    def task(self, sql: str | None = None, grant: str | None = None, **changes: Any) -> Task:
        """A genuine request that the gateway has, under a genuine grant, with the node's task that carries it."""
        with self.researcher(grant) as federation:
            planned = federation._plan(sql or new_sql(), Options(epsilon=1), None)
            asked, plan, trusted = planned.asked, planned.plan, planned.trusted
            sent = sign_query(asked, plan, trusted, federation._profile.identity, now=datetime.now(UTC))
            assert isinstance(sent.request, QueryRequest)
            request = replace(sent.request, **changes)
            token = seal_request(request, federation._profile.identity.signing)
            return Task(request_id=request.request_id, request_jws=token, grant_jwt=trusted.grant_token)

    # -------------------------------------------------------------------------------------------------- the authority

    @property
    def authority(self) -> SigningKey:
        return load_signing_key(self.parties.dir / "authority" / "authority.key")

    @property
    def grant_token(self) -> str:
        return (self.profile / "grant.jwt").read_text().strip()

    @property
    def grant(self) -> Grant:
        return read_grant(unverified(self.grant_token, "insitu-grant+jwt", "grant"))

    def new_grant(self, key: SigningKey | None = None, **changes: Any) -> str:
        """Another grant, by the authority unless another key signs it."""
        return seal_grant(replace(self.grant, **changes), key or self.authority)

    @property
    def manifest_token(self) -> str:
        return (self.parties.dir / "manifest.jws").read_text().strip()

    @property
    def manifest(self) -> Manifest:
        return verify_manifest(self.manifest_token, self.authority.public())

    def next_manifest(self, key: SigningKey | None = None, **changes: Any) -> str:
        """What would come after the present one, by the authority unless another key signs it."""
        now, version = datetime.now(UTC).replace(microsecond=0), self.manifest.version + 1
        changed = replace(self.manifest, **{"version": version, "issued_at": now, **changes})
        return seal_manifest(changed, key or self.authority)

    def publish(self, token: str, nodes: Collection[str] = NODES) -> None:
        """Until the gateway and these nodes have it."""
        path = self.parties.dir / "manifest.jws"
        path.with_suffix(".new").write_text(token)
        os.replace(path.with_suffix(".new"), path)
        wait_until(lambda: all(self.node_manifest(node) == token for node in nodes))

    @property
    def gateway_key(self) -> SigningKey:
        """The gateway's own, which vouches for nothing."""
        return load_identity(self.parties.dir / "gateway" / "identity").signing

    def false_manifests(self) -> dict[str, tuple[str, str]]:
        """What a gateway could offer in place of the manifest, and what it is refused with."""
        true, ago = self.manifest, datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
        expired = {"issued_at": ago - timedelta(1), "expires_at": ago}
        return {
            "older": (self.next_manifest(version=true.version - 1), "INSITU-ACCESS-MANIFEST-OLD"),
            "own": (self.next_manifest(self.gateway_key), "INSITU-ACCESS-SIGNATURE"),
            "altered": (
                altered(self.manifest_token, "insitu-manifest+jws", version=true.version + 1),
                "INSITU-ACCESS-SIGNATURE",
            ),
            "expired": (self.next_manifest(**expired), "INSITU-ACCESS-MANIFEST"),
            "future": (self.next_manifest(issued_at=ago + timedelta(1)), "INSITU-ACCESS-MANIFEST"),
            "grant": (self.grant_token, "INSITU-ACCESS-MALFORMED"),
        }

    # ------------------------------------------------------------------------------------------------------ the nodes

    def state(self, node: str) -> Path:
        return self.parties.where(f"node {node}") / "state"

    def node_manifest(self, node: str) -> str:
        return (self.state(node) / "manifest.jws").read_text().strip()

    def ledgers(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that nodes have charged and released, noisy values included."""
        return {node: self._rows(node, "SELECT * FROM charges ORDER BY id") for node in NODES}

    def accounts(self) -> dict[str, list[tuple[Any, ...]]]:
        """What each grant has spent at each node."""
        return {node: self._rows(node, "SELECT * FROM accounts ORDER BY grant_id") for node in NODES}

    def _rows(self, node: str, sql: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(f"file:{self.state(node) / 'ledger.sqlite'}?mode=ro", uri=True)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def refused_manifests(self, node: str) -> list[str]:
        """The codes with which a node has refused manifests, by its own log."""
        return [
            str(entry.fields["code"])
            for path in sorted((self.state(node) / "audit").glob("*.jsonl"))
            for entry in entries(path)
            if entry.kind == "manifest-refused"
        ]

    @contextmanager
    def nothing_charged(self) -> Iterator[None]:
        """Every ledger is at the end what it was at the start, to the last byte."""
        before = self.ledgers(), self.accounts()
        yield
        assert (self.ledgers(), self.accounts()) == before


def altered(token: str, typ: Typ, key: SigningKey | None = None, **changes: Any) -> str:
    """A token whose payload says something else: under the old signature, or signed by ``key``."""
    fields = json.loads(unverified(token, typ, "token"))
    header, _, signature = token.split(".")
    signed = sign(payload.write({**fields, **changes}), key or generate_signing_key(), typ)
    return signed if key is not None else ".".join((header, signed.split(".")[1], signature))


@contextmanager
def hostile_world(root: Path) -> Iterator[HostileWorld]:
    """A federation as ``insitu-compose`` starts it, whose gateway then falls into other hands."""
    parties = build(root)
    try:
        with insitu.connect(parties.dir / "profile") as federation:
            federation.catalog()
        with turned(parties) as gateway:
            world = HostileWorld(parties=parties, gateway=gateway)
            world.publish(world.next_manifest())  # so that there is an older one
            yield world
    finally:
        stop(parties)


@contextmanager
def turned(parties: Parties, *nodes: str) -> Iterator[HostileGateway]:
    """The gateway of a running federation in other hands, with its address, its key and its state."""
    os.kill(parties.pids()["gateway"], signal.SIGTERM)
    gateway = HostileGateway(parties.dir / "gateway" / "gateway.toml")
    wait_until(lambda: not _holds(parties.dir / "gateway" / "state"))
    gateway.start()
    try:
        wait_until(lambda: gateway.connected(*(nodes or NODES)))
        yield gateway
    finally:
        gateway.stop()


def _holds(state: Path) -> bool:
    """Whether a gateway holds this state directory."""
    with (state / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
