"""Generate the protobuf and gRPC stubs beside ``insitu.proto``, or with ``--check`` fail where they are stale.

The stubs are committed, so that installing insitu needs no compiler. Run by ``make proto`` and ``make check``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent
SOURCE = "insitu_proto/v1/insitu.proto"
STUBS = ("insitu_pb2.py", "insitu_pb2.pyi", "insitu_pb2_grpc.py", "insitu_pb2_grpc.pyi")
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def generate(out: Path) -> None:
    """Write the four stubs below ``out``, in the package's own folders."""
    scripts = Path(sys.executable).parent
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [f"--plugin={name}={scripts / name}" for name in PLUGINS]
    if protoc.main(["protoc", f"-I{ROOT}", *plugins, *outputs, SOURCE]) != 0:
        raise SystemExit("protoc failed")


def stale() -> list[str]:
    """Names of the committed stubs that differ from freshly generated ones."""
    committed = (ROOT / SOURCE).parent
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = (Path(folder) / SOURCE).parent
        return [name for name in STUBS if not same(committed / name, fresh / name)]


def same(one: Path, other: Path) -> bool:
    """Whether both files exist and hold the same bytes."""
    return one.is_file() and one.read_bytes() == other.read_bytes()


def main() -> None:
    """Generate, or check."""
    if sys.argv[1:] == ["--check"]:
        if names := stale():
            raise SystemExit(f"stale stubs: {', '.join(names)}; run `make proto`")
    elif sys.argv[1:]:
        raise SystemExit("usage: generate.py [--check]")
    else:
        generate(ROOT)


if __name__ == "__main__":
    main()
