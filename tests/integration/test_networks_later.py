"""A cloud without OVN gets it later, with an uplink that has another name on one machine."""

from __future__ import annotations

import jubilant
import pytest

from integration import cloud, ovn
from integration.cloud import APP

pytestmark = pytest.mark.timeout(900)
BRIDGE = "br-up"


@pytest.fixture(scope="module")
def plain(juju: jubilant.Juju, charm, config, faults) -> jubilant.Juju:
    """Three members without OVN, and a container on the first."""
    juju.deploy(charm, APP, num_units=3, config={**config, "microovn-channel": ""})
    cloud.wait_active(juju, 3)
    first = cloud.units(juju)[0]
    ovn.import_image(juju, first, str(faults.image()))
    ovn.launch(juju, first, "before", cloud.hostname(juju, first))
    return juju


def test_it_begins_with_a_bridge(plain: jubilant.Juju):
    unit = cloud.units(plain)[0]
    assert "microovn" not in cloud.sh(plain, unit, "snap list")
    assert cloud.lxc(plain, unit, "profile device get default eth0 network").strip() == "lxdbr0"


def test_ovn_waits_until_every_machine_is_fit(plain: jubilant.Juju, faults):
    units = cloud.units(plain)
    names = {cloud.hostname(plain, unit): faults.nic_of(unit, "uplink") for unit in units}
    last = cloud.hostname(plain, units[-1])
    by_host = ", ".join(f"{host}: {nic}" for host, nic in (names | {last: BRIDGE}).items())
    plain.config(
        APP,
        {
            **ovn.UPLINK,
            "microovn-channel": "24.03/stable",
            "ovn-uplink-interface": f"{{{by_host}}}",
        },
    )
    message = ovn.wait_blocked(plain, BRIDGE)
    assert f"{BRIDGE} does not exist on this machine" in message
    plain.wait(lambda s: jubilant.all_agents_idle(s, APP), delay=0.3)
    for unit in units:
        assert "UPLINK" not in cloud.lxc(plain, unit, "network list")
    nic = names[last]
    cloud.sh(
        plain,
        units[-1],
        f"ip link add {BRIDGE} type bridge && ip link set {nic} master {BRIDGE} && "
        f"ip link set {nic} up && ip link set {BRIDGE} up && "
        f"until grep -q 1 /sys/class/net/{BRIDGE}/carrier; do sleep 0.1; done",
    )
    plain.config(APP, {"join-timeout": 299})  # any hook looks again; this one comes at once
    cloud.wait_active(plain, 3)


def test_then_it_is_as_if_it_had_always_been_there(plain: jubilant.Juju):
    units = cloud.units(plain)
    first, last = units[0], units[-1]
    here, there = cloud.hostname(plain, first), cloud.hostname(plain, last)
    assert ovn.network(plain, first, "UPLINK", there)["config"]["parent"] == BRIDGE
    assert ovn.network(plain, first, "UPLINK", here)["config"]["parent"] != BRIDGE
    for unit in units:
        member = cloud.hostname(plain, unit)
        assert ovn.network(plain, first, "default", member)["status"] == "Created"
        assert ovn.tell(plain, unit)["faults"] == []
    assert cloud.lxc(plain, first, "profile device get default eth0 network").strip() == "default"
    address = ovn.launch(plain, first, "after", there)
    ovn.launch(plain, first, "beside", here)
    assert ovn.pings(plain, first, "beside", address)
    assert ovn.fetches(plain, first, "beside", address) > 5_000_000
    with ovn.outside_server():
        assert ovn.gets_out(plain, first, "after")


def test_it_cannot_be_turned_off(plain: jubilant.Juju):
    by_host = plain.config(APP)["ovn-uplink-interface"]
    plain.config(APP, {**dict.fromkeys(ovn.UPLINK, ""), "instance-network": "bridge"})
    ovn.wait_blocked(plain, "microovn-channel is empty, and this machine is a member")
    plain.config(APP, {**ovn.UPLINK, "ovn-uplink-interface": by_host, "instance-network": "auto"})
    cloud.wait_active(plain, 3)
