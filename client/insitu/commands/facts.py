"""``insitu catalog``, ``insitu budget`` and ``insitu verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from insitu_privacy.errors import ConfigInvalid

from insitu.commands import arguments as a

Form = Annotated[a.Facts, typer.Option("--format", help="How to print it.")]


def catalog(dataset: a.DatasetName = None, form: Form = a.Facts.table, profile: a.ProfileDir = None) -> None:
    """Show what the grant covers.

    Datasets, tables and columns, and what is public about them; nothing here comes from data. Also which nodes have
    released a profile of theirs.

    Example: insitu catalog --format json
    """
    from insitu.client import connect
    from insitu.output import json_bytes, write_bytes

    with connect(profile) as federation:
        found = federation.catalog(dataset)
        write_bytes(json_bytes(found.to_json()) if form is a.Facts.json else str(found).encode(), None)


def budget(
    *,
    nodes: a.Nodes = None,
    timeout: a.Timeout = 60.0,
    form: Form = a.Facts.table,
    profile: a.ProfileDir = None,
    quiet: a.Quiet = False,
) -> None:
    """Show what is spent and left at each node.

    The nodes' own ledgers say so, signed. Spends nothing.

    Example: insitu budget --format json
    """
    from insitu.client import connect
    from insitu.output import json_bytes, write_bytes
    from insitu.progress import Reporter

    chosen = None if nodes is None else [one.strip() for one in nodes.split(",") if one.strip()]
    with connect(profile) as federation:
        with Reporter(quiet=quiet) as reporter:
            found = federation.budget(nodes=chosen, timeout=timeout, progress=reporter)
        a.warn(tuple(f"node {node.id} is {node.status} ({node.code})" for node in found.missing))
        write_bytes(json_bytes(found.to_json()) if form is a.Facts.json else str(found).encode(), None)


def verify(
    file: Annotated[Path, typer.Argument(metavar="RESULT.json", help="A result saved as JSON.")],
    authority: Annotated[
        Path | None, typer.Option("--authority", help="The authority's public key, in place of the profile's.")
    ] = None,
    form: Form = a.Facts.table,
    profile: a.ProfileDir = None,
) -> None:
    """Check a saved result again, offline.

    Every signature, the plan, the rows, the nodes and what was spent, and that as many nodes released as the request
    asks for. Intervals are not part of what is signed: they follow from the rows and the plan, and anyone may compute
    them again. Exit 0 only if all of it holds.

    Example: insitu verify result.json
    """
    from insitu_access.keys import load_verifying_key

    from insitu.evidence import read_result, verify_document
    from insitu.output import json_bytes, write_bytes
    from insitu.profile import default_folder

    document = read_result(file)
    pinned = authority or (profile or default_folder()) / "authority.pub"
    if not pinned.exists():
        hint = "Pass --profile DIR or --authority authority.pub."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="there is no authority key to verify with", hint=hint)
    result = verify_document(document, load_verifying_key(pinned))
    released = [node.id for node in result.nodes if node.status == "released"]
    facts = {
        "verified": True,
        "query_id": result.query_id,
        "dataset": result.dataset,
        "rows": len(result.rows),
        "nodes": released,
        "improved": list(result.improved),
    }
    how = f", improved: {', '.join(result.improved)}" if result.improved else ""
    rows = f"{len(result.rows)} rows"
    text = f"verified: query {result.query_id}, {rows}, from the releases of {', '.join(released)}{how}\n"
    write_bytes(json_bytes(facts) if form is a.Facts.json else text.encode(), None)
