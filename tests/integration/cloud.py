"""Looking at a deployed cloud as its user does: through `juju` and `lxc`."""

from __future__ import annotations

import json
import time
from typing import Any

import jubilant

APP = "microcloud"
PATIENCE = 60.0  # seconds that a hook may be in error


def units(juju: jubilant.Juju, app: str = APP) -> list[str]:
    """The application's units, by number."""
    status = juju.status()
    return sorted(status.apps[app].units, key=lambda name: int(name.rpartition("/")[2]))


def leader(juju: jubilant.Juju, app: str = APP) -> str:
    """The leader; AssertionError if there is none."""
    found = [name for name, unit in juju.status().apps[app].units.items() if unit.leader]
    assert found, "no unit is leader"
    return found[0]


def sh(juju: jubilant.Juju, unit: str, command: str, wait: float = 120) -> str:
    """The output of a shell command on the unit's machine."""
    return juju.exec(command, unit=unit, wait=wait).stdout


def lxc(juju: jubilant.Juju, unit: str, command: str, wait: float = 120) -> str:
    """The output of one `lxc` command on the unit's machine."""
    return sh(juju, unit, f"lxc {command}", wait)


def lxc_json(juju: jubilant.Juju, unit: str, command: str) -> Any:
    """The same, for a command that prints JSON."""
    return json.loads(lxc(juju, unit, f"{command} --format json"))


def members(juju: jubilant.Juju, unit: str) -> dict[str, str]:
    """The LXD cluster as this unit sees it: state by member name."""
    return {m["server_name"]: m["status"] for m in lxc_json(juju, unit, "cluster list")}


def status(juju: jubilant.Juju, unit: str) -> dict[str, Any]:
    """The charm's own account."""
    return json.loads(juju.run(unit, "status").results["cloud"])


def hostname(juju: jubilant.Juju, unit: str) -> str:
    """The name of the unit's machine."""
    return sh(juju, unit, "hostname").strip()


def wait_active(juju: jubilant.Juju, count: int, timeout: float = 600) -> jubilant.Status:
    """Wait until there are this many units, all active, and no agent is at work.

    A hook that stays in error for PATIENCE ends the waiting; Juju tries it again after 5 s, so one
    that fails once, as when an agent was cut off from its controller, does not.
    """

    def ready(status: jubilant.Status) -> bool:
        app = status.apps.get(APP)
        return (
            app is not None
            and len(app.units) == count
            and jubilant.all_active(status, APP)
            and jubilant.all_agents_idle(status, APP)
        )

    since: list[float] = []

    def stuck(status: jubilant.Status) -> bool:
        if not jubilant.any_error(status, APP):
            since.clear()
            return False
        since.append(time.monotonic())
        return since[-1] - since[0] > PATIENCE

    return juju.wait(ready, error=stuck, delay=0.3, successes=2, timeout=timeout)
