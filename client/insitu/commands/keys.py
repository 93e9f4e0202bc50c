"""``insitu key new | rotate | install | show | change-passphrase`` and ``insitu trust``: the researcher's own keys.

A directory of keys is what ``key new`` made, or a profile, which holds a copy: change the keys of the profile you use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from insitu_access.cli import Format, FormatOption, print_facts, usage
from insitu_access.commands import site as s

if TYPE_CHECKING:
    from insitu_access.pin import Pin

key_app = typer.Typer(help="The researcher's own keys.", rich_markup_mode=None)
KeysOption = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="The directory of the keys; default the profile in use.")
]
InvitationOption = Annotated[Path | None, typer.Option("--token", metavar="FILE", help="The authority's invitation.")]


@key_app.command("new")
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the keys.")],
    *,
    token: InvitationOption = None,
    fingerprint: s.FingerprintOption = None,
    passphrase_file: s.PassphraseOption = None,
    no_passphrase: s.NoPassphraseOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make your signing key and TLS key, under a passphrase.

    Nothing secret leaves this machine. With the invitation that the access authority sent you (--token) this writes
    request.jws, which is all that you send back. Without one, send signing.pub and tls.csr.

    Example: insitu key new me --token alice.invitation
    """
    from insitu_access.commands.facts import requested_facts
    from insitu_access.identity import create_keys
    from insitu_access.passphrase import choose
    from insitu_access.site import enrol_here

    found = None if token is None else s.invitation(token, fingerprint)
    if found is not None and found.role != "researcher":
        raise usage(f"the invitation is for a {found.role}", "Use the command of that party.")
    passphrase = choose(passphrase_file, none=no_passphrase, variable=True)
    if found is not None:
        requested = enrol_here(folder, found, now=s.now(), passphrase=passphrase)
        _say(folder, requested_facts(requested), format_)
        return
    key = create_keys(folder, passphrase)
    send = [str(folder / name) for name in ("signing.pub", "tls.csr")]
    _say(folder, {"key": key.thumbprint, "passphrase": passphrase is not None, "send": send}, format_)


@key_app.command("rotate")
def rotate(
    *,
    keys: KeysOption = None,
    token: InvitationOption = None,
    fingerprint: s.FingerprintOption = None,
    passphrase_file: s.PassphraseOption = None,
    no_passphrase: s.NoPassphraseOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make the next keys, under the same passphrase, and the enrolment to send to the access authority.

    You go on with the present ones until you install its answer, and with the former signing key for grants that do not
    name the new one yet. Where the present keys are lost or stolen, pass the invitation you were sent: the new keys are
    then under a new passphrase, which is typed or comes from --passphrase-file.

    Example: insitu key rotate
    """
    from insitu_access.commands.facts import requested_facts
    from insitu_access.passphrase import asking, choose
    from insitu_access.site import change_keys

    if token is None and (passphrase_file is not None or no_passphrase):
        hint = "Use `insitu key change-passphrase`."
        raise usage("without --token the next keys are under the passphrase of the present ones", hint)
    found = None if token is None else s.invitation(token, fingerprint)
    requested = change_keys(
        _folder(keys),
        now=s.now(),
        ask=asking(),
        invitation=found,
        choose=lambda: choose(passphrase_file, none=no_passphrase),
    )
    print_facts(requested_facts(requested), format_)


@key_app.command("install")
def install(answer: s.AnswerArgument, *, keys: KeysOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Put the authority's answer in place.

    Example: insitu key install alice.answer --keys me
    """
    from insitu_access.commands.facts import installed_facts
    from insitu_access.passphrase import asking
    from insitu_access.site import install as put

    folder = _folder(keys)
    pin = _pin(folder)
    done = put(folder, s.answer_text(answer), pin.key, asking(), now=s.now(), pin=pin)
    print_facts(installed_facts(done), format_)


@key_app.command("show")
def show(*, keys: KeysOption = None, format_: FormatOption = Format.TEXT) -> None:
    """Show your keys by their thumbprints, when your certificate ends, and which authority you believe.

    Example: insitu key show --format json
    """
    from insitu_access.commands.facts import identity_facts

    folder = _folder(keys)
    print_facts(identity_facts(folder, _pin(folder).key), format_)


@key_app.command("change-passphrase")
def change_passphrase(
    *,
    keys: KeysOption = None,
    passphrase_file: s.PassphraseOption = None,
    no_passphrase: s.NoPassphraseOption = False,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Put your private keys under another passphrase.

    The present one comes from INSITU_PASSPHRASE_FILE or the terminal; the new one from --passphrase-file, or typed.

    Example: insitu key change-passphrase --keys me
    """
    from insitu_access.keys import relock
    from insitu_access.passphrase import asking, choose

    folder = _folder(keys)
    names = ("signing.key", "tls.key", "former/signing.key", "next/signing.key", "next/tls.key")
    paths = [folder / name for name in names if (folder / name).exists()]
    if not paths:
        raise usage(f"there are no keys in {folder}", "Pass --keys DIR.")
    first, ask = paths[0], asking()
    relock(paths, lambda _: ask(first), lambda: choose(passphrase_file, none=no_passphrase))
    print_facts({"keys": str(folder), "passphrase": not no_passphrase}, format_)


def trust(
    authority: s.AuthorityArgument,
    *,
    keys: KeysOption = None,
    fingerprint: s.FingerprintOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Pin another authority key by hand: after the former one was stolen, when no signature of it counts any longer.

    Results that you saved before are then verified with `insitu verify --authority` and the former key.

    Example: insitu trust authority.pub
    """
    from insitu_access.site import repin

    folder = _folder(keys)
    key, confirmed = s.authority_key(authority, fingerprint)
    changed = repin(folder, folder, key, confirmed)
    print_facts({"keys": str(folder), "pinned_authority_key": key.thumbprint, "changed": changed}, format_)


def _say(folder: Path, facts: Mapping[str, object], format_: Format) -> None:
    """As JSON all of it; for people the folder alone on standard output, as of `insitu connect`, the rest beside."""
    if format_ is Format.JSON:
        print_facts({"keys": str(folder), **facts}, format_)
        return
    for name, value in facts.items():
        typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}", err=True)
    typer.echo(folder)


def _folder(keys: Path | None) -> Path:
    from insitu.profile import default_folder

    return keys or default_folder()


def _pin(folder: Path) -> Pin:
    from insitu_access.keys import load_verifying_key
    from insitu_access.pin import Pin

    return Pin(folder, load_verifying_key(folder / "authority.pub"))
