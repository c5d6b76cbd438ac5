"""What only the lab can do to a deployment; none of it goes through `juju`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jubilant


class Faults:
    """Faults for the units of one model."""

    def __init__(self, lab: Path, juju: jubilant.Juju) -> None:
        self._lab = lab
        self._juju = juju

    def machine(self, unit: str) -> str:
        """The machine of a unit."""
        return self._juju.status().apps[unit.rpartition("/")[0]].units[unit].machine

    def run(self, *words: str, timeout: float = 60) -> str:
        """One `lab` command's output."""
        done = subprocess.run(
            [self._lab, *words], check=True, capture_output=True, text=True, timeout=timeout
        )
        return done.stdout

    def power_off(self, unit: str) -> None:
        """Pull the plug of the unit's machine."""
        self.run("power", "off", self.machine(unit))

    def power_on(self, unit: str) -> None:
        """Power the unit's machine on again."""
        self.run("power", "on", self.machine(unit))

    def cut(self, unit: str, network: str) -> None:
        """Unplug the machine's cable to a network."""
        self.run("link", "cut", self.machine(unit), network)

    def heal(self, unit: str, network: str) -> None:
        """Plug it in again."""
        self.run("link", "heal", self.machine(unit), network)

    def kill_agent(self, unit: str) -> None:
        """Kill the unit's agent, and its hook with it; it is started again."""
        self.fault("kill-agent", unit)

    def elect(self, unit: str) -> None:
        """Make another unit the leader, as if the lease had expired."""
        self.fault("give-lease", unit.rpartition("/")[0], unit)

    def fault(self, name: str, *words: str) -> str:
        """One `lab fault` in this model."""
        model = (self._juju.model or "").rpartition(":")[2]
        return self.run("fault", name, *words, "--model", model)

    def nic_of(self, unit: str, network: str) -> str:
        """The interface of the unit's machine that is plugged into a network."""
        from lab.host.machine import Machine
        from lab.layout import Lab

        return Machine(Lab.from_environment(), self.machine(unit)).nic_of(network)

    def image(self) -> Path:
        """A container image of a megabyte."""
        from lab import image
        from lab.layout import Lab

        return image.build(Lab.from_environment())
