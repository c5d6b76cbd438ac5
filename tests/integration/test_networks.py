"""OVN: a network over all members, the way out, what survives a member, what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator

import jubilant
import pytest

from integration import cloud, ovn
from integration.cloud import APP
from integration.conftest import ON_LAB

pytestmark = pytest.mark.timeout(1200)
UNDERLAY = "10.73.0"


@pytest.fixture(scope="module")
def networked(juju: jubilant.Juju, charm, config) -> jubilant.Juju:
    """Three members, the tunnels on a network of their own where the lab has one."""
    underlay = {"ovn-underlay": f"{UNDERLAY}.0/24"} if ON_LAB else {}
    juju.deploy(charm, APP, num_units=3, config={**config, **ovn.UPLINK, **underlay})
    cloud.wait_active(juju, 3)
    return juju


@pytest.fixture(scope="module")
def containers(networked: jubilant.Juju, faults) -> Iterator[dict[str, str]]:
    """A container on each member, by the member's name: its address."""
    units = cloud.units(networked)
    ovn.import_image(networked, units[0], str(faults.image()))
    found: dict[str, str] = {}
    for unit in units:
        member = cloud.hostname(networked, unit)
        found[member] = ovn.launch(networked, units[0], f"on-{member}", member)
    with ovn.outside_server():
        yield found


def test_lxd_has_what_microcloud_makes(networked: jubilant.Juju):
    unit = cloud.units(networked)[0]
    members = [cloud.hostname(networked, one) for one in cloud.units(networked)]
    key = cloud.lxc(networked, unit, "config get network.ovn.northbound_connection").strip()
    if key:  # newer versions of LXD find the databases by themselves
        assert len(key.split(",")) == 3
        assert all(part.startswith("ssl:") and part.endswith(":6641") for part in key.split(","))
    uplink = ovn.network(networked, unit, "UPLINK")
    assert (uplink["type"], uplink["status"]) == ("physical", "Created")
    assert uplink["description"] == "Uplink for OVN networks"
    assert uplink["config"]["ipv4.gateway"] == ovn.GATEWAY
    assert uplink["config"]["ipv4.ovn.ranges"] == ovn.RANGE
    assert uplink["config"]["dns.nameservers"] == ovn.ROUTER
    for member in members:
        part = ovn.network(networked, unit, "UPLINK", member)
        assert part["config"]["parent"] == ovn.INTERFACE
        assert ovn.network(networked, unit, "default", member)["status"] == "Created"
    default = ovn.network(networked, unit, "default")
    assert (default["type"], default["status"]) == ("ovn", "Created")
    assert default["config"]["network"] == "UPLINK"
    profile = cloud.lxc(networked, unit, "profile device get default eth0 network")
    assert profile.strip() == "default"


def test_ovn_is_healthy_on_every_member(networked: jubilant.Juju):
    members = {cloud.hostname(networked, unit) for unit in cloud.units(networked)}
    told = [ovn.tell(networked, unit) for unit in cloud.units(networked)]
    for one in told:
        assert one["faults"] == []
        assert set(one["centrals"]) == set(one["chassis"]) == members
        assert len(one["nb-servers"]) == len(one["sb-servers"]) == 3
    assert sorted(one["northd-here"] for one in told) == ["active", "standby", "standby"]


@pytest.mark.skipif(not ON_LAB, reason="the lab's underlay")
def test_the_tunnels_end_on_the_underlay(networked: jubilant.Juju):
    chassis = ovn.tell(networked, cloud.units(networked)[0])["chassis"]
    assert all(ip.startswith(f"{UNDERLAY}.") for ip in chassis.values())
    assert len(set(chassis.values())) == 3


def test_members_reach_each_other_and_the_outside(networked: jubilant.Juju, containers):
    unit = cloud.units(networked)[0]
    for member in containers:
        for other, address in containers.items():
            if other != member:
                assert ovn.pings(networked, unit, f"on-{member}", address), (member, other)
                got = ovn.fetches(networked, unit, f"on-{member}", address)
                assert got > 5_000_000, f"{member} got {got} bytes from {other}"
        assert ovn.pings(networked, unit, f"on-{member}", ovn.ROUTER), member
        assert ovn.gets_out(networked, unit, f"on-{member}"), member


@pytest.mark.skipif(not ON_LAB, reason="the lab's underlay")
def test_traffic_between_members_goes_over_the_underlay(
    networked: jubilant.Juju, containers, faults
):
    unit = cloud.units(networked)[0]
    here = cloud.hostname(networked, unit)
    other = next(address for member, address in containers.items() if member != here)
    nic = faults.nic_of(unit, "underlay")
    count = f"cat /sys/class/net/{nic}/statistics/rx_bytes"
    before = int(cloud.sh(networked, unit, count))
    ovn.fetches(networked, unit, f"on-{here}", other)
    assert int(cloud.sh(networked, unit, count)) - before > 5_000_000


def test_list_interfaces(networked: jubilant.Juju):
    import json

    result = networked.run(cloud.units(networked)[0], "list-interfaces").results["interfaces"]
    found = {one["name"]: one for one in json.loads(result)}
    fit = [one for one in found.values() if one["underlay"]["eligible"]]
    assert fit
    assert all(not one["uplink"]["eligible"] for one in fit)


