"""Drive a model of exercised charms and read what they recorded.

Everything goes through the `juju` command (by jubilant) except two things real Juju has no
command for: plans are written, and records read, as files in a directory that host and machines
share. On a real controller the same could be done with `juju ssh`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jubilant

WAIT = 40.0  # seconds any expected change may take, on two busy cores
POLL = 0.1  # seconds between two looks
SLOW_POLL = 0.25  # seconds between two looks at the whole status, which costs a process
QUIET = 0.5  # seconds without any new event before a model counts as settled


@dataclass(frozen=True)
class Record:
    """One line of a unit's record."""

    unit: str
    line: dict[str, Any]

    @property
    def event(self) -> str:
        """The event's name, with hyphens."""
        return str(self.line["event"])

    @property
    def hook(self) -> str:
        """The name of the hook that was dispatched; another than `event` if it was deferred."""
        return str(self.line["hook"])

    @property
    def env(self) -> dict[str, str]:
        """The environment of the hook."""
        return self.line.get("env", {})

    @property
    def out(self) -> list[Any]:
        """What the planned steps gave."""
        return self.line.get("out", [])

    @property
    def time(self) -> float:
        """Seconds since the epoch, comparable between machines of one lab."""
        return float(self.line["time"])

    def __str__(self) -> str:
        """Return the event's name and whom it is about, as a golden log writes it."""
        text = self.event
        line = self.line
        if "relation" in line:
            text += f" {line['unit'] or line['app'] or '-'}"
        if line.get("departing"):
            text += f" ({line['departing']} departs)"
        if "secret" in line:
            text += f" {line['label'] or '-'}"
            text += f" r{line['revision']}" if line["revision"] else ""
        if "storage" in line:
            text += f" {line['storage'].split('/')[0]}"
        return text


class Story:
    """One model, its units' records and plans."""

    def __init__(self, juju: jubilant.Juju, log_dir: Path) -> None:
        self.juju = juju
        self.log_dir = log_dir

    # --- records ----------------------------------------------------------------------------

    def lines(self, unit: str, phase: str = "begin") -> list[Record]:
        """Return the unit's records of one phase ("begin" or "end"), oldest first."""
        path = self.log_dir / unit.replace("/", "-") / "events.jsonl"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [Record(unit, line) for line in lines if line["phase"] == phase]

    def events(self, unit: str, since: int = 0) -> list[str]:
        """Return the unit's events as text, without actions and update-status."""
        return [
            str(record)
            for record in self.lines(unit)[since:]
            if record.event != "update-status" and not record.event.endswith("-action")
        ]

    def mark(self, *units: str) -> dict[str, int]:
        """Return a place in each unit's record, for `since`."""
        return {unit: len(self.lines(unit)) for unit in units}

    def since(self, mark: dict[str, int]) -> dict[str, list[str]]:
        """Return what each unit was sent after a mark."""
        return {unit: self.events(unit, place) for unit, place in mark.items()}

    def last(self, unit: str, event: str, phase: str = "begin") -> Record:
        """Return the latest record of an event."""
        found = [record for record in self.lines(unit, phase) if record.event == event]
        assert found, f"{unit} was never sent {event}: {self.events(unit)}"
        return found[-1]

    # --- plans and actions ------------------------------------------------------------------

    def plan(self, unit: str, event: str, *steps: dict[str, Any], keep: bool = False) -> Path:
        """Have the unit perform steps in its next event of a name (in all of them: `keep`)."""
        path = self.log_dir / unit.replace("/", "-") / "plan" / f"{event}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"steps": steps, "keep": keep}))
        new.rename(path)
        return path

    def perform(self, unit: str, *steps: dict[str, Any]) -> list[Any]:
        """Perform steps now, in an action."""
        task = self.juju.run(unit, "perform", {"steps": json.dumps(steps)}, wait=WAIT)
        return json.loads(task.results["out"])

    def one(self, unit: str, **step: Any) -> Any:
        """Perform one step now; underscores of its name stand for hyphens."""
        ((name, argument),) = step.items()
        return self.perform(unit, {name.replace("_", "-"): argument})[0]

    def attempt(self, unit: str, **step: Any) -> dict[str, str]:
        """Perform one step now that ops must refuse; return the error's class and message."""
        ((name, argument),) = step.items()
        (out,) = self.perform(unit, {"try": {name.replace("_", "-"): argument}})
        assert set(out or {}) == {"error", "message"}, f"was not refused, gave {out!r}"
        return out

    def tool(self, unit: str, *argv: Any) -> dict[str, Any]:
        """Run one hook tool now, in an action; return its rc, out and err."""
        return self.one(unit, tool=list(argv))

    # --- waiting ----------------------------------------------------------------------------

    def until(self, what: str, ready: Callable[[], Any], timeout: float = WAIT) -> Any:
        """Wait until `ready()` gives something true, and return it."""
        deadline = time.monotonic() + timeout
        while not (found := ready()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout:g} s: {what}\n{self.picture()}")
            time.sleep(POLL)
        return found

    def sent(self, unit: str, event: str, mark: dict[str, int] | None = None) -> Record:
        """Wait until the unit was sent an event (after a mark) and return its record."""
        place = (mark or {}).get(unit, 0)

        def found() -> Record | None:
            new = self.lines(unit)[place:]
            return next((r for r in new if event in (r.event, str(r))), None)

        return self.until(f"{unit} is sent {event}", found)

    def settle(self, timeout: float = WAIT) -> jubilant.Status:
        """Wait until all agents are idle and no unit was sent anything for a moment."""
        deadline = time.monotonic() + timeout
        before, since = -1, time.monotonic()
        while True:
            status = self.juju.status()
            now = self._total()
            if now != before or not _all_idle(status):
                before, since = now, time.monotonic()
            elif time.monotonic() - since > QUIET:
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"not settled within {timeout:g} s\n{self.picture()}")
            time.sleep(SLOW_POLL)

    def _total(self) -> int:
        return sum(path.stat().st_size for path in self.log_dir.glob("*/events.jsonl"))

    def picture(self) -> str:
        """Tell the state of the model, for a failed test's message."""
        status = self.juju.status()
        text = [
            f"{name}: {unit.juju_status.current}/{unit.workload_status.current} "
            f"{unit.workload_status.message!r} last events {self.events(name)[-4:]}"
            for app in status.apps.values()
            for name, unit in app.units.items()
        ]
        return "\n".join(text)

    def leader(self, app: str = "exerciser") -> str:
        """Return the name of the application's leader."""
        return self.until(f"{app} has a leader", lambda: self._leader(app))

    def _leader(self, app: str) -> str | None:
        units = self.juju.status().apps[app].units
        return next((name for name, unit in units.items() if unit.leader), None)

    def others(self, app: str = "exerciser") -> list[str]:
        """Return the names of the units that do not lead, in order of their numbers."""
        leader = self.leader(app)
        return [name for name in self.units(app) if name != leader]

    def units(self, app: str = "exerciser") -> list[str]:
        """Return the names of an application's units, in order of their numbers."""
        apps = self.juju.status().apps
        names: Iterable[str] = apps[app].units if app in apps else ()
        return sorted(names, key=lambda name: int(name.partition("/")[2]))


def _all_idle(status: jubilant.Status) -> bool:
    return all(
        unit.juju_status.current == "idle"
        for app in status.apps.values()
        for unit in app.units.values()
    )
