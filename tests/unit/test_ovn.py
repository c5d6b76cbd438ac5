"""OVN under the charm: who bootstraps and joins it, what LXD gets of it, what is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import pytest
from ops import testing

import peers
from record import EMPTY
from unit.conftest import Machine, app, bag, published
from unit.test_charm import ISSUER, after, member
from unit.test_microovn import northd

CONFIG: dict[str, Any] = {
    "microovn-channel": "24.03/stable",
    "ovn-uplink-interface": "enp6s0",
    "ovn-ipv4-gateway": "10.72.0.1/24",
    "ovn-ipv4-range": "10.72.0.100-10.72.0.199",
}
NB = "network.ovn.northbound_connection"
INITIATOR = app(initiator="microcloud/0")


def nics(machine: Machine) -> None:
    machine.interface("enp5s0", "192.0.2.0/24")
    machine.interface("enp6s0")


def cloudy(machine: Machine, *others: str) -> None:
    """As if this unit had formed the cloud with these others, OVN and its networks included."""
    member(machine, *others)
    machine.install("microovn")
    nics(machine)
    names = ["micro1", *others]
    machine.microovn.members = {
        name: f"10.0.0.{number}:6443" for number, name in enumerate(names, 1)
    }
    machine.microovn.centrals = names[:3]
    machine.microovn.write_environment()
    hosts = (f"ssl:10.0.0.{number + 1}:6641" for number in range(len(names[:3])))
    machine.lxd.config[NB] = ",".join(hosts)
    values = {
        "ipv4.gateway": "10.72.0.1/24",
        "ipv4.ovn.ranges": "10.72.0.100-10.72.0.199",
        "dns.nameservers": "10.72.0.1",
    }
    machine.lxd.networks |= {
        "UPLINK": {
            "name": "UPLINK",
            "type": "physical",
            "description": "Uplink for OVN networks",
            "managed": True,
            "status": "Created",
            "locations": names,
            "config": {**values, "user.microcloud.written": json.dumps(values)},
        },
        "default": {
            "name": "default",
            "type": "ovn",
            "managed": True,
            "status": "Created",
            "locations": names,
            "config": {"network": "UPLINK", "volatile.network.ipv4.address": "10.72.0.100"},
        },
    }
    eth0 = {"type": "nic", "name": "eth0", "network": "default"}
    machine.lxd.profile["devices"]["eth0"] = eth0
    machine.lxd.profile["config"]["user.microcloud.eth0"] = json.dumps(eth0)


def tick(
    machine: Machine,
    relation: testing.PeerRelation | None = None,
    changed: Mapping[str, Any] = EMPTY,
):
    relation = relation or testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True, config={**CONFIG, **changed})
    return machine.run(machine.context.on.update_status(), state)


def test_both_snaps_are_installed_at_once(machine: Machine):
    nics(machine)
    machine.run(machine.context.on.install(), machine.state(config=CONFIG))
    assert sorted(machine.snap_calls) == [
        "install lxd --channel=5.21/stable --cohort=+",
        "install microovn --channel=24.03/stable --cohort=+",
        "refresh --hold microovn lxd",
    ]


def test_the_initiator_makes_ovn_then_lxd_then_the_networks(machine: Machine):
    machine.install("lxd", "microovn")
    nics(machine)
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    state = machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config=CONFIG),
    )
    assert machine.microovn.controls[0]["address"] == "192.0.2.0:6443"
    assert machine.microovn.controls[0]["config"] == {}
    assert machine.lxd.config[NB] == "ssl:192.0.2.0:6641"
    uplink, default = machine.lxd.networks["UPLINK"], machine.lxd.networks["default"]
    assert uplink["status"] == default["status"] == "Created"
    assert uplink["type"] == "physical"
    assert uplink["description"] == "Uplink for OVN networks"
    assert uplink["config"]["ipv4.gateway"] == "10.72.0.1/24"
    assert uplink["config"]["dns.nameservers"] == "10.72.0.1"
    assert "ovn.ingress_mode" not in uplink["config"]
    assert default["config"] == {"network": "UPLINK"}
    assert machine.lxd.profile["devices"]["eth0"]["network"] == "default"
    assert "lxdbr0" not in machine.lxd.networks
    assert state.unit_status == testing.ActiveStatus("1 member")
    assert bag(after(state)).report.joined == ("microovn", "lxd")


def test_without_an_uplink_there_is_ovn_and_a_bridge(machine: Machine):
    machine.install("lxd", "microovn")
    nics(machine)
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    config = {"microovn-channel": "24.03/stable"}
    machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config=config),
    )
    assert machine.microovn.members
    assert machine.lxd.profile["devices"]["eth0"]["network"] == "lxdbr0"
    assert "UPLINK" not in machine.lxd.networks


def test_a_newer_lxd_finds_the_databases_by_itself(machine: Machine):
    cloudy(machine)
    machine.lxd.extensions.append("ovn_dynamic_northbound_connection")
    del machine.lxd.config[NB]
    tick(machine)
    assert NB not in machine.lxd.config


def test_the_connection_follows_the_centrals(machine: Machine):
    cloudy(machine, "micro2", "micro3")
    machine.lxd.config[NB] = "ssl:10.0.0.1:6641,ssl:10.0.0.9:6641"
    tick(machine)
    assert machine.lxd.config[NB] == "ssl:10.0.0.1:6641,ssl:10.0.0.2:6641,ssl:10.0.0.3:6641"


def test_a_stale_environment_is_spread_again_and_northd_restarted(machine: Machine):
    cloudy(machine, "micro2")
    machine.microovn.write_environment("10.0.0.1")
    northd(machine, "ssl:10.0.0.1:6641")
    tick(machine)
    assert "POST /1.0/env" in machine.microovn.requests
    assert "restart microovn.ovn-northd" in machine.snap_calls


def test_a_controller_that_knows_other_databases_is_told(machine: Machine):
    cloudy(machine)
    machine.tool("microovn.ovs-vsctl", "ssl:10.0.0.9:6642")
    machine.tool("microovn.ovn-appctl", "Servers:\n  1e6f (1e6f at ssl:10.0.0.1:6643) (self)")
    chassis(machine, "micro1")
    tick(machine)
    assert "POST /1.0/env" in machine.microovn.requests


def chassis(machine: Machine, *names: str) -> None:
    """Let OVN's southbound database have these chassis."""
    rows = json.dumps([[name, ["set", []]] for name in names])
    path = machine.folder / "bin/microovn.ovn-sbctl"
    path.write_text(
        f"#!/bin/sh\necho $* >> {machine.folder}/sbctl.log\ncase $* in\n"
        '*Encap) echo \'{"headings": ["_uuid", "ip"], "data": []}\';;\n'
        f'*Chassis) echo \'{{"headings": ["name", "encaps"], "data": {rows}}}\';;\nesac\n'
    )
    path.chmod(0o755)


