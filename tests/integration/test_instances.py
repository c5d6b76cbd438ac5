"""Containers on every member, and whether they reach each other over a bridge of the hosts."""

from __future__ import annotations

from pathlib import Path

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP

pytestmark = pytest.mark.timeout(900)
BRIDGE = "br0"


@pytest.fixture(scope="module")
def bridged(juju: jubilant.Juju, charm: Path, config, faults) -> jubilant.Juju:
    """A cloud whose instances are on a bridge that the hosts had before."""
    juju.deploy(charm, APP, num_units=2, config={**config, "instance-network": BRIDGE})
    juju.wait(
        lambda status: (
            len(status.apps[APP].units) == 2
            and jubilant.all_blocked(status, APP)
            and jubilant.all_agents_idle(status, APP)
        ),
        delay=0.3,
    )
    for unit in cloud.units(juju):
        message = juju.status().apps[APP].units[unit].workload_status.message
        assert f"instance-network={BRIDGE}: this machine has no bridge of that name" in message
        nic = faults.nic_of(unit, "uplink")
        cloud.sh(
            juju,
            unit,
            f"ip link add {BRIDGE} type bridge && ip link set {nic} master {BRIDGE} && "
            f"ip link set {nic} up && ip link set {BRIDGE} up",
        )
    # Any hook looks again; this one comes at once.
    juju.config(APP, {"join-timeout": 299})
    cloud.wait_active(juju, 2)
    return juju


@pytest.fixture(scope="module")
def image(bridged: jubilant.Juju, faults) -> str:
    """A small image, imported into the cluster."""
    unit = cloud.units(bridged)[0]
    bridged.scp(str(faults.image()), f"{unit}:/root/mini.tar.xz")
    cloud.lxc(bridged, unit, "image import /root/mini.tar.xz --alias mini")
    return "mini"


def test_a_container_on_every_member_reaches_the_others(bridged: jubilant.Juju, image: str):
    first = cloud.units(bridged)[0]
    for number, unit in enumerate(cloud.units(bridged)):
        member = cloud.hostname(bridged, unit)
        cloud.lxc(bridged, first, f"launch {image} c{number} --target {member}")
        address = f"10.99.0.{number + 1}/24"
        cloud.lxc(bridged, first, f"exec c{number} -- ip addr add {address} dev eth0")
        cloud.lxc(bridged, first, f"exec c{number} -- ip link set eth0 up")
    placed = {i["name"]: i["location"] for i in cloud.lxc_json(bridged, first, "list")}
    assert placed == {
        f"c{number}": cloud.hostname(bridged, unit)
        for number, unit in enumerate(cloud.units(bridged))
    }
    pinged = cloud.lxc(bridged, first, "exec c0 -- ping -c 3 -W 2 10.99.0.2")
    assert " 0% packet loss" in pinged


def test_a_member_with_instances_does_not_leave(bridged: jubilant.Juju, image: str):
    gone = cloud.units(bridged)[1]
    name = cloud.hostname(bridged, gone)
    bridged.remove_unit(gone)
    bridged.wait(
        lambda s: s.apps[APP].units[gone].workload_status.message == 'hook failed: "stop"',
        delay=0.3,
    )
    assert f"{name} cannot leave the cloud, as it holds instance c1" in bridged.debug_log()
    first = cloud.units(bridged)[0]
    assert name in cloud.members(bridged, first)
    cloud.lxc(bridged, first, "delete --force c1")
    bridged.wait(lambda s: gone not in s.apps[APP].units, delay=0.3)
    assert name not in cloud.members(bridged, first)
