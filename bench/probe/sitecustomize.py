"""Put on the path of the federation that ``bench.gateway`` starts, and of nothing else: takes the time of each answer.

A node never says how long it took (DESIGN.md section 4, No side doors), so the benchmark looks inside: in processes of
``insitu-node``, ``Cycle.answer`` is wrapped, and for every request its seconds are appended to a file of the process in
the folder ``INSITU_BENCH_PROBE``. From admission to the sealed outcome; not the streams around it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def _install(folder: str) -> None:
    from insitu_node.cycle import Cycle
    from insitu_node.running import Progress

    answer = Cycle.answer

    def timed(self: Cycle, request_id: str, request_jws: str, grant_jwt: str, progress: Progress) -> str:
        start = time.perf_counter()
        try:
            return answer(self, request_id, request_jws, grant_jwt, progress)
        finally:
            line = json.dumps({"request": request_id, "seconds": time.perf_counter() - start})
            with Path(folder, f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    Cycle.answer = timed  # type: ignore[method-assign]


if len(sys.orig_argv) > 1 and Path(sys.orig_argv[1]).name == "insitu-node" and "INSITU_BENCH_PROBE" in os.environ:
    _install(os.environ["INSITU_BENCH_PROBE"])
