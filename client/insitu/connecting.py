"""Writes a profile and verifies all of it before it stands: manifest, grant, key, datasets.

A profile that does not verify is not left behind, and one that was there stays as it was.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

from insitu.client import Federation
from insitu.profile import Profile, create_profile
from insitu.transport import GrpcTransport, Transport


def _dial(profile: Profile) -> Transport:
    return GrpcTransport(profile.gateways, profile.identity)


def write_profile(
    folder: Path,
    *,
    gateways: tuple[str, ...],
    identity: Path,
    grant: Path,
    name: str | None = None,
    dataset: str | None = None,
    dial: Callable[[Profile], Transport] = _dial,
) -> Path:
    """Write the profile in ``folder``, once a federation answers with it and everything verifies."""
    for address in gateways:
        _check_address(address)
    folder = folder.expanduser().absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=folder, reason=error.strerror or "cannot be written") from error
    try:
        profile = create_profile(
            draft,
            federation=name or "federation",
            gateways=gateways,
            identity=identity,
            grant=grant,
            dataset=dataset,
            before=folder,
        )
        with Federation(profile, dial(profile)) as federation:
            catalog = federation.catalog(dataset)
        if name is None:
            create_profile(
                draft,
                federation=catalog.federation,
                gateways=gateways,
                identity=draft,
                grant=draft / "grant.jwt",
                dataset=dataset,
            )
        _install(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        hint = "Pass --gateway host:port."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason=f"{address!r} is not a gateway address", hint=hint)


def _install(draft: Path, folder: Path) -> None:
    try:
        if not folder.exists():
            draft.rename(folder)
            return
        for file in sorted(draft.rglob("*")):
            target = folder / file.relative_to(draft)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            elif file.parent.name != "profiles" or not target.exists():  # H6: those kept before may be newer
                file.replace(target)
    except OSError as error:
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=folder, reason=error.strerror or "cannot be written") from error
