"""One at a time over threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from insitu_node.order import Order

HOLDER = """
import sys, time
from pathlib import Path
from insitu_node.order import Order
with Order(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.attacks("E9")
def test_another_process_waits_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "order"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        taken = threading.Event()

        def take() -> None:
            with Order(path):
                taken.set()

        waiting = threading.Thread(target=take)
        waiting.start()
        assert not taken.wait(0.2)
        holder.stdin.close()
        assert taken.wait(20)
        waiting.join()


def test_threads_take_turns_and_an_error_lets_go(tmp_path: Path) -> None:
    order, inside, most = Order(tmp_path / "order"), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with order:
                inside += 1
                most = max(most, inside)
                time.sleep(0.0002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    with pytest.raises(ValueError, match="x"), order:
        raise ValueError("x")
    with order:
        pass
    with pytest.raises(OSError, match="No such file"), Order(tmp_path / "none" / "order"):
        pass
