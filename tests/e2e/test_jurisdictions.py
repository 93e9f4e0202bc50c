"""W1 and W2 with real processes: a gateway that moves abroad is let go of, and one abroad is not dialled."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.small import TOTAL, Parties, build, stop
from tests.e2e.world import BIN

CODE = "INSITU-TRUST-JURISDICTION"


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    started = build(Path(tmp_path_factory.mktemp("jurisdictions")))
    try:
        yield started
    finally:
        stop(started)


def publish(parties: Parties, options: str = "") -> None:
    parties.works("authority", f"insitu-authority manifest authority {options} --out manifest.jws")
    parties.wait_for_manifest(15)


def connected(parties: Parties) -> dict[str, bool]:
    found = parties.status()
    return {node: found[node]["connected"] for node in ("alpha", "beta")}


def refusals(parties: Parties, node: str) -> list[str]:
    line = "insitu-node audit show --config node.toml --kind gateway-refused --format json"
    found = parties.works(f"node {node}", line)
    return [entry["fields"]["code"] for entry in found["entries"] if entry["kind"] == "gateway-refused"]


def told(parties: Parties, node: str, command: str = "status") -> Any:
    return parties.works(f"node {node}", f"insitu-node {command} --config node.toml --format json")["jurisdictions"]


@pytest.mark.attacks("W2")
def test_a_manifest_that_moves_the_gateway_abroad_disconnects_it(parties: Parties) -> None:
    assert parties.count() == TOTAL
    publish(parties, "--jurisdiction FR --jurisdiction ZZ")
    parties.works(
        "authority",
        "insitu-authority cert authority --role gateway --id gateway --out gateway/identity --operator Op"
        f" --address {parties.address} --jurisdiction US",
    )
    publish(parties)
    parties.wait(lambda: connected(parties) == {"alpha": False, "beta": False}, 15)
    parties.wait(lambda: set(refusals(parties, "alpha")) == {CODE} == set(refusals(parties, "beta")), 15)
    assert CODE in parties.logs()
    said = told(parties, "alpha")
    assert (said["policy"], said["manifest"]) == ([], ["FR", "ZZ"])
    assert said["gateways"] == [{"id": "gateway", "jurisdiction": "US", "accepted": False}]
    # neither does the researcher speak to it
    asked = parties.ask(timeout=5)
    assert asked.code != 0
    assert asked.err.startswith(CODE), asked.err


def test_the_authority_accepts_it_there_and_everybody_comes_back(parties: Parties) -> None:
    publish(parties, "--jurisdiction FR --jurisdiction US")
    parties.wait_connected()
    assert parties.count() == TOTAL
    shown = parties.works("authority", "insitu-authority show manifest.jws --format json")
    assert shown["jurisdictions"] == ["FR", "US"]


@pytest.mark.attacks("W1")
def test_a_node_whose_policy_is_the_union_does_not_connect_to_a_gateway_abroad(parties: Parties) -> None:
    config = parties.where("node beta") / "node.toml"
    config.write_text(config.read_text().replace("[[policy", '[policy]\njurisdictions = ["EU"]\n[[policy', 1))
    os.kill(parties.pids()["node-beta"], 15)
    parties.wait(lambda: not connected(parties)["beta"], 15)
    parties.wait(
        lambda: parties.works("node beta", "insitu-node status --config node.toml --format json")["running"] is False,
        15,
    )
    before = len(refusals(parties, "beta"))
    log = parties.dir / "again.log"
    with log.open("wb") as into:
        again = subprocess.Popen([str(BIN / "insitu-node"), "run", "--config", str(config)], stderr=into, stdout=into)
    try:
        parties.wait(lambda: CODE in log.read_text(), 20)
        time.sleep(2)
        assert connected(parties) == {"alpha": True, "beta": False}
        assert "gateway connected" not in log.read_text()
        assert set(refusals(parties, "beta")[before:]) == {CODE}
    finally:
        again.terminate()
        again.wait(20)
    assert told(parties, "beta", "check")["policy"] == ["EU"]


def test_where_none_is_required_the_custodian_is_told_so(parties: Parties) -> None:
    publish(parties, "--jurisdiction any")
    parties.wait_connected("alpha")
    parties.wait(lambda: "accepted" in told(parties, "alpha", "check").get("note", ""), 10)
    assert told(parties, "alpha")["manifest"] == []
