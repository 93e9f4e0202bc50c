"""Bounds that fit, in the SDK: chosen from the profiles of all nodes asked, signed with the request, told in the answer."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from insitu.client import Federation
from insitu.planning import Options
from insitu.transport import GetManifest
from insitu_access.data_profile import NodeProfile, seal_data_profile
from insitu_access.request import QueryRequest, peek_request
from insitu_privacy.data_profile import DataProfile, Histogram, Measure
from insitu_privacy.dataset import Dataset
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.plan import QueryParameters
from insitu_privacy.profile_measures import questions
from insitu_proto.messages import Ask, DatasetRef, GetProfiles

from tests.unit.client.world import BUNDLE, NODES, NOW, World

VISITS = "SELECT COUNT(*) AS n, AVG(amount) AS mean FROM visit"
DATASET: Dataset = parse_dataset(BUNDLE)
MEASURES = {(one.measure.table, one.measure.kind, one.measure.column): one.measure for one in questions(DATASET)}


def _histogram(measure: Measure, values: list[float]) -> Histogram:
    edges = np.array([float(edge) for edge in measure.edges])
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=measure.bins)
    return Histogram(measure=measure, counts=tuple(map(float, counts)), deviation=5.0)


def profiled(world: World, times: float = 1.0, nodes: tuple[str, ...] = NODES) -> None:
    """Nodes whose persons have log-normally many visits, ``times`` as many as usual."""
    draw = random.Random(5)
    rows = [max(1.0, round(times * draw.lognormvariate(1.65, 1.14))) for _ in range(30_000)]
    units = {
        ("visit", "rows", None): rows,
        ("visit", "sums", "amount"): [one * 200 for one in rows],
        ("visit", "values", "amount"): [draw.lognormvariate(4, 0.9) for _ in rows],
    }
    histograms = tuple(_histogram(MEASURES[name], values) for name, values in units.items())  # type: ignore[index]
    profile = DataProfile(dataset="care", dataset_digest=DATASET.digest, histograms=histograms)
    world.profiles = [
        seal_data_profile(
            NodeProfile(node=node, serial=1, epsilon=Fraction(1), issued_at=NOW, profile=profile), world.keys[node]
        )
        for node in nodes
    ]


def parameters(world: World) -> QueryParameters:
    """Those of the request that was sent last."""
    asked = [peek_request(call.request_jws) for call in world.calls if isinstance(call, Ask)]
    request = asked[-1]
    assert isinstance(request, QueryRequest)
    return request.parameters


def explained(world: World, **options: Any) -> dict[str, Any]:
    with world.federation() as federation:
        document: dict[str, Any] = json.loads(json.dumps(federation.explain(VISITS, **options).to_json()))
    return document


def test_the_request_names_the_bounds_and_the_answer_what_they_cut(world: World) -> None:
    profiled(world)
    with world.federation() as federation:
        result = federation.query(VISITS, epsilon=1)
    (fit,) = parameters(world).fits
    assert 50 < fit.max_rows_per_group < 2000
    assert result.to_json()["clipping"] == list(result.clipping)
    count, mean = result.clipping
    assert count is not None
    assert mean is not None
    assert 0 <= count < 0.05
    assert 0 <= mean < 0.05


def test_rows_of_more_visits_get_wider_bounds(world: World) -> None:
    profiled(world, times=1.0)
    few = explained(world)["releases"][0]["contribution_bounds"]["max_rows_per_group"]
    world.profiles.clear()
    (world.folder / "profile" / "profiles").rename(world.folder / "profiles-before")
    profiled(world, times=8.0)
    many = explained(world)["releases"][0]["contribution_bounds"]["max_rows_per_group"]
    assert many > 2 * few


def test_explain_says_where_bounds_come_from_and_what_they_cut(world: World) -> None:
    document = explained(world)
    assert document["releases"][0]["bounds_reason"] == "the dataset's own: no node has made a profile"
    assert document["clipping"] == [None, None]
    profiled(world)
    document = explained(world)
    assert "profiles of 3 node(s)" in document["releases"][0]["bounds_reason"]
    assert all(isinstance(one, float) for one in document["clipping"])
    own = explained(world, max_rows_per_group=7, max_groups=2)
    assert own["releases"][0]["bounds_reason"].startswith("rows as asked for; by the profiles of 3 node(s): clipping")
    assert own["releases"][0]["contribution_bounds"]["max_rows_per_group"] == 7
    assert own["clipping"][0] > 0.2, "seven visits of those with many: a good part is cut, and it is said"


def test_explain_warns_of_groups_that_stay_below_the_threshold(world: World) -> None:
    profiled(world)
    sql = "SELECT p.town, COUNT(*) AS n FROM person p JOIN visit v ON v.person_id = p.person_id GROUP BY p.town"
    with world.federation() as federation:
        little, much = (federation.explain(sql, epsilon=one, delta=1e-7) for one in ("0.002", "5"))
    assert len(little.warnings) == 1
    assert "expected in groups below the threshold" in little.warnings[0]
    assert not much.warnings


def test_medians_and_deviations_are_expected_where_the_values_are(world: World) -> None:
    """Amounts are of some 55, far below the middle of 0 to 50,000: there a variance is a small difference of much."""
    profiled(world)
    with world.federation() as federation:
        median = federation.explain("SELECT MEDIAN(amount) AS m FROM visit", epsilon=1)
        spread = federation.explain("SELECT STDDEV(amount) AS s FROM visit", epsilon=1)
    reach = [step.reach[0] for step in median.epsilon_table]
    assert median.expected[0] is not None
    assert median.expected[0] <= 40
    assert "where the profiles let expect them" in median.reasons[-1]
    assert median.plan.releases[-1].statistics[0].granularity < 5, "50,000 by 4,096 leaves would be 20"
    widths = [width for width, _ in reach if width is not None]
    assert widths == sorted(widths, reverse=True)
    assert 0 < widths[0] < 1000
    (_, share) = next(step for step in spread.epsilon_table if step.epsilon == 1).reach[0]
    assert share is not None
    assert share > 1, "noise alone has a deviation larger than that of the amounts"


@pytest.mark.attacks("H5")
def test_with_a_profile_missing_the_declared_bounds_serve(world: World) -> None:
    profiled(world, nodes=NODES[:2])
    with world.federation() as federation:
        result = federation.query(VISITS, epsilon=1)
        assert result.clipping == (None, None)
        for fit in parameters(world).fits:
            assert (fit.max_rows_per_group, fit.max_groups) == (20, 1)
        federation.query(VISITS, epsilon=1, nodes=NODES[:2], min_nodes=2)
        assert parameters(world).fits[0].max_rows_per_group > 20


def test_the_same_question_is_the_same_plan_and_so_one_charge(world: World) -> None:
    profiled(world)

    def digest(federation: Federation) -> str:
        return federation._plan(VISITS, Options(epsilon=1), None).plan.digest

    with world.federation() as one, world.federation() as other:
        assert digest(one) == digest(one) == digest(other)


def test_choosing_bounds_asks_nobody_for_anything_but_profiles(world: World) -> None:
    """What is chosen depends on manifest, contract and profiles: no node is asked, and what it holds plays no part."""
    profiled(world)
    with world.federation() as federation:
        assert federation._plan(VISITS, Options(epsilon=1), None).asked.parameters.fits
        assert federation.explain(VISITS).plan.releases
    assert {type(call) for call in world.calls} <= {GetManifest, DatasetRef, GetProfiles}