def test_a_server_of_a_machine_that_is_gone_is_taken_out(machine: Machine):
    cloudy(machine)
    machine.tool("microovn.ovs-vsctl", "ssl:10.0.0.1:6642")
    path = machine.folder / "bin/microovn.ovn-appctl"
    path.write_text(
        f"#!/bin/sh\necho $* >> {machine.folder}/appctl.log\necho 'Servers:'\n"
        "echo '  1e6f (1e6f at ssl:10.0.0.1:6643) (self)'\n"
        "echo '  9a0c (9a0c at ssl:10.0.0.7:6643)'\n"
    )
    path.chmod(0o755)
    chassis(machine, "micro1", "micro7")
    tick(machine)
    assert "chassis-del micro7" in (machine.folder / "sbctl.log").read_text()
    said = (machine.folder / "appctl.log").read_text()
    assert "ovnnb_db.ctl cluster/kick OVN_Northbound ssl:10.0.0.7:6643" in said
    assert said.count("cluster/kick") == 2, "nb and sb, and the live one not"


def test_an_interface_that_is_chosen_later_is_spoken_of(machine: Machine):
    cloudy(machine)
    machine.lxd.parents = {"micro1": "enp6s0"}
    state = tick(machine, changed={"ovn-uplink-interface": "eno9"})
    assert state.unit_status == testing.ActiveStatus(
        "1 member; network UPLINK stays on enp6s0 of micro1, as ovn-uplink-interface=eno9 "
        "came after it"
    )


