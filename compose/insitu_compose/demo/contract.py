"""Where the demonstration's dataset contract is: beside this distribution's sources, or in the installed package."""

from __future__ import annotations

from pathlib import Path

from insitu_access.bundle import read_bundle
from insitu_privacy.dataset import Dataset
from insitu_privacy.dataset_file import parse_dataset


def contract_path() -> Path:
    """The absolute path of ``omop/dataset.toml``."""
    inside = Path(__file__).resolve().parent / "omop" / "dataset.toml"
    return inside if inside.is_file() else Path(__file__).resolve().parents[2] / "demo" / "omop" / "dataset.toml"


def contract() -> Dataset:
    """The dataset of the demonstration."""
    return parse_dataset(read_bundle(contract_path()))
