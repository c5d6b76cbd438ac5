"""The charm's side of the benchmark: deploy to active and idle, and hooks with nothing to do."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jubilant

from integration import bench_trace as trace
from integration.bench_floor import MEMBERS
from integration.bench_rest import BenchError
from integration.bench_trace import HookRun, Stage
from integration.cloud import APP
from lab import status
from lab.host.machine import machines
from lab.juju.controller import connect, root_of
from lab.layout import Lab

MODEL = "bench"
FORMATION_TIMEOUT = 600.0  # seconds
SETTLED = 0.5  # seconds without work, to be called idle
POLL = 0.1  # seconds between two looks; through the controller's socket, which is cheap
SAMPLES = 6  # no-op hooks of each kind
SAMPLING_TIMEOUT = 150.0  # seconds
INTERVAL = 5  # seconds between two update-status hooks of a unit, on average


@dataclass
class Formation:
    """A cloud formed by the charm; times in seconds since `juju deploy` began.

    `deploy`: the command is back; `machines`: all are on; `active`, `idle`: all units are, for
    good.
    """

    deploy: float
    machines: float
    active: float
    idle: float
    hooks: list[HookRun]
    path: list[Stage]
    began: float
    leader: str


@dataclass
class NoOps:
    """Milliseconds and hook-tool calls of hooks with nothing to do, by whose they are."""

    times: dict[str, list[float]]
    calls: dict[str, float]

    def median(self, whose: str) -> float:
        """The median in milliseconds."""
        return median(self.times[whose])


@dataclass
class CharmSide:
    """The charm in one lab, which has a controller and no model yet."""

    lab: Lab
    charm: Path
    empty: Path
    config: Mapping[str, str]

    def __post_init__(self) -> None:
        self._juju = jubilant.Juju(model=MODEL)
        self._trace = root_of(self.lab) / "hooks.jsonl"

    def form(self) -> Formation:
        """Deploy three units and wait until all are active and idle; raises BenchError."""
        self._juju.add_model(MODEL)
        began = time.time()
        self._juju.deploy(self.charm, APP, num_units=MEMBERS, config=dict(self.config))
        deploy = time.time() - began
        self._machines_on(began)
        on = time.time() - began
        active, idle = self._watch(began)
        hooks = trace.read(self._trace, APP, began)
        leader = next(name for name, unit in self._units().items() if unit.get("leader"))
        path = trace.critical_path(hooks, leader, began)
        return Formation(deploy, on, active, idle, hooks, path, began, leader)

    def _units(self, app: str = APP) -> dict[str, Any]:
        client = connect(self.lab)
        try:
            found = client.call("status_of", model=MODEL, patterns=[])
        finally:
            client.close()
        return (found["applications"].get(app) or {}).get("units") or {}

    def _machines_on(self, began: float) -> None:
        while sum(machine.is_on for machine in machines(self.lab)) < MEMBERS:
            if time.time() > began + FORMATION_TIMEOUT:
                raise BenchError(f"the machines are not on after {FORMATION_TIMEOUT:.0f} s")
            time.sleep(POLL)

    def _watch(self, began: float) -> tuple[float, float]:
        active = idle = 0.0
        while time.time() < began + FORMATION_TIMEOUT:
            units, now = self._units().values(), time.time() - began
            active = (active or now) if _are(units, "workload-status", "active") else 0.0
            if active and _are(units, "juju-status", "idle"):
                idle = idle or now
                if now > idle + SETTLED:
                    return active, idle
            else:
                idle = 0.0
            if any(unit["workload-status"]["current"] == "error" for unit in units):
                raise BenchError("a hook failed; its words are in `juju debug-log`:\n"
                                 + self._juju.debug_log(limit=30))  # fmt: skip
            time.sleep(POLL)
        told = {name: unit["workload-status"] for name, unit in self._units().items()}
        raise BenchError(f"not active and idle after {FORMATION_TIMEOUT:.0f} s: {told}")

    def memory(self) -> int:
        """MiB that the machines' processes and the controller take, the host's share left out."""
        found = status.collect(self.lab)["machines"].values()
        pid = (root_of(self.lab) / "controller.pid").read_text().strip()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        controller = next(int(li.split()[1]) for li in rollup.splitlines() if li[:4] == "Pss:")
        return (sum(machine["memory-kib"] for machine in found) + controller) // 1024

    def no_ops(self, formation: Formation) -> NoOps:
        """Let update-status run until there are enough samples; raises BenchError.

        The empty charm is a guest on the leader's machine. Only hooks count that were alone.
        """
        machine = self._units()[formation.leader]["machine"]
        self._juju.deploy(self.empty, "empty", to=machine)
        self._until_started("empty")
        self._juju.model_config({"update-status-hook-interval": f"{INTERVAL}s"})
        for each in machines(self.lab):  # an agent has planned its next one already
            for name in each.services():
                if name.startswith("jujud-"):
                    each.restart_service(name)
        since = time.time()
        found: dict[str, list[HookRun]] = {}
        while time.time() < since + SAMPLING_TIMEOUT:
            time.sleep(1)
            found = self._samples(formation.leader, since)
            if all(len(runs) >= SAMPLES for runs in found.values()):
                break
        if not all(found.values()):
            raise BenchError(
                f"no undisturbed update-status of each kind within {SAMPLING_TIMEOUT:.0f} s; the "
                f"host has too much else to do (load {os.getloadavg()[0]:.1f})"
            )
        return NoOps(
            {whose: [run.seconds * 1000 for run in runs] for whose, runs in found.items()},
            {whose: median(len(run.tools) for run in runs) for whose, runs in found.items()},
        )

    def _until_started(self, app: str) -> None:
        deadline = time.monotonic() + FORMATION_TIMEOUT
        while not _are(self._units(app).values(), "juju-status", "idle", count=1):
            if time.monotonic() > deadline:
                raise BenchError(f"{app} did not come up within {FORMATION_TIMEOUT:.0f} s")
            time.sleep(POLL)

    def _samples(self, leader: str, since: float) -> dict[str, list[HookRun]]:
        ours = trace.read(self._trace, APP, since)
        empty = trace.read(self._trace, "empty", since)
        found: dict[str, list[HookRun]] = {"follower": [], "leader": [], "empty": []}
        for run in trace.undisturbed([*ours, *empty], [*ours, *empty]):
            if run.name == "update-status" and "relation-set" not in run.tools:
                whose = "leader" if run.unit == leader else "follower"
                found["empty" if run.unit.startswith("empty/") else whose].append(run)
        return found


def _are(units: Any, kind: str, state: str, count: int = MEMBERS) -> bool:
    return len(units) == count and all(unit[kind]["current"] == state for unit in units)
