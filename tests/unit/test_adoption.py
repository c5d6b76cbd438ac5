"""Clusters that were there before Juju came: taken as they are, or refused with both names."""

from __future__ import annotations

import dataclasses

import pytest
from ops import testing

import peers
from unit.conftest import Machine, app, bag, noted, published

FIRST = {"initiator": "microcloud/1", "issuer": "microcloud/1"}


def in_a_cluster(machine: Machine, *others: str, name: str = "micro1") -> None:
    machine.install(held=False)
    machine.lxd.name = name
    machine.lxd.clustered = True
    machine.lxd.fingerprint = "aaaaaaaaaaaaffff"
    machine.lxd.members = [name, *others]


def beside(cluster: str, service: str = "lxd") -> testing.PeerRelation:
    """A relation in which microcloud/1 on micro2 is the first, in this cluster."""
    report = peers.Report(joined=(service,), clusters={service: cluster})
    return testing.PeerRelation(
        "cluster", local_app_data=app(**FIRST), peers_data={1: published(1, report=report)}
    )


def run(machine: Machine, relation: testing.PeerRelation, leader: bool = False) -> testing.State:
    state = machine.state(relation=relation, leader=leader)
    return machine.run(machine.context.on.relation_changed(relation, remote_unit=1), state)


def test_a_member_of_the_same_cluster_is_adopted_and_lxd_is_told_its_unit(machine: Machine):
    in_a_cluster(machine, "micro2")
    relation = beside("aaaaaaaaaaaa")
    state = run(machine, relation)
    (after,) = state.relations
    assert isinstance(after, testing.PeerRelation)
    report = bag(after).report
    assert report.joined == ("lxd",)
    assert report.clusters == {"lxd": "aaaaaaaaaaaa"}
    assert machine.lxd.member_config["micro1"] == noted("microcloud/0")
    assert not any(request == "PUT /1.0/cluster" for request in machine.lxd.requests)
    assert machine.snap_calls == ["refresh --hold lxd"]
    run(machine, after)
    assert machine.snap_calls == ["refresh --hold lxd"], "once is enough"


def test_members_that_another_model_knew_are_its_units_no_more(machine: Machine):
    """One that is off is not gone from this model, which never had it; ours is told anew."""
    in_a_cluster(machine, "micro3", "micro4")
    elsewhere = {**noted("microcloud/0"), "user.microcloud.model": "another"}
    machine.lxd.member_config["micro1"] = dict(elsewhere)
    machine.lxd.member_config["micro3"] = {**elsewhere, "user.microcloud.unit": "microcloud/2"}
    machine.lxd.member_config["micro4"] = noted("former-app/3")
    machine.lxd.offline = {"micro3", "micro4"}
    mine = {"initiator": "microcloud/0", "issuer": "microcloud/0"}
    relation = testing.PeerRelation("cluster", local_app_data=app(**mine))
    state = machine.state(relation=relation, leader=True)
    machine.run(machine.context.on.update_status(), state)
    assert machine.lxd.member_config["micro1"] == noted("microcloud/0")
    assert machine.lxd.members == ["micro1", "micro3", "micro4"]


def test_a_member_of_another_cluster_changes_nothing_and_names_both(machine: Machine):
    in_a_cluster(machine, "micro9")
    before = dict(machine.lxd.config)
    state = run(machine, beside("bbbbbbbbbbbb"), leader=True)
    assert isinstance(state.unit_status, testing.BlockedStatus)
    said = state.unit_status.message
    assert "micro1 is in the lxd cluster aaaaaaaaaaaa (micro1, micro9)" in said
    assert "microcloud/1 in the lxd cluster bbbbbbbbbbbb (micro2)" in said
    assert machine.lxd.config == before
    assert not [r for r in machine.lxd.requests if not r.startswith("GET")]
    assert machine.snap_calls == []


