"""Every part of an answer that a gateway, or anyone on the way, could change is refused. V1 to V7, S1 to S4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from insitu.verification import compare_rows
from insitu_access.keys import generate_signing_key
from insitu_access.manifest import seal_manifest
from insitu_access.release import NodeRelease, Outcome
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import AccessRefused, IntegrityFailed, Unavailable
from insitu_privacy.plan import ReleasedValues

from tests.unit.client.world import BUNDLE, BY_SEX, NODES, NOW, World

LILLE, RENNES, BREST = NODES
OTHER_SHA = "0" * 64


def _refused(world: World, **options: object) -> str:
    with world.federation() as federation, pytest.raises(IntegrityFailed) as caught:
        federation.query(BY_SEX, epsilon=1, **options)
    return caught.value.line()


# -- what the gateway passes on --------------------------------------------------------------------------------------


@pytest.mark.attacks("V2")
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_changed_character_is_found(world: World, place: int) -> None:
    def flip(tokens: dict[str, str]) -> dict[str, str]:
        parts = tokens[RENNES].split(".")
        middle = len(parts[place]) // 2
        swapped = "A" if parts[place][middle] != "A" else "B"
        parts[place] = parts[place][:middle] + swapped + parts[place][middle + 1 :]
        return tokens | {RENNES: ".".join(parts)}

    world.forge = flip
    assert "INSITU-VERIFY-RELEASE: the release of node chu-rennes" in _refused(world)


@pytest.mark.attacks("V2")
def test_a_release_of_another_node_does_not_pass(world: World) -> None:
    world.forge = lambda tokens: tokens | {RENNES: tokens[LILLE]}
    assert "chu-rennes" in _refused(world)


@pytest.mark.attacks("V3")
def test_a_release_to_another_request_does_not_pass(world: World) -> None:
    seen: list[dict[str, str]] = []

    def again(tokens: dict[str, str]) -> dict[str, str]:
        seen.append(tokens)
        return tokens | {BREST: seen[0][BREST]}

    world.forge = again
    with world.federation() as federation:
        federation.query(BY_SEX, epsilon=1)
    assert "another request" in _refused(world)


@pytest.mark.attacks("V1")
def test_a_node_that_was_not_asked_does_not_count(world: World) -> None:
    def extra(tokens: dict[str, str]) -> dict[str, str]:
        return tokens | {BREST: tokens[LILLE]}

    world.forge = extra
    assert "was not asked" in _refused(world, nodes=[LILLE, RENNES])


def test_a_release_that_is_withheld_does_not_count_as_one(world: World) -> None:
    world.forge = lambda tokens: {LILLE: "", **{node: tokens[node] for node in (RENNES, BREST)}}
    assert "chu-lille" in _refused(world)


def test_a_node_that_the_gateway_leaves_out_is_absent(world: World) -> None:
    world.forge = lambda tokens: {node: tokens[node] for node in (RENNES, BREST)}
    with world.federation() as federation, pytest.raises(Unavailable) as caught:
        federation.query(BY_SEX, epsilon=1)
    assert "chu-lille absent" in caught.value.line()


@pytest.mark.attacks("V2")
def test_a_key_that_is_not_in_the_manifest_signs_for_nobody(world: World) -> None:
    world.keys[BREST] = generate_signing_key()
    assert "chu-brest" in _refused(world)


# -- what a node signs by mistake ------------------------------------------------------------------------------------


def _release(change: Callable[[NodeRelease], NodeRelease]) -> Callable[[Outcome], Outcome]:
    return lambda outcome: change(outcome) if isinstance(outcome, NodeRelease) else outcome


def _values(statistics: tuple[tuple[int, ...], ...], keys: object = None) -> tuple[ReleasedValues, ...]:
    return (ReleasedValues(keys=keys, statistics=statistics),)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            lambda it: replace(it, request_sha256=OTHER_SHA), "another request", marks=pytest.mark.attacks("V3")
        ),
        pytest.param(lambda it: replace(it, request_id="0" * 32), "another request", marks=pytest.mark.attacks("V3")),
        pytest.param(lambda it: replace(it, grant_id="grant-2"), "another grant", marks=pytest.mark.attacks("V4")),
        pytest.param(lambda it: replace(it, dataset="claims"), "another dataset", marks=pytest.mark.attacks("V4")),
        pytest.param(
            lambda it: replace(it, dataset_digest=OTHER_SHA), "another dataset", marks=pytest.mark.attacks("V4")
        ),
        pytest.param(lambda it: replace(it, plan_digest=OTHER_SHA), "another plan", marks=pytest.mark.attacks("V4")),
        pytest.param(lambda it: replace(it, node="chu-lille"), "another node", marks=pytest.mark.attacks("V2")),
        pytest.param(lambda it: replace(it, values=()), "another number of releases", marks=pytest.mark.attacks("V5")),
        pytest.param(
            lambda it: replace(it, values=it.values * 2), "another number of releases", marks=pytest.mark.attacks("V5")
        ),
        pytest.param(
            lambda it: replace(it, values=_values(((1,) * 3,) * len(it.values[0].statistics))),
            "shape of the plan",
            marks=pytest.mark.attacks("V5"),
        ),
        pytest.param(
            lambda it: replace(it, values=_values(it.values[0].statistics * 2)),
            "shape of the plan",
            marks=pytest.mark.attacks("V5"),
        ),
        pytest.param(
            lambda it: replace(it, values=_values(it.values[0].statistics, (("F",), ("M",)))),
            "shape of the plan",
            marks=pytest.mark.attacks("V5"),
        ),
    ],
)
def test_a_release_that_does_not_answer_the_request_is_refused(
    world: World, change: Callable[[NodeRelease], NodeRelease], reason: str
) -> None:
    world.alter = {RENNES: _release(change)}
    assert reason in _refused(world)


def test_a_release_is_no_budget_statement_and_the_other_way_round(world: World) -> None:
    kept: list[str] = []
    world.forge = lambda tokens: kept.extend(tokens.values()) or tokens
    with world.federation() as federation:
        federation.budget()
        world.forge = lambda tokens: dict(zip(tokens, kept[:3], strict=True))
        with pytest.raises(IntegrityFailed):
            federation.query(BY_SEX, epsilon=1)


def test_signed_statistics_that_are_no_integers_are_refused(world: World) -> None:
    import json

    from insitu_access.jose import sign

    def raw(tokens: dict[str, str]) -> dict[str, str]:
        import base64

        middle = tokens[LILLE].split(".")[1]
        body = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        body["values"][0]["statistics"][0][0] = True
        return tokens | {LILLE: sign(json.dumps(body).encode(), world.keys[LILLE], "insitu-release+jws")}

    world.forge = raw
    assert "chu-lille" in _refused(world)


# -- the gateway's own result ----------------------------------------------------------------------------------------


@pytest.mark.attacks("V6")
@pytest.mark.parametrize(
    "change",
    [
        lambda result: result | {"rows": [["F", 3001], *result["rows"][1:]]},
        lambda result: result | {"rows": result["rows"][:1]},
        lambda result: result | {"rows": [["F", 3000.0001], *result["rows"][1:]]},
        lambda result: result | {"columns": [{"name": "sex", "type": "text"}, {"name": "m", "type": "integer"}]},
        lambda result: result | {"rows": [["F"], ["M"]]},
        lambda result: result | {"rows": "none"},
        lambda result: {"columns": []},
    ],
)
def test_a_result_that_does_not_follow_from_the_releases_is_refused(
    world: World, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    world.gateway_result = change
    assert "INSITU-VERIFY-RESULT" in _refused(world)


def test_a_gateway_without_a_result_is_not_needed(world: World) -> None:
    world.gateway_result = lambda result: None
    with world.federation() as federation:
        assert federation.query(BY_SEX, epsilon=1).verified


def test_rows_that_are_tied_may_stand_in_any_order() -> None:
    compare_rows(["a", "n"], [("x", 1), ("y", 1)], ["a", "n"], [("y", 1), ("x", 1)])
    compare_rows(["a"], [(0.1 + 0.2,)], ["a"], [(0.3,)])
    for theirs in ([("x", True)], [("x", "1")], [("x", None)], [("x", 1), ("x", 1)]):
        with pytest.raises(IntegrityFailed):
            compare_rows(["a", "n"], theirs, ["a", "n"], [("x", 1)])


# -- manifest, grant, dataset ----------------------------------------------------------------------------------------


def _denied(world: World) -> str:
    with world.federation() as federation, pytest.raises(AccessRefused) as caught:
        federation.query(BY_SEX, epsilon=1)
    return caught.value.code


@pytest.mark.attacks("M1")
def test_a_manifest_of_another_authority_is_refused(world: World) -> None:
    world.manifest_token = seal_manifest(world.manifest, generate_signing_key())
    assert _denied(world) == "INSITU-ACCESS-SIGNATURE"


@pytest.mark.attacks("M3")
def test_an_older_manifest_is_refused_also_by_a_new_process(world: World) -> None:
    old = world.manifest_token
    world.publish()
    with world.federation() as federation:
        federation.refresh()
    world.manifest_token = old
    from insitu.client import Federation
    from insitu.profile import read_profile

    kept = read_profile(world.folder / "profile")
    with Federation(kept, world, clock=lambda: NOW) as federation, pytest.raises(AccessRefused) as caught:
        federation.catalog()
    assert caught.value.code == "INSITU-ACCESS-MANIFEST-OLD"


@pytest.mark.attacks("S1")
def test_an_older_manifest_is_refused_even_after_the_kept_one_expired(world: World) -> None:
    old = world.manifest_token
    world.publish(expires_at=NOW + timedelta(hours=1))
    with world.federation() as federation:
        federation.refresh()
        world.now, world.manifest_token = NOW + timedelta(hours=2), old
        with pytest.raises(AccessRefused) as caught:
            federation.catalog()
    assert caught.value.code == "INSITU-ACCESS-MANIFEST-OLD"


@pytest.mark.attacks("M5")
def test_an_expired_manifest_is_refused(world: World) -> None:
    world.now = NOW + timedelta(days=30)
    assert _denied(world) == "INSITU-ACCESS-MANIFEST"


@pytest.mark.attacks("S2")
def test_a_grant_that_is_over_or_revoked_is_refused(world: World) -> None:
    world.now = NOW + timedelta(days=25)
    assert _denied(world) == "INSITU-ACCESS-GRANT-EXPIRED"
    world.now = NOW
    world.publish(revoked_grants=frozenset({"grant-1"}))
    assert _denied(world) == "INSITU-ACCESS-GRANT-REVOKED"


@pytest.mark.attacks("S2")
def test_a_revocation_is_seen_by_a_federation_that_is_open(world: World) -> None:
    with world.federation() as federation:
        federation.query(BY_SEX, epsilon=1)
        world.publish(revoked_grants=frozenset({"grant-1"}))
        world.now = NOW + timedelta(minutes=6)
        with pytest.raises(AccessRefused) as caught:
            federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-ACCESS-GRANT-REVOKED"


@pytest.mark.attacks("S3")
def test_a_grant_for_another_researcher_is_refused(world: World) -> None:
    world.grant = replace(world.grant, researchers=(generate_signing_key().public(),))
    world.seal()
    assert _denied(world) == "INSITU-ACCESS-WRONG-KEY"


@pytest.mark.attacks("S4")
def test_a_dataset_that_is_not_the_manifests_is_refused_and_not_kept(world: World) -> None:
    world.served = DatasetBundle(toml=BUNDLE.toml + b"\n", files=BUNDLE.files)
    assert _denied(world) == "INSITU-ACCESS-DATASET"
    assert not (world.folder / "profile" / "datasets").exists()
    world.served = None
    with world.federation() as federation:
        assert federation.query(BY_SEX, epsilon=1).verified


@pytest.mark.attacks("S4")
def test_a_kept_dataset_that_was_changed_is_fetched_again(world: World) -> None:
    with world.federation() as federation:
        federation.catalog()
    (kept,) = (world.folder / "profile" / "datasets").glob("*/dataset.toml")
    kept.write_bytes(BUNDLE.toml.replace(b"min_units = 11", b"min_units = 10"))
    with world.federation() as federation:
        assert federation.catalog().datasets[0].dataset.min_units == 11


def test_without_a_gateway_the_kept_manifest_serves_to_plan(world: World) -> None:
    from insitu.client import Federation
    from insitu.profile import read_profile

    with world.federation() as federation:
        federation.catalog()
    world.unreachable = 1_000
    profile = read_profile(world.folder / "profile")
    with Federation(profile, world, clock=lambda: NOW) as federation:
        assert federation.explain(BY_SEX).plan.releases
    (world.folder / "profile" / "manifest.jws").unlink()
    bare = Federation(read_profile(profile.folder), world, clock=lambda: NOW)
    with bare, pytest.raises(Unavailable):
        bare.catalog()


def test_an_outcome_token_is_bound_to_its_type(world: World) -> None:
    def as_refusal(tokens: dict[str, str]) -> dict[str, str]:
        header, body, signature = tokens[LILLE].split(".")
        from base64 import urlsafe_b64decode, urlsafe_b64encode

        other = urlsafe_b64decode(header + "==").replace(b"insitu-release+jws", b"insitu-refusal+jws")
        return tokens | {LILLE: ".".join([urlsafe_b64encode(other).decode().rstrip("="), body, signature])}

    world.forge = as_refusal
    assert "chu-lille" in _refused(world)