BAD = [
    ({"microovn-channel": ""}, "microovn-channel is empty"),
    ({"ovn-ipv4-gateway": "10.72.0.1"}, "has no prefix length"),
    ({"ovn-ipv4-gateway": "10.72.0.0/24"}, "is the address of its network"),
    ({"ovn-ipv4-gateway": ""}, "Either the IPv4 or IPv6 gateway has to be set"),
    ({"ovn-ipv4-range": ""}, "an IPv4 gateway but no IPv4 range"),
    ({"ovn-ipv4-range": "10.72.0.9-10.72.0.2"}, "ends before it begins"),
    ({"ovn-ipv4-range": "10.79.0.9-10.79.0.20"}, "is not inside of"),
    ({"ovn-ipv4-range": "10.72.0.1-10.72.0.120"}, "must not include gateway address"),
    ({"ovn-ipv4-range": "10.72.0.150-10.72.0.160"}, "leave out addresses in use: 10.72.0.100"),
    ({"ovn-ipv6-range": "fd00::1-fd00::9"}, "Cannot specify IPv6 range without IPv6 gateway"),
    ({"ovn-ipv6-gateway": "10.1.0.1/24"}, "Invalid ipv6.gateway"),
    ({"ovn-dns-servers": "dns.example"}, "Invalid dns.nameservers: Invalid IP"),
    ({"ovn-ingress-mode": "nat"}, "is none of l2proxy, routed"),
    ({"ovn-uplink-interface": "a/b"}, "is no interface name"),
    ({"ovn-underlay": "fast"}, "Invalid ovn-underlay subnet"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD)
def test_bad_settings_are_refused_and_nothing_changes(networked: jubilant.Juju, bad, sentence):
    if not ON_LAB and any("10.72" in str(value) for value in bad.values()):
        pytest.skip("the lab's addresses")
    unit = cloud.units(networked)[0]
    good = {key: networked.config(APP)[key] for key in bad}
    before = ovn.network(networked, unit, "UPLINK")
    networked.config(APP, bad)
    ovn.wait_blocked(networked, sentence)
    assert ovn.network(networked, unit, "UPLINK") == before
    networked.config(APP, good)
    cloud.wait_active(networked, len(cloud.units(networked)))


def test_new_settings_reach_the_network(networked: jubilant.Juju, containers):
    unit = cloud.units(networked)[0]
    first, _, last = ovn.RANGE.rpartition("-")[0], "", ovn.RANGE.rpartition(".")[2]
    wider = f"{first}-{ovn.RANGE.rpartition('-')[2].rpartition('.')[0]}.{int(last) + 1}"
    networked.config(APP, {"ovn-ipv4-range": wider, "ovn-dns-servers": "9.9.9.9"})
    cloud.wait_active(networked, 3)
    uplink = ovn.network(networked, unit, "UPLINK")["config"]
    assert uplink["ipv4.ovn.ranges"] == wider
    assert uplink["dns.nameservers"] == "9.9.9.9"
    networked.config(APP, {"ovn-ipv4-range": ovn.RANGE, "ovn-dns-servers": ""})
    cloud.wait_active(networked, 3)
    uplink = ovn.network(networked, unit, "UPLINK")["config"]
    assert uplink["dns.nameservers"] == ovn.ROUTER
    assert ovn.pings(networked, unit, f"on-{next(iter(containers))}", ovn.ROUTER)


def test_growing_to_four(networked: jubilant.Juju, containers):
    networked.add_unit(APP)
    cloud.wait_active(networked, 4)
    first, fourth = cloud.units(networked)[0], cloud.units(networked)[-1]
    member = cloud.hostname(networked, fourth)
    assert ovn.network(networked, first, "default", member)["status"] == "Created"
    told = ovn.tell(networked, fourth)
    assert told["faults"] == []
    assert len(told["centrals"]) == 3
    assert member in told["chassis"]
    ovn.launch(networked, fourth, "grown", member)
    for other, address in containers.items():
        assert ovn.pings(networked, fourth, "grown", address), other
    assert ovn.gets_out(networked, fourth, "grown")


def test_the_loss_of_the_member_with_the_gateway(
    networked: jubilant.Juju, containers, faults, record_property
):
    units = {cloud.hostname(networked, unit): unit for unit in cloud.units(networked)}
    gone = ovn.gateway(networked, next(iter(units.values())))
    member, other = [name for name in containers if name != gone][:2]
    faults.power_off(units[gone])
    started = time.monotonic()
    while not ovn.gets_out(networked, units[member], f"on-{member}"):
        assert time.monotonic() - started < 60, "no way out 60 s after the gateway was lost"
    took = time.monotonic() - started
    record_property("seconds without a way out", round(took, 1))
    print(f"the way out was back after {took:.1f} s")
    assert ovn.fetches(networked, units[member], f"on-{member}", containers[other]) > 5_000_000
    assert ovn.gateway(networked, units[member]) != gone
    faults.power_on(units[gone])
    cloud.wait_active(networked, 4)
    deadline = time.monotonic() + 90
    while (faulty := ovn.tell(networked, units[gone])["faults"]) or not ovn.pings(
        networked, units[member], f"on-{member}", containers[gone]
    ):
        assert time.monotonic() < deadline, faulty
        time.sleep(1)


def test_a_member_leaves(networked: jubilant.Juju):
    first, fourth = cloud.units(networked)[0], cloud.units(networked)[-1]
    member = cloud.hostname(networked, fourth)
    cloud.lxc(networked, first, "delete --force grown")
    networked.remove_unit(fourth)
    networked.wait(lambda status: fourth not in status.apps[APP].units, delay=0.3)
    cloud.wait_active(networked, 3)
    told = ovn.tell(networked, first)
    assert told["faults"] == []
    assert member not in told["chassis"]
    assert member not in cloud.members(networked, first)
