"""A real node process, killed at every step of a query's life: charged once, one answer, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Party
from insitu_access.audit.files import lines
from insitu_access.jose import token_sha256
from insitu_access.release import NodeRelease, open_outcome
from insitu_node.hooks import PLACES
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_proto.messages import Hello, Outcome

from tests.testkit.audit_logs import entries
from tests.testkit.databases import new_duckdb
from tests.testkit.gateway_stub import GatewayStub, make_ca, make_identity
from tests.testkit.node_world import CARE, NODE, SITE_SQL, NodeWorld

CONFIG = """
[node]
id = "chu-lille"
identity = "identity"
state = "state"
[[gateway]]
address = "{address}"
[datasets.care]
contract = "care/dataset.toml"
engine = "duckdb"
database = "site.duckdb"
[datasets.care.tables]
person = "person"
visit = "visit"
[[policy.approve]]
every_grant = true
"""


ENDS = ("node-started", "node-stopped")
HELD = {"before-reserve": [], "after-commit": ["released"], "after-seal": ["released"], "after-audit": ["released"]}
"""What the ledger holds after a kill at a place; a reserved charge anywhere else."""


async def start(site: Path, **extra: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "insitu_node.commands.main",
        "run",
        "--config",
        str(site / "node.toml"),
        env={**os.environ, **extra},
        stderr=asyncio.subprocess.PIPE,
    )


def charges(site: Path) -> tuple[list[str], Fraction]:
    ledger = SqliteLedger(site / "state" / "ledger.sqlite")
    states = [entry.state for entry in ledger.entries()]
    spent = sum((account.epsilon for account in ledger.statement("grant-1")), Fraction(0))
    ledger.close()
    return states, spent


@pytest.mark.parametrize("place", PLACES)
def test_killed_at(place: str, tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(_killed_at(place, tmp_path), 120))


async def _killed_at(place: str, site: Path) -> None:
    world = NodeWorld(folder=site, now=datetime.now(UTC))
    ca = make_ca()
    world.manifest_with(ca_pem=ca.certificate_pem.decode())
    identity = site / "identity"
    public = make_identity(identity, ca, "node", NODE, world.authority.public())
    make_identity(site / "gw", ca, "gateway", "gw", world.authority.public())
    (entry,) = world.manifest.nodes
    world.manifest_with(nodes=(type(entry)(id=NODE, organisation="CHU", jurisdiction="FR", key=public),))
    (site / "care").mkdir()
    (site / "care" / "dataset.toml").write_bytes(CARE)
    new_duckdb(site / "site.duckdb", *SITE_SQL)
    gateway = GatewayStub(site / "gw", world.manifest_jws())
    await gateway.start()
    (site / "node.toml").write_text(CONFIG.format(address=gateway.address))
    request = world.query()
    jws, grant = world.sealed(request), world.grant_jwt()

    first = await start(site, INSITU_TEST_CRASH_AT=place, INSITU_ALLOW_TEST_HOOKS="1")
    await gateway.wait_for(1, Hello)
    await asyncio.wait_for(gateway.attached.wait(), 20)
    gateway.task(request.request_id, jws, grant)
    _, log = await first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert b"test hook is on" in log
    assert gateway.outcomes() == []  # nothing had left
    states, spent = charges(site)
    assert states == HELD.get(place, ["reserved"])
    assert spent == len(states)

    second = await start(site)
    await gateway.wait_for(2, Hello)
    await asyncio.wait_for(gateway.attached.wait(), 20)
    gateway.task(request.request_id, jws, grant)
    await gateway.wait_for(1, Outcome)
    again = world.query()  # the same query by another request joins the same charge
    gateway.task(again.request_id, world.sealed(again), grant)
    await gateway.wait_for(2, Outcome)
    second.send_signal(signal.SIGTERM)
    _, log = await second.communicate()
    assert second.returncode == 0, log
    outcomes = [open_outcome(outcome.outcome_jws, public, node=NODE) for outcome in gateway.outcomes()]
    releases = [outcome for outcome in outcomes if isinstance(outcome, NodeRelease)]
    assert len(releases) == 2
    assert releases[0].values == releases[1].values
    assert (releases[0].replayed, releases[1].replayed) == (False, True)
    assert charges(site) == (["released"], Fraction(1))
    logged = entries(site / "state" / "audit")
    party = Party(role="node", id=NODE)
    assert check_lines(lines(site / "state" / "audit"), party, [public])[0].findings == ()
    assert [entry.kind for entry in logged if entry.kind in ENDS] == ["node-started", "node-started", "node-stopped"]
    (charge,) = [entry for entry in logged if entry.kind == "charge-reserved"]
    (settled,) = [entry for entry in logged if entry.kind == "charge-settled"]
    assert charge.fields["derived"] == (place == "after-reserve")
    assert settled.fields["derived"] == (place == "after-commit")
    answers = {token_sha256(outcome.outcome_jws) for outcome in gateway.outcomes()}
    assert answers <= {entry.fields.get("outcome_sha256") for entry in logged}
    said = [json.loads(line) for line in log.splitlines()]
    words = {str(value) for line in said for name, value in line.items() if name not in ("timestamp", "request_id")}
    assert not {"300", "600", "900"} & words
    assert not any("SELECT" in word or "person" in word for word in words)
    await gateway.stop()
