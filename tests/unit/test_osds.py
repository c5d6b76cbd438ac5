"""Disks for Ceph in each event: what Juju has attached, what is configured, what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ops import testing

import peers
from machine import encryption
from unit.conftest import Machine, app, bag, noted, published

ID = "/dev/disk/by-id/scsi-"
CEPH = {"microceph-channel": "squid/stable", "local-storage": "none", "instance-network": "none"}
ALL = ("microceph", "lxd")
SOMEBODY = "UDDmG3TzL7JQCu43KopMbVZWk2I3j4FIFoCk3XqtiVA="


@pytest.fixture
def member(machine: Machine) -> Machine:
    """This unit has formed a cloud with Ceph, and has two disks besides the system's."""
    machine.install("microceph", "lxd")
    machine.lxd.clustered = True
    machine.lxd.extensions.append("storage_cephfs_create_missing")
    machine.lxd.members = ["micro1"]
    machine.lxd.member_config = {"micro1": noted("microcloud/0")}
    machine.lxd.config = {"core.https_address": "[::]:8443"}
    machine.microceph.members = {"micro1": "10.0.0.1:7443"}
    machine.disk("sda", 10, partitions=[{"id": "sda1", "mounted": True}])
    machine.disk("sdb", 20)
    machine.disk("sdc", 30)
    return machine


def cluster(*others: peers.Report, **own: Any) -> testing.PeerRelation:
    """The relation; this unit is the issuer."""
    report = peers.Report(joined=ALL, **own)
    bags = {n: published(n, key=SOMEBODY, report=other) for n, other in enumerate(others, 1)}
    return testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/0", issuer="microcloud/0"),
        local_unit_data=published(0, report=report),
        peers_data=bags,
    )


def run(
    machine: Machine, event: str = "config_changed", relation: Any = None, **config: Any
) -> testing.State:
    settings = {f"ceph-{key}": value for key, value in config.items()}
    state = machine.state(relation=relation or cluster(), config={**CEPH, **settings})
    return machine.run(getattr(machine.context.on, event)(), state)


def osds(machine: Machine) -> list[str]:
    return [disk["path"] for disk in machine.microceph.disks]


def report(state: testing.State) -> peers.Report:
    relation = next(iter(state.relations))
    assert isinstance(relation, testing.PeerRelation)
    return bag(relation).report


@pytest.mark.parametrize(
    ("storage", "taken"),
    [
        ("auto", []),
        ("none", []),
        (f"{ID}sdb", ["sdb"]),
        ("/dev/sdb, /dev/sdc", ["sdb", "sdc"]),
        ("[/dev/sdb, /dev/sdc]", ["sdb", "sdc"]),
        ("- /dev/sdb\n- /dev/sdc", ["sdb", "sdc"]),
        ("{micro1: /dev/sdc, micro2: /dev/sdb}", ["sdc"]),
        ("micro1: [/dev/sdb, /dev/sdc]\nmicro2: /dev/sdx", ["sdb", "sdc"]),
        ("{micro2: /dev/sdb}", []),
        ("size > 10GiB", ["sdb", "sdc"]),
        ("size > 20GiB && type == scsi", ["sdc"]),
        ("[{find: size > 20GiB}, {find: id == sdb, find_min: 1, find_max: 1}]", ["sdc", "sdb"]),
        ("find: size > 20GiB\nfind_min: 1", ["sdc"]),
    ],
)
def test_each_form_of_the_option(member: Machine, storage: str, taken: list[str]):
    state = run(member, storage=storage)
    assert osds(member) == [ID + name for name in taken]
    assert isinstance(state.unit_status, testing.ActiveStatus)


