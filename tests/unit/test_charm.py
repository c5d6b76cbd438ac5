"""Each event: the state of Juju and of the machine before it, and after it."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from ops import testing

import errors
import peers
import preflight
import sealing
from unit.conftest import Machine, app, bag, formation, noted, published


def after(state: testing.State) -> testing.PeerRelation:
    relation = next(iter(state.relations))
    assert isinstance(relation, testing.PeerRelation)
    return relation


def test_install_installs_lxd_in_the_cohort_and_holds_it(machine: Machine):
    machine.run(machine.context.on.install(), machine.state())
    assert machine.snap_calls == [
        "install lxd --channel=5.21/stable --cohort=+",
        "refresh --hold lxd",
    ]


def test_install_makes_a_key_that_root_alone_reads(machine: Machine):
    state = machine.run(machine.context.on.install(), machine.state())
    assert machine.key.stat().st_mode & 0o777 == 0o600
    assert machine.key.parent.stat().st_mode & 0o777 == 0o700
    identity = bag(after(state)).identity
    assert identity == peers.Identity("micro1", "192.0.2.0", sealing.KeyFile(machine.key).public())


def test_a_snap_that_is_there_already_moves_to_the_channel_only_when_missing(machine: Machine):
    machine.install()
    machine.run(machine.context.on.install(), machine.state())
    assert machine.snap_calls == []


def test_the_leader_writes_its_intention_down_and_does_nothing_yet(machine: Machine):
    machine.install()
    state = machine.run(machine.context.on.leader_elected(), machine.state(leader=True))
    assert formation(after(state)).initiator == "microcloud/0"
    assert not machine.lxd.clustered


def test_the_initiator_bootstraps_in_a_later_hook(machine: Machine):
    machine.install()
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    state = machine.run(
        machine.context.on.config_changed(), machine.state(relation=relation, leader=True)
    )
    assert machine.lxd.members == ["micro1"]
    assert machine.lxd.member_config["micro1"] == noted("microcloud/0")
    assert machine.lxd.config["core.https_address"] == "[::]:8443"
    assert machine.lxd.config["cluster.https_address"] == "192.0.2.0:8443"
    assert machine.lxd.pools["local"]["status"] == "Created"
    assert machine.lxd.pools["local"]["driver"] == "zfs"
    assert machine.lxd.networks["lxdbr0"]["status"] == "Created"
    assert machine.lxd.config["storage.images_volume"] == "local/images"
    assert machine.lxd.config["storage.backups_volume"] == "local/backups"
    assert machine.lxd.profile["devices"] == {
        "root": {"type": "disk", "path": "/", "pool": "local"},
        "eth0": {"type": "nic", "name": "eth0", "network": "lxdbr0"},
    }
    assert state.unit_status == testing.ActiveStatus("1 member")
    assert bag(after(state)).report.joined == ("lxd",)


def test_lxd_is_looked_at_again_only_after_something_was_done(machine: Machine):
    machine.install()
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    machine.run(machine.context.on.config_changed(), machine.state(relation=relation, leader=True))
    told = machine.lxd.requests
    looks = [n for n, request in enumerate(told) if request == "GET /1.0/cluster/members"]
    assert len(looks) > 1
    for one, next_one in pairwise(looks):
        assert any(not request.startswith("GET ") for request in told[one:next_one])


@pytest.mark.parametrize("extension", [True, False])
def test_a_disk_is_wiped_by_lxd_or_where_it_cannot_by_the_charm(
    machine: Machine, tmp_path, monkeypatch, extension
):
    machine.install()
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    monkeypatch.setattr(preflight, "_fit", lambda path, *_: SimpleNamespace(path=path))
    machine.lxd.extensions = ["storage_pool_source_wipe"] if extension else []
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    config = {"local-storage": str(disk), "local-wipe": True}
    machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config=config),
    )
    given = machine.lxd.pools["local"]["config"]
    assert given["source"] == str(disk)
    assert ("source.wipe" in given) == extension
    signature = subprocess.run(["blkid", "-p", disk], capture_output=True, check=False).stdout
    assert (b"ext4" in signature) == extension, "LXD wipes it itself where it can"


def test_a_follower_waits_for_the_initiator(machine: Machine):
    machine.install()
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
        peers_data={1: published(1, report=peers.Report(joined=("lxd",)))},
    )
    state = machine.run(machine.context.on.start(), machine.state(relation=relation))
    assert state.unit_status == testing.WaitingStatus("waiting for a token from microcloud/1")
    assert not machine.lxd.clustered


GONE = "the leader chooses another with its next update-status"


@pytest.mark.parametrize(
    ("event", "there", "message"),
    [
        ("start", True, "waiting for microcloud/1 to start the cloud"),
        (
            "update_status",
            True,
            "waiting for microcloud/1 to start the cloud; if its machine is gone for good: "
            "juju remove-unit --force microcloud/1",
        ),
        (
            "start",
            False,
            f"waiting for microcloud/1 to start the cloud; if it is gone, {GONE}",
        ),
        ("update_status", False, f"microcloud/1 is gone; {GONE}"),
    ],
)
def test_an_initiator_that_does_not_come_is_told_with_what_to_do(
    machine: Machine, event: str, there: bool, message: str
):
    machine.install()
    others = {1: published(1)} if there else {}
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
        peers_data={2: published(2), **others},
    )
    state = machine.run(getattr(machine.context.on, event)(), machine.state(relation=relation))
    assert state.unit_status == testing.WaitingStatus(message)


def little_room(monkeypatch, mebibytes: int) -> None:
    """Let the file system of the daemons' data have so much room."""
    system = SimpleNamespace(f_bavail=mebibytes << 8, f_frsize=4096)
    monkeypatch.setattr(preflight.os, "statvfs", lambda _: system)


