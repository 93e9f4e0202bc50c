"""Nodes and gateways that die, are away, or are lied to: the ledger never under-counts, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.world import BIN, World

pytestmark = pytest.mark.e2e

PLACES = (
    "before-reserve",
    "after-reserve",
    "after-execute",
    "after-noise",
    "before-commit",
    "after-commit",
    "after-seal",
    "after-audit",
)


class Alpha:
    """The node alpha, killed and started by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process: subprocess.Popen[bytes] | None = None
        self.config = world.dir / "nodes" / "alpha" / "node.toml"

    def kill(self) -> None:
        if self.process is None:
            self.world.kill("node-alpha")
        else:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def start(self, **environment: str) -> None:
        self.process = self.world.restart("node-alpha", "insitu-node", self.config, **environment)
        self.world.wait_connected("alpha")

    def spent(self, profile: Path) -> float:
        """From the ledger itself, whether the node runs or not."""
        grant = self.world.budget(profile)["grant"] if self.process and self.process.poll() is None else None
        done = self.world.typed("insitu-node", "ledger", "--config", self.config, "--format", "json")
        assert done.code == 0, done.err
        self.accounts = done.json["accounts"]
        return sum(float(row["epsilon_spent"]) for row in self.accounts if grant is None or row["grant"] == grant)


@pytest.fixture(scope="module")
def alpha(world: World) -> Iterator[Alpha]:
    node = Alpha(world)
    yield node
    if node.process is not None and node.process.poll() is None:
        node.process.terminate()
        node.process.wait(20)


def _ask(world: World, profile: Path, sql: str, timeout: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "insitu"), "query", sql, "--profile", str(profile), "--epsilon", "1", "--format", "json", "--timeout",
         str(timeout)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.timeout(400)  # sixteen starts of a node
def test_kill_9_between_any_two_steps_never_under_counts_and_the_query_is_answered_after_all(
    world: World, alpha: Alpha
) -> None:
    profile = world.new_profile(epsilon=100)
    for count, place in enumerate(PLACES, 1):
        alpha.kill()
        before = alpha.spent(profile)
        alpha.start(INSITU_TEST_CRASH_AT=place, INSITU_ALLOW_TEST_HOOKS="1")
        asked = _ask(world, profile, f"SELECT COUNT(*) AS n FROM visit WHERE amount > {count}", 60)
        assert alpha.process is not None
        assert alpha.process.wait(30) == -signal.SIGKILL
        # dead in the middle: what may have been read is spent already
        after = alpha.spent(profile)
        assert after == pytest.approx(before + (place != "before-reserve"))
        alpha.start()
        out, err = asked.communicate(timeout=60)
        assert asked.returncode == 0, err
        assert '"status": "released"' in out or '"status":"released"' in out
        budget = {row["id"]: row for row in world.budget(profile)["nodes"]}
        assert budget["alpha"]["epsilon_spent"] == pytest.approx(count)  # once, however often it was run
        assert budget["beta"]["epsilon_spent"] == pytest.approx(count)


def test_an_absent_node_is_named_and_the_sums_cover_the_others(world: World, alpha: Alpha) -> None:
    alpha.kill()
    profile = world.new_profile(epsilon="1e15", accounting="pure")
    sql = "SELECT COUNT(*) AS n FROM person"
    done = world.query(sql, "--timeout", 5, profile=profile, epsilon="1e9")
    assert done.code != 0
    assert done.out == ""
    assert "INSITU-NODES-TOO-FEW" in done.err
    assert "alpha" in done.err
    done = world.query(sql, "--timeout", 5, "--min-nodes", 2, profile=profile, epsilon="1e9")
    assert done.code == 0, done.err
    answer = done.json
    assert answer["rows"] == [[400]]  # two thirds of 600
    assert {"id": "alpha", "status": "absent", "code": "INSITU-NODE-ABSENT"} in answer["nodes"]
    alpha.start()


def test_a_node_that_comes_back_takes_up_what_it_missed(world: World, alpha: Alpha) -> None:
    alpha.kill()
    profile = world.new_profile(epsilon="1e15", accounting="pure")
    asked = _ask(world, profile, "SELECT COUNT(*) AS n FROM visit", 60)
    alpha.start()
    out, err = asked.communicate(timeout=60)
    assert asked.returncode == 0, err
    assert '"absent"' not in out


def test_a_gateway_killed_at_any_time_loses_nothing(world: World, alpha: Alpha) -> None:
    profile = world.new_profile()
    first = world.query("SELECT COUNT(*) AS n FROM person", profile=profile).json
    world.kill("gateway")
    gateway = world.restart("gateway", "insitu-gateway", world.dir / "gateway" / "gateway.toml")
    try:
        world.wait_connected("alpha", "beta", "gamma")
        again = world.query("SELECT COUNT(*) AS n FROM person", profile=profile)
        assert again.code == 0, again.err
        assert again.json["rows"] == first["rows"]
        assert again.json["replayed"] is True
    finally:
        (world.dir / "run" / "gateway.by-hand").write_text(str(gateway.pid))
        world.gateway = gateway  # type: ignore[attr-defined]  # ended with the module


@pytest.mark.attacks("L1")
def test_a_replayed_request_with_changed_sql_is_refused_by_the_nodes(world: World, alpha: Alpha) -> None:
    """The same request id over other bytes, signed by the right key: as a careless or stolen client would."""
    import dataclasses
    from datetime import UTC, datetime

    import insitu
    from insitu.planning import Options
    from insitu.signing import sign_query
    from insitu_access.request import request_sha256, seal_request
    from insitu_privacy.errors import InsituError

    profile = world.new_profile()
    with insitu.connect(profile) as federation:
        planned = federation._plan("SELECT COUNT(*) AS n FROM visit", Options(epsilon=1), None)
        asked, plan, trusted = planned.asked, planned.plan, planned.trusted
        sent = sign_query(asked, plan, trusted, federation._profile.identity, now=datetime.now(UTC))
        federation._exchange.deliver(sent, trusted, lambda *_: None)
        spent = world.budget(profile)
        second = federation._plan("SELECT COUNT(*) AS n FROM person", Options(epsilon=1), None)
        other, other_plan = second.asked, second.plan
        changed = dataclasses.replace(sent.request, sql=other.sql, plan_digest=other_plan.digest)
        token = seal_request(changed, federation._profile.identity.signing)
        forged = dataclasses.replace(sent, request=changed, token=token, sha256=request_sha256(token), plan=other_plan)
        try:
            finished = federation._exchange.deliver(forged, trusted, lambda *_: None)
        except InsituError as error:
            codes = {error.code}
        else:
            codes = {outcome.code for outcome in finished.outcomes}
    assert codes == {"INSITU-ACCESS-REPLAY"}
    assert world.budget(profile) == spent


def test_the_processes_started_by_hand_end(world: World, alpha: Alpha) -> None:
    gateway = world.gateway  # type: ignore[attr-defined]
    gateway.terminate()
    assert gateway.wait(20) is not None
    assert alpha.process is not None
    alpha.process.terminate()
    assert alpha.process.wait(20) is not None
    assert not _alive(gateway.pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
