"""``insitu-node projects``: the custodian looks at each project, and decides.

Decisions are kept in the state directory and count from the next request on, also for a node that is running.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from insitu_access.cli import Format, FormatOption, print_facts, usage

from insitu_node.commands.options import ConfigOption

if TYPE_CHECKING:
    from insitu_node.config import NodeConfig
    from insitu_node.policy import Cap, Verdict
    from insitu_node.projects import Project, Projects

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List projects that asked here, and approve, deny or withdraw them.",
)

ProjectArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROJECT",
        help="A grant's id, the start of one, a project's name, or a grant's file.",
        show_default=False,
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
By = Annotated[str | None, typer.Option(help="Who decides; else the user of this machine.")]


@app.command("list")
def list_(config: ConfigOption, format_: FormatOption = Format.TEXT) -> None:
    """List the projects that asked here, and where each stands.

    \b
    Example: insitu-node projects list --config node.toml
    """
    with opened(config) as (loaded, store):
        rows = [row(project, loaded) for project in store.all()]
    print_facts({"node": loaded.node_id, "projects": rows}, format_)


@app.command("show")
def show(project: ProjectArgument, config: ConfigOption, format_: FormatOption = Format.TEXT) -> None:
    """Show what a project's grant says, and every decision about it.

    \b
    Example: insitu-node projects show stays --config node.toml
    """
    from insitu_access.commands.facts import grant_facts

    with opened(config) as (loaded, store):
        found = _found(project, store)
    decisions = [
        {
            "verdict": one.verdict,
            "revision": one.revision,
            "max_epsilon": _number(one.cap.epsilon),
            "max_delta": _number(one.cap.delta),
            "reason": one.reason,
            "by": one.by,
            "at": f"{one.at:%Y-%m-%dT%H:%M:%SZ}",
        }
        for one in found.decisions
    ]
    print_facts({**row(found, loaded), "grant": grant_facts(found.grant), "decisions": decisions}, format_)


@app.command("approve")
def approve(
    project: ProjectArgument,
    config: ConfigOption,
    *,
    max_epsilon: Annotated[str | None, typer.Option(help="A budget per dataset below the grant's.")] = None,
    max_delta: Annotated[str | None, typer.Option(help="A budget per dataset below the grant's.")] = None,
    reason: Reason = "",
    by: By = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Let a project ask here, within its grant, or within less.

    \b
    Example: insitu-node projects approve stays --max-epsilon 2 --reason "ethics board 2026-11" --config node.toml
    """
    from insitu_node.policy import Cap

    cap = Cap(epsilon=_exact(max_epsilon, "--max-epsilon"), delta=_exact(max_delta, "--max-delta"))
    _decide(project, config, format_, verdict="approved", cap=cap, reason=reason, by=by)


@app.command("deny")
def deny(
    project: ProjectArgument,
    config: ConfigOption,
    reason: Reason = "",
    by: By = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Refuse a project, whatever rule its grant would fit.

    \b
    Example: insitu-node projects deny stays --reason "out of scope" --config node.toml
    """
    from insitu_node.policy import Cap

    _decide(project, config, format_, verdict="denied", cap=Cap(), reason=reason, by=by)


@app.command("withdraw")
def withdraw(
    project: ProjectArgument,
    config: ConfigOption,
    reason: Reason = "",
    by: By = None,
    format_: FormatOption = Format.TEXT,
) -> None:
    """Take an approval back. What was released before stays released.

    \b
    Example: insitu-node projects withdraw stays --reason "patients' request" --config node.toml
    """
    from insitu_node.policy import Cap

    _decide(project, config, format_, verdict="withdrawn", cap=Cap(), reason=reason, by=by)


def _decide(
    text: str, config: Path, format_: Format, *, verdict: Verdict, cap: Cap, reason: str, by: str | None
) -> None:
    from insitu_node.policy import Decision
    from insitu_node.runtime import utc_now

    with opened(config) as (loaded, store):
        found = _found(text, store)
        store.decide(
            Decision(
                grant_id=found.grant.id,
                revision=found.grant.revision,
                verdict=verdict,
                cap=cap,
                reason=reason,
                by=by or getpass.getuser(),
                at=utc_now(),
            )
        )
        again = _found(found.grant.id, store)
    print_facts(row(again, loaded), format_)


@contextmanager
def opened(config: Path) -> Iterator[tuple[NodeConfig, Projects]]:
    """A node's configuration, and its projects until the context ends."""
    from insitu_access.files import make_directory

    from insitu_node.config import load_config
    from insitu_node.projects import Projects

    loaded = load_config(config)
    make_directory(loaded.state)
    store = Projects(loaded.state)
    try:
        yield loaded, store
    finally:
        store.close()


def _found(text: str, store: Projects) -> Project:
    """One project, by what the custodian typed."""
    path = Path(text)
    if path.is_file():
        return _of_file(path, store)
    known = store.all()
    exact = [project for project in known if text in (project.grant.id, project.grant.project)]
    found = exact or [project for project in known if project.grant.id.startswith(text)]
    if len(found) != 1:
        reason = "no project of this name asked here" if not found else "several projects are called so"
        raise usage(reason, "See `insitu-node projects list`, and name it by its grant's id, or by the grant's file.")
    return found[0]


def _of_file(path: Path, store: Projects) -> Project:
    """A grant that has not asked yet. Whether it is the authority's is verified when it asks."""
    from insitu_access.files import read_file
    from insitu_access.grant import read_grant
    from insitu_access.jose import unverified

    from insitu_node.projects import Project
    from insitu_node.runtime import utc_now

    token = read_file(path).decode("ascii", "replace").strip()
    grant = read_grant(unverified(token, "insitu-grant+jwt", "grant"))
    asked = next((project for project in store.all() if project.grant.id == grant.id), None)
    decisions = asked.decisions if asked else ()
    return Project(grant=grant, token=token, first_seen=utc_now(), decisions=decisions)


def row(project: Project, loaded: NodeConfig) -> dict[str, object]:
    """A project in a list: what it is, and where it stands."""
    from insitu_privacy.errors import AccessRefused

    from insitu_node.policy import budget, standing

    grant = project.grant
    try:
        found = standing(grant, project.decision, loaded.policy)
    except AccessRefused as refused:
        status, held = {"INSITU-NODE-APPROVAL": "waiting"}.get(refused.code, _verdict(project)), None
    else:
        status = "approved" if found.approved_by == "custodian" else "approved by rule"
        held = budget(grant, found.cap)
    return {
        "id": grant.id,
        "project": grant.project,
        "status": status,
        "purpose": grant.purpose,
        "reference": grant.reference,
        "datasets": [dataset.name for dataset in grant.datasets],
        "epsilon": None if held is None else float(held.epsilon),
        "delta": None if held is None else float(held.delta),
        "expires_at": f"{grant.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        "revision": grant.revision,
        "first_seen": f"{project.first_seen:%Y-%m-%dT%H:%M:%SZ}",
    }


def _verdict(project: Project) -> str:
    """The verdict that counts, in one word."""
    return "waiting" if project.decision is None else project.decision.verdict


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _exact(text: str | None, option: str) -> Fraction | None:
    from insitu_access.payload import read_number

    value = None if text is None else read_number(text.lower())
    if text is not None and value is None:
        raise usage(f"{option} is not a number", f"Pass {option} 1, {option} 1/2 or {option} 1e-6.")
    return value