@pytest.mark.parametrize("installed", [True, False])
def test_a_full_disk_is_said_before_anything_is_installed_or_joined(
    machine: Machine, monkeypatch, installed: bool
):
    if installed:
        machine.install()
    little_room(monkeypatch, 511)
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    state = machine.run(
        machine.context.on.config_changed(), machine.state(relation=relation, leader=True)
    )
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert "on micro1 has 511 MiB free, and lxd needs 512 MiB" in state.unit_status.message
    assert state.unit_status.message.count("512") == 1
    assert bag(after(state)).report.problems
    assert machine.snap_calls == []
    assert not machine.lxd.clustered


def test_one_full_disk_is_said_once(machine: Machine, monkeypatch, tmp_path):
    (tmp_path / "microceph/common").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(preflight, "SNAP_DATA", tmp_path)
    little_room(monkeypatch, 0)
    with pytest.raises(errors.Findings) as caught:
        preflight.room(("microceph", "microovn", "lxd"), "micro1")
    assert len(caught.value.sentences) == 1
    assert "microceph/common on micro1 has 0 MiB free" in caught.value.sentences[0]


def test_a_member_on_a_full_disk_stays_one(machine: Machine, monkeypatch):
    member(machine)
    little_room(monkeypatch, 0)
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.run(
        machine.context.on.update_status(), machine.state(relation=relation, leader=True)
    )
    assert state.unit_status == testing.ActiveStatus("1 member")


def member(machine: Machine, *others: str) -> None:
    """As if this unit had formed the cloud with these others."""
    machine.install()
    machine.lxd.clustered = True
    machine.lxd.members = ["micro1", *others]
    machine.lxd.member_config = {"micro1": noted("microcloud/0")}
    machine.lxd.config = {
        "storage.images_volume": "local/images",
        "storage.backups_volume": "local/backups",
    }
    machine.lxd.pools["local"] = {
        "name": "local",
        "driver": "zfs",
        "status": "Created",
        "locations": ["micro1", *others],
    }
    machine.lxd.networks["lxdbr0"] = {
        "name": "lxdbr0",
        "type": "bridge",
        "managed": True,
        "status": "Created",
        "locations": ["micro1", *others],
    }
    root = {"type": "disk", "path": "/", "pool": "local"}
    eth0 = {"type": "nic", "name": "eth0", "network": "lxdbr0"}
    machine.lxd.profile = {
        "description": "",
        "devices": {"root": root, "eth0": eth0},
        "config": {
            "user.microcloud.root": json.dumps(root),
            "user.microcloud.eth0": json.dumps(eth0),
        },
    }


def a_grant(revision: int, attempt: int, issued: int, **more: Any) -> peers.Grant:
    return peers.Grant("micro2", revision, attempt, issued, **more)


ISSUER = {"initiator": "microcloud/0", "issuer": "microcloud/0"}


