"""K8: how the authority's key hands over, and all that must not pass for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from insitu_access.jose import sign
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_access.manifest import open_manifest, open_root, seal_manifest, verify_manifest
from insitu_access.payload import Malformed, write
from insitu_access.pin import FILE_NAME, Pin
from insitu_access.succession import LIMIT, Succession, follow, open_succession, seal_succession
from insitu_privacy.errors import AccessRefused

from tests.unit.access.world import AUTHORITY, NOW, STRANGER, manifest, payload_of, segment

SECOND, THIRD = generate_signing_key(), generate_signing_key()


def step(former: SigningKey, key: SigningKey) -> str:
    succession = Succession(federation="demo", former=former.public(), key=key.public(), issued_at=NOW)
    return seal_succession(succession, former, key)


def text(*lines: str, key: SigningKey, **changes: object) -> str:
    return "\n".join([*lines, seal_manifest(manifest(**changes), key)])


def code(text: str, pinned: SigningKey = AUTHORITY) -> str:
    with pytest.raises(AccessRefused) as caught:
        open_manifest(text, pinned.public(), now=NOW, known_version=0)
    return caught.value.code


def test_everybody_on_the_way_follows() -> None:
    whole = text(step(AUTHORITY, SECOND), step(SECOND, THIRD), key=THIRD)
    for pinned, steps in ((AUTHORITY, 2), (SECOND, 1), (THIRD, 0)):
        opened = open_root(whole, pinned.public(), now=NOW, known_version=0)
        assert (opened.key, len(opened.steps)) == (THIRD.public(), steps)
    assert open_manifest(whole + "\n", AUTHORITY.public(), now=NOW, known_version=7).version == 7


def test_without_successions_nothing_has_changed() -> None:
    opened = open_root(text(key=AUTHORITY), AUTHORITY.public(), now=NOW, known_version=0)
    assert (opened.key, opened.steps) == (AUTHORITY.public(), ())


@pytest.mark.attacks("K8")
def test_a_key_that_was_left_behind_signs_nothing() -> None:
    assert code(text(step(AUTHORITY, SECOND), key=AUTHORITY)) == "INSITU-ACCESS-SIGNATURE"
    assert code(text(step(AUTHORITY, SECOND), step(SECOND, THIRD), key=SECOND)) == "INSITU-ACCESS-SIGNATURE"


@pytest.mark.attacks("K8")
def test_a_stranger_leads_nowhere() -> None:
    assert code(text(step(STRANGER, SECOND), key=SECOND)) == "INSITU-ACCESS-SIGNATURE"
    assert code(text(step(AUTHORITY, SECOND), step(STRANGER, THIRD), key=THIRD)) == "INSITU-ACCESS-SIGNATURE"
    assert code(text(step(SECOND, THIRD), key=THIRD)) == "INSITU-ACCESS-SIGNATURE"  # the step from the pin is missing


@pytest.mark.attacks("K8")
def test_both_keys_must_sign() -> None:
    value = Succession(federation="demo", former=AUTHORITY.public(), key=SECOND.public(), issued_at=NOW)
    without_consent = seal_succession(value, AUTHORITY, STRANGER)  # the new key has not agreed
    assert code(text(without_consent, key=SECOND)) == "INSITU-ACCESS-SIGNATURE"
    without_order = seal_succession(value, STRANGER, SECOND)  # the former has not ordered it
    assert code(text(without_order, key=SECOND)) == "INSITU-ACCESS-SIGNATURE"


def test_a_consent_given_to_one_key_serves_no_other() -> None:
    consent = payload_of(step(AUTHORITY, SECOND))["consent"]
    moved = sign(write({"consent": consent}), STRANGER, "insitu-succession+jws")
    with pytest.raises(AccessRefused, match="another former key"):
        open_succession(moved, STRANGER.public())


def test_one_kind_of_token_is_not_another() -> None:
    consent = payload_of(step(AUTHORITY, SECOND))["consent"]
    assert code(text(consent, key=SECOND)) == "INSITU-ACCESS-SIGNATURE"
    assert code(seal_manifest(manifest(), AUTHORITY) + "\n" + step(AUTHORITY, SECOND)) == "INSITU-ACCESS-MALFORMED"
    forged = ".".join(
        [segment({"alg": "none", "kid": AUTHORITY.thumbprint, "typ": "insitu-succession+jws"}), "e30", ""]
    )
    assert code(text(forged, key=SECOND)) in {"INSITU-ACCESS-MALFORMED", "INSITU-ACCESS-SIGNATURE"}


def test_a_text_of_many_lines_is_refused() -> None:
    assert code(text(*["x"] * (LIMIT + 1), key=AUTHORITY)) == "INSITU-ACCESS-MALFORMED"
    assert follow("x\n" * 3 + text(key=AUTHORITY), AUTHORITY.public()).steps == ()


def test_a_key_does_not_succeed_itself() -> None:
    with pytest.raises(Malformed):
        Succession(federation="demo", former=SECOND.public(), key=SECOND.public(), issued_at=NOW)


def test_the_version_is_a_floor_across_a_succession() -> None:
    whole = text(step(AUTHORITY, SECOND), key=SECOND, version=6)
    with pytest.raises(AccessRefused) as caught:
        open_manifest(whole, AUTHORITY.public(), now=NOW, known_version=7)
    assert caught.value.code == "INSITU-ACCESS-MANIFEST-OLD"


def test_what_was_followed_is_remembered(tmp_path: Path) -> None:
    pin = Pin(tmp_path, AUTHORITY.public())
    assert pin.key == AUTHORITY.public()
    pin.advance(open_root(text(step(AUTHORITY, SECOND), key=SECOND), pin.key, now=NOW, known_version=0))
    pin.advance(open_root(text(step(SECOND, THIRD), key=THIRD), pin.key, now=NOW, known_version=0))
    for again in (pin, Pin(tmp_path, AUTHORITY.public())):
        assert again.key == THIRD.public()
        # the way is no longer published, and the former keys stay left behind
        assert open_root(text(key=THIRD), again.key, now=NOW, known_version=0).steps == ()
        with pytest.raises(AccessRefused):
            open_root(text(key=AUTHORITY), again.key, now=NOW, known_version=0)
    # a manifest that was kept from before is read still: its version is a floor
    assert Pin(tmp_path, AUTHORITY.public()).reopen(text(key=AUTHORITY)).version == 7
    assert Pin(tmp_path, AUTHORITY.public()).reopen(text(step(AUTHORITY, SECOND), step(SECOND, THIRD), key=THIRD))


def test_a_pin_by_hand_forgets_the_way(tmp_path: Path) -> None:
    pin = Pin(tmp_path, AUTHORITY.public())
    pin.advance(open_root(text(step(AUTHORITY, SECOND), key=SECOND), pin.key, now=NOW, known_version=0))
    pin.reset(STRANGER.public())
    assert pin.key == STRANGER.public()
    with pytest.raises(AccessRefused):
        pin.reopen(text(key=SECOND))


def test_a_remembered_way_proves_itself(tmp_path: Path) -> None:
    good, bad = step(AUTHORITY, SECOND), step(STRANGER, THIRD)
    (tmp_path / FILE_NAME).write_text(f"{good}\n{bad}\n")
    with pytest.raises(AccessRefused):
        Pin(tmp_path, AUTHORITY.public())
    (tmp_path / FILE_NAME).write_text(bad)
    assert Pin(tmp_path, AUTHORITY.public()).key == AUTHORITY.public()


def test_nothing_is_written_where_nothing_is_to_be_kept(tmp_path: Path) -> None:
    pin = Pin(tmp_path, AUTHORITY.public(), keep=False)
    pin.advance(open_root(text(step(AUTHORITY, SECOND), key=SECOND), pin.key, now=NOW, known_version=0))
    assert pin.key == SECOND.public()
    assert list(tmp_path.iterdir()) == []


def test_an_expired_manifest_can_still_be_shown() -> None:
    whole = text(step(AUTHORITY, SECOND), key=SECOND, issued_at=NOW - timedelta(9), expires_at=NOW - timedelta(1))
    assert verify_manifest(whole, AUTHORITY.public()).version == 7
