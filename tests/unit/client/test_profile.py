"""The profile folder: what is in it, and what is said of one that is not valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu.profile import cache_bundle, cached_bundle, default_folder, pin_of, read_profile, save_manifest
from insitu_access.manifest import Opened
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import ConfigInvalid

from tests.unit.client.world import World


def test_what_is_written_is_read(world: World) -> None:
    written = world.profile()
    again = read_profile(written.folder)
    assert again.gateways == ("gw.test:8443",)
    assert again.grant == world.grant_token
    assert again.manifest is None
    assert again.identity.signing == written.identity.signing
    assert {file.stat().st_mode & 0o777 for file in written.folder.iterdir()} == {0o600}
    opened = Opened(manifest=world.manifest, key=world.authority.public(), steps=())
    save_manifest(written.folder, "token", opened, pin_of(written))
    assert read_profile(written.folder).manifest == "token"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "profile = 1",
        "[profile",
        "[profile]\nfederation = 1\ngateways = ['a:1']",
        "[profile]\nfederation = 'f'\ngateways = []",
        "[profile]\nfederation = 'f'\ngateways = ['a']",
        "[profile]\nfederation = 'f'\ngateways = ['a:1']\nnonsense = 1",
        "[profile]\nfederation = 'f'\ngateways = ['a:1']\ndataset = 2",
        "\xff",
    ],
)
def test_a_profile_that_is_not_valid_is_said_so(world: World, text: str) -> None:
    folder = world.profile().folder
    (folder / "profile.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigInvalid):
        read_profile(folder)


@pytest.mark.parametrize("name", ["profile.toml", "grant.jwt", "signing.key", "tls.pem", "authority.pub"])
def test_a_missing_file_is_said_so(world: World, name: str) -> None:
    folder = world.profile().folder
    (folder / name).unlink()
    with pytest.raises(ConfigInvalid):
        read_profile(folder)


def test_a_key_that_others_can_read_is_refused(world: World) -> None:
    folder = world.profile().folder
    (folder / "signing.key").chmod(0o644)
    with pytest.raises(ConfigInvalid):
        read_profile(folder)


def test_bundles_are_kept_by_digest_and_stay_in_their_folder(tmp_path: Path) -> None:
    bundle = DatasetBundle(toml=b"x", files={"codes/a.csv": b"1", "dataset.toml": b"2"})
    cache_bundle(tmp_path, bundle)
    assert cached_bundle(tmp_path, bundle.digest()) == bundle
    assert cached_bundle(tmp_path, "0" * 64) is None
    outside = DatasetBundle(toml=b"x", files={"../../../escaped": b"1"})
    cache_bundle(tmp_path, outside)
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path.parent / "escaped").exists()
    assert cached_bundle(tmp_path, outside.digest()) is None


def test_the_default_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INSITU_PROFILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "insitu" / "default"
    monkeypatch.setenv("INSITU_PROFILE", "/somewhere")
    assert default_folder() == Path("/somewhere")
