"""What to run when a key is lost or stolen: the very commands, in order, each with who runs it and why.

Pure: from the register, the keyring and where the authority keeps its directory. Nothing is run here, because a drill
crosses machines and every hand-over is a person's: ``$THUMBPRINT`` is the thumbprint of the authority's key as that
person has it from the authority by another way. The tests run these very commands on a federation of real processes.

Parties run their commands where their configuration stands (a researcher: in the profile); the authority, where the
drill was asked for. Not here: finding out that a key was stolen, and what a thief did meanwhile (audit).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from insitu_access.certificates import Role
from insitu_access.keyring import Keyring
from insitu_access.payload import Malformed
from insitu_access.register import Register

Key = Literal["node-key", "gateway-key", "researcher-key", "authority-key", "ca-key"]
KEYS: tuple[Key, ...] = get_args(Key)
AUTHORITY = "authority"
_CONFIG = {"node": "node.toml", "gateway": "gateway.toml"}
_PROGRAM = {"node": "insitu-node", "gateway": "insitu-gateway", "researcher": "insitu"}
_NEXT_REQUEST = {
    "node": "identity/next/request.jws",
    "gateway": "identity/next/request.jws",
    "researcher": "next/request.jws",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command that somebody runs, or a file that somebody carries."""

    who: str
    why: str
    run: str | None = None
    carry: str | None = None
    """A file where ``who`` stands."""
    to: str | None = None
    """Who is given the file."""
    as_: str | None = None
    """The name it is given there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a drill is written from."""

    directory: Path
    register: Register
    keyring: Keyring
    grants: tuple[Path, ...]
    """The grants that are to go on, in the authority's copies."""
    mark: str = "1"
    """Tells the files of this drill from those of another: an invitation is never overwritten."""

    def authority(self, command: str, *arguments: object) -> str:
        return shlex.join(["insitu-authority", command, str(self.directory), *map(str, arguments)])

    def parties(self, *roles: Role) -> Iterator[tuple[Role, str]]:
        return ((each.role, each.id) for role in roles for each in self.keyring.certified if each.role == role)


def drill(key: Key, scene: Scene, party_id: str | None) -> tuple[Step, ...]:
    """The steps for a key that is lost. Raises Malformed where it is nobody's."""
    if key == "authority-key":
        return tuple(_authority_key(scene))
    if key == "ca-key":
        return tuple(_ca_key(scene))
    role = _role_of(key)
    if party_id is None or (role, party_id) not in set(scene.parties(role)):
        known = ", ".join(sorted(party for _, party in scene.parties(role))) or "none is registered"
        raise Malformed(f"--id must name the {role} whose key is lost: {known}")
    if key == "gateway-key":
        return tuple(_gateway_key(scene, party_id))
    return tuple(_party_key(scene, role, party_id))


def _role_of(key: Key) -> Role:
    return "node" if key == "node-key" else "gateway" if key == "gateway-key" else "researcher"


def _party_key(scene: Scene, role: Role, party_id: str) -> Iterator[Step]:
    yield from _new_keys(scene, role, party_id)
    if role == "researcher":
        yield from _reseal(
            scene, f"the grant names the new key of {party_id}, keeps its id, and its budget goes on", party_id
        )
    yield from _publish(scene, "from here on the former key and certificate are refused everywhere")
    if role == "researcher":
        yield from _reconnect(scene, ((role, party_id),))


def _gateway_key(scene: Scene, party_id: str) -> Iterator[Step]:
    why = "nodes and researchers can refuse one gateway's certificate only by refusing the CA that issued it"
    yield Step(who=AUTHORITY, run=scene.authority("rotate", "--ca"), why=why)
    yield from _new_keys(scene, "gateway", party_id, install=False)
    yield from _change_ca(scene, but=("gateway", party_id))


def _ca_key(scene: Scene) -> Iterator[Step]:
    why = "a new CA issues from now on; the lost one is believed until everybody has a certificate of the new one"
    yield Step(who=AUTHORITY, run=scene.authority("rotate", "--ca"), why=why)
    yield from _change_ca(scene, but=None)


def _change_ca(scene: Scene, but: tuple[Role, str] | None) -> Iterator[Step]:
    """Everybody gets a certificate of the new CA, gateways first; then the former CA is dropped."""
    yield Step(
        who=AUTHORITY,
        run=scene.authority("renew", "--all", "--out", "answers"),
        why="certificates for the keys they have",
    )
    yield from _publish(
        scene, "nodes and researchers learn the new CA while they are still connected by the former one"
    )
    for role, party in scene.parties("gateway", "node", "researcher"):
        folder = "" if (role, party) == but else "answers/"
        name = f"{party}.answer" if (role, party) == but else f"{role}-{party}.answer"
        yield Step(who=AUTHORITY, carry=folder + name, to=f"{role} {party}", as_=name, why="its new certificate")
        yield _install(role, party, name)
    why = "every party has a certificate of the new CA: what the former one issued counts no longer"
    yield Step(who=AUTHORITY, run=scene.authority("retire", "--ca"), why=why)
    yield from _publish(scene, "from here on certificates of the former CA are refused everywhere")


