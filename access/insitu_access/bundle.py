"""Reads a dataset from disk: ``dataset.toml`` and the public source files it names, as bytes.

Sources are relative to the dataset file and stay in its folder, also through links: a dataset file comes from
elsewhere and must not be able to name a file of the machine that reads it. Parsing is ``insitu_privacy.dataset_file``.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from insitu_privacy.dataset import DatasetBundle

from insitu_access.files import read_file, unreadable

TOML_LIMIT = 4 * 2**20


def read_bundle(path: Path) -> DatasetBundle:
    """The bundle of the dataset file at ``path``.

    Raises ConfigInvalid: INSITU-CONFIG-FILE where a file cannot be read or leaves the folder, INSITU-CONFIG-INVALID
    where the dataset file does not parse.
    """
    from insitu_privacy.dataset_file import source_names  # pydantic: not needed to answer --help

    toml = read_file(path, TOML_LIMIT)
    names = source_names(toml)
    return DatasetBundle(toml=toml, files={name: read_file(_inside(path.parent, name)) for name in names})


def _inside(folder: Path, name: str) -> Path:
    """The path of source ``name``, which must lie in ``folder``."""
    pure = PurePosixPath(name)
    target = folder / name
    plain = "\\" not in name and "\0" not in name and not pure.is_absolute() and ".." not in pure.parts
    if not plain or not target.resolve().is_relative_to(folder.resolve()):
        raise unreadable(target, "a source must lie in the folder of its dataset file")
    return target
