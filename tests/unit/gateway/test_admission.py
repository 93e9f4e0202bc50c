"""Verified grants are kept, and what can change about them is looked at each time. (Its own checks: ``test_hostile``.)"""

from __future__ import annotations

from datetime import timedelta

import pytest
from insitu_gateway import admission
from insitu_gateway.admission import Grants
from insitu_privacy.errors import AccessRefused

from tests.unit.gateway.world import World, now


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_a_grant_is_verified_once_under_one_manifest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = admission.open_grant

    def counting(token, manifest, *, now):
        calls.append(token)
        return original(token, manifest, now=now)

    monkeypatch.setattr(admission, "open_grant", counting)
    grants = Grants()
    assert grants.open(world.grant_jwt, world.manifest, now()) == grants.open(world.grant_jwt, world.manifest, now())
    assert len(calls) == 1
    world.publish()
    grants.open(world.grant_jwt, world.manifest, now())
    assert len(calls) == 2


def test_a_kept_grant_still_ends_and_is_still_revoked(world: World) -> None:
    grants = Grants()
    grants.open(world.grant_jwt, world.manifest, now())
    for moment in (now() + timedelta(days=91), now() - timedelta(days=2)):
        with pytest.raises(AccessRefused, match="INSITU-ACCESS-GRANT-EXPIRED"):
            grants.open(world.grant_jwt, world.manifest, moment)
    world.publish(revoked_grants=frozenset({world.grant.id}))
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-GRANT-REVOKED"):
        grants.open(world.grant_jwt, world.manifest, now())


def test_a_token_that_was_refused_is_not_kept(world: World) -> None:
    grants = Grants()
    world.publish()
    for _ in range(2):
        with pytest.raises(AccessRefused):
            grants.open(world.grant_jwt[:-4] + "AAAA", world.manifest, now())


def test_not_more_than_so_many_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_GRANTS_KEPT", 1)
    grants = Grants()
    grants.open(world.grant_jwt, world.manifest, now())
    grants.open(world.grant_jwt, world.manifest, now())
    assert len(grants._kept) == 1
