"""Names and paths of a lab: everything it owns on the host can be derived from its name.

A lab is found by its name (environment variable ``LAB``, default ``lab``) below a directory
that all labs share (``LAB_ROOT``, default ``/srv/charm-lab``). Nothing else is shared.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

DEFAULT_ROOT = "/srv/charm-lab"
# The directory that PYTHONPATH must name for "import lab" to work.
PACKAGE_PARENT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Lab:
    """One lab. Making the object touches nothing; the lab itself may be up, down or half there."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]{1,8}", self.name):
            raise LabError(
                f"{self.name!r} is no name for a lab: use 1 to 8 lower-case letters and digits "
                "(environment variable LAB)"
            )

    @classmethod
    def from_environment(cls) -> Lab:
        """Return the lab that ``LAB`` names, or the one called ``lab``."""
        return cls(os.environ.get("LAB", "lab"))

    @property
    def base(self) -> Path:
        """The directory of all labs."""
        return Path(os.environ.get("LAB_ROOT", DEFAULT_ROOT))

    @property
    def root(self) -> Path:
        """This lab's directory; seen at the same path by the host and by every machine."""
        return self.base / self.name

    @property
    def machines_dir(self) -> Path:
        """One directory per machine, named by its id."""
        return self.root / "machines"

    @property
    def shape_file(self) -> Path:
        """The shape this lab was brought up with."""
        return self.root / "shape.json"

    @property
    def switch_netns(self) -> str:
        """The network namespace with one bridge per network."""
        return f"{self.name}-sw"

    @property
    def router_netns(self) -> str:
        """The network namespace that routes between the networks."""
        return f"{self.name}-rt"

    @property
    def controller_netns(self) -> str:
        """The network namespace for the Juju controller."""
        return f"{self.name}-ctl"

    def machine_netns(self, machine_id: str) -> str:
        """The network namespace of a machine, also the name of its cgroups."""
        return f"{self.name}-m{machine_id}"

    @contextmanager
    def lock(self, name: str = "lab") -> Iterator[None]:
        """Hold one of this lab's locks, for changes that two commands may want at once."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / f".{name}.lock", "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
