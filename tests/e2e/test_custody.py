"""Authority and custodian change their minds while the federation runs: it counts within seconds, without a restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.world import SITES, World
from tests.testkit.typed import Done

pytestmark = pytest.mark.e2e

SQL = "SELECT COUNT(*) AS n FROM person WHERE birth_year > {}"
SECONDS = 30
"""Far below the minute in which a revocation must have arrived."""


def publish(world: World) -> None:
    """The authority publishes a manifest, and the operator puts it where the gateway reads it."""
    done = world.typed(
        "insitu-authority", "manifest", world.dir / "authority", "--dataset", world.root / "care" / "dataset.toml",
        "--out", world.dir / "manifest.jws",
    )  # fmt: skip
    assert done.code == 0, done.err


def grant_of(profile: Path) -> Path:
    return profile.with_name(profile.name.replace("profile", "grant") + ".jwt")


def until(world: World, profile: Path, code: int, says: str) -> Done:
    """Asks until the answer is this one. Every question is another, so that none is answered from before."""
    end = time.monotonic() + SECONDS
    year = 1900
    while time.monotonic() < end:
        year += 1
        done = world.query(SQL.format(year), profile=profile, epsilon="0.001")
        if done.code == code and says in done.err + done.out:
            return done
        time.sleep(0.2)
    raise AssertionError(f"{says} was never answered: {done.err}")


def authority(world: World, act: str, grant: Path, *options: object) -> None:
    done = world.typed("insitu-authority", act, world.dir / "authority", "--grant", grant, *options)
    assert done.code == 0, done.err


def test_suspension_amendment_and_revocation_arrive_while_connected(world: World) -> None:
    profile = world.new_profile(epsilon=20)
    grant = grant_of(profile)
    assert world.query(SQL.format(1900), profile=profile, epsilon="0.001").code == 0
    authority(world, "suspend", grant)
    publish(world)
    until(world, profile, 2, "INSITU-ACCESS-GRANT-SUSPENDED")
    authority(world, "resume", grant)
    publish(world)
    until(world, profile, 0, "")
    newer = grant.with_suffix(".2.jwt")
    authority(world, "amend", grant, "--reference", "R-2", "--epsilon", "25", "--out", newer)
    publish(world)
    until(world, profile, 2, "INSITU-ACCESS-GRANT-AMENDED")
    spent = {row["id"]: row["epsilon_spent"] for row in world.budget(world.new_profile())["nodes"]}
    assert set(spent.values()) == {0.0}
    second = profile.with_name(profile.name + "-2")
    assert world.connect(second, newer, world.dir / "researcher" / "identity").code == 0
    left = world.budget(second)["nodes"]
    assert all(row["epsilon_spent"] > 0 for row in left)  # the account goes on
    assert all(abs(row["epsilon_spent"] + row["epsilon_left"] - 25) < 1e-9 for row in left)
    authority(world, "revoke", newer)
    publish(world)
    until(world, second, 2, "INSITU-ACCESS-GRANT-REVOKED")


def test_a_custodian_withdraws_halts_and_resumes_while_the_node_runs(world: World) -> None:
    profile = world.new_profile()
    config = world.dir / "nodes" / "alpha" / "node.toml"
    some = ("--min-nodes", 1)
    first = world.query(SQL.format(1900), *some, profile=profile, epsilon="0.001")
    assert [node["status"] for node in first.json["nodes"]] == ["released"] * len(SITES)
    grant = first.json and grant_of(profile)
    for act, code in (("withdraw", "INSITU-NODE-WITHDRAWN"), ("approve", None)):
        assert world.typed("insitu-node", "projects", act, grant, "--config", config).code == 0
        done = world.query(SQL.format(1901 if code else 1902), *some, profile=profile, epsilon="0.001")
        assert {node["id"]: node["code"] for node in done.json["nodes"]} == {"alpha": code, "beta": None, "gamma": None}
    assert world.typed("insitu-node", "halt", "--reason", "drill", "--config", config).code == 0
    done = world.query(SQL.format(1903), *some, profile=profile, epsilon="0.001")
    assert {node["id"]: node["code"] for node in done.json["nodes"]}["alpha"] == "INSITU-NODE-HALTED"
    status = world.typed("insitu-node", "status", "--config", config, "--format", "json").json
    assert (status["running"], status["halted"]) == (True, True)
    assert world.typed("insitu-node", "resume", "--config", config).code == 0
    done = world.query(SQL.format(1904), *some, profile=profile, epsilon="0.001")
    assert [node["status"] for node in done.json["nodes"]] == ["released"] * len(SITES)
