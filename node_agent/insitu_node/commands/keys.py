"""``insitu-node init``, ``key rotate | install | show`` and ``trust``: the custodian's keys, made and kept on site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from insitu_access.cli import Format, FormatOption, print_facts, usage
from insitu_access.commands import site as s

from insitu_node.commands.audit import opened
from insitu_node.commands.options import ConfigOption

key_app = typer.Typer(
    help="The node's own keys: change them, install the authority's answer, look.", rich_markup_mode=None
)


def init(
    *,
    token: s.TokenOption,
    out: Annotated[Path, typer.Option(help="The directory of the new node.", show_default=False)],
    fingerprint: s.FingerprintOption = None,
    passphrase_file: s.PassphraseOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make a new node: its keys, a configuration to start from, and the enrolment to send to the access authority.

    The keys are left to the mode of their files, so that the node starts unattended; with --passphrase-file they are
    not, and INSITU_PASSPHRASE_FILE must be set where it runs.

    \b
    Example: insitu-node init --token chu-lille.invitation --out chu-lille
    """
    from insitu_access.audit.acts import begin
    from insitu_access.audit.entry import Party
    from insitu_access.commands.facts import requested_facts
    from insitu_access.files import make_directory
    from insitu_access.keys import load_signing_key
    from insitu_access.passphrase import from_file
    from insitu_access.site import enrol_here

    from insitu_node.config import load_config
    from insitu_node.starter import write_starter

    found = s.invitation(token, fingerprint)
    if found.role != "node":
        raise usage(f"the invitation is for a {found.role}", "Use the command of that party.")
    make_directory(out)
    passphrase = None if passphrase_file is None else from_file(passphrase_file)
    requested = enrol_here(out / "identity", found, now=s.now(), passphrase=passphrase)
    config = write_starter(out, found)
    key = load_signing_key(out / "identity" / "signing.key", lambda _: passphrase or b"")
    begin(load_config(config).state / "audit", Party(role="node", id=found.id), key, "init")
    print_facts({**requested_facts(requested), "config": str(config)}, format_)


@key_app.command("rotate")
def rotate(
    config: ConfigOption,
    *,
    token: Annotated[
        Path | None, typer.Option(help="An invitation, where the present keys are lost or stolen.")
    ] = None,
    fingerprint: s.FingerprintOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Make the next keys, and the enrolment to send. The node goes on with the present ones until the answer is there.

    \b
    Example: insitu-node key rotate --config node.toml
    """
    from insitu_access.audit.acts import administered
    from insitu_access.commands.facts import requested_facts
    from insitu_access.passphrase import asking
    from insitu_access.site import change_keys

    from insitu_node.config import load_config

    loaded = load_config(config)
    found = None if token is None else s.invitation(token, fingerprint)
    if found is not None and (found.role, found.id) != ("node", loaded.node_id):
        raise usage(f"the invitation is for {found.role} {found.id}", f"Ask for one for node {loaded.node_id}.")
    ask = asking()
    with s.continued(opened(loaded, ask), lost=found is not None) as log:
        requested = change_keys(loaded.identity, now=s.now(), ask=ask, invitation=found)
        if log is not None:
            vouched = "present key" if found is None else "invitation"
            administered(log, "key rotate", key=requested.key.thumbprint, vouched_by=vouched)
    print_facts(requested_facts(requested), format_)


@key_app.command("install")
def install(config: ConfigOption, answer: s.AnswerArgument, *, format_: FormatOption = Format.TEXT) -> None:
    """Put the authority's answer in place. A node that runs takes it up within seconds, without a restart.

    \b
    Example: insitu-node key install chu-lille.answer --config node.toml
    """
    from insitu_access.audit.acts import administered
    from insitu_access.commands.facts import installed_facts
    from insitu_access.keys import load_verifying_key
    from insitu_access.passphrase import asking
    from insitu_access.pin import Pin
    from insitu_access.site import install as put

    from insitu_node.config import load_config

    loaded = load_config(config)
    pin = Pin(loaded.state, load_verifying_key(loaded.identity / "authority.pub"))
    ask = asking()
    installed = put(loaded.identity, s.answer_text(answer), pin.key, ask, now=s.now(), pin=pin)
    with opened(loaded, ask) as log:  # under the keys that count from here on
        administered(log, "key install", key=load_verifying_key(loaded.identity / "signing.pub").thumbprint)
        log.seal()
    print_facts(installed_facts(installed), format_)


@key_app.command("show")
def show(config: ConfigOption, *, format_: FormatOption = Format.TEXT) -> None:
    """Show the node's keys by their thumbprints, when its certificate ends, and which authority it believes.

    \b
    Example: insitu-node key show --config node.toml
    """
    from insitu_access.commands.facts import identity_facts
    from insitu_access.keys import load_verifying_key
    from insitu_access.pin import Pin

    from insitu_node.config import load_config

    loaded = load_config(config)
    pin = Pin(loaded.state, load_verifying_key(loaded.identity / "authority.pub"), keep=False)
    print_facts(identity_facts(loaded.identity, pin.key), format_)


def trust(
    config: ConfigOption,
    authority: s.AuthorityArgument,
    *,
    fingerprint: s.FingerprintOption = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Pin another authority key by hand: after the former one was stolen, when no signature of it counts any longer.

    A node that runs takes it up within seconds, and answers again once a manifest comes that the new key signed.

    \b
    Example: insitu-node trust authority.pub --config node.toml
    """
    from insitu_access.audit.acts import administered
    from insitu_access.site import repin

    from insitu_node.config import load_config

    loaded = load_config(config)
    key, confirmed = s.authority_key(authority, fingerprint)
    with opened(loaded) as log:
        changed = repin(loaded.identity, loaded.state, key, confirmed)
        if changed:
            administered(log, "trust", key=key.thumbprint)
    print_facts({"node": loaded.node_id, "pinned_authority_key": key.thumbprint, "changed": changed}, format_)
