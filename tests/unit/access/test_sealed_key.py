"""Keys under a passphrase (K2): what opens them, what does not, and where the passphrase comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from insitu_access.files import write_private_file
from insitu_access.identity import create_keys
from insitu_access.keys import (
    generate_signing_key,
    load_private_pem,
    load_signing_key,
    load_verifying_key,
    relock,
    save_signing_key,
)
from insitu_access.passphrase import asking, choose, from_file
from insitu_access.payload import Malformed
from insitu_access.relocking import _holding
from insitu_access.sealed_key import ROUNDS, WrongPassphrase, is_sealed, seal, unseal
from insitu_privacy.errors import ConfigInvalid
from joserfc import jwe
from joserfc.jwk import OctKey
from joserfc.util import json_b64decode

from tests.unit.access.world import segment

GOOD = b"correct horse battery"


def test_what_is_sealed_is_opened_by_its_passphrase_alone() -> None:
    sealed = seal(b"pem", GOOD)
    assert is_sealed(sealed)
    assert b"pem" not in sealed
    assert unseal(sealed, GOOD) == b"pem"
    with pytest.raises(WrongPassphrase):
        unseal(sealed, b"correct horse batterx")
    with pytest.raises(WrongPassphrase):
        unseal(sealed[:-6] + b"AAAA\n", GOOD)
    assert seal(b"pem", GOOD) != sealed  # a salt of its own


def test_the_rounds_are_high_and_in_the_file() -> None:
    header = json_b64decode(seal(b"pem", GOOD).split(b".")[0])
    assert header["p2c"] == ROUNDS >= 210_000
    assert (header["alg"], header["enc"]) == ("PBES2-HS512+A256KW", "A256GCM")


@pytest.mark.attacks("K2")
@pytest.mark.parametrize(
    "change", [{"p2c": 1000}, {"alg": "dir"}, {"enc": "A128CBC-HS256"}, {"typ": "x"}, {"p2c": "9"}]
)
def test_a_weaker_file_is_refused_unread(change: dict[str, object]) -> None:
    header, *rest = seal(b"pem", GOOD).decode().strip().split(".")
    weaker = ".".join([segment({**json_b64decode(header.encode()), **change}), *rest])
    with pytest.raises(Malformed):
        unseal(weaker.encode(), GOOD)
    with pytest.raises(Malformed):
        unseal(b"eyJ\n", GOOD)


@pytest.mark.attacks("K2")
def test_fewer_rounds_by_the_same_passphrase_are_refused() -> None:
    header = {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "typ": "insitu-key+jwe", "p2c": 1000}
    registry = jwe.JWERegistry(algorithms=["PBES2-HS512+A256KW", "A256GCM"])
    weak = jwe.encrypt_compact(header, b"pem", OctKey.import_key(GOOD), registry=registry)
    with pytest.raises(Malformed):
        unseal(weak.encode(), GOOD)


def test_short_passphrases_are_refused() -> None:
    with pytest.raises(Malformed, match="14 bytes"):
        seal(b"pem", b"short")


@pytest.mark.attacks("K2")
def test_key_files_round_trip(tmp_path: Path) -> None:
    key = generate_signing_key()
    save_signing_key(key, tmp_path / "signing.key", GOOD)
    assert load_signing_key(tmp_path / "signing.key", lambda _: GOOD) == key
    with pytest.raises(ConfigInvalid) as caught:
        load_signing_key(tmp_path / "signing.key", lambda _: b"another passphrase")
    assert caught.value.code == "INSITU-KEY-PASSPHRASE"
    (tmp_path / "signing.key").chmod(0o640)  # a passphrase is no reason to show the file
    with pytest.raises(ConfigInvalid, match="0600"):
        load_signing_key(tmp_path / "signing.key", lambda _: GOOD)


def test_both_private_keys_of_a_party_are_sealed(tmp_path: Path) -> None:
    public = create_keys(tmp_path / "me", GOOD)
    for name in ("signing.key", "tls.key"):
        assert b"PRIVATE KEY" not in (tmp_path / "me" / name).read_bytes()
        assert b"PRIVATE KEY" in load_private_pem(tmp_path / "me" / name, lambda _: GOOD)
    assert load_verifying_key(tmp_path / "me" / "signing.pub") == public


def test_a_passphrase_is_changed_for_all_files_or_none(tmp_path: Path) -> None:
    create_keys(tmp_path, GOOD)
    paths = [tmp_path / "signing.key", tmp_path / "tls.key"]
    before = [path.read_bytes() for path in paths]
    with pytest.raises(ConfigInvalid):
        relock(paths, lambda path: GOOD if path.name == "signing.key" else b"wrong", lambda: b"a new passphrase")
    assert [path.read_bytes() for path in paths] == before
    relock(paths, lambda _: GOOD, lambda: b"a new passphrase")
    assert all(is_sealed(path.read_bytes()) for path in paths)
    assert load_signing_key(paths[0], lambda _: b"a new passphrase")
    relock(paths, lambda _: b"a new passphrase", lambda: None)
    assert load_signing_key(paths[0])


NAMES = ("signing.key", "tls.key", "next/signing.key", "next/tls.key")


@pytest.mark.parametrize("of", ["a party", "the authority"])
@pytest.mark.parametrize("after", range(1, 13))
@pytest.mark.parametrize("to", [b"another passphrase", None])
def test_a_change_that_is_cut_off_leaves_one_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, after: int, to: bytes | None
) -> None:
    """Wherever it stops: all keys are under the new one, or all under the former one, and nothing is left beside."""
    monkeypatch.setattr("insitu_access.sealed_key.ROUNDS", 1000)  # many keys
    names = ("authority.key", "ca.key", "authority.key.next") if of == "the authority" else NAMES
    (tmp_path / "next").mkdir()
    for name in names:
        save_signing_key(generate_signing_key(), tmp_path / name, GOOD)
    before = sorted(tmp_path.rglob("*"))
    done, replace, unlink = [0], Path.replace, Path.unlink

    def cut(act):
        def cutting(path: Path, *arguments, **options):
            result = act(path, *arguments, **options)
            done[0] += 1
            if done[0] == after:
                raise KeyboardInterrupt
            return result

        return cutting

    paths = [tmp_path / name for name in names if not name.endswith(".next")]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut(replace))
        patch.setattr(Path, "unlink", cut(unlink))
        try:
            relock(paths, lambda _: GOOD, lambda: to)
            assert after > 2 * len(names) + 1
        except KeyboardInterrupt:
            assert after <= 2 * len(names) + 2
    if after <= len(names):
        open_, shut = GOOD, to
    else:
        open_, shut = to, GOOD
    for name in names:
        assert load_signing_key(tmp_path / name, lambda _: open_ or b"")
        assert is_sealed((tmp_path / name).read_bytes()) is (open_ is not None)
        if open_ is not None:
            with pytest.raises(ConfigInvalid):
                load_signing_key(tmp_path / name, lambda _: shut or b"")
    assert sorted(tmp_path.rglob("*")) == before


def test_two_changes_at_once_are_refused_and_a_reader_disturbs_none(tmp_path: Path) -> None:
    create_keys(tmp_path, GOOD)
    paths = [tmp_path / "signing.key", tmp_path / "tls.key"]
    with _holding(tmp_path) as held:
        assert held
        (tmp_path / ".tls.key.00.relock").write_bytes(b"of the change under way")
        assert load_signing_key(paths[0], lambda _: GOOD)
        assert (tmp_path / ".tls.key.00.relock").exists()
        with pytest.raises(ConfigInvalid, match="another command"):
            relock(paths, lambda _: GOOD, lambda: None)
    assert load_signing_key(paths[0], lambda _: GOOD)
    assert not (tmp_path / ".tls.key.00.relock").exists()


@pytest.mark.parametrize("names", ['["../x"]', '["/etc/x"]', "[1]", '"x"'])
def test_a_marker_names_keys_of_its_directory_alone(tmp_path: Path, names: str) -> None:
    create_keys(tmp_path, GOOD)
    (tmp_path / "relock.json").write_text(f'{{"token":"00","names":{names}}}')
    with pytest.raises(ConfigInvalid, match="relock"):
        load_signing_key(tmp_path / "signing.key", lambda _: GOOD)


def test_the_passphrase_comes_from_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_keys(tmp_path / "me", GOOD)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE", raising=False)
    with pytest.raises(ConfigInvalid) as caught:
        load_signing_key(tmp_path / "me" / "signing.key")
    assert caught.value.code == "INSITU-KEY-LOCKED"
    write_private_file(tmp_path / "pass", GOOD + b"\nsecond line\n")
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(tmp_path / "pass"))
    assert load_signing_key(tmp_path / "me" / "signing.key")
    (tmp_path / "pass").chmod(0o644)
    with pytest.raises(ConfigInvalid, match="0600"):
        load_signing_key(tmp_path / "me" / "signing.key")


def test_it_is_typed_on_a_terminal_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or GOOD.decode())
    assert choose(None, none=False) == GOOD
    assert len(asked) == 2  # typed twice
    create_keys(tmp_path / "me", GOOD)
    ask = asking()
    assert load_signing_key(tmp_path / "me" / "signing.key", ask)
    assert load_private_pem(tmp_path / "me" / "tls.key", ask)
    assert len(asked) == 3
    answers = iter(["one passphrase", "another passphrase"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    with pytest.raises(ConfigInvalid, match="differ"):
        choose(None, none=False)


def test_a_new_key_without_a_passphrase_is_spelled_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE", raising=False)
    with pytest.raises(ConfigInvalid, match="--no-passphrase"):
        choose(None, none=False)
    assert choose(None, none=True) is None
    write_private_file(tmp_path / "pass", GOOD)
    assert choose(tmp_path / "pass", none=False) == GOOD == from_file(tmp_path / "pass")
    with pytest.raises(ConfigInvalid, match="exclude"):
        choose(tmp_path / "pass", none=True)
    write_private_file(tmp_path / "empty", b"")
    assert json.dumps(from_file(tmp_path / "empty").decode()) == '""'