@pytest.mark.parametrize("known", [FIRST, {}])
def test_nothing_is_changed_before_the_first_has_told_its_cluster(machine: Machine, known):
    in_a_cluster(machine, "micro9")
    relation = testing.PeerRelation(
        "cluster", local_app_data=app(**known), peers_data={1: published(1)}
    )
    state = run(machine, relation)
    who = "microcloud/1" if known else "the leader"
    assert state.unit_status == testing.WaitingStatus(
        f"waiting for {who} to tell which cluster is the cloud's"
    )
    assert not [r for r in machine.lxd.requests if not r.startswith("GET")]
    (after,) = state.relations
    assert isinstance(after, testing.PeerRelation)
    assert bag(after).report.clusters == {"lxd": "aaaaaaaaaaaa"}, "the others wait for it"


def test_the_members_are_named_in_order_whatever_unit_was_seen_first(machine: Machine):
    in_a_cluster(machine)
    relation = beside("bbbbbbbbbbbb")
    report = peers.Report(joined=("lxd",), clusters={"lxd": "bbbbbbbbbbbb"})
    others = {n: published(n, report=report) for n in (3, 1, 2)}
    state = run(machine, dataclasses.replace(relation, peers_data=others))
    assert "bbbbbbbbbbbb (micro2, micro3, micro4)" in state.unit_status.message


def test_a_new_certificate_of_the_common_cluster_is_no_other_cluster(machine: Machine):
    in_a_cluster(machine, "micro2")
    state = run(machine, beside("bbbbbbbbbbbb"))
    assert not isinstance(state.unit_status, testing.BlockedStatus)


def test_a_cluster_that_knows_the_machine_by_another_name_is_said(machine: Machine):
    in_a_cluster(machine, "micro2", name="old-name")
    state = run(machine, beside("aaaaaaaaaaaa"))
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert "not by the machine's host name, micro1" in state.unit_status.message


def test_a_member_whose_join_was_not_seen_to_end_is_never_cleaned(machine: Machine):
    """Its hook died just then; later LXD does not answer."""
    in_a_cluster(machine, "micro2")
    mark = machine.folder / "state/microcloud-0/joining-lxd"
    mark.parent.mkdir(parents=True)
    mark.write_text("1")
    database = machine.folder / "lxd/database"
    database.mkdir()
    machine.lxd.refuse = {"GET /1.0": "Daemon is starting up"}
    relation = beside("aaaaaaaaaaaa")
    mine = published(0, report=peers.Report(joined=("lxd",)))
    run(machine, dataclasses.replace(relation, local_unit_data=mine))
    assert not mark.exists()
    assert database.exists()
    assert not [call for call in machine.snap_calls if call.startswith("stop")]


def test_a_join_whose_hook_died_is_finished_by_a_later_one(machine: Machine):
    in_a_cluster(machine, "micro2")
    machine.lxd.config["core.https_address"] = "192.0.2.0:8443"  # as LXD leaves it
    mark = machine.folder / "state/microcloud-0/unfinished-lxd"
    mark.parent.mkdir(parents=True)
    mark.touch()
    mine = published(0, report=peers.Report(joined=("lxd",)))
    run(machine, dataclasses.replace(beside("aaaaaaaaaaaa"), local_unit_data=mine))
    assert machine.lxd.config["core.https_address"] == "[::]:8443"
    assert not mark.exists()


def test_a_daemon_that_does_not_answer_is_not_joined(machine: Machine):
    """Also in the hooks in which a token is there for it."""
    machine.install()
    machine.lxd.refuse = {"GET /1.0": "Daemon is starting up"}
    grant = peers.Grant("micro1", 1, 1, 0, tokens={"lxd": "sealed"})
    relation = testing.PeerRelation(
        "cluster",
        local_app_data=app(**FIRST),
        peers_data={1: published(1, grants={"microcloud/0": grant})},
    )
    state = run(machine, relation)
    assert isinstance(state.unit_status, testing.BlockedStatus)
    assert "lxd on micro1: LXD: Daemon is starting up" in state.unit_status.message