def test_after_a_boot_the_daemons_are_given_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    cloudy(machine)
    machine.microovn.refuse = {"GET /core/1.0/cluster": (503, "Daemon not ready yet")}
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            machine.microovn.refuse = {}

    monkeypatch.setattr(time, "sleep", sleep)
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True, config=CONFIG)
    state = machine.run(machine.context.on.start(), state)
    assert len(naps) == 3
    assert state.unit_status == testing.ActiveStatus("1 member")


def test_an_external_central_is_left_alone(machine: Machine):
    cloudy(machine)
    machine.microovn.external = "10.9.9.9"
    machine.microovn.write_environment("10.9.9.9")
    tick(machine)
    assert machine.lxd.config[NB] == "ssl:10.9.9.9:6641"
    assert "POST /1.0/env" not in machine.microovn.requests


def test_a_lost_central_is_replaced(machine: Machine):
    cloudy(machine, "micro2", "micro3", "micro4")
    machine.microovn.centrals = ["micro1", "micro2"]
    machine.microovn.write_environment()
    whole = peers.Report(joined=("microovn", "lxd"))
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(**ISSUER),
        peers_data={2: published(2, report=peers.Report()), 3: published(3, report=whole)},
    )
    machine.microovn.status = {"micro2": "ONLINE"}
    tick(machine, relation)
    assert machine.microovn.centrals == ["micro1", "micro2", "micro4"], "micro3 still joins"


