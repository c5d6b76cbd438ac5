"""What an interface may be used for, and every reason why not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from machine import interfaces
from machine.interfaces import Interface, InterfaceNotFoundError, ProbeError, inventory


def link(name: str, kind: str = "", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "ifname": name,
        "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
        "mtu": 1500,
        "operstate": "UP",
        "link_type": "ether",
        "address": "52:54:00:00:00:01",
        "addr_info": [],
    }
    if kind:
        made["linkinfo"] = {"info_kind": kind}
    return made | more


def address(text: str, scope: str = "global") -> dict[str, Any]:
    local, _, prefix = text.partition("/")
    return {"local": local, "prefixlen": int(prefix), "scope": scope}


class FakeProbe:
    """A machine with one interface of each kind."""

    def links(self) -> Sequence[Mapping[str, Any]]:
        return [
            link("lo", link_type="loopback", flags=["LOOPBACK", "UP"]),
            link("eno1", addr_info=[address("10.0.0.7/24"), address("fe80::1/64", "link")]),
            link("enp6s0", addr_info=[address("fe80::2/64", "link")]),
            link("br0", "bridge", addr_info=[address("10.1.0.7/24")]),
            link("eno3", master="br0"),
            link("bond0", "bond", flags=["BROADCAST", "UP", "NO-CARRIER"]),
            link("bond0.5", "vlan", link="bond0"),
            link("eth0", "veth", link_netnsid=0),
            link("veth1", "veth"),
            link("ovs-system", "openvswitch", flags=["BROADCAST"]),
            link("eno4", master="ovs-system"),
            link("lxdbr0", "bridge", addr_info=[address("10.9.0.1/24")]),
            {},
        ]

    def default_routes(self) -> Sequence[Mapping[str, Any]]:
        return [{"dst": "default", "dev": "eno1"}, {"dst": "default", "nexthops": [{"dev": "x"}]}]


ALL = {interface.name: interface for interface in inventory(FakeProbe(), managed=["lxdbr0"])}


def test_inventory() -> None:
    assert {name: interface.kind for name, interface in ALL.items()} == {
        "eno1": "physical",
        "enp6s0": "physical",
        "br0": "bridge",
        "eno3": "physical",
        "bond0": "bond",
        "bond0.5": "vlan",
        "eth0": "physical",
        "veth1": "veth",
        "ovs-system": "ovs",
        "eno4": "physical",
        "lxdbr0": "bridge",
    }
    assert ALL["eno1"].addresses == ("10.0.0.7/24",)
    assert ALL["eno1"].default_route
    assert ALL["br0"].members == ("eno3",)
    assert ALL["bond0.5"].parent == "bond0"
    assert [ALL[name].state for name in ("eno1", "bond0", "ovs-system")] == [
        "up",
        "no-carrier",
        "down",
    ]


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("enp6s0", ()),
        ("br0", ()),
        ("bond0.5", ()),
        ("eth0", ()),
        (
            "eno1",
            (
                "eno1 has address 10.0.0.7/24; an uplink interface must have none",
                "eno1 carries the default route",
                "eno1 has the address 10.0.0.7, at which Juju reaches this machine",
            ),
        ),
        ("eno3", ("eno3 is a member of br0; name br0 instead",)),
        (
            "eno4",
            ("eno4 is a port of an Open vSwitch bridge; take it out or name the bridge",),
        ),
        ("bond0", ("bond0 is up but has no carrier; see its cable or switch port",)),
        (
            "veth1",
            ("veth1 is of the kind veth; an uplink is one of physical, bond, vlan, bridge",),
        ),
        (
            "lxdbr0",
            ("lxdbr0 is a network that LXD manages; an uplink interface must be free",),
        ),
    ],
)
def test_uplink(name: str, reasons: tuple[str, ...]) -> None:
    found = interfaces.unfit_uplink(ALL[name], juju_addresses=["10.0.0.7", "host.example"])
    assert found == reasons


def test_uplink_in_use_by_the_cloud() -> None:
    assert interfaces.unfit_uplink(ALL["eno4"], wired=True) == ()


def test_several_reasons_at_once() -> None:
    bad = Interface(
        "eno2", up=False, broadcast=False, addresses=("10.0.0.7/24", "fd00::7/64"), managed=True
    )
    assert interfaces.unfit_uplink(bad) == (
        "eno2 is a network that LXD manages; an uplink interface must be free",
        "eno2 cannot broadcast; an uplink needs ARP",
        "eno2 is down; bring it up: ip link set eno2 up",
        "eno2 has addresses 10.0.0.7/24, fd00::7/64; an uplink interface must have none",
    )


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("eno1", ()),
        ("br0", ()),
        ("enp6s0", ("enp6s0 has no address; give it one in the network's subnet",)),
        ("lxdbr0", ("lxdbr0 is a network that LXD manages",)),
    ],
)
def test_addressed(name: str, reasons: tuple[str, ...]) -> None:
    assert interfaces.unfit_addressed(ALL[name]) == reasons


def test_find() -> None:
    assert interfaces.find("br0", ALL.values()) is ALL["br0"]
    with pytest.raises(InterfaceNotFoundError, match=r"enp9s0 does not exist .* there are bond0,"):
        interfaces.find("enp9s0", ALL.values())


def test_addresses() -> None:
    assert interfaces.with_address("10.1.0.7", ALL.values()) is ALL["br0"]
    assert interfaces.with_address("10.1.0.8", ALL.values()) is None
    assert set(interfaces.addresses_of(ALL.values())) == {"10.0.0.7/24", "10.1.0.7/24"}


def test_json() -> None:
    shown = json.loads(json.dumps(interfaces.to_json(ALL["enp6s0"])))
    assert shown["uplink"] == {"eligible": True, "reasons": []}
    assert shown["ceph"]["eligible"] is False


def test_this_host() -> None:
    assert inventory(interfaces.HostProbe()) is not None


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (subprocess.TimeoutExpired("ip", 10), "did not end within 10 s"),
        (subprocess.CalledProcessError(1, "ip", stderr="no netlink\n"), "failed: no netlink"),
        (FileNotFoundError("no ip"), "failed: no ip"),
    ],
)
def test_probe_faults(fault: Exception, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ProbeError, match=text):
        inventory(interfaces.HostProbe())
