"""The configurations that compose writes are what the node and the gateway read."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from insitu_compose.configs import write_gateway, write_node
from insitu_compose.federation import load_federation
from insitu_compose.layout import Layout
from insitu_node.config import load_config
from insitu_privacy.errors import ConfigInvalid

ODD = '''tables]
person = """SELECT "person_id", 'é\\\\n' AS sex\x7f FROM "north\\\\south" -- \U0001f3e5"""'''


def test_a_node_reads_its_configuration(write, tmp_path: Path) -> None:
    federation, layout = load_federation(write()), Layout(tmp_path / "dir")
    write_node(federation.file.node[0], federation, layout, "127.0.0.1:4000")
    path = layout.node_config("north")
    config = load_config(path)
    assert (config.node_id, config.gateways) == ("north", ("127.0.0.1:4000",))
    assert config.identity == layout.node_identity("north")
    assert config.state == path.parent / "state"
    source = config.datasets["care"]
    assert source.contract == tmp_path / "care" / "dataset.toml"
    assert (source.engine, source.database) == ("duckdb", str(tmp_path / "north.duckdb"))
    assert source.tables == {"person": "person"}
    assert path.stat().st_mode & 0o077 == 0


def test_any_text_survives(write, tmp_path: Path) -> None:
    federation, layout = load_federation(write('tables]\nperson = "person"', ODD.replace("\x7f", ""))), Layout(tmp_path)
    node = federation.file.node[0]
    text = node.datasets["care"].tables["person"] + "\x7f\t\r\n"
    source = node.datasets["care"].model_copy(update={"tables": {"person": text}, "schema_": "cdm"})
    write_node(node.model_copy(update={"datasets": {"care": source}}), federation, layout, "127.0.0.1:4000")
    read = load_config(layout.node_config("north")).datasets["care"]
    assert (read.tables["person"], read.schema) == (text, "cdm")


def test_a_gateway_listens_where_the_manifest_says(write, tmp_path: Path) -> None:
    federation, layout = load_federation(write()), Layout(tmp_path / "dir")
    write_gateway(federation, layout, "127.0.0.1:4000")
    head = tomllib.loads(layout.gateway_config.read_text())["gateway"]
    assert (head["id"], head["listen"]) == ("gateway", "127.0.0.1:4000")
    assert head["manifest"] == str(layout.manifest)
    assert head["datasets"] == [str(tmp_path / "care" / "dataset.toml")]


def test_a_profile_has_its_budget_in_the_nodes_configuration(write, tmp_path: Path) -> None:
    head = 'database = "north.duckdb"\n'
    federation, layout = load_federation(write(head, head + "profile = 0.1\n")), Layout(tmp_path / "dir")
    write_node(federation.file.node[0], federation, layout, "127.0.0.1:4000")
    assert load_config(layout.node_config("north")).datasets["care"].profile_epsilon == Fraction(1, 10)
    federation = load_federation(write(head, head + 'profile_tables = ["person"]\n'))
    write_node(federation.file.node[0], federation, layout, "127.0.0.1:4000")
    assert load_config(layout.node_config("north")).datasets["care"].profile_epsilon is None


@pytest.mark.parametrize("profile", ["0", "-1", "true", '"much"'])
def test_a_profile_that_costs_nothing_or_no_number_is_refused(write, profile: str) -> None:
    head = 'database = "north.duckdb"\n'
    with pytest.raises(ConfigInvalid, match="profile"):
        load_federation(write(head, f"{head}profile = {profile}\n"))