def test_an_unavailable_network_is_healed_by_one_restart_of_lxd(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    cloudy(machine)
    machine.lxd.local_status = "Unavailable"
    monkeypatch.setattr("cloud.ovn.HEAL_TIMEOUT", 0.1)
    state = tick(machine)
    assert machine.snap_calls == ["restart --reload lxd.daemon"]
    assert "unavailable on micro1 0 s after LXD was restarted" in state.unit_status.message
    machine.lxd.pid += 1
    stamp = machine.folder / "state/microcloud-0/restarted-lxd"
    os.utime(stamp, (time.time() - 100, time.time() - 100))
    state = tick(machine)
    assert machine.snap_calls == ["restart --reload lxd.daemon"]
    assert "restarting LXD did not help" in state.unit_status.message
    os.utime(stamp, (time.time() - 4000, time.time() - 4000))
    machine.lxd.local_status = ""
    state = tick(machine)
    assert state.unit_status == testing.ActiveStatus("1 member")


def test_a_restart_that_a_dead_hook_announced_and_did_not_do_is_done(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    cloudy(machine)
    machine.lxd.local_status = "Unavailable"
    monkeypatch.setattr("cloud.ovn.HEAL_TIMEOUT", 0.1)
    stamp = machine.folder / "state/microcloud-0/restarted-lxd"
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(str(machine.lxd.pid))
    tick(machine)
    assert machine.snap_calls == ["restart --reload lxd.daemon"]


# The settings of UPLINK, later


def test_new_settings_are_written(machine: Machine):
    cloudy(machine)
    machine.lxd.addresses = {"micro1": ["10.72.0.7"]}
    machine.lxd.interfaces = [{"name": "enp6s0", "managed": False, "type": "physical"}]
    tick(
        machine,
        changed={"ovn-ipv4-range": "10.72.0.90-10.72.0.120", "ovn-dns-servers": "1.1.1.1"},
    )
    config = machine.lxd.networks["UPLINK"]["config"]
    assert config["ipv4.ovn.ranges"] == "10.72.0.90-10.72.0.120"
    assert config["dns.nameservers"] == "1.1.1.1"
    assert json.loads(config["user.microcloud.written"])["dns.nameservers"] == "1.1.1.1"


def test_a_range_that_cuts_addresses_in_use_is_refused_with_the_list(machine: Machine):
    cloudy(machine)
    machine.lxd.forwards = ["10.72.0.150"]
    before = dict(machine.lxd.networks["UPLINK"]["config"])
    state = tick(machine, changed={"ovn-ipv4-range": "10.72.0.110-10.72.0.120"})
    assert state.unit_status == testing.BlockedStatus(
        "ovn-ipv4-range and ovn-ipv6-range leave out addresses in use: "
        "10.72.0.100 (router of network default), 10.72.0.150 (forward of network default)"
    )
    assert machine.lxd.networks["UPLINK"]["config"] == before


def test_a_range_with_a_members_address_is_refused(machine: Machine):
    cloudy(machine, "micro2")
    machine.lxd.interfaces = [{"name": "br0", "managed": False, "type": "bridge"}]
    machine.lxd.addresses = {"micro2": ["10.72.0.95"]}
    state = tick(machine, changed={"ovn-ipv4-range": "10.72.0.90-10.72.0.120"})
    assert "must not include system address 10.72.0.95" in state.unit_status.message
    assert "micro2 has it" in state.unit_status.message


def test_what_somebody_changed_stays_and_is_spoken_of(machine: Machine):
    cloudy(machine)
    config = machine.lxd.networks["UPLINK"]["config"]
    config["dns.nameservers"] = "9.9.9.9"
    state = tick(machine, changed={"ovn-dns-servers": "1.1.1.1", "ovn-ingress-mode": "routed"})
    config = machine.lxd.networks["UPLINK"]["config"]
    assert config["dns.nameservers"] == "9.9.9.9"
    assert config["ovn.ingress_mode"] == "routed"
    assert state.unit_status == testing.ActiveStatus(
        "1 member; dns.nameservers of network UPLINK was changed by somebody and stays so"
    )


def test_a_description_that_lxd_has_forgotten_is_written_by_whatever_hook_comes(machine: Machine):
    cloudy(machine)
    machine.lxd.networks["UPLINK"]["description"] = ""
    before = dict(machine.lxd.networks["UPLINK"]["config"])
    tick(machine)
    assert machine.lxd.networks["UPLINK"]["description"] == "Uplink for OVN networks"
    assert machine.lxd.networks["UPLINK"]["config"] == before


def test_an_uplink_that_is_not_the_charms_stays(machine: Machine):
    cloudy(machine)
    del machine.lxd.networks["UPLINK"]["config"]["user.microcloud.written"]
    state = tick(machine, changed={"ovn-dns-servers": "1.1.1.1"})
    assert machine.lxd.networks["UPLINK"]["config"]["dns.nameservers"] == "10.72.0.1"
    assert state.unit_status == testing.ActiveStatus(
        "1 member; dns.nameservers of network UPLINK was set before the charm came and stays so"
    )


def test_an_uplink_without_name_servers_that_nobody_asked_for_is_well(machine: Machine):
    cloudy(machine)
    config = machine.lxd.networks["UPLINK"]["config"]
    del config["user.microcloud.written"], config["dns.nameservers"]
    assert tick(machine).unit_status == testing.ActiveStatus("1 member")


def test_snaps_that_were_there_before_are_held_and_connected(machine: Machine):
    cloudy(machine)
    (machine.folder / "state/microcloud-0/snaps-held").unlink()
    machine.connections = ["content lxd:ovn-chassis - -"]
    tick(machine)
    assert machine.snap_calls == [
        "refresh --hold microovn lxd",
        "connections lxd",
        "connect lxd:ovn-chassis microovn:ovn-chassis",
    ]


# On and off


def test_an_uplink_on_a_running_cloud_waits_for_every_member(machine: Machine):
    cloudy(machine, "micro2")
    del machine.lxd.networks["UPLINK"], machine.lxd.networks["default"]
    whole = peers.Report(joined=("microovn", "lxd"))
    relation = testing.PeerRelation(
        "cluster", local_app_data=app(**ISSUER), peers_data={1: published(1, report=whole)}
    )
    state = tick(machine, relation)
    assert bag(after(state)).report.uplink == "enp6s0"
    assert "UPLINK" not in machine.lxd.networks
    assert "network UPLINK waits for the uplink interface of micro2" in state.unit_status.message
    ready = peers.Report(joined=("microovn", "lxd"), uplink="eno2")
    relation = testing.PeerRelation(
        "cluster", local_app_data=app(**ISSUER), peers_data={1: published(1, report=ready)}
    )
    tick(machine, relation)
    assert machine.lxd.networks["default"]["status"] == "Created"
    assert machine.lxd.parents == {"micro1": "enp6s0", "micro2": "eno2"}


def test_ovn_cannot_be_turned_off(machine: Machine):
    cloudy(machine)
    state = tick(machine, changed={name: "" for name in CONFIG})
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert "microovn-channel is empty, and this machine is a member" in state.unit_status.message
    assert machine.microovn.members


def test_ovn_on_a_running_cloud_leaves_lxd_as_it_is(machine: Machine):
    member(machine)
    nics(machine)
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config=CONFIG),
    )
    assert machine.snap_calls[:2] == [
        "install microovn --channel=24.03/stable --cohort=+",
        "refresh --hold microovn",
    ]
    assert machine.lxd.networks["default"]["status"] == "Created"
    assert machine.lxd.profile["devices"]["eth0"]["network"] == "default"


