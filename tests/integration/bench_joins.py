"""`make joins`: how many machines may join an LXD cluster at once; the charm lets in one.

    python -m integration.bench_joins [--runs N] [AT_ONCE ...]

Clusters of three grow to eight by direct calls, so many joins at a time as is said. A join that
has not ended after TIMEOUT seconds counts as one that hangs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from integration import bench_rest
from integration.bench import BIN, LAB, alone, up
from integration.bench_floor import MEMBERS, Floor
from integration.bench_rest import BenchError
from lab.host.machine import Machine
from lab.layout import Lab

TOTAL = 8
CHANNEL = "5.21/stable"
TIMEOUT = 60.0  # seconds


@dataclass
class Growth:
    """How a cluster of three took `TOTAL - MEMBERS` more machines."""

    seconds: float = 0.0
    refused: list[str] = field(default_factory=list[str])
    hung: list[str] = field(default_factory=list[str])


def grow(at_once: int) -> Growth:
    """Grow a fresh cluster, this many joins at a time; raises BenchError and LabError."""
    lab, found = Lab(LAB), Growth()
    with up(lab):
        floor = Floor(lab, {"lxd": CHANNEL})
        floor.form()
        first = Machine(lab, "0")
        with ThreadPoolExecutor(MEMBERS) as workers:
            joiners = list(workers.map(floor.prepare, map(str, range(MEMBERS, TOTAL))))

        def join(machine: Machine) -> None:
            began = time.monotonic()
            try:
                floor.join(first, machine)
            except BenchError as fault:
                hangs = time.monotonic() > began + TIMEOUT
                (found.hung if hangs else found.refused).append(str(fault))

        began = time.monotonic()
        with ThreadPoolExecutor(at_once) as workers:
            list(workers.map(join, joiners))
        found.seconds = time.monotonic() - began
    return found


def row(at_once: int, runs: Sequence[Growth]) -> str:
    """One line of the table; times are of the runs in which all joined."""
    good = [run.seconds / (TOTAL - MEMBERS) for run in runs if not run.hung + run.refused]
    cells = (
        at_once,
        len(runs) * (TOTAL - MEMBERS),
        sum(len(run.hung) for run in runs),
        sum(len(run.refused) for run in runs),
        f"{min(good):.1f} to {max(good):.1f} s" if good else "-",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make joins")
    parser.add_argument("at_once", nargs="*", type=int, default=[1, 2, 3, 5])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    bench_rest.TIMEOUT = TIMEOUT
    os.environ |= {"LAB": LAB, "PATH": f"{BIN}:{os.environ['PATH']}"}
    print("| at once | joins | hung | refused | time for each |\n|---|---|---|---|---|")
    with alone():
        for at_once in arguments.at_once:
            print(row(at_once, [grow(at_once) for _ in range(arguments.runs)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