def test_the_issuer_seals_a_token_to_the_joiner_and_nobody_else(machine: Machine, tmp_path):
    member(machine)
    key, stranger = sealing.KeyFile(tmp_path / "a/key"), sealing.KeyFile(tmp_path / "b/key")
    key.make()
    stranger.make()
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(**ISSUER),
        peers_data={1: published(1, key=key.public())},
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation, leader=True),
    )
    grant = bag(after(state)).grants["microcloud/1"]
    assert (grant.revision, grant.attempt, grant.after) == (1, 1, "")
    purpose = sealing.Purpose(machine.model.uuid, "microcloud/1", "lxd", 1)
    assert "secret" in sealing_content(key.open(grant.tokens["lxd"], purpose))
    with pytest.raises(sealing.CannotOpen):
        stranger.open(grant.tokens["lxd"], purpose)
    assert "secret-" not in str(after(state).local_unit_data)
    assert state.unit_status == testing.ActiveStatus("1 member, 1 to join")


def sealing_content(token: str) -> dict[str, str]:
    import base64

    return json.loads(base64.b64decode(token))


def test_the_issuer_takes_two_at_a_time_in_order(machine: Machine, tmp_path):
    member(machine)
    key = sealing.KeyFile(tmp_path / "k/key")
    key.make()
    others = {n: published(n, key=key.public()) for n in (1, 2, 10)}
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(**ISSUER),
        peers_data=others,
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation, leader=True),
    )
    grants = bag(after(state)).grants
    assert {unit: grant.after for unit, grant in grants.items()} == {
        "microcloud/1": "",
        "microcloud/2": "microcloud/1",
    }


def test_a_used_grant_is_withdrawn(machine: Machine):
    member(machine, "micro2")
    grant = a_grant(1, 1, 0, tokens={"lxd": "sealed"})
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(**ISSUER),
        local_unit_data=published(0, grants={"microcloud/1": grant}),
        peers_data={1: published(1, report=peers.Report(joined=("lxd",)))},
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation, leader=True),
    )
    assert "grants" not in after(state).local_unit_data


def test_a_failed_join_gets_a_fresh_token(machine: Machine, tmp_path):
    member(machine)
    key = sealing.KeyFile(tmp_path / "k/key")
    key.make()
    machine.lxd.operations["old"] = {
        "id": "old",
        "metadata": {"serverName": "micro2", "secret": "s"},
    }
    failure = peers.Failure(1, "lxd", "no route to host")
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(**ISSUER),
        local_unit_data=published(
            0, grants={"microcloud/1": a_grant(1, 1, 0, tokens={"lxd": "sealed"})}
        ),
        peers_data={1: published(1, key=key.public(), report=peers.Report(failure=failure))},
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation, leader=True),
    )
    grant = bag(after(state)).grants["microcloud/1"]
    assert (grant.revision, grant.attempt) == (2, 2)


def test_equal_host_names_block_and_both_are_named(machine: Machine):
    machine.install()
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1"),
        peers_data={1: published(0)},
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation),
    )
    assert state.unit_status == testing.BlockedStatus(
        "microcloud/0 and microcloud/1 are both on machines called micro1; "
        "give one of them another host name, or remove it"
    )


def test_a_used_lxd_does_not_join_and_loses_nothing(machine: Machine):
    machine.install()
    machine.lxd.pools["default"] = {"name": "default", "driver": "dir", "status": "Created"}
    machine.lxd.refuse = {"PUT /1.0/cluster": "must not be asked"}
    grant = a_grant(1, 1, 0, tokens={"lxd": "sealed"})
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
        peers_data={1: published(1, grants={"microcloud/0": grant})},
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation),
    )
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert "in use already (storage pool" in state.unit_status.message
    assert bag(after(state)).report.problems


def test_a_token_for_somebody_else_is_reported(machine: Machine, tmp_path):
    machine.install()
    stranger = sealing.KeyFile(tmp_path / "s/key")
    stranger.make()
    purpose = sealing.Purpose(machine.model.uuid, "microcloud/0", "lxd", 4)
    sealed = sealing.seal("token", stranger.public(), purpose)
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
        peers_data={
            1: published(1, grants={"microcloud/0": a_grant(4, 1, 0, tokens={"lxd": sealed})})
        },
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation),
    )
    failure = bag(after(state)).report.failure
    assert failure is not None
    assert (failure.revision, failure.service) == (4, "lxd")
    assert "cannot be opened" in failure.error