@pytest.mark.parametrize(
    ("storage", "sentence"),
    [
        ("size >", "clause has no value"),
        ("[{find: size > 1GiB, find_min: 0}]", "cannot be defined with find_min less than 1"),
        ("[{find: ''}, {find: size > 1, find_max: x}]", "Received empty remote disk filter"),
        ("{micro1: [/dev/sdb, /dev/sdb]}", "names /dev/sdb twice"),
    ],
)
def test_a_bad_option_blocks_with_a_sentence(member: Machine, storage: str, sentence: str):
    state = run(member, storage=storage)
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert sentence in state.unit_status.message
    assert "ceph-storage: " in state.unit_status.message
    assert osds(member) == []


def test_disks_need_ceph(member: Machine):
    state = member.run(
        member.context.on.config_changed(),
        member.state(config={"ceph-storage": "size > 10GiB"}),
    )
    assert "cannot be: microceph-channel is empty" in state.unit_status.message


def test_a_disk_is_taken_once_and_never_given_back(member: Machine):
    run(member, storage="size > 20GiB")
    run(member, "update_status", storage="size > 20GiB")
    run(member, storage="size > 10GiB")
    run(member, storage="auto")
    assert osds(member) == [ID + "sdc", ID + "sdb"]


def test_a_disk_that_comes_later_is_taken_by_the_periodic_hook(member: Machine):
    run(member, storage="size > 20GiB")
    member.disk("sdd", 40)
    run(member, "leader_elected", storage="size > 20GiB")
    assert osds(member) == [ID + "sdc"], "a hook with no news of disks looks at none"
    run(member, "update_status", storage="size > 20GiB")
    assert osds(member) == [ID + "sdc", ID + "sdd"]


def test_all_findings_are_told_and_nothing_is_taken(member: Machine):
    member.probe.data["sdb"] = ["an ext4 file system"]
    state = run(member, storage="/dev/sda /dev/sdb /dev/sdc /dev/sdx")
    assert isinstance(state.unit_status, testing.BlockedStatus)
    for sentence in (
        f"ceph-storage: {ID}sda is mounted",
        f"ceph-storage: {ID}sda has partitions sda1; set ceph-wipe=true",
        f"ceph-storage: {ID}sdb holds an ext4 file system; set ceph-wipe=true",
        "ceph-storage: /dev/sdx is no disk of this machine",
    ):
        assert sentence in state.unit_status.message
    assert osds(member) == []
    member.probe.data.clear()
    run(member, "leader_elected", storage="/dev/sdb /dev/sdc")
    assert osds(member) == [ID + "sdb", ID + "sdc"], "looked at again until all is well"


def test_a_disk_that_the_daemon_refuses_holds_up_no_other(member: Machine):
    member.microceph.refused = {ID + "sdb": "it burns"}
    state = run(member, storage="size > 10GiB")
    assert osds(member) == [ID + "sdc"]
    assert state.unit_status == testing.BlockedStatus(f"MicroCeph: {ID}sdb: it burns")
    member.microceph.refused = {}
    state = run(member, "leader_elected", storage="size > 10GiB")
    assert osds(member) == [ID + "sdc", ID + "sdb"]
    assert isinstance(state.unit_status, testing.ActiveStatus)


