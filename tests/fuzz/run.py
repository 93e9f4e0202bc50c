"""The long run, under atheris: every target in a process of its own, guided by what it covers of insitu.

    python -m tests.fuzz.run [--seconds N] [TARGET ...]

The corpus is kept in build/fuzz/TARGET; a fault is written there as crash-…, to be fixed and then moved to
tests/fuzz/found/TARGET. Exits with 1 where one was found. Needs the package atheris, which `make test` does not.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

# Nothing of insitu is imported up here: what atheris is to follow must be imported by ``_instrumented``.

_PACKAGES = ["insitu_privacy", "insitu_access", "insitu_proto", "insitu_node", "insitu_gateway", "insitu", "sqlglot"]
_MEGABYTES = 2048
_BUILD = Path(__file__).parents[2] / "build" / "fuzz"


def _instrumented(name: str) -> Target:
    import atheris

    with atheris.instrument_imports(include=_PACKAGES, enable_loader_override=False):
        from tests.fuzz.targets import targets

        return targets()[name]


def _fuzz(target: Target, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    from tests.fuzz.bombs import bombs
    from tests.fuzz.mutate import ACTS

    corpus = _BUILD / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(target.seeds):
        (corpus / f"seed-{place}").write_bytes(seed)
    for place, (name, _, data) in enumerate(bombs()):
        if name == target.name and len(data) <= target.longest:
            (corpus / f"bomb-{place}").write_bytes(data)

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        """Half the time libFuzzer's own mutation, else one of ours."""
        draw = random.Random(seed)
        if draw.random() < 0.5:
            return atheris.Mutate(data, longest)
        return draw.choice(ACTS)(data, draw)[:longest]

    bound = max(5, int(5 * target.seconds))  # instrumented, and by the clock
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={bound}",
        f"-rss_limit_mb={_MEGABYTES}",
        f"-artifact_prefix={corpus}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.outcome, custom_mutator=mutated)
    atheris.Fuzz()


def _each(names: list[str], seconds: int) -> int:
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.run", "--one", "--seconds", str(seconds), name]
        done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, env=os.environ)
        figures = [line for line in done.stdout.splitlines() if line.startswith("stat::number_of_executed_units")]
        print(*figures, flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout[-4000:], flush=True)
    print(f"faults in: {', '.join(failed)}" if failed else "no faults")
    return int(bool(failed))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--one", action="store_true", help="in this process")
    parser.add_argument("targets", nargs="*")
    asked = parser.parse_args()
    if asked.one:
        _fuzz(_instrumented(asked.targets[0]), asked.seconds)
    from tests.fuzz.targets import targets

    return _each(asked.targets or sorted(targets()), asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
