"""gateway.toml: what it may say, and that mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu_gateway.config import Limits, load_config
from insitu_privacy.errors import ConfigInvalid

GOOD = """
[gateway]
id = "gw"
listen = "127.0.0.1:0"
identity = "identity"
state = "/var/lib/insitu"
manifest = "manifest.jws"
datasets = ["care/dataset.toml"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))
    assert config.identity == tmp_path / "identity"
    assert config.state == Path("/var/lib/insitu")
    assert config.datasets == (tmp_path / "care/dataset.toml",)
    assert config.limits == Limits()


def test_limits_have_defaults_and_may_be_set(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD + "[limits]\ngrace_s = 1.5\nworkers = 4\n"))
    assert (config.limits.grace_s, config.limits.workers) == (1.5, 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not toml",
        GOOD.replace("id =", "name ="),
        GOOD + "unknown = 1\n",
        GOOD + "[limits]\nworkers = 0\n",
        GOOD + "[limits]\nworkers = true\n",
        GOOD + "[limits]\ngrace_s = nan\n",
        GOOD + "[limits]\ngrace_s = inf\n",
        GOOD + "[limit]\ngrace_s = 1\n",
        GOOD.replace("127.0.0.1:0", "127.0.0.1"),
        GOOD.replace("127.0.0.1:0", "127.0.0.1:99999999"),
        GOOD.replace('"gw"', '"g w"'),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid) as found:
        load_config(written(tmp_path, text))
    assert "\n" not in found.value.line()
    assert "gateway.toml" in found.value.line()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        load_config(tmp_path / "nowhere.toml")
