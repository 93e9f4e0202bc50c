"""What ``check`` and ``status`` say of where a gateway may be (``insitu_access.jurisdiction``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from insitu_access.manifest import Manifest

    from insitu_node.config import NodeConfig

_ANY = "neither the policy nor the manifest names a jurisdiction: a gateway in any is accepted"
_UNKNOWN = (
    "the policy names no jurisdiction, and this node has no manifest yet: until then a gateway in any is accepted"
)
_NONE = "no gateway of the manifest is in a jurisdiction that is accepted here: this node talks to none of them"


def manifest_of(loaded: NodeConfig) -> Manifest | None:
    """The newest manifest that the node has seen; None for none."""
    from insitu_node.runtime import identity_of
    from insitu_node.state import ManifestStore

    return ManifestStore(loaded.state, identity_of(loaded).authority).newest if loaded.state.exists() else None


def jurisdiction_facts(loaded: NodeConfig, manifest: Manifest | None) -> dict[str, object]:
    """What is accepted, by whom, and which gateways that leaves."""
    from insitu_access.jurisdiction import accepted_gateways

    own = loaded.policy.jurisdictions
    facts: dict[str, object] = {"policy": sorted(own), "manifest": None if manifest is None else []}
    if manifest is None:
        return facts if own else {**facts, "note": _UNKNOWN}
    accepted = accepted_gateways(manifest, own)
    facts["manifest"] = sorted(manifest.jurisdictions)
    facts["gateways"] = [
        {"id": each.id, "jurisdiction": each.jurisdiction, "accepted": each.id in accepted}
        for each in manifest.gateways
    ]
    if not own and not manifest.jurisdictions:
        return {**facts, "note": _ANY}
    return facts if accepted else {**facts, "note": _NONE}
