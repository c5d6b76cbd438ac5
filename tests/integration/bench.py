"""`make bench`: the charm against the daemons alone, and its no-op hooks against an empty charm's.

Both sides run in each round, on fresh machines of a lab of their own. The table is for people,
`build/bench.json` for comparing runs; see docs/explanation/benchmarks.md. It only reports.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import jubilant
import yaml
from rich.console import Console
from rich.table import Table

from integration import bench_state
from integration.bench_charm import CharmSide, Formation, NoOps
from integration.bench_floor import Floor
from integration.bench_rest import BenchError
from lab.errors import LabError
from lab.juju.wire import RemoteError
from lab.layout import Lab
from lab.pack import PackError, pack

REPO = Path(__file__).parent.parent.parent
BIN = REPO / "tests/lab/bin"
EMPTY = REPO / "tests/lab/exerciser/empty"
OUTPUT = REPO / "build/bench.json"
LAB = "bench"
SERVICES = {"ovn": "microovn", "ceph": "microceph"}  # those that can be left out
MEASURED = ("lxd", "ovn")
LAB_TIMEOUT = 120.0  # seconds

# What the table shows: key, title, unit, and the ratio that belongs to it.
ROWS = (
    ("floor_s", "Floor: the daemons alone", "s", ""),
    ("formation_s", "Charm: deploy to active and idle", "s", "formation_ratio"),
    ("deploy_s", "Charm: the command `juju deploy` alone", "s", ""),
    ("machines_s", "Charm: deploy to all machines on", "s", ""),
    ("active_s", "Charm: deploy to active", "s", "active_ratio"),
    ("empty_hook_ms", "Empty charm's update-status", "ms", ""),
    ("noop_hook_ms", "Follower's update-status", "ms", "noop_ratio"),
    ("leader_hook_ms", "Leader's update-status", "ms", "leader_ratio"),
    ("hooks_per_unit", "Hooks per unit, deploy to idle", "", ""),
    ("hook_tool_calls", "Hook-tool calls, deploy to idle", "", ""),
    ("lab_memory_mib", "Memory of the formed lab", "MiB", ""),
)


@dataclass
class Round:
    """What one round has measured."""

    load: float  # the host's before it, over a minute
    floor: Floor
    floor_s: float
    formation: Formation
    noops: NoOps
    memory: int

    def figures(self) -> dict[str, float]:
        """The round's figures by their names in bench.json."""
        hooks = self.formation.hooks
        empty, follower = self.noops.median("empty"), self.noops.median("follower")
        leader = self.noops.median("leader")
        found = {
            "floor_s": self.floor_s,
            "formation_s": self.formation.idle,
            "formation_ratio": self.formation.idle / self.floor_s,
            "active_s": self.formation.active,
            "deploy_s": self.formation.deploy,
            "machines_s": self.formation.machines,
            "active_ratio": self.formation.active / self.floor_s,
            "noop_hook_ms": follower,
            "empty_hook_ms": empty,
            "noop_ratio": follower / empty,
            "leader_hook_ms": leader,
            "leader_ratio": leader / empty,
            "hooks_per_unit": len(hooks) / len({run.unit for run in hooks}),
            "hook_tool_calls": sum(len(run.tools) for run in hooks),
            "lab_memory_mib": self.memory,
        }
        return {name: round(value, 3) for name, value in found.items()}

    def critical_path(self) -> list[dict[str, Any]]:
        """The hooks that the formation's end had to wait for, in seconds since the deploy."""
        return [
            {
                "unit": stage.run.unit,
                "hook": stage.run.name,
                "remote": stage.run.remote,
                "start_s": round(stage.run.start - self.formation.began, 3),
                "waited_s": round(stage.waited, 3),
                "seconds": round(stage.run.seconds, 3),
                "calls": len(stage.run.tools),
            }
            for stage in self.formation.path
        ]


@dataclass
class Bench:
    """The benchmark: what is formed, and from which packed charms."""

    services: tuple[str, ...]
    charm: Path
    empty: Path

    def __post_init__(self) -> None:
        self._lab = Lab(LAB)
        self._options = yaml.safe_load((REPO / "config.yaml").read_text())["options"]

    def run(self) -> Round:
        """One round: the floor, then the charm; raises BenchError and what the lab raises."""
        ovn, load = "ovn" in self.services, os.getloadavg()[0]
        floor = Floor(self._lab, self._channels())
        with up(self._lab):
            floor_s = floor.form()
            by_hand = bench_state.read(self._lab, ovn=ovn)
        with up(self._lab):
            side = CharmSide(self._lab, self.charm, self.empty, self._config())
            formation = side.form()
            bench_state.compare(by_hand, bench_state.read(self._lab, ovn=ovn))
            memory = side.memory()
            noops = side.no_ops(formation)
        return Round(load, floor, floor_s, formation, noops, memory)

    def _channels(self) -> dict[str, str]:
        snaps = [snap for name, snap in SERVICES.items() if name in self.services]
        return {snap: self._options[f"{snap}-channel"]["default"] for snap in [*snaps, "lxd"]}

    def _config(self) -> Mapping[str, str]:
        config = {"local-driver": "btrfs"}
        for name, snap in SERVICES.items():
            if name not in self.services and f"{snap}-channel" in self._options:
                config[f"{snap}-channel"] = ""
        return config


@contextmanager
def up(lab: Lab) -> Iterator[None]:
    """The lab with its networks and controller, and no trace of it afterwards."""
    _lab_command("down")  # what a run that was killed has left
    try:
        _lab_command("up")
        yield
    finally:
        _lab_command("down")


