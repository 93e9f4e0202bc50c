"""The profile: a folder with all that a researcher needs to ask, written by ``insitu connect``.

    profile.toml      federation, gateway addresses, the dataset to use when none is named
    signing.key ...   the researcher's identity, as ``insitu_access.identity`` keeps it, with the pinned authority key
    grant.jwt         the grant
    manifest.jws      the last manifest seen; never replaced by an older one
    successions.jws   how the authority's key came to be another than the pinned one (``insitu_access.pin``)
    datasets/DIGEST/  dataset bundles fetched before, checked against their digest at every use
    profiles/         what nodes have released of their data (``data_profiles``), verified again at every use

Files are private to the user. What is not here: verification of the grant and the manifest (``trust``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insitu_access.files import KEY_LIMIT, make_directory, read_file, write_file
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.untrusted import Refusable, read_toml

if TYPE_CHECKING:
    from insitu_access.identity import Identity
    from insitu_access.manifest import Opened
    from insitu_access.passphrase import Ask
    from insitu_access.pin import Pin

_IDENTITY_FILES = ("signing.key", "signing.pub", "tls.key", "tls.pem", "ca.pem", "authority.pub")
_SETTINGS_LIMIT = 64 * 2**10
_WHERE_THERE = ("answer.jws", "former/signing.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the folder holds, read; ``manifest`` is None before the first one was fetched."""

    folder: Path
    federation: str
    gateways: tuple[str, ...]
    dataset: str | None
    identity: Identity
    grant: str
    manifest: str | None


@cache
def _ask() -> Ask:
    """One for the process: a passphrase is asked for once."""
    from insitu_access.passphrase import asking

    return asking()


def default_folder() -> Path:
    """``INSITU_PROFILE``, else ``insitu/default`` in the platform's configuration folder."""
    named = os.environ.get("INSITU_PROFILE")
    return Path(named).expanduser() if named else _config_folder() / "insitu" / "default"


def _config_folder() -> Path:
    if os.name == "nt":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def read_profile(folder: Path) -> Profile:
    """Read the profile in ``folder``. Raises ConfigInvalid where it is missing or not valid."""
    from insitu_access.identity import load_identity

    file = folder / "profile.toml"
    settings = _settings(file)
    return Profile(
        folder=folder,
        federation=_text(file, settings, "federation"),
        gateways=_addresses(file, settings),
        dataset=_text(file, settings, "dataset") if "dataset" in settings else None,
        identity=load_identity(folder, _ask()),
        grant=_read(folder / "grant.jwt").strip(),
        manifest=_read(folder / "manifest.jws").strip() if (folder / "manifest.jws").exists() else None,
    )


def create_profile(
    folder: Path,
    *,
    federation: str,
    gateways: tuple[str, ...],
    identity: Path,
    grant: Path,
    dataset: str | None = None,
    before: Path | None = None,
) -> Profile:
    """Write a profile from an identity folder and a grant file; a profile that is there is replaced whole.

    It believes the authority key that the identity's folder had reached, and the profile ``before`` that it is to
    replace: an earlier key, which may be in other hands since, leads it nowhere. ``authority.pub`` stays the key that a
    person compared, from which the results saved before are verified too.
    """
    make_directory(folder)
    for name in (*_IDENTITY_FILES, *(each for each in _WHERE_THERE if (identity / each).exists())):
        make_directory((folder / name).parent)
        if (identity / name).resolve() != (folder / name).resolve():
            write_file(folder / name, read_file(identity / name, KEY_LIMIT), 0o600)
    _keep_steps(folder, identity, before)
    _write(folder / "grant.jwt", _read(grant))
    lines = ["[profile]", f"federation = {json.dumps(federation)}", f"gateways = {json.dumps(list(gateways))}"]
    if dataset is not None:
        lines.append(f"dataset = {json.dumps(dataset)}")
    _write(folder / "profile.toml", "\n".join(lines))
    return read_profile(folder)


def _keep_steps(folder: Path, identity: Path, before: Path | None) -> None:
    from insitu_access.keys import load_verifying_key
    from insitu_access.pin import FILE_NAME, Pin, steps_text

    reached = Pin(identity, load_verifying_key(folder / "authority.pub"), keep=False)
    steps = reached.steps
    for other in (folder, *(() if before is None else (before,))):
        reached = Pin(other, reached.key, keep=False)
        steps += reached.steps
    if steps:
        write_file(folder / FILE_NAME, steps_text(steps), 0o600)


def pin_of(profile: Profile) -> Pin:
    """The authority key that this profile believes now."""
    from insitu_access.pin import Pin

    return Pin(profile.folder, profile.identity.authority)


def believing(profile: Profile) -> Identity:
    """The identity with the CAs that gateways are believed by: those of the last manifest, where one was seen (K11)."""
    from insitu.trust import seen_before

    identity = profile.identity
    return replace(identity, ca_pem=identity.anchors(seen_before(profile.manifest, pin_of(profile))))


def save_manifest(folder: Path, token: str, opened: Opened, pin: Pin) -> None:
    """Keep the manifest just verified, and how it was come to. A profile that cannot be written is used as it is."""
    try:
        pin.advance(opened)
        _write(folder / "manifest.jws", token)
    except ConfigInvalid:
        return


def cached_bundle(folder: Path, digest: str) -> DatasetBundle | None:
    """The bundle with this digest, if it was fetched before and is still what it was."""
    place = folder / "datasets" / digest
    try:
        toml = (place / "dataset.toml").read_bytes()
        files = {
            file.relative_to(place / "files").as_posix(): file.read_bytes()
            for file in sorted((place / "files").rglob("*"))
            if file.is_file()
        }
    except OSError:
        return None
    bundle = DatasetBundle(toml=toml, files=files)
    return bundle if bundle.digest() == digest else None


def cache_bundle(folder: Path, bundle: DatasetBundle) -> None:
    """Keep a verified bundle for the next process. A profile that cannot be written to does without."""
    place = folder / "datasets" / bundle.digest()
    try:
        (place / "files").mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in bundle.files.items():
            target = (place / "files" / name).resolve()
            if (place / "files").resolve() in target.parents:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        (place / "dataset.toml").write_bytes(bundle.toml)
    except OSError:
        return


def _read(path: Path) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=path, reason="it is not text") from error


def _write(path: Path, text: str) -> None:
    write_file(path, (text.strip() + "\n").encode(), 0o600)


def _settings(file: Path) -> Mapping[str, Any]:
    if not file.exists():
        reason = f"there is no profile in {file.parent}"
        hint = "Pass --profile DIR, or write one with `insitu connect DIR --gateway ... --identity ... --grant ...`."
        raise ConfigInvalid("INSITU-CONFIG-STATE", reason=reason, hint=hint)
    try:
        settings = read_toml(read_file(file, _SETTINGS_LIMIT)).get("profile")
    except Refusable as error:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=file, reason=str(error)) from error
    if not isinstance(settings, dict):
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=file, reason="it has no [profile]")
    unknown = sorted(set(settings) - {"federation", "gateways", "dataset"})
    if unknown:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=file, reason=f"unknown key {unknown[0]}")
    return settings


def _text(file: Path, settings: Mapping[str, Any], key: str) -> str:
    value = settings.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=file, reason=f"{key} must be text")
    return value


def _addresses(file: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    value = settings.get("gateways")
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and ":" in one for one in value):
        raise ConfigInvalid("INSITU-CONFIG-INVALID", path=file, reason='gateways must be a list of "host:port"')
    return tuple(value)