def _authority_key(scene: Scene) -> Iterator[Step]:
    yield Step(
        who=AUTHORITY,
        run=scene.authority("rotate", "--key", "--stolen"),
        why="a new key, without a succession: nobody may follow what the thief could sign. $THUMBPRINT is the"
        " authority_key that this prints",
    )
    yield from _reseal(scene, "the same grant under the new key: its id and its budget go on", None)
    yield Step(who=AUTHORITY, run=_manifest(scene), why="signed by the new key, and naming no other")
    pin = scene.directory / "authority.pub"
    for role, party in scene.parties("gateway", "node", "researcher"):
        who = f"{role} {party}"
        why = "the key to pin; its thumbprint is told by another way"
        yield Step(who=AUTHORITY, carry=str(pin), to=who, as_="authority.pub", why=why)
        if role == "gateway":
            yield Step(
                who=AUTHORITY, carry="manifest.jws", to=who, as_="manifest.jws", why="what it serves from now on"
            )
        yield Step(who=who, run=_trust(role), why="pins the new key; what the stolen key signed counts no longer here")
    yield from _reconnect(scene, tuple(scene.parties("researcher")))


def _new_keys(scene: Scene, role: Role, party_id: str, *, install: bool = True) -> Iterator[Step]:
    """An invitation, new keys on site, and the answer."""
    who, token, request, answer = (
        f"{role} {party_id}",
        f"{role}-{party_id}-{scene.mark}.invitation",
        *(f"{party_id}.{end}" for end in ("request", "answer")),
    )
    invite = scene.authority("invite", "--role", role, "--id", party_id, "--out", token)
    yield Step(who=AUTHORITY, run=invite, why="a secret for one use; tell the thumbprint it prints by another way")
    yield Step(who=AUTHORITY, carry=token, to=who, as_=token, why="where nobody else reads it")
    yield Step(who=who, run=_rotate(role, token), why="new keys, made on site; the invitation vouches for them")
    yield Step(who=who, carry=_NEXT_REQUEST[role], to=AUTHORITY, as_=request, why="public halves alone")
    enrol = scene.authority("enrol", request, "--out", answer)
    yield Step(who=AUTHORITY, run=enrol, why="certifies them; compare the thumbprint. The former ones are revoked")
    if install:
        yield Step(who=AUTHORITY, carry=answer, to=who, as_=answer, why="the certificate")
        yield _install(role, party_id, answer)


def _reseal(scene: Scene, why: str, researcher: str | None) -> Iterator[Step]:
    for grant in scene.grants:
        added = () if researcher is None else ("--researcher", researcher)
        run = scene.authority("reseal", "--grant", grant, *added, "--out", grant)
        yield Step(who=AUTHORITY, run=run, why=why)


def _reconnect(scene: Scene, researchers: Sequence[tuple[Role, str]]) -> Iterator[Step]:
    gateways = [part for gateway in scene.register.gateways for part in ("--gateway", gateway.address)]
    for _, party in researchers:
        several = len(scene.grants) > 1
        for number, grant in enumerate(scene.grants, 1):
            who = f"researcher {party}"
            given, folder = ("new-grant.jwt", ".")
            why = "takes the grant into the profile, once all of it verifies"
            if several:
                given, folder = f"new-grant-{number}.jwt", f"../{grant.stem}-{scene.mark}-{number}"
                why = "a profile of its own for this grant, once all of it verifies"
            yield Step(who=AUTHORITY, carry=str(grant), to=who, as_=given, why="the grant as it is now")
            run = shlex.join(["insitu", "connect", folder, *gateways, "--identity", ".", "--grant", given])
            yield Step(who=who, run=run, why=why)


def _publish(scene: Scene, why: str) -> Iterator[Step]:
    yield Step(who=AUTHORITY, run=_manifest(scene), why=why)
    for _, gateway in scene.parties("gateway"):
        yield Step(
            who=AUTHORITY,
            carry="manifest.jws",
            to=f"gateway {gateway}",
            as_="manifest.jws",
            why="in place of its manifest; `insitu-gateway status` shows when every node has it",
        )


def _manifest(scene: Scene) -> str:
    return scene.authority("manifest", "--out", "manifest.jws")


def _install(role: Role, party_id: str, answer: str) -> Step:
    where = ("--keys", ".") if role == "researcher" else ("--config", _CONFIG[role])
    run = shlex.join([_PROGRAM[role], "key", "install", answer, *where])
    return Step(who=f"{role} {party_id}", run=run, why="a process that runs takes it up within seconds")


def _rotate(role: Role, token: str) -> str:
    where = ("--keys", ".") if role == "researcher" else ("--config", _CONFIG[role])
    return shlex.join([_PROGRAM[role], "key", "rotate", *where, "--token", token]) + ' --fingerprint "$THUMBPRINT"'


def _trust(role: Role) -> str:
    where = ("--keys", ".") if role == "researcher" else ("--config", _CONFIG[role])
    return shlex.join([_PROGRAM[role], "trust", "authority.pub", *where]) + ' --fingerprint "$THUMBPRINT"'
