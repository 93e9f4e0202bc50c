"""``python -m insitu_compose.demo.load``: fills one hospital's database of the demonstration, for ``compose.yaml``.

What ``make demo`` does in one process, as a job of its own: each hospital's job sees that hospital's database alone.
Does nothing where the database is filled already.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from insitu_privacy.errors import InsituError

from insitu_compose.demo.contract import contract
from insitu_compose.demo.eunomia import write_site
from insitu_compose.demo.hospital import is_loaded, load
from insitu_compose.demo.sites import SITES, Site

PASSWORD_VARIABLE = "INSITU_DEMO_NODE_PASSWORD"  # noqa: S105  the variable's name


def main() -> int:
    """Fills the database; the exit code is 0 only where it is filled."""
    parser = argparse.ArgumentParser(prog="python -m insitu_compose.demo.load", description=__doc__.splitlines()[0])
    parser.add_argument("site", choices=[site.id for site in SITES])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--duckdb", metavar="FILE", type=Path, help="write this DuckDB file")
    target.add_argument(
        "--postgres", metavar="URL", help=f"as this administrator; the node's password is in {PASSWORD_VARIABLE}"
    )
    given = parser.parse_args()
    site = next(site for site in SITES if site.id == given.site)
    try:
        filled = _fill_duckdb(site, given.duckdb) if given.duckdb else _fill_postgres(site, given.postgres)
    except InsituError as error:
        print(error.line(), file=sys.stderr)
        return 1
    print(f"{site.id}: {'filled' if filled else 'filled before'}")
    return 0


def _fill_duckdb(site: Site, target: Path) -> bool:
    if target.exists():
        return False
    draft = target.with_suffix(".part")
    draft.unlink(missing_ok=True)
    write_site(draft, contract(), site.last_digits)
    draft.replace(target)
    return True


def _fill_postgres(site: Site, url: str) -> bool:
    if is_loaded(url):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "site.duckdb"
        write_site(file, contract(), site.last_digits)
        load(url, file, contract(), password=os.environ.get(PASSWORD_VARIABLE))
    return True


if __name__ == "__main__":
    sys.exit(main())
