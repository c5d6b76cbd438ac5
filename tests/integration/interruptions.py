"""What the tests of interrupted formations share: waiting for a moment, and for the end."""

from __future__ import annotations

import jubilant

from integration import cloud
from integration.cloud import APP
from integration.faults import Faults


def check(juju: jubilant.Juju, count: int) -> None:
    """All units are one cluster, and nothing of the way there is left.

    A hook whose agent was killed counts as failed until Juju tries it again.
    """
    cloud.wait_active(juju, count)
    views = [cloud.members(juju, unit) for unit in cloud.units(juju)]
    assert all(view == views[0] for view in views)
    assert len(views[0]) == count
    assert set(views[0].values()) == {"Online"}
    unit = cloud.units(juju)[0]
    trusted = {entry["name"] for entry in cloud.lxc_json(juju, unit, "config trust list")}
    assert trusted <= set(views[0])
    tokens = [o for o in cloud.lxc_json(juju, unit, "operation list") if o["class"] == "token"]
    assert not [o for o in tokens if o["status"] == "Running"]  # one that is used stays 5 s


def says(juju: jubilant.Juju, *texts: str, unit: str = "") -> str:
    """Wait until the unit, or any unit, has all of this in its message; gives the unit."""

    def who(status: jubilant.Status) -> list[str]:
        units = status.apps[APP].units.items()
        return [
            name
            for name, found in units
            if unit in ("", name) and all(t in found.workload_status.message for t in texts)
        ]

    return who(juju.wait(lambda status: bool(who(status)), delay=0.1))[0]


def follower(juju: jubilant.Juju) -> str:
    """A unit that is not the leader."""
    status = juju.wait(lambda s: any(u.leader for u in s.apps[APP].units.values()), delay=0.1)
    return next(name for name, unit in status.apps[APP].units.items() if not unit.leader)


def appears(faults: Faults, unit: str, path: str) -> None:
    """Wait until there is this file on the unit's machine: a moment that `juju status` misses."""
    loop = f"until test -e {path}; do sleep 0.02; done"
    faults.run("exec", faults.machine(unit), "--", "sh", "-c", loop, timeout=300)
