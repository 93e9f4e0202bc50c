"""``insitu-gateway check``: whether ``run`` would start, and whether the files belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insitu_access.cli import Format, FormatOption, print_facts

from insitu_gateway.commands.arguments import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from insitu_access.manifest import Manifest
    from insitu_privacy.dataset import Dataset


def check(config: ConfigOption = DEFAULT_CONFIG, format_: FormatOption = Format.TEXT) -> None:
    """Read the configuration, the identity, the manifest and the datasets, and say what they are.

    \b
    Example:
      insitu-gateway check --config gateway.toml
    """
    from datetime import UTC, datetime

    from insitu_access.certificates import validity
    from insitu_access.pin import Pin

    from insitu_gateway.config import load_config
    from insitu_gateway.documents import Datasets, ManifestFile
    from insitu_gateway.server import load_gateway_identity

    loaded = load_config(config)
    identity = load_gateway_identity(loaded)
    pin = Pin(loaded.state, identity.authority, keep=False)
    manifest = ManifestFile(loaded.manifest, pin, datetime.now(UTC)).current.manifest
    datasets = Datasets(loaded.datasets).all()
    facts: dict[str, object] = {
        "gateway": loaded.id,
        "listen": loaded.listen,
        "certificate_expires": validity(identity.tls_cert_pem)[1].isoformat(),
        "federation": manifest.federation,
        "manifest_version": manifest.version,
        "manifest_expires": manifest.expires_at.isoformat(),
        "nodes": [node.id for node in manifest.nodes],
        "datasets": [_dataset(dataset, manifest) for dataset in datasets],
        "warnings": _warnings(loaded.id, datasets, manifest),
    }
    print_facts(facts, format_)


def _dataset(dataset: Dataset, manifest: Manifest) -> dict[str, object]:
    entry = manifest.dataset(dataset.name)
    listed = entry is not None and entry.digest == dataset.digest
    return {"name": dataset.name, "version": dataset.version, "digest": dataset.digest, "in_manifest": listed}


def _warnings(gateway: str, datasets: tuple[Dataset, ...], manifest: Manifest) -> list[str]:
    found = []
    if manifest.gateway(gateway) is None:
        found.append(f"the manifest does not list gateway {gateway}")
    served = {dataset.digest for dataset in datasets}
    found += [
        f"dataset {entry.name} of the manifest is not among the datasets: it cannot be served"
        for entry in manifest.datasets
        if entry.digest not in served
    ]
    return found
