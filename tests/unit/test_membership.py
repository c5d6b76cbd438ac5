"""Members that leave: what is moved, what stops it, who is next."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ops import testing

import membership
import snaps
from cloud.ovn import NB_KEY
from unit.conftest import CERTIFICATE, Machine, app
from unit.fake_daemon import Refused, serve_members
from unit.test_adoption import beside
from unit.test_charm import ISSUER, member
from unit.test_ovn import CONFIG, cloudy, nics

MOVE = {"on-removal": "move"}
LEAVING = "user.microcloud.leaving"


def leave(machine: Machine, **config: str) -> testing.State:
    state = machine.state(planned_units=1, config=config)
    return machine.run(machine.context.on.stop(), state)


def refusal(machine: Machine, **config: str) -> str:
    """Why the member does not leave; nothing of it has left."""
    before = list(machine.lxd.members)
    with pytest.raises(testing.errors.UncaughtCharmError) as caught:
        leave(machine, **config)
    assert machine.lxd.members == before
    assert LEAVING not in machine.lxd.member_config["micro1"], "others may leave meanwhile"
    return str(caught.value.__cause__)


def instance(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "location": "micro1", "status": status, "config": {}, **more}


def test_a_unit_that_was_refused_leaves_its_own_cluster_as_it_is(machine: Machine):
    member(machine, "micro2")
    machine.lxd.member_config = {}
    leave(machine)
    assert machine.lxd.members == ["micro1", "micro2"]
    assert not [request for request in machine.lxd.requests if not request.startswith("GET")]


def test_a_unit_that_was_refused_for_another_service_stays_in_its_cluster(machine: Machine):
    machine.install("lxd", "microovn")
    nics(machine)
    machine.microovn.members = {"micro1": "10.0.0.1:6443", "micro9": "10.0.0.9:6443"}
    (machine.folder / "microovn/state/cluster.crt").write_text(CERTIFICATE)
    relation = beside("another", "microovn")
    state = machine.state(relation=relation, config=CONFIG)
    state = machine.run(machine.context.on.relation_changed(relation, remote_unit=1), state)
    assert "one cloud is one cluster" in state.unit_status.message
    leave(machine, **CONFIG)
    assert set(machine.microovn.members) == {"micro1", "micro9"}


def held(machine: Machine) -> None:
    """Give this member instances and a volume."""
    machine.lxd.instances = [
        instance("c1", "Running"),
        instance("c2", "Stopped"),
        {**instance("c3", "Running"), "location": "micro2"},
    ]
    machine.lxd.volumes["data"] = {
        "name": "data",
        "type": "custom",
        "content_type": "filesystem",
        "description": "",
        "config": {},
        "location": "micro1",
        "used_by": [],
    }
    machine.lxd.config["cluster.https_address"] = "10.0.0.1:8443"


def test_everything_that_is_only_here_is_listed(machine: Machine):
    member(machine, "micro2")
    held(machine)
    said = refusal(machine)
    assert "as it holds instance c1, instance c2, volume local/data; " in said
    assert "on-removal=move" in said
    assert [one["status"] for one in machine.lxd.instances] == ["Running", "Stopped", "Running"]


@pytest.mark.parametrize("daemon", ["lxd", "microovn"])
def test_who_cannot_tell_whether_it_is_a_member_does_not_leave(machine: Machine, daemon: str):
    """LXD's database once had no leader when the stop hook came; its vote went with it."""
    cloudy(machine, "micro2")
    if daemon == "lxd":
        machine.lxd.refuse = {"GET /1.0/cluster": "no known leader"}
    else:
        machine.microovn.refuse = {"GET /core/1.0/cluster": (500, "no known leader")}
    said = refusal(machine, **CONFIG)
    assert f"micro1 cannot leave before it answers ({daemon}: " in said
    assert "no known leader" in said
    assert "juju remove-unit --force microcloud/0" in said
    assert not [r for r in machine.microovn.requests if r.startswith("DELETE")]


@pytest.mark.parametrize("grants", [True, False])
def test_the_last_but_one_leaves_the_database_to_the_last_one(machine: Machine, grants: bool):
    """The leader of two left, and nobody had a database any more."""
    member(machine, "micro2")
    machine.interface("enp5s0", "192.0.2.0/24")
    machine.lxd.urls = {"micro1": "10.0.0.1:8443", "micro2": "10.0.0.2:8443"}
    machine.lxd.voteless, machine.lxd.leader = {"micro2"}, "micro1"
    if grants:
        leave(machine)
        assert machine.lxd.leader == "micro2"
        assert machine.lxd.members == ["micro2"]
        assert machine.snap_calls == ["restart --reload lxd.daemon"]
    else:
        machine.lxd.refuse = {"POST /internal/cluster/handover": "no"}
        said = refusal(machine)
        assert "micro1 cannot leave, as LXD's database would end with it: LXD: micro1 has " in said
        assert machine.lxd.members == ["micro1", "micro2"]


