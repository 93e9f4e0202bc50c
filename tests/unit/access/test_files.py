"""Files: whole or not at all, never larger than expected."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from insitu_access.files import make_directory, read_file, read_private_file, write_file, write_private_file
from insitu_privacy.errors import ConfigInvalid


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_file(path, b"one")
    write_file(path, b"two" * 100_000)
    assert read_file(path) == b"two" * 100_000
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.mkdir()  # a directory cannot be replaced by a file
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        write_file(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_sizes_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_file(path, b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(ConfigInvalid, match="larger than 4 bytes"):
        read_file(path, 4)


def test_private_files_are_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_private_file(path, b"secret")
    assert read_private_file(path) == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("act", [read_file, read_private_file])
def test_what_is_not_there_is_told(tmp_path: Path, act) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
            act(path)


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for act in (write_file, write_private_file):
        with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
            act(tmp_path / "f" / "below", b"")
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        make_directory(tmp_path / "f")