@pytest.mark.parametrize(
    ("attempt", "often", "then"),
    [
        (1, "failed: no route", "waiting for a new token from microcloud/1"),
        (2, "failed, 2 times: no route", "waiting for a new token from microcloud/1"),
        (3, "failed, 3 times: no route", "microcloud/1 tries it again with its next"),
    ],
)
def test_a_failure_is_told_with_daemon_machine_error_and_next_try(
    machine: Machine, attempt: int, often: str, then: str
):
    machine.install()
    failure = peers.Failure(attempt, "lxd", "no route")
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(initiator="microcloud/1", issuer="microcloud/1"),
        local_unit_data=published(0, report=peers.Report(failure=failure)),
        peers_data={
            1: published(1, grants={"microcloud/0": a_grant(attempt, attempt, 0, tokens={})})
        },
    )
    state = machine.run(
        machine.context.on.relation_changed(relation, remote_unit=1),
        machine.state(relation=relation),
    )
    assert isinstance(state.unit_status, testing.WaitingStatus)
    message = state.unit_status.message
    assert message.startswith(f"joining lxd on micro1 {often}")
    assert then in message


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"lxd-channel": "no channel"}, "lxd-channel='no channel' is no snap channel"),
        ({"local-driver": "ext4"}, "local-driver='ext4' is none of zfs, btrfs, lvm, dir"),
        ({"local-storage": "loop:ten"}, "local-storage='loop:ten' has no size"),
        ({"join-timeout": 1}, "join-timeout=1 is not between 10 and 3600 seconds"),
        ({"instance-network": "br9"}, "this machine has no bridge of that name"),
        ({"instance-network": "no/name"}, "instance-network='no/name' is no interface name"),
        ({"local-storage": "size >"}, "clause has no value"),
        ({"local-storage": "storage"}, "no Juju storage `local` is attached"),
        (
            {"local-storage": "/dev/sdx", "local-driver": "dir"},
            "local-storage='/dev/sdx' cannot be: the driver dir takes no disk",
        ),
    ],
)
def test_bad_configuration_blocks_with_a_sentence_and_changes_nothing(
    machine: Machine, config, sentence
):
    machine.install()
    relation = testing.PeerRelation("cluster", local_app_data=app(initiator="microcloud/0"))
    state = machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, config=config, leader=True),
    )
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert sentence in state.unit_status.message
    assert not any(not call.startswith("GET") for call in machine.lxd.requests)


def test_all_findings_are_told_at_once(machine: Machine):
    machine.install()
    state = machine.run(
        machine.context.on.config_changed(),
        machine.state(config={"local-driver": "ext4", "join-timeout": 0}),
    )
    assert "local-driver" in state.unit_status.message
    assert "join-timeout" in state.unit_status.message


def test_a_profile_that_somebody_changed_stays(machine: Machine):
    member(machine)
    mine = {"type": "disk", "path": "/", "pool": "fast"}
    machine.lxd.profile["devices"]["root"] = mine
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.run(
        machine.context.on.update_status(), machine.state(relation=relation, leader=True)
    )
    assert machine.lxd.profile["devices"]["root"] == mine
    assert "root of the default profile was changed by somebody" in state.unit_status.message


def test_a_network_that_is_no_longer_wanted_leaves_the_profile(machine: Machine):
    member(machine)
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    config = {"instance-network": "none"}
    machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config=config),
    )
    assert list(machine.lxd.profile["devices"]) == ["root"]
    assert "user.microcloud.eth0" not in machine.lxd.profile["config"]


def test_a_network_that_somebody_chose_stays_in_the_profile(machine: Machine):
    member(machine)
    mine = {"type": "nic", "network": "mine"}
    machine.lxd.profile["devices"]["eth0"] = mine
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    machine.run(
        machine.context.on.config_changed(),
        machine.state(relation=relation, leader=True, config={"instance-network": "none"}),
    )
    assert machine.lxd.profile["devices"]["eth0"] == mine


def test_what_lxd_refuses_is_said_and_tried_again(machine: Machine):
    member(machine)
    del machine.lxd.networks["lxdbr0"]
    machine.lxd.refuse = {"POST /1.0/networks": "no more networks today"}
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.run(
        machine.context.on.update_status(), machine.state(relation=relation, leader=True)
    )
    assert state.unit_status == testing.BlockedStatus("LXD: no more networks today")
    machine.lxd.refuse = {}
    state = machine.run(
        machine.context.on.update_status(), machine.state(relation=relation, leader=True)
    )
    assert state.unit_status == testing.ActiveStatus("1 member")


def test_what_lxd_refuses_holds_up_nothing_else(machine: Machine):
    member(machine)
    del machine.lxd.networks["lxdbr0"]
    root = machine.lxd.profile["devices"].pop("root")
    del machine.lxd.profile["config"]["user.microcloud.root"]
    machine.lxd.refuse = {"POST /1.0/networks": "no more networks today"}
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.run(
        machine.context.on.update_status(), machine.state(relation=relation, leader=True)
    )
    assert state.unit_status == testing.BlockedStatus("LXD: no more networks today")
    assert machine.lxd.profile["devices"]["root"] == root


