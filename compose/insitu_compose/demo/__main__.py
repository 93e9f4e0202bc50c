"""``python -m insitu_compose.demo``: a real federation on this machine, real questions, then everything stops.

Everything is made in one temporary directory and by processes that end with this one, whatever happens: on success,
on failure and on Ctrl-C. ``--keep DIR`` puts it in DIR instead and leaves the files, though not the processes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from insitu_privacy.errors import InsituError

from insitu_compose import lifecycle
from insitu_compose.demo.play import play
from insitu_compose.demo.show import Screen
from insitu_compose.demo.sites import SITES, prepared
from insitu_compose.federation import load_federation
from insitu_compose.serve import interruptible


def main() -> int:
    """Runs the demonstration; the exit code is 0 only where all of it worked."""
    parser = argparse.ArgumentParser(prog="python -m insitu_compose.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", metavar="DIR", type=Path, help="make everything in DIR and leave the files there")
    kept: Path | None = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="insitu-demo-")) if kept is None else kept.absolute()
    try:
        with interruptible():
            demonstrate(Screen(), folder)
        return 0
    except KeyboardInterrupt:
        print("interrupted; everything is stopped", file=sys.stderr)
        return 130
    except InsituError as error:
        print(error.line(), file=sys.stderr)
        return 1
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


def demonstrate(screen: Screen, folder: Path) -> None:
    """The demonstration in ``folder``. Whatever it started has ended when this returns or raises."""
    began = time.monotonic()
    screen.title("Three hospitals, one gateway, one researcher: a federation on this machine")
    screen.say(
        "Synthetic persons (Eunomia, OMOP CDM), each known to one hospital. Five processes: a gateway, three nodes "
        "beside their databases, and this researcher, talking mTLS over loopback."
    )
    with prepared(folder / "hospitals") as federation_file:
        screen.table(
            ["node", "organisation", "database", "holds"],
            [
                [site.id, f"{site.organisation} ({site.jurisdiction})", site.engine, _persons(site.last_digits)]
                for site in SITES
            ],
        )
        federation = load_federation(federation_file)
        root = folder / "federation"
        try:
            screen.say(f"insitu-compose up {federation_file.name}")
            layout, _ = lifecycle.up(federation, root, lambda line: screen.say(f"  {line}"))
            screen.say(
                f"Ready after {time.monotonic() - began:.1f} s. Only the gateway listens; the nodes dialled out."
            )
            play(screen, layout)
        finally:
            if (root / "compose.json").exists():
                ended = lifecycle.down(root)
                screen.title("Stopped")
                screen.say(f"{', '.join(ended) or 'nothing'}; {time.monotonic() - began:.1f} s in all.")


def _persons(last_digits: tuple[int, ...]) -> str:
    return f"persons whose id ends in {last_digits[0]} to {last_digits[-1]}"


if __name__ == "__main__":
    sys.exit(main())
