"""A process that works on one SQLite ledger and says on standard output what it was promised. Made to be killed.

    python -m tests.testkit.ledger_worker PATH drain NAME COUNT     reserve COUNT queries of its own, as fast as it can
    python -m tests.testkit.ledger_worker PATH shared NAME COUNT    reserve and commit COUNT queries shared by all
    python -m tests.testkit.ledger_worker PATH stop STEP            one query; stands still after STEP, to be killed there

Each line is a JSON list. A line is written only after the ledger returned, so that what it says must survive.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from insitu_node.ledger_sqlite import SqliteLedger
from insitu_privacy.errors import BudgetRefused

from tests.testkit.asks import NOW, ask, values


def say(*parts: object) -> None:
    sys.stdout.write(json.dumps(parts) + "\n")
    sys.stdout.flush()


def drain(ledger: SqliteLedger, name: str, count: int) -> None:
    for number in range(count):
        request_id = f"{name}-{number}"
        try:
            got = ledger.reserve(ask(request_id, epsilon="1/100"), NOW)
        except BudgetRefused:
            say("refused", request_id)
            continue
        say("reserved", request_id, got.kind)
        ledger.commit(got, values(number), NOW)
        say("released", request_id, number)


def shared(ledger: SqliteLedger, name: str, count: int) -> None:
    for number in range(count):
        got = ledger.reserve(ask(f"{name}-{number}", epsilon="1/100", plan=f"p{number}"), NOW)
        mine = values(os.getpid() * 1000 + number)
        answer = got.values if got.values is not None else ledger.commit(got, mine, NOW)
        say("answer", number, answer[0].statistics[0][0])


def stop(ledger: SqliteLedger, step: str) -> None:
    def stand_still_after(this: str) -> None:
        if this == step:
            say("stopped", this)
            time.sleep(600)

    stand_still_after("open")
    got = ledger.reserve(ask("r1", plan="p"), NOW)
    stand_still_after("reserve")
    ledger.commit(got, values(1), NOW)
    stand_still_after("commit")


def main() -> None:
    path, what, *rest = sys.argv[1:]
    ledger = SqliteLedger(Path(path))
    if what == "stop":
        stop(ledger, rest[0])
    elif what == "drain":
        drain(ledger, rest[0], int(rest[1]))
    else:
        shared(ledger, rest[0], int(rest[1]))


if __name__ == "__main__":
    main()
