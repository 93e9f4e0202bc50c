"""A node's profile: it comes back as it was signed, and everything that is not exactly one is refused (H1 to H4)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from insitu_access import payload
from insitu_access.data_profile import open_data_profile, read_data_profile, seal_data_profile
from insitu_access.jose import SIZE_LIMITS, sign, unverified
from insitu_privacy.errors import AccessRefused, IntegrityFailed

from tests.testkit.profiles import made, sealed
from tests.unit.access import world as w

NODE, KEY = "chu-lille", w.NODE
TOKEN = sealed(NODE, KEY, "ab" * 32, serial=3)
BODY: dict[str, Any] = json.loads(unverified(TOKEN, "insitu-profile+jws", "profile"))
FIRST = BODY["histograms"][0]


def test_it_comes_back_as_it_was_signed() -> None:
    assert open_data_profile(TOKEN, KEY.public(), node=NODE) == made(NODE, "ab" * 32, serial=3)
    assert open_data_profile(TOKEN, [w.STRANGER.public(), KEY.public()], node=NODE).serial == 3


@pytest.mark.attacks("H1", "H2", "H4")
@pytest.mark.parametrize(
    "token",
    [
        sealed(NODE, w.STRANGER, "ab" * 32),
        sealed("chu-rennes", KEY, "ab" * 32),
        TOKEN[:-4] + "AAAA",
        sign(payload.write(BODY), KEY, "insitu-release+jws"),
        "x" * (SIZE_LIMITS["insitu-profile+jws"] + 1),
        "",
    ],
)
def test_what_the_node_did_not_sign_is_refused(token: str) -> None:
    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
        open_data_profile(token, [KEY.public()], node=NODE)


@pytest.mark.attacks("H3", "B2", "B3")
@pytest.mark.parametrize(
    "changes",
    [
        {"serial": -1},
        {"serial": 2**53},
        {"serial": True},
        {"epsilon": "-1"},
        {"epsilon": "1e999"},
        {"issued_at": 10**18},
        {"more": 1},
        {"histograms": [{**FIRST, "counts": [10**400, 1, 1]}]},
        {"histograms": [{**FIRST, "counts": [1, 1]}]},
        {"histograms": [{**FIRST, "deviation": -1}]},
        {"histograms": [{**FIRST, "deviation": 2**53}]},
        {"histograms": [{**FIRST, "edges": ["5", "2"]}]},
        {"histograms": [{**FIRST, "edges": ["2", "1e999"]}]},
        {"histograms": [{**FIRST, "edges": ["-1e999", "2"]}]},
        {"histograms": [{**FIRST, "edges": ["--1", "2"]}]},
        {"histograms": [{**FIRST, "kind": "medians"}]},
        {"histograms": [FIRST["counts"]]},
        {"histograms": "rows"},
    ],
)
def test_what_is_signed_and_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    token = sign(payload.write({**BODY, **changes}), KEY, "insitu-profile+jws")
    with pytest.raises(IntegrityFailed, match="INSITU-VERIFY-RELEASE"):
        open_data_profile(token, KEY.public(), node=NODE)


@pytest.mark.attacks("B2")
def test_nested_bytes_are_refused() -> None:
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-MALFORMED"):
        read_data_profile(b'{"histograms":' + b"[" * 30_000 + b"]" * 30_000 + b"}")


def test_one_that_is_too_large_is_not_signed() -> None:
    huge = made(NODE, "ab" * 32, dataset="x" * SIZE_LIMITS["insitu-profile+jws"])
    with pytest.raises(AccessRefused, match="larger"):
        seal_data_profile(huge, KEY)
