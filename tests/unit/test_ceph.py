"""Ceph under the charm: its pools in LXD, how many copies they keep, its networks, its health."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from ops import testing

import peers
import sealing
import services.lxd
from unit.conftest import Machine, app, bag, published
from unit.test_charm import ISSUER, after, member

CONFIG: dict[str, Any] = {"microceph-channel": "squid/stable"}
DISK = "/dev/disk/by-id/scsi-"
FEATURES = "layering,striping,exclusive-lock,object-map,fast-diff,deep-flatten"
NEW = ["storage_pool_source_wipe", "storage_cephfs_create_missing"]
NEWEST = [*NEW, "storage_remote_drop_source", "storage_ceph_use_rbd_defaults"]


def cloudy(machine: Machine, *others: str, disks: int = 0) -> None:
    """As if this unit had formed the cloud with these others, Ceph included."""
    member(machine, *others)
    machine.install("microceph")
    machine.lxd.extensions = NEW
    names = ["micro1", *others]
    machine.microceph.members = {name: f"{name}:7443" for name in names}
    for name in names:
        machine.microceph.joined(name)
    for number in range(disks):
        machine.microceph.disk(f"{DISK}{number}", names[number % len(names)])


def settled(machine: Machine, *others: str) -> None:
    """The same, with all pools made."""
    names = ["micro1", *others]
    cloudy(machine, *others, disks=3)
    machine.lxd.config["user.microcloud.copies"] = "3"
    for name, driver in (("remote", "ceph"), ("remote-fs", "cephfs")):
        pool = {"name": name, "driver": driver, "status": "Created", "locations": names}
        machine.lxd.pools[name] = {**pool, "config": {}}
    machine.lxd.profile["devices"]["root"] |= {"pool": "remote"}
    machine.lxd.profile["config"]["user.microcloud.root"] = json.dumps(
        machine.lxd.profile["devices"]["root"]
    )


def issuer(machine: Machine, **more: Any) -> testing.State:
    """The state of the unit that makes the pools."""
    config = {**CONFIG, **more.pop("config", {})}
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER), **more)
    return machine.state(relation=relation, leader=True, config=config)


def changed(machine: Machine, state: testing.State) -> testing.State:
    """What the unit does in a hook in which it does not ask Ceph by itself."""
    return machine.run(machine.context.on.leader_elected(), state)


def posted(machine: Machine) -> list[tuple[str, dict[str, Any]]]:
    """What was asked of LXD's pools."""
    return [
        (call.partition("storage-pools")[2], body)
        for call, body in machine.lxd.bodies
        if call.startswith("POST /1.0/storage-pools")
    ]


def test_ceph_is_formed_before_lxd(machine: Machine):
    machine.install("lxd", "microceph")
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    state = machine.state(relation=relation, leader=True, config=CONFIG)
    state = machine.run(machine.context.on.config_changed(), state)
    assert list(machine.microceph.members) == machine.lxd.members == ["micro1"]
    (asked,) = machine.microceph.controls
    assert asked["config"] == {}
    assert bag(after(state)).report.joined == ("microceph", "lxd")
    assert state.unit_status == testing.ActiveStatus(
        "1 member; Ceph has no disks; see the actions list-disks and add-disks"
    )
    assert list(machine.lxd.pools) == ["local"]


def test_the_first_disk_makes_both_pools_as_microcloud_does(machine: Machine):
    cloudy(machine, "micro2", disks=1)
    machine.microceph.pools = {".mgr": 3}
    state = changed(machine, issuer(machine))
    assert machine.microceph.default_size == 1
    part = {"name": "remote", "driver": "ceph", "config": {"source": "lxd_remote"}}
    files = {"name": "remote-fs", "driver": "cephfs", "config": {"source": "lxd_cephfs"}}
    assert posted(machine) == [
        ("?target=micro1", part),
        ("?target=micro2", part),
        (
            "",
            {
                "name": "remote",
                "driver": "ceph",
                "description": "Distributed storage on Ceph",
                "config": {
                    "ceph.rbd.du": "false",
                    "ceph.osd.pool_name": "lxd_remote",
                    "ceph.rbd.features": FEATURES,
                },
            },
        ),
        ("?target=micro1", files),
        ("?target=micro2", files),
        (
            "",
            {
                "name": "remote-fs",
                "driver": "cephfs",
                "description": "Distributed file-system storage using CephFS",
                "config": {
                    "cephfs.create_missing": "true",
                    "cephfs.meta_pool": "lxd_cephfs_meta",
                    "cephfs.data_pool": "lxd_cephfs_data",
                    "cephfs.path": "lxd_cephfs",
                },
            },
        ),
    ]
    assert machine.lxd.profile["devices"]["root"]["pool"] == "remote"
    before = list(machine.lxd.bodies)
    changed(machine, state)
    assert machine.lxd.bodies == before, "nothing is done twice"


