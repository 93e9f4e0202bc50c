"""What a researcher's side is given: a gateway's result, values that nodes signed, result files that are kept."""

from __future__ import annotations

import json
import tempfile
from datetime import timedelta
from functools import cache
from pathlib import Path

from insitu.evidence import read_result, verify_document
from insitu.verification import check_gateway_result
from insitu_access.audit.receipts import read_receipts
from insitu_access.outcome_json import read_values, values_as_json
from insitu_access.payload import Malformed, read, write
from insitu_privacy.errors import AccessRefused, IntegrityFailed
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, ReleasedValues
from insitu_privacy.postprocess import Postprocessor

from tests.fuzz.targets import Target
from tests.testkit.care import plan
from tests.unit.client.world import BY_SEX, NOW, World

_ROWS = ((None, 3), ("F", 1312), ("M", 2.5))
_RESULT = {
    "columns": [{"name": "sex", "type": "text"}, {"name": "n", "type": "integer"}],
    "rows": [list(r) for r in _ROWS],
}
_SELECTED = (
    "SELECT noted, diagnosis, ward, COUNT(*) AS n, SUM(cost) AS s, AVG(cost) AS a FROM visit "
    "GROUP BY noted, diagnosis, ward HAVING COUNT(*) > 3 ORDER BY n"
)
_PLAIN = "SELECT sex, COUNT(*) AS n, AVG(score) AS a, STDDEV(birth_year) AS d FROM person GROUP BY sex"


def _gateway_result(data: bytes) -> None:
    check_gateway_result(data, ["sex", "n"], _ROWS)


@cache
def _world() -> tuple[World, dict[str, object]]:
    """A federation in memory, and a result file of it. Its folder lives as long as the process."""
    folder = tempfile.TemporaryDirectory()
    world = World(Path(folder.name))
    world.held = folder  # type: ignore[attr-defined]
    world.now = NOW + timedelta(milliseconds=900)
    with world.federation() as federation:
        return world, federation.query(BY_SEX, epsilon=1, min_nodes=2).to_json()


def _result_file(data: bytes) -> None:
    world, _ = _world()
    path = _written(data)
    read_receipts(path, [world.authority.public()])
    verify_document(read_result(path), world.authority.public())


def _written(data: bytes) -> Path:
    path = _world()[0].folder / "result.json"
    path.write_bytes(data)
    return path


def _evidence() -> bytes:
    return json.dumps(_world()[1]).encode()


@cache
def _plans() -> tuple[PrivacyPlan, ...]:
    return tuple(plan(sql) for sql in (_SELECTED, _PLAIN))


@cache
def _postprocessor() -> Postprocessor:
    return Postprocessor()


def _values(data: bytes) -> None:
    """Values as two nodes may have signed them, of either plan: added up, and the outer SQL run over them."""
    try:
        with read(data) as fields:
            found = fields.item("values", read_values)
    except Malformed as error:
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="release", reason=error.reason) from None
    refused: IntegrityFailed | None = None
    for one in _plans():
        try:
            merged = merge(one, [found, found], ["a", "b"])
        except IntegrityFailed as error:
            refused = error
            continue
        _postprocessor().run(one, merged)
        return
    assert refused is not None
    raise refused


def _seed_values(place: int) -> bytes:
    one = _plans()[place].releases[0]
    cells = one.cells if one.cells is not None else 2
    keys = None if one.cells is not None else (("2020-01-01", "x", 3), ("2020-01-02", None, None))
    statistics = tuple(tuple(100 + cell for cell in range(cells)) for _ in range(one.width))
    return write({"values": values_as_json((ReleasedValues(keys=keys, statistics=statistics),))})


TARGETS = (
    Target(name="gateway-result", run=_gateway_result, seeds=[json.dumps(_RESULT).encode()], examples=100),
    Target(name="result-file", run=_result_file, seeds=[_evidence()], seconds=3, longest=40_000, examples=40),
    Target(name="node-values", run=_values, seeds=[_seed_values(0), _seed_values(1)], seconds=3, examples=100),
)
