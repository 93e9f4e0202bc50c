"""Dataset bundles: the bytes on disk, from the dataset's own folder only."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu_access.bundle import read_bundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import ConfigInvalid

TEXT = """
[dataset]
name = "care"
version = 1

[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = {{ type = "integer" }}

[tables.chapter]
public = true
source = {source!r}
key = ["code"]
[tables.chapter.columns]
code = {{ type = "text" }}
"""


def written(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "dataset.toml"
    path.write_text(TEXT.format(source=source))
    return path


@pytest.mark.parametrize("source", ["chapter.csv", "lists/chapter.csv", "./chapter.csv"])
def test_sources_are_read_as_bytes(tmp_path: Path, source: str) -> None:
    path = written(tmp_path / "care", source)
    target = path.parent / source
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"code\nI\n")
    bundle = read_bundle(path)
    assert bundle.files == {source: b"code\nI\n"}
    assert bundle.toml == path.read_bytes()
    assert parse_dataset(bundle).digest == bundle.digest()


def test_the_digest_follows_every_byte(tmp_path: Path) -> None:
    path = written(tmp_path / "care", "chapter.csv")
    (path.parent / "chapter.csv").write_bytes(b"code\nI\n")
    before = read_bundle(path).digest()
    (path.parent / "chapter.csv").write_bytes(b"code\nII\n")
    assert read_bundle(path).digest() != before


@pytest.mark.parametrize(
    "source",
    ["../secret.csv", "/etc/hostname", "lists/../../secret.csv", "..", ".", "a\\..\\b", "link.csv", "dir/x.csv"],
)
def test_sources_stay_in_the_folder(tmp_path: Path, source: str) -> None:
    (tmp_path / "secret.csv").write_bytes(b"code\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.csv").write_bytes(b"code\n")
    path = written(tmp_path / "care", source)
    (path.parent / "link.csv").symlink_to(tmp_path / "secret.csv")
    (path.parent / "dir").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        read_bundle(path)


def test_a_missing_source_or_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        read_bundle(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigInvalid, match=r"INSITU-CONFIG-FILE.*chapter\.csv"):
        read_bundle(written(tmp_path / "care", "chapter.csv"))


@pytest.mark.parametrize("text", [b"", b"\xff", b"[dataset", b"[dataset]\nname = 1\n"])
def test_a_file_that_does_not_parse_is_told(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "dataset.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-INVALID"):
        read_bundle(path)
