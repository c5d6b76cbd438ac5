"""Which lab and machine a program runs in; for stand-ins that run inside the machines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.errors import LabError

FILE = Path("/run/lab/lab.json")


@dataclass(frozen=True)
class Facts:
    """Written by the lab at each power-on. ``snap_delay`` is in seconds."""

    lab: str
    lab_root: str
    machine: str
    hostname: str
    python: str
    pythonpath: str
    payload: str
    snap_delay: float


@cache
def load() -> Facts:
    """Return the facts.

    Raises:
        LabError: this is not inside a machine of a lab.
    """
    try:
        return Facts(**json.loads(FILE.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise LabError(f"{FILE} is missing: this program runs inside a lab's machine") from error