def test_wipe_and_encrypt_reach_the_daemon(member: Machine, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(encryption, "CONTROL", tmp_path)
    monkeypatch.setattr(encryption, "MODULE", tmp_path)
    member.connections = ["dm-crypt  microceph:dm-crypt  :dm-crypt  -"]
    member.probe.data["sdb"] = ["an ext4 file system"]
    run(member, storage="id == sdb", wipe=True, encrypt=True)
    assert {"path": [ID + "sdb"], "wipe": True, "encrypt": True} in member.microceph.bodies


def test_without_encryption_no_disk_is_touched(member: Machine, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(encryption, "CONTROL", tmp_path / "none")
    monkeypatch.setattr(encryption, "MODULE", tmp_path)
    member.connections = ["dm-crypt  microceph:dm-crypt  -  -"]
    state = run(member, storage="[{find: id == sdb}, {find: id == sdc, encrypt: true}]")
    assert "this machine cannot encrypt disks: it has no" in state.unit_status.message
    assert "run `snap connect microceph:dm-crypt`" in state.unit_status.message
    assert osds(member) == []


def test_disks_that_cannot_be_looked_at_hold_up_nothing_else(member: Machine):
    member.lxd.refuse = {"GET /1.0/resources": "no disks today"}
    member.lxd.member_config = {}
    state = run(member, storage="size > 10GiB")
    assert "no disks today" in state.unit_status.message
    assert member.lxd.member_config["micro1"] == noted("microcloud/0")


# Attached Juju storage


def with_storage(
    machine: Machine, name: str, event: str = "storage_attached", **config: Any
) -> testing.State:
    """The event of one storage, whose location leads to the disk `name`."""
    storage = testing.Storage("osd", index=0)
    location = str(storage.get_filesystem(machine.context))
    machine.probe.nodes[location] = name
    settings = {f"ceph-{key}": value for key, value in config.items()}
    state = machine.state(relation=cluster(), config={**CEPH, **settings}, storages={storage})
    return machine.run(getattr(machine.context.on, event)(storage), state)


def test_attached_storage_is_taken(member: Machine):
    run(member)
    with_storage(member, "sdb")
    assert osds(member) == [ID + "sdb"]


def test_attached_storage_with_data_is_refused(member: Machine):
    member.probe.data["sdb"] = ["an ext4 file system"]
    state = with_storage(member, "sdb")
    assert state.unit_status == testing.BlockedStatus(
        f"storage osd/0: {ID}sdb holds an ext4 file system; "
        "set ceph-wipe=true to use it all the same"
    )
    with_storage(member, "sdb", wipe=True)
    assert osds(member) == [ID + "sdb"]


def test_a_bad_disk_in_the_option_does_not_stop_storage(member: Machine):
    state = with_storage(member, "sdb", storage="/dev/sda")
    assert osds(member) == [ID + "sdb"]
    assert isinstance(state.unit_status, testing.BlockedStatus)


def test_none_takes_no_storage(member: Machine):
    with_storage(member, "sdb", storage="none")
    assert osds(member) == []


# The pool local and Ceph


def test_ceph_takes_not_what_the_pool_local_has(member: Machine):
    member.lxd.pools["local"] = {
        "name": "local", "driver": "zfs", "status": "Created", "locations": ["micro1"],
        "config": {"source": "local", "volatile.initial_source": "/dev/sdc"},
    }  # fmt: skip
    run(member, storage="size > 10GiB")
    assert osds(member) == [ID + "sdb"]
    state = run(member, storage="/dev/sdc")
    assert f"ceph-storage: {ID}sdc is used by the storage pool local" in (
        state.unit_status.message
    )


@pytest.mark.parametrize(
    ("local", "ceph", "source"),
    [
        ("size > 10GiB", "size > 20GiB", "sdb"),
        ("size > 10GiB", "/dev/sdb", "sdc"),
        ("/dev/sdb", "size > 10GiB", "sdb"),
    ],
)
def test_the_pool_local_takes_not_what_ceph_is_to_have(
    member: Machine, local: str, ceph: str, source: str
):
    config = {**CEPH, "local-storage": local, "ceph-storage": ceph}
    state = member.state(relation=cluster(), config=config)
    member.run(member.context.on.config_changed(), state)
    assert member.lxd.pools["local"]["config"]["source"] == ID + source
    assert osds(member) == [ID + name for name in ("sdb", "sdc") if name != source]


def test_one_disk_for_both_is_refused_before_anything_is_made(member: Machine):
    config = {**CEPH, "local-storage": "/dev/sdb", "ceph-storage": f"{ID}sdb"}
    state = member.run(
        member.context.on.config_changed(), member.state(relation=cluster(), config=config)
    )
    assert f"local-storage: {ID}sdb is used by Ceph (ceph-storage)" in state.unit_status.message
    assert osds(member) == []
    assert member.lxd.pools == {}


# Other units


def test_nobodys_join_waits_for_disks(member: Machine):
    relation = cluster(peers.Report())
    state = run(member, relation=relation, storage="size > 10GiB")
    assert osds(member) == []
    assert isinstance(state.unit_status, testing.ActiveStatus)
    joined = cluster(peers.Report(joined=ALL))
    run(member, "leader_elected", relation=joined, storage="size > 10GiB")
    assert len(osds(member)) == 2


@pytest.mark.parametrize(
    "other",
    [
        peers.Report(problems=("no disk",)),
        peers.Report(failure=peers.Failure(1, "lxd", "refused")),
    ],
)
def test_a_unit_that_cannot_join_is_not_waited_for(member: Machine, other: peers.Report):
    run(member, relation=cluster(other), storage="size > 10GiB")
    assert len(osds(member)) == 2


def test_a_unit_that_takes_long_is_waited_for_until_the_periodic_hook(member: Machine):
    relation = cluster()
    state = member.state(
        relation=relation, config={**CEPH, "ceph-storage": "id == sdb"}, planned_units=3
    )
    state = member.run(member.context.on.config_changed(), state)
    assert osds(member) == []
    member.run(member.context.on.update_status(), replace(state, planned_units=3))
    assert osds(member) == [ID + "sdb"]


LIST = "[{{find: size > 10GiB, find_min: {0}, find_max: {1}}}]"


def matches(state: testing.State) -> dict[str, tuple[int, ...]]:
    return dict(report(state).matches)


def test_too_many_disks_over_all_units_and_none_is_taken(member: Machine):
    config = {"storage": LIST.format(1, 3)}
    state = run(member, relation=cluster(peers.Report(joined=ALL)), **config)
    assert osds(member) == [], "the other unit has not counted yet"
    counted = matches(state)
    assert list(counted.values()) == [(2,)]
    other = peers.Report(joined=ALL, matches=counted)
    state = run(member, relation=cluster(other), **config)
    assert osds(member) == [], "this unit's count was not published before this hook"
    state = run(member, relation=cluster(other, matches=counted), **config)
    assert state.unit_status == testing.BlockedStatus(
        'ceph-storage: Found more than 3 disks for filter "size > 10GiB"'
    )
    assert osds(member) == []


def test_enough_disks_over_all_units(member: Machine):
    config = {"storage": LIST.format(4, 4)}
    counted = matches(run(member, relation=cluster(peers.Report(joined=ALL)), **config))
    other = peers.Report(joined=ALL, matches=counted)
    run(member, relation=cluster(other, matches=counted), **config)
    assert len(osds(member)) == 2


def test_too_few_disks_over_all_units(member: Machine):
    config = {"storage": LIST.format(5, 0)}
    counted = matches(run(member, relation=cluster(peers.Report()), **config))
    other = peers.Report(joined=ALL, matches=counted)
    state = run(member, relation=cluster(other, matches=counted), **config)
    assert state.unit_status == testing.BlockedStatus(
        'ceph-storage: Failed to find at least 5 disks for filter "size > 10GiB"'
    )
    assert osds(member) == []


def test_a_filter_that_finds_nothing_anywhere_is_told_by_the_issuer(member: Machine):
    state = run(member, storage="size > 10TiB")
    assert "Failed to find at least 1 disks" in state.unit_status.message
    elsewhere = cluster(peers.Report(joined=ALL, matches={}))
    relation = replace(elsewhere, local_app_data=app(initiator="microcloud/1"))
    state = run(member, relation=relation, storage="size > 10TiB")
    assert isinstance(state.unit_status, testing.ActiveStatus)


def test_an_idle_hook_asks_for_no_disks(member: Machine):
    run(member, storage="size > 10GiB")
    member.lxd.requests.clear()
    run(member, "leader_elected", storage="size > 10GiB")
    assert "GET /1.0/resources" not in member.lxd.requests


def test_the_report_survives_the_databag():
    told = peers.Report(joined=ALL, matches={"0": (1, 2)})
    assert peers.Report.load(peers.dump(told)) == told
    assert json.loads(peers.dump(told))["matches"] == {"0": [1, 2]}
