"""Under which law a gateway may stand: what federation and custodian accept, and what a gateway shows. Pure.

A jurisdiction is an ISO 3166-1 alpha-2 code, with a subdivision where somebody cares to say it (``FR-BRE``): it lies in
its country. What is accepted is a list of countries; ``EU`` in it stands for the 27 member states, and for itself. An
empty list accepts every one. Numbered rules of ``check_gateway``, which node and SDK apply by themselves:

  W1  the country in the gateway's certificate is accepted by the manifest, and by the custodian's policy
  W2  so is the jurisdiction of its manifest entry, and there is one; both name the same country

A certificate without a country (C) passes where nobody names any that are accepted, and nowhere else. Not here: how a
certificate is come by, and that the stream goes to whom it is of (``meeting``, W5).
"""

from __future__ import annotations

from collections.abc import Collection

from insitu_privacy.errors import AccessRefused

from insitu_access.certificates import country_of, peer_identity
from insitu_access.manifest import GatewayEntry, Manifest

CODE = "INSITU-TRUST-JURISDICTION"
EU = frozenset({
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV",
    "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
})  # fmt: skip
"""The member states of the European Union."""


def country(jurisdiction: str) -> str:
    """The country that a jurisdiction lies in."""
    return jurisdiction[:2]


def accepts(accepted: Collection[str], jurisdiction: str | None) -> bool:
    """Whether a jurisdiction lies in what is accepted; of nothing in particular, all do."""
    if not accepted:
        return True
    if jurisdiction is None:
        return False
    place = country(jurisdiction)
    return place in accepted or ("EU" in accepted and place in EU)


def check_gateway(certificate: bytes, manifest: Manifest | None, own: Collection[str] = ()) -> None:
    """W1 and W2, for a gateway with this certificate; ``own`` is what the custodian accepts.

    Without a manifest the certificate alone is held against ``own``. Raises AccessRefused.
    """
    role, name = peer_identity(certificate)
    if role != "gateway":
        raise AccessRefused("INSITU-ACCESS-PEER")
    shown = country_of(certificate)
    of_all: Collection[str] = manifest.jurisdictions if manifest is not None else ()
    for accepted, whose in ((of_all, "the manifest"), (own, "this site's policy")):
        if not accepts(accepted, shown):  # W1
            where = "names no country" if shown is None else f"is of {shown}"
            raise _refused(name, f"its certificate {where}, and {whose} accepts {_list(accepted)}")
    if manifest is not None:
        _check_entry(name, shown, manifest.gateway(name), of_all, own)


def accepted_gateways(manifest: Manifest, own: Collection[str] = ()) -> frozenset[str]:
    """The gateways of a manifest that stand where it, and who asks, accept; nobody who has it talks to another."""
    return frozenset(
        each.id
        for each in manifest.gateways
        if accepts(manifest.jurisdictions, each.jurisdiction) and accepts(own, each.jurisdiction)
    )


def _check_entry(
    name: str, shown: str | None, entry: GatewayEntry | None, of_all: Collection[str], own: Collection[str]
) -> None:
    if entry is None:  # W2
        if of_all or own:
            raise _refused(name, "the manifest does not list it")
        return
    for accepted, whose in ((of_all, "it"), (own, "this site's policy")):
        if not accepts(accepted, entry.jurisdiction):
            raise _refused(name, f"the manifest has it in {entry.jurisdiction}, and {whose} accepts {_list(accepted)}")
    if shown is not None and shown != country(entry.jurisdiction):
        raise _refused(name, f"its certificate is of {shown}, and the manifest has it in {entry.jurisdiction}")


def _refused(name: str, reason: str) -> AccessRefused:
    return AccessRefused(CODE, name=name, reason=reason)


def _list(accepted: Collection[str]) -> str:
    return ", ".join(sorted(accepted))