def test_who_died_handing_the_database_over_restarts_lxd_first(machine: Machine):
    """LXD, which leads no more, hangs until then."""
    member(machine, "micro2", "micro3")
    mark = machine.folder / "state/microcloud-0/handing-over-lxd"
    mark.touch()
    leave(machine)
    assert machine.snap_calls == ["restart --reload lxd.daemon"]
    assert machine.lxd.members == ["micro2", "micro3"]
    assert not mark.exists()


@pytest.mark.parametrize("restarts", [2, 9])
def test_lxd_is_restarted_until_it_has_its_database(machine: Machine, monkeypatch, restarts: int):
    """Its database hung after one restart, and the unit never left."""
    member(machine, "micro2", "micro3")
    mark = machine.folder / "state/microcloud-0/handing-over-lxd"
    mark.touch()
    machine.lxd.refuse = {"GET /1.0/cluster": "context deadline exceeded"}
    run = snaps.run

    def restart(*words: str) -> str:
        said = run(*words)
        if len(machine.snap_calls) == restarts:
            machine.lxd.refuse = {}
        return said

    monkeypatch.setattr(snaps, "run", restart)
    if restarts == 2:
        leave(machine)
        assert machine.lxd.members == ["micro2", "micro3"]
    else:
        assert "micro1 cannot leave before it answers (lxd: LXD: context d" in refusal(machine)
    assert machine.snap_calls == ["restart --reload lxd.daemon"] * min(restarts, 3)
    assert mark.exists() == (restarts == 9)


@pytest.mark.parametrize("known", [True, False])
def test_who_lost_the_answer_to_its_leaving_asks_the_others(machine: Machine, known: bool):
    """LXD's leader changed while it left; its own database had ended, and the others' had not."""
    member(machine, "micro2")
    machine.interface("enp5s0", "192.0.2.0/24")
    other = dataclasses.replace(machine.lxd, name="micro2", requests=[], refuse={})
    other.certificates = [{"name": "micro1", "type": "server", "fingerprint": "own"}]
    if not known:
        other.refuse_with = 403
        other.refuse = {"GET /1.0/cluster/members": "not authorized"}
    address, stop = serve_members(other, machine.folder / "lxd")
    machine.lxd.urls = {"micro2": address}
    machine.lxd.refuse = {"DELETE /1.0/cluster/members": "server has lost leadership"}
    with pytest.raises(testing.errors.UncaughtCharmError):
        leave(machine)
    machine.lxd.refuse = {"GET /1.0/cluster": "context deadline exceeded"}
    state = leave(machine)
    stop()
    assert state.unit_status == testing.MaintenanceStatus("left the cloud")
    deletions = [request for request in other.requests if request.startswith("DELETE")]
    gone = ["DELETE /1.0/cluster/members/micro1", "DELETE /1.0/certificates/own"]
    assert deletions == (gone if known else [])
    assert [words.split()[0] for words in machine.snap_calls[-2:]] == ["stop", "start"]


def test_who_has_not_begun_to_leave_asks_nobody(machine: Machine):
    member(machine, "micro2")
    address, stop = serve_members(machine.lxd, machine.folder / "lxd")
    machine.lxd.urls = {"micro2": address}
    machine.lxd.refuse = {"GET /1.0/cluster": "context deadline exceeded"}
    assert "micro1 cannot leave before it answers" in refusal(machine)
    stop()


def test_instances_and_volumes_move_and_run_as_before(machine: Machine):
    member(machine, "micro2", "micro3")
    held(machine)
    leave(machine, **MOVE)
    assert machine.lxd.members == ["micro2", "micro3"]
    found = {one["name"]: (one["location"], one["status"]) for one in machine.lxd.instances}
    # Each goes to where the fewest are.
    assert found == {
        "c1": ("micro3", "Running"),
        "c2": ("micro2", "Stopped"),
        "c3": ("micro2", "Running"),
    }
    assert not any(value for one in machine.lxd.instances for value in one["config"].values())


def test_a_volume_is_deleted_only_once_it_is_elsewhere(machine: Machine):
    member(machine, "micro2")
    held(machine)
    machine.lxd.instances.clear()
    machine.lxd.refuse["POST /1.0/storage-pools/local/volumes/custom"] = "no space"
    assert "holds volume local/data (LXD: no space)" in refusal(machine, **MOVE)
    assert machine.lxd.volumes["data"]["location"] == "micro1"


@pytest.mark.parametrize("broken", [{"offline": {"micro2"}}, {"evacuated": {"micro2"}}])
def test_nothing_moves_to_a_member_that_is_not_available(machine: Machine, broken):
    member(machine, "micro2")
    held(machine)
    for name, value in broken.items():
        setattr(machine.lxd, name, value)
    assert "instance c2 (no other member can take it)" in refusal(machine, **MOVE)


def test_what_cannot_move_is_listed_and_runs_on(machine: Machine):
    member(machine, "micro2")
    held(machine)
    machine.lxd.immovable = {"c1"}
    said = refusal(machine, **MOVE)
    assert "as it holds instance c1 (LXD: it cannot be moved); " in said
    assert [one["status"] for one in machine.lxd.instances] == ["Running", "Stopped", "Running"]
    assert machine.lxd.instances[1]["location"] == "micro2"


