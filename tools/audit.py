"""Known vulnerabilities of what is locked, by pip-audit where its data can be had. Fails for a vulnerability alone.

pip-audit runs from ``build/audit``, made from a hashed lock of its own. Where it cannot be installed, or its data
cannot be reached, that is said and nothing else: hashes and licences are checked on every machine
(``docs/generate_dependencies.py``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "audit"
_SECONDS = 120


def run(*command: str | Path) -> subprocess.CompletedProcess[str] | None:
    """A finished command; None where it cannot be run, or does not finish."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def installed() -> Path | None:
    """The program, installed if need be."""
    program = PLACE / "bin" / "pip-audit"
    if not program.exists():
        lock = ROOT / "requirements-audit.lock"
        for command in (
            (sys.executable, "-m", "venv", PLACE),
            (
                PLACE / "bin" / "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "-r",
                lock,
            ),
        ):
            done = run(*command)
            if done is None or done.returncode:
                return None
    return program


def verdict(output: str) -> tuple[int, str]:
    """Exit code and text for what pip-audit printed."""
    try:
        listed = json.loads(output)["dependencies"]  # noqa: TID251  pip-audit's output
        packages = [one for one in listed if "skip_reason" not in one]
    except (ValueError, KeyError, TypeError):
        listed = packages = []
    if not packages:
        return 0, "audit: data on vulnerabilities cannot be had here; hashes and licences are checked without"
    found = [f"{one['name']} {one['version']}: {each['id']}" for one in packages for each in one.get("vulns", ())]
    return int(bool(found)), "\n".join(
        found
    ) or f"audit: of {len(packages)} packages of {len(listed)} no vulnerability is known"


def main() -> int:
    """Say what is known."""
    program = installed()
    done = program and run(
        program, "--format", "json", "--progress-spinner", "off", "--timeout", "5", "--disable-pip", "--require-hashes",
        "-r", ROOT / "requirements.lock",
    )  # fmt: skip
    code, text = verdict(done.stdout if done else "")
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
