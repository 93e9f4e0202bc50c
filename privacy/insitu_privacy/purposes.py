"""D3: the purpose of a grant is one that the dataset may be used for. Pure; at the SDK and at every node alike.

A dataset lists codes, or nothing for any purpose. A grant has one code, or none: under a dataset that lists codes,
none is not enough. That the authority has looked at the project is what the code says; its text is for people.
"""

from __future__ import annotations

from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import AccessRefused
from insitu_privacy.language import Phrase

_NONE = Phrase("none", "aucune")


def check_purpose(dataset: Dataset, purpose_code: str | None) -> None:
    """Raises AccessRefused (INSITU-ACCESS-PURPOSE) where the dataset may not be used for this purpose."""
    purposes = dataset.rules.purposes
    if purposes and purpose_code not in purposes:
        raise AccessRefused(
            "INSITU-ACCESS-PURPOSE",
            name=dataset.name,
            what=_NONE if purpose_code is None else purpose_code,
            known=", ".join(purposes),
        )
