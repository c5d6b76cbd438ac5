"""Machines that cannot join: each says why and what to do, and joins when that is done.

One joiner after another comes to one cloud, which is whole all the while.
"""

from __future__ import annotations

from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP
from integration.faults import Faults
from integration.interruptions import check, says

pytestmark = pytest.mark.timeout(600)
FIRST = f"{APP}/0"
DATA = "/var/snap/lxd/common"


@pytest.fixture(scope="module")
def grown(juju: jubilant.Juju, charm: Path, config) -> jubilant.Juju:
    """A cloud of one, in which what is left for update-status comes soon."""
    juju.model_config({"update-status-hook-interval": "5s"})
    juju.deploy(charm, APP, config=config)
    cloud.wait_active(juju, 1)
    return juju


def add_machine(juju: jubilant.Juju) -> str:
    """A machine without a unit, to be prepared first."""
    before = set(juju.status().machines)
    juju.add_machine()

    def started(status: jubilant.Status) -> list[str]:
        found = status.machines.items()
        return [m for m, s in found if m not in before and s.juju_status.current == "started"]

    return started(juju.wait(lambda status: bool(started(status)), delay=0.1))[0]


def add_unit(juju: jubilant.Juju, to: str) -> str:
    """A unit on that machine."""
    juju.add_unit(APP, to=to)
    return next(n for n, u in juju.status().apps[APP].units.items() if u.machine == to)


def test_a_full_disk_is_said_and_the_unit_joins_when_there_is_room(grown, faults: Faults):
    machine = add_machine(grown)
    count = len(cloud.units(grown))
    faults.run(
        *("exec", machine, "--", "sh", "-ec"),
        f"mkfs.ext4 -q /dev/sdc; mkdir -p {DATA}; mount /dev/sdc {DATA};"
        f"fallocate -l $(($(stat -f -c '%a * %S' {DATA}))) {DATA}/filling",
    )
    unit = add_unit(grown, machine)
    says(grown, f"{DATA} on micro{int(machine) + 1} has 0 MiB free, and lxd needs", unit=unit)
    assert "lxd" not in faults.run("exec", machine, "--", "snap", "list")
    faults.run("exec", machine, "--", "rm", f"{DATA}/filling")
    check(grown, count + 1)


def test_a_port_that_is_taken_is_said_and_the_unit_joins_when_it_is_free(grown, faults: Faults):
    machine = add_machine(grown)
    count = len(cloud.units(grown))
    taken = "setsid python3 -m http.server 8443 >/dev/null 2>&1 </dev/null & echo $! >/tmp/taken"
    faults.run("exec", machine, "--", "sh", "-c", taken)
    unit = add_unit(grown, machine)
    name = f"micro{int(machine) + 1}"
    says(
        grown,
        f"joining lxd on {name} failed, 3 times",
        "address already in use",
        f"{FIRST} tries it again with its next update-status",
        unit=unit,
    )
    assert name not in cloud.members(grown, FIRST)
    faults.run("exec", machine, "--", "sh", "-c", "kill $(cat /tmp/taken)")
    check(grown, count + 1)


def test_a_token_that_is_void_is_replaced(grown, faults: Faults):
    """Somebody revokes it between its issue and its use."""
    machine = add_machine(grown)
    count = len(cloud.units(grown))
    faults.fault("freeze", FIRST)
    unit = add_unit(grown, machine)
    says(grown, f"waiting for a token from {FIRST}", unit=unit)
    grown.wait(lambda s: s.apps[APP].units[unit].juju_status.current == "idle", delay=0.1)
    faults.fault("freeze", unit)
    faults.fault("thaw", FIRST)
    name = f"micro{int(machine) + 1}"
    until = f"until lxc cluster list-tokens -f csv | grep -q {name}; do sleep 0.05; done"
    revoke = f"lxc cluster revoke-token {name}"
    first = faults.machine(FIRST)
    faults.run("exec", first, "--", "sh", "-ec", f"{until}; {revoke}", timeout=300)
    faults.fault("thaw", unit)
    check(grown, count + 1)
    log = grown.debug_log()
    assert [line for line in log.splitlines() if unit in line and "joining lxd failed" in line]