def test_copies_are_set_before_the_pools_are_made(machine: Machine):
    cloudy(machine, disks=2)
    calls: list[str] = []
    machine.lxd.requests = machine.microceph.requests = calls
    changed(machine, issuer(machine))
    assert calls.index("PUT /1.0/pools-op") < calls.index("POST /1.0/storage-pools")


def test_the_newest_lxd_takes_no_source(machine: Machine):
    cloudy(machine, disks=1)
    machine.lxd.extensions = NEWEST
    changed(machine, issuer(machine))
    assert [body["config"] for call, body in posted(machine) if call] == [{}, {}]
    remote = next(body for call, body in posted(machine) if not call)
    assert "ceph.rbd.features" not in remote["config"]


def test_an_old_lxd_finds_its_file_system_made(machine: Machine):
    cloudy(machine, disks=1)
    machine.lxd.extensions = []
    command = machine.folder / "bin/microceph.ceph"
    machine.tool("microceph.ceph", "[]")
    command.write_text(f'#!/bin/sh\necho "$@" >> {machine.folder}/ceph.log\necho "[]"\n')
    changed(machine, issuer(machine))
    assert (machine.folder / "ceph.log").read_text().splitlines() == [
        "fs ls --format json",
        "osd pool create lxd_cephfs_meta 32 --format json",
        "osd pool create lxd_cephfs_data 32 --format json",
        "fs new lxd_cephfs lxd_cephfs_meta lxd_cephfs_data --format json",
    ]
    assert posted(machine)[-1][1]["config"] == {"cephfs.path": "lxd_cephfs"}


def test_a_pool_whose_making_was_interrupted_is_finished(machine: Machine):
    cloudy(machine, "micro2", disks=1)
    machine.lxd.pools["remote"] = {
        "name": "remote",
        "driver": "ceph",
        "status": "Pending",
        "locations": ["micro1"],
        "config": {},
    }
    changed(machine, issuer(machine))
    assert [call for call, body in posted(machine) if body["name"] == "remote"] == [
        "?target=micro2",
        "",
    ]


def test_a_pool_that_could_not_be_made_is_made_again(machine: Machine):
    """A member's LXD was being restarted; the pool stayed in error, and the next one away."""
    cloudy(machine, disks=1)
    machine.lxd.pools["remote"] = {
        "name": "remote",
        "driver": "ceph",
        "status": "Errored",
        "locations": ["micro1"],
        "config": {"ceph.osd.pool_name": "lxd_remote"},
    }
    changed(machine, issuer(machine))
    bodies = [(call, body["config"]) for call, body in posted(machine) if body["name"] == "remote"]
    assert bodies == [("", {})]  # LXD takes none for a pool that has some


def test_pools_wait_until_every_member_has_ceph(machine: Machine):
    cloudy(machine, "micro2", disks=1)
    del machine.microceph.members["micro2"]
    changed(machine, issuer(machine))
    assert posted(machine) == []


def test_a_metadata_server_is_placed_if_there_is_none(machine: Machine):
    cloudy(machine, disks=1)
    machine.microceph.services["mds"] = []
    changed(machine, issuer(machine))
    assert machine.microceph.services["mds"] == ["micro1"]


@pytest.mark.parametrize(
    ("had", "disks", "sizes"),
    [
        ("", 3, {".mgr": 3, "lxd_remote": 3, "users": 1}),
        ("1", 2, {".mgr": 3, "lxd_remote": 2, "users": 1}),
        ("2", 2, {".mgr": 3, "lxd_remote": 1, "users": 1}),
        ("3", 9, {".mgr": 3, "lxd_remote": 1, "users": 1}),
    ],
)
def test_copies_grow_with_the_disks_and_never_shrink(
    machine: Machine, had: str, disks: int, sizes: dict[str, int]
):
    settled(machine, "micro2", "micro3")
    machine.microceph.disks = []
    for number in range(disks):
        machine.microceph.disk(f"{DISK}{number}")
    machine.microceph.pools = {".mgr": 3, "lxd_remote": 1, "users": 1}
    machine.lxd.config["user.microcloud.copies"] = had
    changed(machine, issuer(machine))
    assert machine.microceph.pools == sizes


