"""Reading the lab's record of hooks: what ran, and which of it the end had to wait for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMIT = 0.02  # seconds; a hook's changes are committed just after its end is noted


@dataclass(frozen=True)
class HookRun:
    """One hook that ran; times in seconds since the epoch."""

    unit: str
    name: str
    remote: str
    start: float
    end: float
    code: int
    tools: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it took, the interpreter's start included."""
        return self.end - self.start


@dataclass(frozen=True)
class Stage:
    """A hook on the critical path and the seconds between what enabled it and its start."""

    run: HookRun
    waited: float


def read(path: Path, app: str, since: float = 0.0) -> list[HookRun]:
    """The hooks of an application's units that began after `since`, in order of their ends."""
    found: list[HookRun] = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        ours = row["unit"].rpartition("/")[0] == app and row["start"] >= since
        if row["kind"] == "hook" and ours:
            times = row["start"], row["end"]
            run = HookRun(
                row["unit"], row["hook"], row["remote"], *times, row["rc"], tuple(row["tools"])
            )
            found.append(run)
    return sorted(found, key=lambda run: run.end)


def critical_path(runs: Sequence[HookRun], leader: str, began: float) -> list[Stage]:
    """Walk back from the last hook, each time to the hook whose end let it begin."""
    path: list[Stage] = []
    run = runs[-1] if runs else None
    while run is not None:
        before = _enabler(runs, run, leader)
        path.append(Stage(run, run.start - (before.end if before else began)))
        run = before
    return path[::-1]


def _enabler(runs: Sequence[HookRun], run: HookRun, leader: str) -> HookRun | None:
    """The last of what a hook had to wait for: its unit to be free, and somebody to write."""
    able = [
        other
        for other in runs
        if other.end <= run.start and (other.unit == run.unit or _wrote_for(other, run, leader))
    ]
    return able[-1] if able else None


def _wrote_for(other: HookRun, run: HookRun, leader: str) -> bool:
    """Whether the other hook may have caused this one."""
    if run.name.endswith("-relation-changed"):
        # Without a remote unit it is the application's bag, and the leader writes that.
        return other.unit == (run.remote or leader) and "relation-set" in other.tools
    if run.name.endswith("-relation-joined"):
        return other.unit == run.remote and other.name.endswith("-relation-created")
    return False


def undisturbed(runs: Iterable[HookRun], all_runs: Sequence[HookRun]) -> list[HookRun]:
    """Those during which no other hook ran: they had the processors to themselves."""
    return [
        run
        for run in runs
        if not any(o is not run and o.start < run.end and run.start < o.end for o in all_runs)
    ]