# Underlay


def test_the_tunnels_end_in_the_underlays_subnet(machine: Machine):
    machine.install("lxd", "microovn")
    nics(machine)
    machine.interface("enp7s0", "10.3.0.1/24", mtu=9000)
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    state = machine.run(
        machine.context.on.config_changed(),
        machine.state(
            relation=relation, leader=True, config={**CONFIG, "ovn-underlay": "10.3.0.0/24"}
        ),
    )
    identity = bag(after(state)).identity
    assert identity is not None
    assert (identity.underlay, identity.mtu) == ("10.3.0.1", 9000)
    assert machine.microovn.controls[0]["config"] == {"ovn-encap-ip": "10.3.0.1"}


def test_the_binding_chooses_where_the_tunnels_end(machine: Machine):
    machine.install("lxd", "microovn")
    nics(machine)
    bound = testing.Network(
        "ovn-underlay", bind_addresses=[testing.BindAddress([testing.Address("10.4.0.1")])]
    )
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config=CONFIG, networks={bound}),
    )
    assert machine.microovn.controls[0]["config"] == {"ovn-encap-ip": "10.4.0.1"}


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            peers.Identity("micro2", "10.0.0.2", "", "192.0.2.0", 1500),
            "microcloud/0 and microcloud/1 have the same address for OVN's tunnels, 192.0.2.0",
        ),
        (
            peers.Identity("micro2", "10.0.0.2", "", "", 9000),
            "OVN's tunnels have an MTU of 9000 on micro2 and of 1500 on micro1",
        ),
    ],
)
def test_tunnels_that_do_not_fit_the_others(machine: Machine, other, sentence):
    machine.install("lxd", "microovn")
    nics(machine)
    report = peers.Report(joined=("microovn", "lxd"))
    data = {"identity": peers.dump(other), "report": peers.dump(report)}
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
        peers_data={1: data},
    )
    state = machine.run(
        machine.context.on.config_changed(), machine.state(relation=relation, config=CONFIG)
    )
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert sentence in state.unit_status.message
    assert not machine.microovn.controls


# What is refused before anything is changed

