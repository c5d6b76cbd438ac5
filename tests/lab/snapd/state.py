"""What snapd remembers on a machine, in one file, and the locks around changing it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.snapd.catalog import Connection

DIRECTORY = Path("/var/lib/snapd")


@dataclass
class Installed:
    """An installed snap. ``held`` is '' or until when; ``disabled`` services do not start."""

    name: str
    version: str
    revision: str
    channel: str
    cohort: str = ""
    held: str = ""
    enabled: bool = True
    options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class State:
    """All of it."""

    snaps: dict[str, Installed] = field(default_factory=dict[str, Installed])
    connections: list[Connection] = field(default_factory=list[Connection])
    manual: list[str] = field(default_factory=list[str])

    def get(self, name: str) -> Installed:
        """Return an installed snap.

        Raises:
            LabError: with snapd's words, if it is not installed.
        """
        if name not in self.snaps:
            raise LabError(f'snap "{name}" is not installed')
        return self.snaps[name]


def load() -> State:
    """Return the state as it is now."""
    try:
        loaded: dict[str, Any] = json.loads((DIRECTORY / "state.json").read_text())
    except FileNotFoundError:
        return State()
    return State(
        snaps={name: Installed(**snap) for name, snap in loaded["snaps"].items()},
        connections=[Connection(**c) for c in loaded["connections"]],
        manual=loaded["manual"],
    )


@contextmanager
def change() -> Iterator[State]:
    """Load, let the caller change, save. Held for moments only, never while something runs."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with open(DIRECTORY / "state.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = load()
        yield state
        partial = DIRECTORY / "state.json.new"
        partial.write_text(json.dumps(asdict(state), indent=1))
        partial.replace(DIRECTORY / "state.json")


@contextmanager
def changing(name: str, kind: str) -> Iterator[None]:
    """Keep others from changing the same snap, as snapd does.

    Raises:
        LabError: a change of that snap is in progress.
    """
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with open(DIRECTORY / f"change-{name}.lock", "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            running = lock.read() or "change"
            raise LabError(f'snap "{name}" has "{running}" change in progress') from error
        lock.truncate(0)
        lock.write(kind)
        lock.flush()
        yield