def test_others_than_the_issuer_make_nothing(machine: Machine):
    cloudy(machine, "micro2", disks=3)
    relation = testing.PeerRelation(
        "cluster", local_app_data=app(initiator="microcloud/1", issuer="microcloud/1")
    )
    state = machine.state(relation=relation, config=CONFIG)
    state = machine.run(machine.context.on.leader_elected(), state)
    assert posted(machine) == []
    assert state.unit_status == testing.ActiveStatus("2 members")


def test_a_joiner_brings_its_part_of_the_file_system_even_if_it_came_after_the_grant(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    cloudy(machine)
    machine.lxd.clustered = False
    machine.lxd.pools, machine.lxd.networks, machine.lxd.members = {}, {}, []
    machine.lxd.config["core.https_address"] = "[::]:8443"  # as a former member
    key = sealing.KeyFile(machine.key)
    key.make()
    purpose = sealing.Purpose(machine.model.uuid, "microcloud/0", "lxd", 1)
    token = base64.b64encode(json.dumps({"fingerprint": "f", "addresses": []}).encode()).decode()
    sealed = sealing.seal(token, key.public(), purpose)
    monkeypatch.setattr(services.lxd, "_trusted_member", lambda _: ("micro2:8443", "PEM"))
    grants = {"microcloud/0": peers.Grant("micro1", 1, 1, 0, tokens={"lxd": sealed})}
    state = machine.state(
        relation=testing.PeerRelation(
            "cluster",
            local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
            peers_data={1: published(1, grants=grants)},
        ),
        config=CONFIG,
    )
    own = "709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c"
    machine.lxd.certificates = [
        {"name": name, "type": "server", "fingerprint": fingerprint}
        for name, fingerprint in (("micro1", "stale"), ("micro1", own), ("micro2", "another"))
    ]
    machine.run(machine.context.on.config_changed(), state)
    # What an earlier join of this machine that failed has left is trusted no more.
    assert [one["fingerprint"] for one in machine.lxd.certificates] == [own, "another"]
    assert machine.lxd.joined_with["https_address"] == ""
    assert machine.lxd.joined_with["member_config"] == [
        {"entity": "storage-pool", "name": "remote-fs", "key": "source", "value": "lxd_cephfs"}
    ]


def test_an_idle_hook_asks_ceph_for_its_disks_only(machine: Machine):
    settled(machine, "micro2")
    changed(machine, issuer(machine))
    asked = {call for call in machine.microceph.requests if " /1.0/" in call}
    assert asked == {"GET /1.0/disks"}


SICK = {
    "health": {
        "status": "HEALTH_WARN",
        "checks": {
            code: {"summary": {"message": text}}
            for code, text in {"A": "1 osds down", "B": "b", "C": "c", "D": "d"}.items()
        },
    },
    "osdmap": {"num_osds": 3, "num_up_osds": 2, "num_in_osds": 3},
}
WELL = {**SICK, "health": {"status": "HEALTH_OK", "checks": {}}}


def test_ceph_that_is_not_well_is_in_the_message_until_it_is(machine: Machine):
    settled(machine)
    machine.tool("microceph.ceph", json.dumps(SICK))
    state = machine.run(machine.context.on.update_status(), issuer(machine))
    message = "1 member; Ceph HEALTH_WARN: 1 osds down; b; c; and 1 more"
    assert state.unit_status == testing.ActiveStatus(message)
    state = changed(machine, state)
    assert state.unit_status == testing.ActiveStatus(message), "it is asked again"
    state = machine.run(machine.context.on.action("list-interfaces"), state)
    assert state.unit_status == testing.ActiveStatus(message), "an action keeps it"
    shown = replace(state, unit_status=testing.MaintenanceStatus("an action is running"))
    state = changed(machine, shown)
    assert state.unit_status == testing.ActiveStatus(message), "whatever the unit said between"
    machine.tool("microceph.ceph", json.dumps(WELL))
    state = changed(machine, state)
    assert state.unit_status == testing.ActiveStatus("1 member")


def test_ceph_that_does_not_answer_blocks_nothing(machine: Machine):
    settled(machine)
    state = machine.run(machine.context.on.update_status(), issuer(machine))
    assert state.unit_status.name == "active"
    assert "Ceph does not tell how it is: microceph.ceph status" in state.unit_status.message


def test_somebody_elses_pool_of_that_name_stays(machine: Machine):
    cloudy(machine, disks=1)
    machine.lxd.pools["remote"] = {**machine.lxd.pools["local"], "name": "remote"}
    state = changed(machine, issuer(machine))
    assert posted(machine) == []
    assert "storage pool remote is zfs, not ceph" in state.unit_status.message
    assert machine.lxd.profile["devices"]["root"]["pool"] == "local"


# Networks


def bound(name: str, address: str, subnet: str) -> testing.Network:
    own = testing.BindAddress([testing.Address(address, cidr=subnet)])
    return testing.Network(name, [own])


def test_networks_of_bindings_and_of_options(machine: Machine):
    machine.install("lxd", "microceph")
    machine.interface("eth0", "192.0.2.0/24", "10.1.0.1/24", "10.2.0.1/24")
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    state = machine.state(
        relation=relation,
        leader=True,
        config={**CONFIG, "ceph-internal-network": "10.2.0.0/24"},
        networks={
            bound("ceph-public", "10.1.0.1", "10.1.0.0/24"),
            bound("ceph-internal", "10.9.0.1", "10.9.0.0/24"),
        },
    )
    machine.run(machine.context.on.config_changed(), state)
    assert machine.microceph.controls[0]["config"] == {
        "PublicNet": "10.1.0.0/24",
        "ClusterNet": "10.2.0.0/24",
    }


def test_a_machine_outside_of_ceph_s_networks_stays_out(machine: Machine):
    machine.install("lxd", "microceph")
    machine.interface("eth0", "192.0.2.0/24")
    config = {
        **CONFIG,
        "ceph-public-network": "10.1.0.0/24",
        "ceph-internal-network": "10.2.0.0/24,192.0.2.0/24",
    }
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    state = machine.state(relation=relation, leader=True, config=config)
    state = machine.run(machine.context.on.config_changed(), state)
    assert state.unit_status.name == "blocked"
    assert "'micro1': ceph-public-network is 10.1.0.0/24" in state.unit_status.message
    assert "ceph-internal-network is" not in state.unit_status.message
    assert machine.microceph.controls == []


def test_networks_of_a_running_ceph_do_not_move(machine: Machine):
    settled(machine)
    machine.tool("microceph.ceph", json.dumps(WELL))
    machine.microceph.config = {
        "public_network": "10.1.0.0/24",
        "cluster_network": "10.2.0.7/24",
    }
    same = {"ceph-public-network": "10.1.0.0/24", "ceph-internal-network": "10.2.0.0/24"}
    state = machine.run(machine.context.on.config_changed(), issuer(machine, config=same))
    assert state.unit_status == testing.ActiveStatus("1 member")
    other = {"ceph-public-network": "10.3.0.0/24", "ceph-internal-network": "10.4.0.0/24"}
    state = machine.run(machine.context.on.config_changed(), issuer(machine, config=other))
    assert state.unit_status == testing.BlockedStatus(
        "ceph-public-network=10.3.0.0/24 cannot be, as Ceph's public network is 10.1.0.0/24 "
        "since it was made, and a running cluster is not moved; set it back; "
        "ceph-internal-network=10.4.0.0/24 cannot be, as Ceph's internal network is 10.2.0.7/24 "
        "since it was made, and a running cluster is not moved; set it back"
    )
    state = machine.run(machine.context.on.action("list-interfaces"), state)
    state = changed(machine, state)
    assert state.unit_status.name == "blocked", "until it is set back"
    state = replace(state, config={**CONFIG, **same})
    assert changed(machine, state).unit_status == testing.ActiveStatus("1 member")


# Zones

ZONED: dict[str, Any] = {**CONFIG, "ceph-zones": True}


def neighbour(zone: str, *joined: str) -> dict[str, str]:
    """The bag of micro2, whose MicroCeph knows of this zone."""
    identity = peers.Identity("micro2", "10.0.0.2", "", zone=zone)
    report = peers.Report(joined=joined)
    return {"identity": peers.dump(identity), "report": peers.dump(report)}


def beginner(machine: Machine, config: dict[str, Any], **bags: Any) -> testing.State:
    """What becomes of a unit that has its snaps and may start or join Ceph."""
    initiator = "microcloud/1" if bags else "microcloud/0"
    relation = testing.PeerRelation(
        "cluster", local_app_data=app(initiator=initiator, issuer=initiator), **bags
    )
    state = machine.state(relation=relation, leader=not bags, config=config)
    return machine.run(machine.context.on.config_changed(), state)


def test_ceph_is_told_the_zone(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    machine.install("lxd", "microceph")
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", "zone1")
    state = beginner(machine, ZONED)
    assert machine.microceph.controls[0]["config"] == {"AvailabilityZone": "zone1"}
    identity = bag(after(state)).identity
    assert identity is not None
    assert identity.zone == "zone1"


def test_without_the_option_ceph_is_told_no_zone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    machine.install("lxd", "microceph")
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", "zone1")
    beginner(machine, CONFIG)
    assert machine.microceph.controls[0]["config"] == {}


def test_a_joiner_tells_its_zone_and_no_networks(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    machine.install("lxd", "microceph")
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", "zone1")
    machine.interface("eth0", "192.0.2.0/24")
    key = sealing.KeyFile(machine.key)
    key.make()
    purpose = sealing.Purpose(machine.model.uuid, "microcloud/0", "microceph", 1)
    sealed = {"microceph": sealing.seal("token", key.public(), purpose)}
    grant = peers.Grant("micro1", 1, 1, 0, tokens=sealed)
    issued = {"grants": peers.dump_grants({"microcloud/0": grant})}
    config = {**ZONED, "ceph-public-network": "192.0.2.0/24"}
    there = {**neighbour("zone2", "microceph", "lxd"), **issued}
    beginner(machine, config, peers_data={1: there})
    (asked,) = machine.microceph.controls
    assert asked["join_token"] == "token"
    assert asked["config"] == {"AvailabilityZone": "zone1"}


@pytest.mark.parametrize(
    ("mine", "wanted", "theirs", "sentence"),
    [
        ("", True, None, "ceph-zones=true: Juju knows no availability zone of micro1"),
        ("a b", True, None, "is in the availability zone 'a b'; Ceph takes letters, digits"),
        ("zone1", True, "", "ceph-zones=true cannot be, as micro2 is in Ceph without a zone"),
        ("zone1", False, "zone2", "ceph-zones=false cannot be, as micro2 is in Ceph with a zone"),
    ],
)
def test_a_zone_that_ceph_would_not_take_keeps_a_machine_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, mine, wanted, theirs, sentence
):
    machine.install("lxd", "microceph")
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", mine)
    bags = {} if theirs is None else {"peers_data": {1: neighbour(theirs, "microceph", "lxd")}}
    state = beginner(machine, {**CONFIG, "ceph-zones": wanted}, **bags)
    assert state.unit_status.name == "blocked"
    assert sentence in state.unit_status.message
    assert machine.microceph.controls == []
    if theirs is None:  # put right, it goes on
        state = beginner(machine, CONFIG)
        assert machine.microceph.controls


def zoned(machine: Machine, mine: str, *others: str, **config: Any) -> testing.State:
    """The state of an issuer whose MicroCeph knows this zone, and those of micro2 and so on."""
    key = sealing.KeyFile(machine.key)
    key.make()
    own = peers.Identity("micro1", "192.0.2.0", key.public(), zone=mine)
    bags: dict[int, Any] = {}
    for number, zone in enumerate(others, 1):
        identity = peers.Identity(f"micro{number + 1}", f"10.0.0.{number}", "", zone=zone)
        report = peers.Report(joined=("microceph", "lxd"))
        bags[number] = {"identity": peers.dump(identity), "report": peers.dump(report)}
    return issuer(
        machine, config=config, local_unit_data={"identity": peers.dump(own)}, peers_data=bags
    )


def test_the_zone_of_a_member_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    settled(machine, "micro2", "micro3")
    machine.tool("microceph.ceph", json.dumps(WELL))
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", "zone9")
    state = zoned(machine, "zone1", "zone2", "zone3", **ZONED)
    state = machine.run(machine.context.on.config_changed(), state)
    assert state.unit_status == testing.ActiveStatus("3 members")
    identity = bag(after(state)).identity
    assert identity is not None
    assert identity.zone == "zone1"
    state = replace(state, config={**CONFIG, "ceph-zones": False, "microovn-channel": ""})
    state = machine.run(machine.context.on.config_changed(), state)
    assert state.unit_status == testing.BlockedStatus(
        "ceph-zones=false cannot be, as micro1 is in Ceph with a zone, and all machines have to "
        "be so; set it back"
    )


def test_ceph_that_was_started_without_zones_gets_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    settled(machine)
    machine.tool("microceph.ceph", json.dumps(WELL))
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", "zone1")
    state = machine.run(machine.context.on.config_changed(), zoned(machine, "", **ZONED))
    assert state.unit_status.name == "blocked"
    assert "ceph-zones=true cannot be, as micro1 is in Ceph without" in state.unit_status.message


def test_fewer_than_three_zones_are_spoken_of(machine: Machine):
    settled(machine, "micro2", "micro3")
    state = changed(machine, zoned(machine, "zone1", "zone2", "zone2", **ZONED))
    assert state.unit_status == testing.ActiveStatus(
        "3 members; Ceph has disks in 2 of the 3 zones that it takes to keep 3 copies apart by "
        "zone"
    )
    state = changed(machine, zoned(machine, "zone1", "zone2", "zone3", **ZONED))
    assert state.unit_status == testing.ActiveStatus("3 members")


def racks(**zones: str) -> dict[str, Any]:
    """What `ceph osd tree` says of hosts in zones."""
    hosts = {host: -number for number, host in enumerate(zones, 10)}
    found: list[dict[str, Any]] = [{"id": -1, "name": "default", "type": "root", "children": []}]
    found += [
        {"id": number, "name": host, "type": "host", "children": []}
        for host, number in hosts.items()
    ]
    for number, zone in enumerate(sorted(set(zones.values())), 100):
        inside = [hosts[host] for host in zones if zones[host] == zone]
        found.append({"id": -number, "name": f"az.{zone}", "type": "rack", "children": inside})
    return {"nodes": found}


@pytest.mark.parametrize(
    ("rule", "copies"), [("microceph_auto_rack", "2"), ("microceph_auto_osd", "3")]
)
def test_no_more_copies_than_zones_that_keep_them_apart(machine: Machine, rule: str, copies: str):
    settled(machine, "micro2", "micro3")
    machine.lxd.config["user.microcloud.copies"] = "2"
    machine.microceph.rule, machine.microceph.pools = rule, {"lxd_remote": 2}
    machine.tool("microceph.ceph", json.dumps(racks(micro1="a", micro2="b", micro3="b")))
    changed(machine, zoned(machine, "a", "b", "b", **ZONED))
    assert machine.lxd.config["user.microcloud.copies"] == copies
    assert machine.microceph.pools == {"lxd_remote": int(copies)}


BAD = [
    ({"ceph-public-network": "fast"}, "Invalid ceph-public-network subnet 'fast'"),
    ({"ceph-internal-network": "10.1.0.1/32"}, "it must be larger than one address"),
    (
        {"microceph-channel": "", "ceph-public-network": "10.1.0.0/24"},
        "ceph-public-network=10.1.0.0/24 cannot be: microceph-channel is empty",
    ),
    ({"microceph-channel": "no channel"}, "microceph-channel='no channel' is no snap channel"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD)
def test_bad_settings_are_said_and_change_nothing(
    machine: Machine, bad: dict[str, Any], sentence: str
):
    cloudy(machine, disks=1)
    state = machine.run(machine.context.on.config_changed(), issuer(machine, config=bad))
    assert state.unit_status.name == "blocked"
    assert sentence in state.unit_status.message
    assert posted(machine) == []


def told_by_status(machine: Machine) -> dict[str, Any]:
    machine.run(machine.context.on.action("status"), issuer(machine))
    results = machine.context.action_results
    assert results is not None
    return json.loads(results["cloud"])["ceph"]


def test_the_status_action_tells_cephs_health(machine: Machine):
    settled(machine)
    machine.tool("microceph.ceph", json.dumps(SICK))
    machine.microceph.pools = {"lxd_remote": 3}
    machine.microceph.config = {"public_network": "10.1.0.0/24"}
    told = told_by_status(machine)
    assert told["health"]["status"] == "HEALTH_WARN"
    assert (told["health"]["osds"], told["health"]["up"], told["health"]["inside"]) == (3, 2, 3)
    assert told["osds"][0] == {"number": 1, "member": "micro1", "path": f"{DISK}0"}
    assert told["services"]["mon"] == ["micro1"]
    assert told["pools"] == {"lxd_remote": {"copies": 3, "rule": "microceph_auto_osd"}}
    assert told["networks"] == {"public": "10.1.0.0/24"}
    assert told["faults"] == []
    (machine.folder / "bin/microceph.ceph").unlink()
    told = told_by_status(machine)
    assert "health" not in told
    assert "microceph.ceph status failed" in told["faults"][0]