UP = {"flags": ["BROADCAST", "UP"]}
BAD_SETTINGS = [
    ({"microovn-channel": "no channel"}, "microovn-channel='no channel' is no snap channel"),
    ({"microovn-channel": ""}, "microovn-channel is empty, there is no OVN"),
    ({"ovn-uplink-interface": ""}, "cannot be without ovn-uplink-interface"),
    ({"ovn-uplink-interface": "a/b"}, "'a/b' is no interface name"),
    ({"ovn-uplink-interface": "{micro1: [a, b]}"}, "is a list of 2; it must be one"),
    ({"ovn-uplink-interface": "{micro1: }"}, "micro1 has no value"),
    ({"ovn-ipv4-gateway": ""}, "Either the IPv4 or IPv6 gateway has to be set"),
    ({"ovn-ipv4-gateway": "10.72.0.1"}, "has no prefix length"),
    ({"ovn-ipv4-gateway": "10.72.0.0/24"}, "is the address of its network"),
    ({"ovn-ipv4-gateway": "10.72.0.300/24"}, "Invalid ipv4.gateway"),
    ({"ovn-ipv4-gateway": "fd00::1/64"}, "it must be an IPv4 address"),
    ({"ovn-ipv4-range": ""}, "the uplink has an IPv4 gateway but no IPv4 range"),
    ({"ovn-ipv4-range": "10.72.0.100"}, "Invalid IPv4 range"),
    ({"ovn-ipv4-range": "10.72.0.9-10.72.0.2"}, "ends before it begins"),
    ({"ovn-ipv4-range": "10.73.0.9-10.73.0.12"}, "is not inside of 10.72.0.0/24"),
    ({"ovn-ipv4-range": "10.72.0.1-10.72.0.9"}, "must not include gateway address 10.72.0.1"),
    ({"ovn-ipv6-range": "fd00::1-fd00::9"}, "Cannot specify IPv6 range without IPv6 gateway"),
    ({"ovn-ipv6-gateway": "fd00::1"}, "the IPv6 gateway 'fd00::1' has no prefix length"),
    ({"ovn-dns-servers": "dns.example"}, "Invalid dns.nameservers: Invalid IP 'dns.example'"),
    ({"ovn-ingress-mode": "nat"}, "the ingress mode 'nat' is none of l2proxy, routed"),
    ({"ovn-underlay": "10.3.0.1"}, "it must be larger than one address"),
    ({"ovn-underlay": "fast"}, "Invalid ovn-underlay subnet 'fast'"),
]
# (configuration, what else the machine has, the sentence)
BAD_MACHINES: list[tuple[dict[str, str], dict[str, Any], str]] = [
    (
        {"ovn-uplink-interface": "eno9"},
        {},
        "eno9 does not exist on this machine; there are",
    ),
    ({"ovn-uplink-interface": "{micro7: eno1}"}, {}, "names no interface for micro1"),
    ({"ovn-uplink-interface": "enp5s0"}, {}, "enp5s0 has address 192.0.2.0/24; an uplink inter"),
    ({"ovn-uplink-interface": "x"}, {"flags": ["BROADCAST"]}, "x is down; bring it up"),
    ({"ovn-uplink-interface": "x"}, {"flags": ["BROADCAST", "UP", "NO-CARRIER"]}, "no carrier"),
    ({"ovn-uplink-interface": "x"}, {"flags": ["UP"]}, "x cannot broadcast"),
    ({"ovn-uplink-interface": "x"}, {"master": "bond0"}, "x is a member of bond0; name bond0"),
    ({"ovn-uplink-interface": "x"}, {"master": "ovs-system"}, "is a port of an Open vSwitch"),
    ({"ovn-uplink-interface": "x"}, {"linkinfo": {"info_kind": "dummy"}}, "is of the kind dummy"),
    ({"ovn-uplink-interface": "x"}, {"route": "x"}, "x carries the default route"),
    ({}, {"ifname": "UPLINK"}, "an interface of this machine is called UPLINK"),
    ({"ovn-ipv4-range": "10.72.0.2-10.72.0.9"}, {"at": "10.72.0.5/24"}, "address 10.72.0.5"),
    ({}, {"at": "10.72.0.1/24"}, "the uplink's gateway 10.72.0.1 is an address of micro1"),
    ({"ovn-underlay": "10.3.0.0/24"}, {}, "no address here is in 10.3.0.0/24; there are 192.0.2"),
    ({"ovn-underlay": "10.3.0.0/24"}, {"at": "10.3.0.1/24", "mtu": 1400}, "an MTU of 1400"),
]


