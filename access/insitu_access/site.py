"""A party's own keys, on its own site: made, enrolled, changed, and the pin replaced. Private keys never leave (K1).

    DIR/                 the identity (``identity``)
    DIR/request.jws      the enrolment to send, until it was answered
    DIR/next/            keys that are to take the place of the present ones, and their request.jws
    DIR/former/          the signing key before this one
    DIR/former-keys.json the public halves of all before this one

``install`` puts things in place file by file and takes ``next/`` away last: cut off at any moment, it is run again. A
process that reads the directory in between finds parts that do not belong together, keeps what it had and looks again.

  K1  private keys are made here and are written nowhere else
  K3  nothing is believed of an invitation before a person has compared the authority key it names
  K6  an answer is verified with the pinned authority key, and must be for keys that are here
  K9  a new pin is put in place by its thumbprint, which a person has compared; what the former key signed is put aside

Not here: what the authority does (``ceremonies``); which key is believed after successions (``pin``).
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from insitu_privacy.errors import AccessRefused, ConfigInvalid

from insitu_access.certificates import Role, is_issued_by, key_matches, peer_identity
from insitu_access.enrolment import (
    Answer,
    Enrolment,
    Invitation,
    open_answer,
    open_invitation,
    peek_authority,
    seal_enrolment,
)
from insitu_access.files import KEY_LIMIT, make_directory, read_file, read_private_file, write_file
from insitu_access.identity import FORMER, NEXT, answered_at, create_keys, give_up, load_identity
from insitu_access.keys import (
    SigningKey,
    VerifyingKey,
    load_private_pem,
    load_signing_key,
    load_verifying_key,
    save_verifying_key,
)
from insitu_access.passphrase import Ask
from insitu_access.pin import Pin
from insitu_access.relocking import finish
from insitu_access.sealed_key import is_sealed
from insitu_access.succession import follow

REQUEST, ANSWER = "request.jws", "answer.jws"
_INSTALLED = ".next.installed"
_FILES = ("signing.key", "signing.pub", "tls.key", "tls.csr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """An enrolment that waits to be sent."""

    role: Role
    id: str
    key: VerifyingKey
    path: Path


def invitation_text(path: Path) -> str:
    """What is in the file of an invitation, which nobody else may read. Raises ConfigInvalid."""
    read_file(path, KEY_LIMIT)
    if path.stat().st_mode & 0o077:
        reason = f"{path} is an invitation, which only you may read: whoever has it can enrol in your place"
        hint = f"Run `chmod 600 {shlex.quote(str(path))}`."
        raise ConfigInvalid("INSITU-CONFIG-STATE", reason=reason, hint=hint)
    return read_private_file(path).decode("ascii", "replace").strip()


def read_invitation(path: Path, confirmed: str | None, *, now: datetime) -> Invitation:
    """The invitation in a file, once ``confirmed`` is the thumbprint of the authority key it names (K3)."""
    token = invitation_text(path)
    claimed = peek_authority(token)
    if confirmed != claimed.thumbprint:
        raise AccessRefused("INSITU-KEY-FINGERPRINT", what="authority key", name=claimed.thumbprint)
    return open_invitation(token, claimed, now=now)


def enrol_here(directory: Path, invitation: Invitation, *, now: datetime, passphrase: bytes | None) -> Requested:
    """New keys in ``directory``, the authority pinned, and the enrolment to send. Refuses to overwrite keys."""
    create_keys(directory, passphrase)
    save_verifying_key(invitation.authority, directory / "authority.pub")
    key = load_signing_key(directory / "signing.key", lambda _: passphrase or b"")
    return _request(directory, invitation.role, invitation.id, key, voucher=invitation.voucher, now=now)


def change_keys(
    directory: Path,
    *,
    now: datetime,
    ask: Ask,
    invitation: Invitation | None = None,
    choose: Callable[[], bytes | None] | None = None,
) -> Requested:
    """New keys in ``next/``, and the enrolment to send: vouched for by the present key, or by an invitation.

    The present keys are used until the answer is installed. They may be gone, where there is an invitation: then
    ``choose`` gives the passphrase of the new ones, which are else under that of the present ones.
    """
    if (directory / NEXT).exists():
        reason = f"{directory / NEXT} holds keys that were not answered yet"
        hint = f"Install their answer, or remove {directory / NEXT} and make new ones."
        raise ConfigInvalid("INSITU-CONFIG-STATE", reason=reason, hint=hint)
    role, party_id, voucher, passphrase = _present(directory, ask, invitation, choose)
    create_keys(directory / NEXT, passphrase)
    key = load_signing_key(directory / NEXT / "signing.key", lambda _: passphrase or b"")
    return _request(directory / NEXT, role, party_id, key, voucher=voucher, now=now)


def install(
    directory: Path, token: str, authority: VerifyingKey, ask: Ask, *, now: datetime, pin: Pin | None = None
) -> Answer:
    """Put the authority's answer in place, with the keys that it is for (K6). Raises AccessRefused or ConfigInvalid.

    ``pin`` is where the successions that lead to the answer are kept, so that the former key leads nobody any more.
    """
    followed = follow(token, authority)
    answer = open_answer(followed.token, followed.key)
    ask_here = _for(directory, ask)
    folder = next((each for each in (directory / NEXT, directory) if _is_for(each, answer, ask_here)), None)
    if folder is None:
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="answer", reason="it is for keys that are not here")
    _check_answer(answer, answered_at(directory / ANSWER) if folder == directory else None)
    if pin is not None:
        pin.advance(followed)
    if folder != directory:
        _give_up_present(directory, now)
        _keep_former(directory, keep=answer.former_until is not None)
        for name in _FILES:
            mode = 0o600 if name.endswith(".key") else 0o644
            write_file(directory / name, read_file(folder / name, KEY_LIMIT), mode)
    write_file(directory / "tls.pem", answer.certificate_pem.encode())
    write_file(directory / "ca.pem", answer.ca_pem.encode())
    write_file(directory / ANSWER, followed.token.encode() + b"\n")
    taken = directory / _INSTALLED
    shutil.rmtree(taken, ignore_errors=True)
    if folder != directory:
        folder.rename(taken)  # cut off while it is removed, half of it would be taken for keys that wait
        shutil.rmtree(taken)
    (directory / REQUEST).unlink(missing_ok=True)
    return answer


def _check_answer(answer: Answer, present: datetime | None) -> None:
    """Raises AccessRefused."""
    if present is not None and answer.issued_at < present:
        reason = f"it is of {answer.issued_at:%Y-%m-%d %H:%M:%S} UTC, older than the one installed: is it an old mail?"
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="answer", reason=reason)
    if not is_issued_by(answer.certificate_pem.encode(), answer.ca_pem.encode()):
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="answer", reason="its certificate is not of the CA it names")


def repin(directory: Path, state: Path, key: VerifyingKey, confirmed: str | None) -> bool:
    """K9: pin ``key`` in place of the one that is pinned, once ``confirmed`` is its thumbprint.

    The last manifest is put aside: a thief may have signed it, and its version is no floor for what the new key signs.
    Where the key is the one that is believed already nothing is done, and the floor stays (M3); returns whether it was
    another. Cut off before the manifest is put aside, it is run again.
    """
    if confirmed != key.thumbprint:
        raise AccessRefused("INSITU-KEY-FINGERPRINT", what="authority key", name=key.thumbprint)
    pinned, kept = directory / "authority.pub", state / "manifest.jws"
    present = Pin(state, load_verifying_key(pinned), keep=False) if pinned.exists() else None
    changed = present is None or present.key != key
    if changed:
        save_verifying_key(key, pinned)
    if kept.exists() and (changed or not _opens(kept, present)):
        kept.replace(state / "manifest.jws.before-trust")
    return changed


def _opens(manifest: Path, pin: Pin | None) -> bool:
    try:
        return pin is not None and bool(
            pin.reopen(read_file(manifest).decode("ascii", "replace").strip().split("\n")[-1])
        )
    except AccessRefused:
        return False


def _present(
    directory: Path, ask: Ask, invitation: Invitation | None, choose: Callable[[], bytes | None] | None
) -> tuple[Role, str, SigningKey, bytes | None]:
    finish(directory)
    if invitation is not None:
        if (directory / "tls.pem").exists():
            _same_party(directory, invitation)
        if choose is not None:
            return invitation.role, invitation.id, invitation.voucher, choose()
        sealed = (directory / "signing.key").exists() and is_sealed(read_private_file(directory / "signing.key"))
        passphrase = ask(directory / "signing.key") if sealed else None
        return invitation.role, invitation.id, invitation.voucher, passphrase
    identity = load_identity(directory, ask)
    passphrase = ask(directory / "signing.key") if is_sealed(read_private_file(directory / "signing.key")) else None
    return identity.role, identity.id, identity.signing, passphrase


def _same_party(directory: Path, invitation: Invitation) -> None:
    present = peer_identity(read_file(directory / "tls.pem", KEY_LIMIT))
    if present != (invitation.role, invitation.id):
        reason = f"it invites {invitation.role} {invitation.id}, and this is {present[0]} {present[1]}"
        raise AccessRefused("INSITU-KEY-ENROLMENT", what="invitation", reason=reason)


def _request(
    directory: Path, role: Role, party_id: str, key: SigningKey, *, voucher: SigningKey, now: datetime
) -> Requested:
    csr = read_file(directory / "tls.csr", KEY_LIMIT).decode("ascii", "replace")
    enrolment = Enrolment(role=role, id=party_id, key=key.public(), csr=csr, issued_at=now)
    write_file(directory / REQUEST, seal_enrolment(enrolment, key, voucher).encode() + b"\n")
    return Requested(role=role, id=party_id, key=key.public(), path=directory / REQUEST)


def _is_for(folder: Path, answer: Answer, ask: Ask) -> bool:
    if not (folder / "tls.key").exists() or not (folder / "signing.pub").exists():
        return False
    if answer.key is not None and load_verifying_key(folder / "signing.pub") != answer.key:
        return False
    return key_matches(load_private_pem(folder / "tls.key", ask), answer.certificate_pem.encode())


def _give_up_present(directory: Path, now: datetime) -> None:
    """Its public half stays, lost or not, for what it signed (E12). Where that is gone too, nothing can be kept."""
    present, after = directory / "signing.pub", load_verifying_key(directory / NEXT / "signing.pub")
    if present.exists() and load_verifying_key(present) != after:  # else this was cut off after that file
        give_up(directory, load_verifying_key(present), now)


def _keep_former(directory: Path, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(directory / FORMER, ignore_errors=True)
        return
    present = read_private_file(directory / "signing.key")
    if present != read_private_file(directory / NEXT / "signing.key"):  # else this was cut off after that file
        make_directory(directory / FORMER)
        write_file(directory / FORMER / "signing.key", present, 0o600)


def _for(directory: Path, ask: Ask) -> Ask:
    """One passphrase for all keys of a directory and of those below it."""
    return lambda _: ask(directory / "signing.key")
