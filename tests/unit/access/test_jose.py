"""Tokens: every way of making one pass for another is refused."""

from __future__ import annotations

import hashlib
import hmac
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_access.jose import SIZE_LIMITS, sign, token_sha256, unverified, unverified_typ, verify
from insitu_access.payload import Malformed
from insitu_privacy.errors import AccessRefused

from tests.unit.access.strategies import quick
from tests.unit.access.world import AUTHORITY, STRANGER, segment

TYP = "insitu-grant+jwt"
PAYLOAD = b'{"a":1}'
HEADER = {"alg": "Ed25519", "kid": AUTHORITY.thumbprint, "typ": TYP}
TOKEN = sign(PAYLOAD, AUTHORITY, TYP)


def refused(token: str, *keys, typ=TYP) -> str:
    with pytest.raises(AccessRefused) as caught:
        verify(token, keys or [AUTHORITY.public()], typ, "grant")
    return caught.value.code


@quick
@given(st.binary(max_size=300), st.sampled_from(sorted(SIZE_LIMITS)))
def test_what_is_signed_is_what_is_read(payload: bytes, typ) -> None:
    token = sign(payload, AUTHORITY, typ)
    assert verify(token, [STRANGER.public(), AUTHORITY.public()], typ, "it") == payload
    assert unverified(token, typ, "it") == payload
    assert unverified_typ(token) == typ


@pytest.mark.attacks("J5")
@quick
@given(st.data())
def test_any_changed_character_is_refused(data) -> None:
    position = data.draw(st.integers(0, len(TOKEN) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\u00e9"
    other = data.draw(st.sampled_from(alphabet).filter(lambda c: c != TOKEN[position]))
    code = refused(TOKEN[:position] + other + TOKEN[position + 1 :])
    assert code in {"INSITU-ACCESS-MALFORMED", "INSITU-ACCESS-SIGNATURE"}


@quick
@given(st.integers(0, len(TOKEN) - 1))
def test_any_cut_is_refused(length: int) -> None:
    refused(TOKEN[:length])
    refused(TOKEN[length + 1 :])


@pytest.mark.attacks("J3")
@pytest.mark.parametrize(("is_", "as_"), list(itertools.permutations(sorted(SIZE_LIMITS), 2)))
def test_no_type_passes_for_another(is_, as_) -> None:
    assert refused(sign(PAYLOAD, AUTHORITY, is_), typ=as_) == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("J4")
def test_a_stranger_is_refused_with_the_code_that_is_asked_for() -> None:
    token = sign(PAYLOAD, STRANGER, TYP)
    assert refused(token) == "INSITU-ACCESS-SIGNATURE"
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-WRONG-KEY"):
        verify(token, [AUTHORITY.public()], TYP, "request", stranger="INSITU-ACCESS-WRONG-KEY")
    with pytest.raises(AccessRefused, match="INSITU-ACCESS-SIGNATURE"):
        verify(token, [], TYP, "request")


@pytest.mark.attacks("J5")
def test_a_stranger_that_claims_the_right_key_is_refused() -> None:
    # the header names the authority, the signature is the stranger's over the whole token
    signing_input = f"{segment(HEADER)}.{segment(PAYLOAD)}"
    raw = STRANGER.jwk.private_key
    assert refused(f"{signing_input}.{segment(raw.sign(signing_input.encode()))}") == "INSITU-ACCESS-SIGNATURE"


def signed_with(header: dict) -> str:
    """A token by the right key whose header is ``header``: what joserfc itself would refuse to make."""
    signing_input = f"{segment(header)}.{segment(PAYLOAD)}"
    return f"{signing_input}.{segment(AUTHORITY.jwk.private_key.sign(signing_input.encode()))}"


def test_the_header_that_insitu_writes_is_the_one_it_accepts() -> None:
    assert verify(signed_with(HEADER), [AUTHORITY.public()], TYP, "grant") == PAYLOAD


@pytest.mark.attacks("J2")
@pytest.mark.parametrize(
    "header",
    [
        HEADER | {"alg": "none"}, HEADER | {"alg": "None"}, HEADER | {"alg": "EdDSA"}, HEADER | {"alg": "Ed448"},
        HEADER | {"alg": ["Ed25519"]}, HEADER | {"alg": None}, HEADER | {"kid": 7},
        HEADER | {"typ": "JWT"}, HEADER | {"typ": TYP.upper()}, HEADER | {"typ": None},
        HEADER | {"crit": ["exp"], "exp": 1}, HEADER | {"crit": []}, HEADER | {"crit": 7},
        HEADER | {"b64": False, "crit": ["b64"]}, HEADER | {"b64": False}, HEADER | {"b64": True},
        HEADER | {"jwk": STRANGER.public().as_json()}, HEADER | {"jku": "https://example.org/keys"},
        HEADER | {"x5u": "https://example.org/chain"}, HEADER | {"x5c": []}, HEADER | {"cty": "JWT"},
        HEADER | {"iat": 1}, {}, ["alg", "b64"], ["alg"], "alg b64", 7, None,
        *({k: v for k, v in HEADER.items() if k != name} for name in HEADER),
    ],
)  # fmt: skip
def test_any_other_header_is_refused(header) -> None:
    assert refused(signed_with(header)) in {"INSITU-ACCESS-MALFORMED", "INSITU-ACCESS-SIGNATURE"}
    unverified_typ(signed_with(header))  # never fails


@pytest.mark.attacks("J2")
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_alg_none_is_refused(algorithm: str) -> None:
    assert refused(f"{segment(HEADER | {'alg': algorithm})}.{segment(PAYLOAD)}.") == "INSITU-ACCESS-MALFORMED"


@pytest.mark.attacks("J2")
@pytest.mark.parametrize("secret", ["pem", "x", "jwk"])
def test_the_public_key_is_no_hmac_secret(secret: str) -> None:
    public = AUTHORITY.public()
    data = {"pem": public.pem(), "x": public.as_json()["x"].encode(), "jwk": repr(public.as_json()).encode()}[secret]
    signing_input = f"{segment(HEADER | {'alg': 'HS256'})}.{segment(PAYLOAD)}"
    digest = hmac.new(data, signing_input.encode(), hashlib.sha256).digest()
    assert refused(f"{signing_input}.{segment(digest)}") == "INSITU-ACCESS-MALFORMED"


@pytest.mark.parametrize(
    "token", ["", ".", "..", "...", TOKEN + ".", TOKEN + "." + TOKEN, TOKEN + " ", "\n" + TOKEN, TOKEN + "=", "\u00e9",
              f"{TOKEN.split('.')[0]}..{TOKEN.split('.')[2]}"]
)  # fmt: skip
def test_what_is_not_a_compact_jws_is_refused(token: str) -> None:
    assert refused(token) in {"INSITU-ACCESS-MALFORMED", "INSITU-ACCESS-SIGNATURE"}


@pytest.mark.attacks("J1")
def test_size_is_limited_before_anything_is_parsed() -> None:
    limit = SIZE_LIMITS[TYP]
    assert refused("A" * (limit + 1)) == "INSITU-ACCESS-MALFORMED"
    with pytest.raises(Malformed, match="larger"):
        sign(b"x" * limit, AUTHORITY, TYP)
    room = limit * 3 // 4 - 400
    assert len(verify(sign(b"x" * room, AUTHORITY, TYP), [AUTHORITY.public()], TYP, "grant")) == room


def test_a_token_is_named_by_its_exact_text() -> None:
    assert token_sha256(TOKEN) == hashlib.sha256(TOKEN.encode()).hexdigest()