def changed_nothing(machine: Machine) -> bool:
    told = [*machine.lxd.requests, *machine.microovn.requests]
    return all(call.startswith("GET") for call in told) and not machine.snap_calls


@pytest.mark.parametrize(("config", "sentence"), BAD_SETTINGS)
def test_bad_settings_block_with_a_sentence_and_change_nothing(machine: Machine, config, sentence):
    nics(machine)
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    state = machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config={**CONFIG, **config}),
    )
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert sentence in state.unit_status.message
    assert changed_nothing(machine)


def test_what_is_bad_is_said_in_the_install_hook_already(machine: Machine):
    nics(machine)
    config = {**CONFIG, "ovn-ipv4-range": ""}
    state = testing.State(model=machine.model, config=config)
    state = machine.run(machine.context.on.install(), state)
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert changed_nothing(machine)


@pytest.mark.parametrize(("config", "more", "sentence"), BAD_MACHINES)
def test_unfit_machines_block_with_a_sentence_and_nothing_is_changed(
    machine: Machine, config, more, sentence
):
    nics(machine)
    link = dict(more)
    where = [link.pop("at")] if "at" in link else []
    machine.routes = [{"dev": link.pop("route")}] if "route" in link else []
    machine.interface(link.pop("ifname", "x"), *where, **link)
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    for event in (machine.context.on.config_changed(), machine.context.on.update_status()):
        state = machine.run(
            event, machine.state(relation=relation, leader=True, config={**CONFIG, **config})
        )
        assert isinstance(state.unit_status, testing.BlockedStatus)
        assert sentence in state.unit_status.message
    assert changed_nothing(machine)


def test_all_findings_of_a_machine_are_told_at_once(machine: Machine):
    machine.interface("enp5s0", "192.0.2.0/24", mtu=1400)
    machine.interface("enp6s0", "10.72.0.120/24", flags=["BROADCAST"])
    state = machine.run(machine.context.on.config_changed(), machine.state(config=CONFIG))
    for part in ("MTU of 1400", "enp6s0 is down", "has address 10.72.0.120/24", "system address"):
        assert part in state.unit_status.message, part


def test_a_bridge_with_an_address_is_a_fit_uplink(machine: Machine):
    machine.install("lxd", "microovn")
    machine.interface("enp5s0", "192.0.2.0/24")
    machine.interface("br0", "10.72.0.5/24", linkinfo={"info_kind": "bridge"})
    relation = testing.PeerRelation("cluster", local_app_data=INITIATOR)
    machine.run(
        machine.context.on.config_changed(),
        machine.state(
            relation=relation, leader=True, config={**CONFIG, "ovn-uplink-interface": "br0"}
        ),
    )
    assert machine.lxd.networks["UPLINK"]["status"] == "Created"


def test_an_interface_that_a_failed_join_left_in_lxds_bridge_is_fit(machine: Machine):
    machine.install("lxd", "microovn")
    machine.interface("enp5s0", "192.0.2.0/24")
    machine.interface("enp6s0", master="ovs-system")
    machine.tool("microovn.ovs-vsctl", "lxdovn1")
    state = machine.run(machine.context.on.config_changed(), machine.state(config=CONFIG))
    assert state.unit_status.name == "waiting"


# Actions