def test_what_a_move_would_destroy_stops_it_before_anything_moves(machine: Machine):
    member(machine, "micro2")
    held(machine)
    machine.lxd.instances[0]["ephemeral"] = True
    machine.lxd.volumes["data"]["used_by"] = ["/1.0/instances/c2"]
    said = refusal(machine, **MOVE)
    assert "instance c1 (it is ephemeral: stopping it deletes it)" in said
    assert "volume local/data (attached to c2)" in said
    assert machine.lxd.instances[1]["location"] == "micro1"


def test_an_instance_that_was_stopped_for_its_move_is_started_by_the_next_try(machine: Machine):
    """The hook died between the stop and the start, once before the move and once after it."""
    member(machine, "micro2")
    moving = {"user.microcloud.moving-from": "micro1"}
    machine.lxd.instances = [
        {**instance("c1", "Stopped"), "config": dict(moving)},
        {**instance("c2", "Stopped"), "config": dict(moving), "location": "micro2"},
        {**instance("c3", "Stopped"), "location": "micro2"},
    ]
    leave(machine, **MOVE)
    assert [one["status"] for one in machine.lxd.instances] == ["Running", "Running", "Stopped"]


def test_an_instance_that_does_not_heed_is_stopped_by_force(machine: Machine, monkeypatch):
    member(machine, "micro2")
    held(machine)
    answer = machine.lxd.answer

    def stubborn(method: str, url: str, body: dict[str, Any]) -> Any:
        if body.get("action") == "stop" and not body["force"]:
            raise Refused(400, "it did not shut down")
        return answer(method, url, body)

    monkeypatch.setattr(machine.lxd, "answer", stubborn)
    leave(machine, **MOVE)
    assert machine.lxd.instances[0]["location"] == "micro2"


def test_one_member_leaves_at_a_time(machine: Machine, monkeypatch):
    member(machine, "micro2", "micro3")
    monkeypatch.setattr(membership, "TURN_TIMEOUT", 0.0)
    machine.lxd.member_config["micro2"] = {LEAVING: "microcloud/1"}
    # It was there first by number, so its note stays while it waits.
    with pytest.raises(testing.errors.UncaughtCharmError) as caught:
        leave(machine)
    assert "micro1 waits for micro2 to leave first" in str(caught.value.__cause__)
    assert machine.lxd.member_config["micro1"][LEAVING] == "microcloud/0"
    # Who waits, and whose machine is off, hold up nobody.
    machine.lxd.member_config["micro2"] = {LEAVING: "microcloud/1 waits"}
    machine.lxd.member_config["micro3"] = {LEAVING: "microcloud/2"}
    machine.lxd.offline = {"micro3"}
    leave(machine)
    assert machine.lxd.members == ["micro2", "micro3"]


def test_who_comes_later_by_number_steps_back(machine: Machine, monkeypatch):
    member(machine, "micro2")
    monkeypatch.setattr(membership, "TURN_TIMEOUT", 0.0)
    machine.lxd.member_config["micro2"] = {LEAVING: "another/1"}
    with pytest.raises(testing.errors.UncaughtCharmError):
        leave(machine)
    assert machine.lxd.member_config["micro1"][LEAVING] == "microcloud/0 waits"


def test_another_central_takes_over_before_one_leaves(machine: Machine):
    cloudy(machine, "micro2", "micro3", "micro4")
    machine.microovn.centrals = ["micro1", "micro2", "micro3"]
    machine.lxd.config[NB_KEY] = "ssl:192.0.2.0:6641"
    leave(machine, **CONFIG)
    assert machine.microovn.centrals == ["micro2", "micro3", "micro4"]
    assert machine.lxd.config[NB_KEY].count("ssl:") == 3
    assert "192.0.2.0:" not in machine.lxd.config[NB_KEY]


def test_the_uplink_interface_is_up_again_as_it_was_found(machine: Machine):
    """LXD sets it down, and a machine with it down was refused when it was added again."""
    cloudy(machine, "micro2")
    machine.lxd.parents["micro1"] = "enp6s0"
    leave(machine, **CONFIG)
    assert (machine.folder / "ip.log").read_text() == "link set enp6s0 up\n"


def test_a_member_that_leaves_as_well_does_not_take_over(machine: Machine):
    cloudy(machine, "micro2", "micro3", "micro4")
    machine.microovn.centrals = ["micro1", "micro2", "micro3"]
    machine.lxd.member_config["micro4"] = {LEAVING: "microcloud/3 waits"}
    leave(machine, **CONFIG)
    assert machine.microovn.centrals == ["micro2", "micro3"]


def test_lxd_learns_the_availability_zone_once(machine: Machine, monkeypatch):
    member(machine)
    monkeypatch.setenv("JUJU_AVAILABILITY_ZONE", "zone7")
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True)
    machine.run(machine.context.on.update_status(), state)
    assert machine.lxd.domains["micro1"] == "zone7"
    machine.lxd.domains["micro1"] = "rack 3"
    machine.run(machine.context.on.update_status(), state)
    assert machine.lxd.domains["micro1"] == "rack 3", "somebody chose it"
