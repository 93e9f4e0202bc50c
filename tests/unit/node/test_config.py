"""The configuration file: read whole, or refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu_node.config import load_config
from insitu_privacy.errors import ConfigInvalid

GOOD = """
[node]
id = "chu-lille"
identity = "identity"
state = "state"

[[gateway]]
address = "localhost:8443"

[datasets.care]
contract = "care/dataset.toml"
engine = "duckdb"
database = "lille.duckdb"
[datasets.care.tables]
person = "person"

[datasets.claims]
contract = "claims/dataset.toml"
engine = "postgres"
database = "postgresql://db/claims"
schema = "snds"

[limits]
workers = 3
statement_timeout_s = 1.5
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.identity == tmp_path / "identity"
    assert config.base == tmp_path
    assert config.gateways == ("localhost:8443",)
    care, claims = config.datasets["care"], config.datasets["claims"]
    assert (care.contract, care.database) == (tmp_path / "care/dataset.toml", str(tmp_path / "lille.duckdb"))
    assert (claims.database, claims.schema, claims.tables) == ("postgresql://db/claims", "snds", {})
    assert (config.limits.workers, config.limits.queue, config.limits.statement_timeout_s) == (3, 64, 1.5)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('id = "chu-lille"', 'id = "chu lille"', "node.id"),
        ('state = "state"', 'state = "state"\nsate = "x"', "node.sate"),
        ("workers = 3", "wrokers = 3", "limits.wrokers"),
        ("workers = 3", "workers = 0", "limits.workers"),
        ('engine = "duckdb"', 'engine = "oracle"', "datasets.care.engine"),
        ('database = "postgresql://db/claims"\n', "", "needs a database URL"),
        ("localhost:8443", "localhost", "gateway.0.address"),
        ("[node]", "[node", "node.toml"),
    ],
)
def test_mistakes_are_refused_with_their_place(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(write(tmp_path, GOOD.replace(old, new)))
    assert caught.value.code == "INSITU-CONFIG-INVALID"
    assert reason in caught.value.text


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(tmp_path / "none.toml")
    assert caught.value.code == "INSITU-CONFIG-FILE"