def test_list_interfaces_tells_what_each_is_fit_for(machine: Machine):
    cloudy(machine)
    machine.interface("lxdbr0", "10.1.0.1/24", linkinfo={"info_kind": "bridge"})
    machine.run(machine.context.on.action("list-interfaces"), machine.state(config=CONFIG))
    results = machine.context.action_results
    assert results is not None
    found = {one["name"]: one for one in json.loads(results["interfaces"])}
    assert found["enp6s0"]["uplink"]["eligible"]
    assert not found["enp6s0"]["underlay"]["eligible"]
    assert found["enp5s0"]["underlay"]["eligible"]
    assert found["enp5s0"]["ceph"]["eligible"]
    assert "Juju reaches this machine" in " ".join(found["enp5s0"]["uplink"]["reasons"])
    assert "LXD manages" in " ".join(found["lxdbr0"]["uplink"]["reasons"])


def test_the_status_action_tells_ovns_health(machine: Machine):
    cloudy(machine)
    machine.tool("microovn.ovs-vsctl", "ssl:10.0.0.9:6642")
    machine.tool("microovn.ovn-appctl", "Status: active")
    northd(machine, "ssl:10.0.0.1:6641")
    (machine.folder / "microovn/run/ovn/ovn-northd.42.ctl").touch()
    machine.run(machine.context.on.action("status"), machine.state(config=CONFIG))
    results = machine.context.action_results
    assert results is not None
    assert "ovn-sbctl failed" in json.loads(results["cloud"])["ovn"]["faults"][0]
    encaps = '{"headings":["_uuid","ip"],"data":[[["uuid","e1"],"10.0.0.7"]]}'
    chassis = '{"headings":["name","encaps"],"data":[["micro1",["uuid","e1"]],["x",["set",[]]]]}'
    path = machine.folder / "bin/microovn.ovn-sbctl"
    path.write_text(f"#!/bin/sh\ncase $4 in Encap) echo '{encaps}';; *) echo '{chassis}';; esac")
    path.chmod(0o755)
    local = published(0)
    relation = testing.PeerRelation("cluster", local_unit_data=local)
    machine.run(
        machine.context.on.action("status"), machine.state(config=CONFIG, relation=relation)
    )
    results = machine.context.action_results
    assert results is not None
    told = json.loads(results["cloud"])["ovn"]
    assert told["northd-here"] == "active"
    assert told["faults"] == [
        "chassis x is no member",
        "the tunnels of micro1 end at 10.0.0.7, not at 10.0.0.1",
        "OVN's controller here knows the databases at ssl:10.0.0.9:6642, not ssl:10.0.0.1:6642",
        "OVN's nb database does not have ssl:10.0.0.1:6643",
        "OVN's sb database does not have ssl:10.0.0.1:6644",
    ]


def test_stop_leaves_lxd_first_then_ovn(machine: Machine):
    cloudy(machine, "micro2")
    machine.lxd.volumes = {
        name: {"name": name, "location": "micro1", "config": {}} for name in ("images", "backups")
    }
    machine.run(machine.context.on.stop(), machine.state(planned_units=1, config=CONFIG))
    assert machine.lxd.members == ["micro2"]
    assert list(machine.microovn.members) == ["micro2"]


def test_stop_goes_on_where_an_earlier_try_ended(machine: Machine):
    cloudy(machine, "micro2")
    machine.lxd.members, machine.lxd.clustered = [], False
    machine.run(machine.context.on.stop(), machine.state(planned_units=1, config=CONFIG))
    assert list(machine.microovn.members) == ["micro2"]


def test_a_joiner_brings_its_interface_along():
    from errors import JoinFailed
    from preflight import member_config

    wanted = [
        {"entity": "storage-pool", "name": "local", "key": "source"},
        {"entity": "network", "name": "UPLINK", "key": "parent"},
        {"entity": "network", "name": "lxdbr0", "key": "bridge.external_interfaces"},
    ]
    assert member_config(wanted, {}, {"UPLINK": {"parent": "eno2"}}) == (
        {"entity": "network", "name": "UPLINK", "key": "parent", "value": "eno2"},
    )
    with pytest.raises(JoinFailed, match="ovn-uplink-interface names no interface"):
        member_config(wanted, {}, {})