def _lab_command(word: str) -> None:
    done = subprocess.run(
        [BIN / "lab", word], capture_output=True, text=True, timeout=LAB_TIMEOUT, check=False
    )
    if done.returncode:
        raise BenchError(f"`lab {word}` of lab {LAB} failed: {done.stderr.strip()}")


@contextmanager
def alone() -> Iterator[None]:
    """Refuse a second benchmark at the same time: it would take this one's lab down."""
    base = Lab(LAB).base
    base.mkdir(parents=True, exist_ok=True)
    handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY)  # a lock on it, and nothing left behind
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise BenchError("another benchmark runs on this host; wait for its end") from fault
        yield
    finally:
        os.close(handle)


def report(rounds: list[Round], services: tuple[str, ...]) -> dict[str, Any]:
    """What goes into bench.json: each figure's median, then what it is made of."""
    figures = [each.figures() for each in rounds]
    series = {name: [each[name] for each in figures] for name in figures[0]}
    ordered = sorted(rounds, key=lambda each: each.formation.idle)
    typical = ordered[(len(ordered) - 1) // 2]
    return {
        **{name: round(median(values), 3) for name, values in series.items()},
        "critical_path": typical.critical_path(),
        "floor_phases": typical.floor.phases,
        "noop_tool_calls": typical.noops.calls,
        "rounds": series,
        "services": list(services),
        "processors": os.cpu_count(),
        "loads": [round(each.load, 2) for each in rounds],
    }


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Print the tables."""
    count = len(found["rounds"]["floor_s"])
    title = f"{', '.join(found['services'])}; {count} rounds; {found['processors']} processors"
    title += f"; load before each: {', '.join(map(str, found['loads']))}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in ("median", "min", "max", "ratio"):
        table.add_column(column, justify="right")
    for key, name, unit, ratio in ROWS:
        values = found["rounds"][key]
        cells = [f"{pick(values):.1f} {unit}".strip() for pick in (median, min, max)]
        table.add_row(name, *cells, f"{found[ratio]:.2f}" if ratio else "")
    console.print(table)
    _show_path(console, found)


def _show_path(console: Console, found: Mapping[str, Any]) -> None:
    path = found["critical_path"]
    table = Table(title="Critical path of the typical round, seconds", title_justify="left")
    for column in ("at", "waited", "took", "calls", "hook"):
        table.add_column(column, justify="left" if column == "hook" else "right")
    for stage in path:
        remote = f" ({stage['remote']})" if stage["remote"] else ""
        times = (f"{stage[key]:.2f}" for key in ("start_s", "waited_s", "seconds"))
        name = f"{stage['unit']} {stage['hook']}{remote}"
        table.add_row(*times, str(stage["calls"]), name)
    console.print(table)
    inside, between = sum(s["seconds"] for s in path), sum(s["waited_s"] for s in path)
    console.print(
        f"{len(path)} hooks: {inside:.1f} s in them, {between:.1f} s before and between them; "
        f"mean {mean(s['seconds'] for s in path):.2f} s"
    )
    calls = ", ".join(f"{whose} {count:.0f}" for whose, count in found["noop_tool_calls"].items())
    console.print(f"Hook-tool calls of a hook with nothing to do: {calls}")
    phases = ", ".join(f"{name} {at:.1f}" for name, at in found["floor_phases"].items())
    console.print(f"The floor's phases, seconds since its begin: {phases}")


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="integration.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often (default 3)")
    parser.add_argument(
        "--services",
        default="lxd",
        help=f"what is formed, of {', '.join(MEASURED)}, split at commas (default lxd)",
    )
    found = parser.parse_args(argv)
    found.services = tuple(dict.fromkeys(["lxd", *found.services.split(",")]))
    unknown = sorted(set(found.services) - set(MEASURED))
    if unknown or found.rounds < 1:
        parser.error(
            f"--services: {', '.join(unknown)} cannot be measured; {', '.join(MEASURED)} can"
            if unknown
            else "--rounds: at least 1"
        )
    return found


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the rounds; raises BenchError, LabError, PackError, or what jubilant raises."""
    charms = pack(REPO, REPO / "build/microcloud.charm"), pack(EMPTY, REPO / "build/empty.charm")
    bench = Bench(options.services, *charms)
    rounds: list[Round] = []
    with alone():
        for number in range(1, options.rounds + 1):
            rounds.append(bench.run())
            told = rounds[-1].figures()
            sides = f"floor {told['floor_s']:.1f} s, charm {told['formation_s']:.1f} s"
            console.print(f"round {number}: {sides}", highlight=False)
    return report(rounds, options.services)


def main(argv: list[str]) -> int:
    """Run the benchmark; return its exit status."""
    options, console = _options(argv), Console()
    if os.geteuid() != 0:
        console.print("the lab makes namespaces and mounts: run the benchmark as root")
        return 1
    os.environ |= {"LAB": LAB, "PATH": f"{BIN}:{os.environ['PATH']}"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is taken down
    try:
        found = measure(options, console)
    except (BenchError, LabError, PackError, RemoteError, RuntimeError, OSError) as fault:
        console.print(f"The benchmark ended early: {fault}", markup=False)
        return 1
    except (jubilant.CLIError, subprocess.TimeoutExpired) as fault:
        said = getattr(fault, "stderr", "") or ""
        console.print(f"The benchmark ended early: {fault} {said}", markup=False)
        return 1
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(found, indent=2) + "\n")
    show(console, found)
    console.print(f"Written to {OUTPUT.relative_to(REPO)}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
