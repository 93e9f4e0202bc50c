"""A hostile gateway and the profiles of nodes: it forges, swaps, replays and withholds them. The real SDK over mTLS.

Profiles are public, so nothing is learned or spent in any of this; what matters is that no false one is believed, and
that no query fails.
"""

from __future__ import annotations

import json

import insitu
import pytest
from insitu_access.identity import load_identity
from insitu_privacy.errors import Unavailable
from insitu_proto import messages as m

from tests.e2e.small import NODES
from tests.testkit.hostile_gateway import Attack
from tests.testkit.hostile_world import HostileWorld, altered, new_sql
from tests.testkit.profiles import sealed

pytestmark = pytest.mark.e2e
KIND = "insitu-profile+jws"
NEW, OLD = 2_000, 1_000
"""Serials above any that these nodes have given."""


def true(world: HostileWorld, node: str, serial: int, dataset: str = "care", digest: str | None = None) -> str:
    """A profile with the node's genuine signature, as a gateway may have kept it."""
    entry = world.manifest.dataset("care")
    assert entry is not None
    key = load_identity(world.parties.where(f"node {node}") / "identity").signing
    return sealed(node, key, digest or entry.digest, serial=serial, dataset=dataset)


def serials(federation: insitu.Federation) -> dict[str, int]:
    return {node: one.serial for node, one in federation.profiles().items() if one.serial >= OLD}


def serving(*tokens: str) -> Attack:
    return Attack(profiles=lambda _: list(tokens))


@pytest.mark.attacks("H1", "H2", "H3", "H4", "H5")
def test_a_profile_that_is_false_is_no_profile(world: HostileWorld) -> None:
    """Each beside a true one, which is believed all the same, and after a true one, which stays."""
    alpha, beta = (true(world, node, NEW) for node in NODES)
    alpha_key = load_identity(world.parties.where("node alpha") / "identity").signing
    entry = world.manifest.dataset("care")
    assert entry is not None
    false = {
        "its own": sealed("alpha", world.gateway_key, entry.digest, serial=NEW),
        "altered": altered(alpha, KIND, serial=NEW + 1),
        "in another's name": altered(alpha, KIND, alpha_key, node="beta"),
        "of another dataset version": true(world, "alpha", NEW, digest="0" * 64),
        "of another dataset": true(world, "alpha", NEW, dataset="claims"),
        "of another form": altered(alpha, KIND, alpha_key, histograms=[[]]),
        "nested": altered(alpha, KIND, alpha_key, histograms=json.loads("[" * 900 + "]" * 900)),
        "numbers beyond all": altered(alpha, KIND, alpha_key, serial=10**300),
        "another kind": world.grant_token,
        "too large": "x" * (m.MAX_TOKEN_CHARS - 1),
    }
    for name, token in false.items():
        with world.attacking(serving(token, beta)), world.researcher() as federation:
            assert serials(federation) == {"beta": NEW}, name
        with world.attacking(serving(alpha)), world.researcher() as federation:
            assert serials(federation) == {"alpha": NEW}
            world.gateway.attack = serving(token)
            federation.refresh()
            assert serials(federation) == {"alpha": NEW}, name
    for too_much in ("x" * (m.MAX_TOKEN_CHARS + 1), ""):  # the whole answer is no message then
        with world.attacking(serving(too_much, beta)), world.researcher() as federation, world.nothing_charged():
            assert serials(federation) == {}
    assert world.ask(serving(*false.values()), new_sql()).verified


@pytest.mark.attacks("H6")
def test_profiles_that_are_old_or_withheld_lead_back_to_no_older_one(world: HostileWorld) -> None:
    """Who has seen no newer one takes the older: bounds are less apt then. Who has seen one keeps it."""

    def fail(_: list[str]) -> list[str]:
        raise Unavailable("INSITU-GATEWAY-FAILED", reason="it says so")

    both = [true(world, node, NEW) for node in NODES]
    old = [true(world, node, OLD) for node in NODES]
    with world.attacking(serving(*old)), world.researcher() as federation:
        assert serials(federation) == dict.fromkeys(NODES, OLD)
        for attack in (serving(*both), serving(*old), serving(), Attack(profiles=fail)):
            world.gateway.attack = attack
            federation.refresh()
            assert serials(federation) == dict.fromkeys(NODES, NEW)
            entry = federation._trust().manifest.dataset("care")
            assert entry is not None
            assert federation._data_profile(entry, NODES) is not None
        assert federation.query(new_sql(), epsilon=1).verified
        folder = federation._profile.folder
    with world.attacking(serving(*old)), insitu.connect(folder) as federation:  # another process
        assert serials(federation) == dict.fromkeys(NODES, NEW)
