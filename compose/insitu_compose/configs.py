"""Writes ``gateway.toml`` and ``node.toml``, in the formats that the gateway and the node document and check.

The files may hold a database password, so they are for their owner only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from insitu_access.files import make_directory, write_file

from insitu_compose.federation import Federation, Node, Source
from insitu_compose.layout import Layout

Value = str | int | list[str]


def write_gateway(federation: Federation, layout: Layout, address: str) -> None:
    """The gateway's configuration, listening on ``address``."""
    head: dict[str, Value] = {
        "id": federation.file.gateway.id,
        "listen": address,
        "identity": "identity",
        "state": "state",
        "manifest": str(layout.manifest),
        "datasets": [str(path) for path in federation.datasets.values()],
    }
    _write(layout.gateway_config, _table("gateway", head))


def write_node(node: Node, federation: Federation, layout: Layout, address: str) -> None:
    """A node's configuration, dialling the gateway at ``address``."""
    parts = [
        _table("node", {"id": node.id, "identity": "identity", "state": "state"}),
        f"[[gateway]]\naddress = {_text(address)}\n",
    ]
    parts.append("[[policy.approve]]\nevery_grant = true\n")  # who evaluates is authority and custodian at once
    for name, source in node.datasets.items():
        parts += _source(name, source, federation.datasets[name])
    _write(layout.node_config(node.id), "\n".join(parts))


def _source(name: str, source: Source, contract: Path) -> list[str]:
    head: dict[str, Value] = {"contract": str(contract), "engine": source.engine}
    if source.database is not None:
        head["database"] = source.database
    if source.schema_ is not None:
        head["schema"] = source.schema_
    if source.profile is not None:
        head["profile_epsilon"] = str(source.profile)
    return [_table(f"datasets.{name}", head), _table(f"datasets.{name}.tables", source.tables)]


def _table(name: str, values: Mapping[str, Value]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in values.items()), ""])


def _value(value: Value) -> str:
    if isinstance(value, str):
        return _text(value)
    return str(value) if isinstance(value, int) else f"[{', '.join(_text(item) for item in value)}]"


def _text(value: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, but TOML also wants DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> None:
    make_directory(path.parent)
    write_file(path, text.encode(), mode=0o600)
