"""`make simulation`: what forming a cloud of N units costs, and whether it always ends.

    python -m simulation_table [--runs N] [COUNT ...]

Undisturbed, and with hooks that die, joins that fail and leave half a member, and leaders that
change, at random. A hook is one that Juju runs on one unit; a round is the time of one step of
one unit of those that are busy at once, so rounds grow with what has to be done in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import formation
from simulation import Faults, Simulation

SERVICES = ("microceph", "microovn", "lxd")
FAULTS = Faults(crash=0.01, join_fails=0.1, half_joins=0.3, leader_changes=0.001)
COLUMNS = (
    "units",
    "disturbed",
    "converged",
    "hooks",
    "steps",
    "tokens",
    "hooks a unit",
    "bags read a hook",
    "took",
)
LIMIT = 100_000_000


def run(count: int, seed: int, faults: Faults | None) -> Simulation | None:
    """One formation; None if it did not converge."""
    simulation = Simulation(count, SERVICES, seed, faults)
    # Faults end once a unit has had a hundred hooks each, so that there is something to reach.
    if faults is not None:
        simulation.run(200 * count)
        simulation.faults = Faults()
    done = simulation.run(LIMIT, update_status=faults is not None)
    once = all(cluster.bootstraps == 1 for cluster in simulation.clusters.values())
    return simulation if done and once and simulation.is_formed() else None


def row(count: int, runs: int, faults: Faults | None) -> str:
    """One line of the table."""
    began = time.monotonic()
    found = [run(count, seed, faults) for seed in range(runs)]
    good = [simulation for simulation in found if simulation is not None]
    hooks = [sum(unit.hooks for unit in s.units.values()) for s in good]
    steps = [sum(unit.steps for unit in s.units.values()) for s in good]
    tokens = [s.tokens_issued for s in good]
    read = [count for s in good for count in s.bags_read]
    cells = [
        str(count),
        "yes" if faults else "no",
        f"{len(good)} of {runs}",
        *(
            f"{statistics.mean(values):.0f}" if values else "-"
            for values in (hooks, steps, tokens)
        ),
        f"{statistics.mean(hooks) / count:.0f}" if hooks else "-",
        f"{statistics.mean(read):.1f}" if read else "-",
        f"{(time.monotonic() - began) / runs:.1f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make simulation")
    parser.add_argument("counts", nargs="*", type=int, default=[3, 10, 50, 200])
    parser.add_argument("--runs", type=int, default=0)
    arguments = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for count in arguments.counts:
        for faults in (None, FAULTS):
            runs = arguments.runs or max(1, 600 // count**2 * 10 if count < 50 else 200 // count)
            print(row(count, runs, faults), flush=True)
    print(f"\n{formation.WINDOW} grants at a time; {len(SERVICES)} services")
    return 0


if __name__ == "__main__":
    sys.exit(main())