def test_a_member_that_a_join_cut_short_left_in_no_group_is_put_into_one(machine: Machine):
    member(machine)
    machine.lxd.member_config.clear()
    machine.lxd.ungrouped.add("micro1")
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.run(
        machine.context.on.update_status(), machine.state(relation=relation, leader=True)
    )
    assert state.unit_status == testing.ActiveStatus("1 member")
    assert not machine.lxd.ungrouped


@pytest.mark.parametrize(
    ("leader", "left"), [("micro1", []), ("micro2", ["gone:8443"])], ids=["leads", "follows"]
)
def test_a_database_server_that_is_no_members_is_removed_by_who_leads_it(
    machine: Machine, leader: str, left: list[str]
):
    member(machine, "micro2")
    machine.lxd.leader = leader
    machine.lxd.lost_servers = ["gone:8443"]
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    machine.run(machine.context.on.update_status(), machine.state(relation=relation, leader=True))
    assert machine.lxd.lost_servers == left


def test_a_member_whose_database_does_not_answer_starts_no_cloud(machine: Machine):
    """Also if it is the initiator, and nobody else is there to say that it is a member."""
    member(machine)
    machine.lxd.refuse = {"GET /1.0/cluster": "no known leader"}
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True)
    state = machine.run(machine.context.on.config_changed(), state)
    assert state.unit_status == testing.BlockedStatus("lxd on micro1: LXD: no known leader")
    assert not [request for request in machine.lxd.requests if not request.startswith("GET")]


def test_a_member_that_is_gone_is_forgotten_once_it_is_offline(machine: Machine):
    member(machine, "micro2")
    machine.lxd.member_config["micro2"] = noted("microcloud/1")
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True)
    machine.run(machine.context.on.update_status(), state)
    assert machine.lxd.members == ["micro1", "micro2"], "it may be leaving by itself"
    machine.lxd.offline = {"micro2"}
    machine.run(machine.context.on.update_status(), state)
    assert machine.lxd.members == ["micro1"]


def test_stop_leaves_and_takes_its_own_volumes_along(machine: Machine):
    member(machine, "micro2")
    machine.lxd.volumes = {
        name: {"name": name, "location": "micro1", "config": {}} for name in ("images", "backups")
    }
    machine.run(machine.context.on.stop(), machine.state(planned_units=1))
    assert machine.lxd.members == ["micro2"]
    assert not machine.lxd.volumes


def test_stop_refuses_while_instances_are_here(machine: Machine):
    member(machine, "micro2")
    machine.lxd.instances = [{"name": "c1", "location": "micro1", "config": {}}]
    with pytest.raises(testing.errors.UncaughtCharmError) as caught:
        machine.run(machine.context.on.stop(), machine.state(planned_units=1))
    assert "micro1 cannot leave the cloud, as it holds instance c1" in str(caught.value.__cause__)
    assert machine.lxd.members == ["micro1", "micro2"]


def test_removing_the_application_leaves_the_cloud(machine: Machine):
    member(machine, "micro2")
    machine.run(machine.context.on.stop(), machine.state(planned_units=0))
    assert machine.lxd.members == ["micro1", "micro2"]


def test_the_status_action_tells_members_pools_and_networks_as_json(machine: Machine):
    member(machine, "micro2")
    machine.lxd.members.append("micro4")
    machine.lxd.offline.add("micro4")
    relation = testing.PeerRelation(
        "cluster", local_app_data=app(**ISSUER), peers_data={2: published(2)}
    )
    machine.run(machine.context.on.action("status"), machine.state(relation=relation))
    results = machine.context.action_results
    assert results is not None
    cloud = json.loads(results["cloud"])
    names = [member["name"] for member in cloud["services"]["lxd"]["members"]]
    assert names == ["micro1", "micro2", "micro4"]
    assert {name: row["lxd"] for name, row in cloud["matrix"].items()} == {
        "micro1": "member",
        "micro2": "member",
        "micro3": "absent",
        "micro4": "offline",
    }
    assert cloud["storage-pools"]["local"]["status"] == "Created"
    assert cloud["networks"]["lxdbr0"]["kind"] == "bridge"


def test_the_workload_version_is_lxds(machine: Machine):
    machine.install()
    state = machine.run(machine.context.on.start(), machine.state())
    assert state.workload_version == "5.21.4"
