"""A directory is used where it is ours or empty, and by one command at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu_compose.layout import Layout
from insitu_compose.record import Record, claim, locked, need_record, read_record, write_record
from insitu_privacy.errors import ConfigInvalid

RECORD = Record(
    federation="small",
    file="/x/FEDERATION.toml",
    fingerprint="0" * 64,
    gateway="gateway",
    nodes=("a", "b"),
    address="127.0.0.1:1",
    ready=False,
)


def test_a_new_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    layout = claim(tmp_path / "deep" / "new")
    assert layout.root.stat().st_mode & 0o077 == 0
    assert read_record(layout) is None


def test_a_record_reads_back(tmp_path: Path) -> None:
    layout = claim(tmp_path / "new")
    write_record(layout, RECORD)
    assert need_record(claim(tmp_path / "new")) == RECORD


def test_someone_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(ConfigInvalid, match="not empty"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid) as caught:
        claim(tmp_path / "file")
    assert caught.value.code == "INSITU-CONFIG-FILE"


def test_no_federation_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="holds no federation"):
        need_record(Layout(tmp_path))


def test_a_broken_record(tmp_path: Path) -> None:
    for content in ("", "[]", '{"federation": "x", "nodes": []}'):
        (tmp_path / "compose.json").write_text(content)
        with pytest.raises(ConfigInvalid, match="not a record"):
            read_record(Layout(tmp_path))


def test_one_command_at_a_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with locked(layout, wait=False), pytest.raises(ConfigInvalid, match="at work"), locked(layout, wait=False):
        pass
    with locked(layout, wait=False):
        pass
