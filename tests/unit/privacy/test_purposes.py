"""D3: a grant's purpose is matched with the dataset's."""

from __future__ import annotations

import pytest
from insitu_privacy.errors import AccessRefused
from insitu_privacy.purposes import check_purpose

from tests.testkit.snds import TOML, snds

ANY = TOML.replace('purposes = ["public-health-research", "quality-of-care"]\n', "")


@pytest.mark.parametrize("code", ["public-health-research", "quality-of-care"])
def test_a_listed_purpose_is_taken(code: str) -> None:
    check_purpose(snds(), code)


@pytest.mark.attacks("D3")
@pytest.mark.parametrize("code", [None, "", "marketing", "PUBLIC-HEALTH-RESEARCH", "public-health-research "])
def test_any_other_is_refused_and_so_is_none(code: str | None) -> None:
    with pytest.raises(AccessRefused) as caught:
        check_purpose(snds(), code)
    assert caught.value.code == "INSITU-ACCESS-PURPOSE"
    assert "public-health-research, quality-of-care" in caught.value.remedy


def test_a_dataset_without_purposes_takes_any() -> None:
    check_purpose(snds(ANY), None)
    check_purpose(snds(ANY), "marketing")
