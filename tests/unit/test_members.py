"""Who belongs to the cloud, who is taken out of it, and who may be spared for a while."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ops import testing

from unit.conftest import Machine, app, noted, published
from unit.test_ceph import CONFIG as CEPH
from unit.test_ceph import settled
from unit.test_charm import ISSUER, member
from unit.test_membership import instance
from unit.test_ovn import CONFIG as OVN
from unit.test_ovn import cloudy


def act(machine: Machine, action: str, config: dict[str, Any] | None = None, **params: Any) -> Any:
    """The JSON document that an action gives."""
    others = {1: published(1)}
    relation = testing.PeerRelation("cluster", peers_data=others, local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True, config=config or {})
    machine.run(machine.context.on.action(action, params=params), state)
    (found,) = (machine.context.action_results or {}).values()
    return json.loads(found)


def refusal(machine: Machine, action: str, **params: Any) -> str:
    with pytest.raises(testing.ActionFailed) as caught:
        act(machine, action, **params)
    return caught.value.message


def three(machine: Machine) -> None:
    """micro3's machine is off, and Juju has no unit of it."""
    member(machine, "micro2", "micro3")
    machine.lxd.offline = {"micro3"}
    machine.lxd.member_config["micro3"] = noted("microcloud/2")


def tick(machine: Machine) -> testing.State:
    relation = testing.PeerRelation(
        "cluster", peers_data={1: published(1)}, local_app_data=app(**ISSUER)
    )
    state = machine.state(relation=relation, leader=True)
    return machine.run(machine.context.on.update_status(), state)


def test_members_are_listed_with_what_each_service_and_juju_say(machine: Machine):
    three(machine)
    machine.lxd.evacuated = {"micro2"}
    found = {one["member"]: one for one in act(machine, "list-members")}
    assert list(found) == ["micro1", "micro2", "micro3"]
    assert found["micro2"]["unit"] == "microcloud/1"
    assert found["micro2"]["in-maintenance"] is True
    assert found["micro3"]["juju"] == "gone"
    assert found["micro3"]["services"]["lxd"]["online"] is False
    machine.juju_has("microcloud/2")
    assert act(machine, "list-members")[2]["juju"] == "being removed"


def test_a_machine_that_juju_is_still_removing_is_not_forgotten(machine: Machine):
    """It has left the relation, and may only have no power for a moment."""
    three(machine)
    machine.juju_has("microcloud/2")
    state = tick(machine)
    assert "micro3" in machine.lxd.members
    assert "juju remove-unit --force microcloud/2" in state.unit_status.message
    machine.juju_has()
    tick(machine)
    assert "micro3" not in machine.lxd.members


def test_a_lost_machine_is_trusted_no_more(machine: Machine):
    three(machine)
    machine.lxd.certificates = [
        {"name": name, "type": kind, "fingerprint": f"{name}-{kind}"}
        for name in ("micro2", "micro3")
        for kind in ("server", "client")
    ]
    tick(machine)
    left = [one["fingerprint"] for one in machine.lxd.certificates]
    assert left == ["micro2-server", "micro2-client", "micro3-client"]


def test_what_a_lost_machine_had_on_shared_storage_goes_on_elsewhere(machine: Machine):
    three(machine)
    machine.lxd.pools["remote"] = {"name": "remote", "driver": "ceph", "status": "Created"}
    power = {"volatile.last_state.power": "RUNNING"}
    for name, pool in (("shared", "remote"), ("lost", "local")):
        one = {**instance(name, "Error"), "location": "micro3", "config": dict(power)}
        machine.lxd.instances.append({**one, "expanded_devices": {"root": {"pool": pool}}})
    answer = machine.lxd.answer

    def offline(method: str, url: str, body: dict[str, Any]) -> Any:
        if method == "POST" and "/instances/shared" in url:
            machine.lxd.instances[0]["status"] = "Stopped"
        return answer(method, url, body)

    machine.lxd.answer = offline  # pyright: ignore[reportAttributeAccessIssue]
    tick(machine)
    assert machine.lxd.instances[0]["location"] in ("micro1", "micro2")
    assert machine.lxd.instances[0]["status"] == "Running"
    assert "micro3" not in machine.lxd.members


def test_a_member_that_juju_does_not_know_is_removed(machine: Machine):
    three(machine)
    machine.lxd.member_config["micro3"] = {}
    assert act(machine, "remove-member", name="micro3")["from"] == ["lxd"]
    assert machine.lxd.members == ["micro1", "micro2"]


def test_what_only_a_lost_machine_had_is_given_up_by_force_alone(machine: Machine):
    three(machine)
    local = {"root": {"pool": "local"}}
    machine.lxd.instances = [
        {**instance("c1", "Error"), "location": "micro3", "expanded_devices": local}
    ]
    said = refusal(machine, "remove-member", name="micro3")
    assert said.startswith("micro3 has the only copy of instance c1; ")
    assert act(machine, "remove-member", name="micro3", force=True)["lost"] == ["instance c1"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("micro9", "no service has a member micro9; there are micro1, micro2, micro3"),
        ("micro2", "micro2 is the machine of microcloud/1, which Juju knows"),
        ("micro3", "micro3 still runs, as lxd can tell"),
    ],
)
def test_removing_the_wrong_member_is_refused(machine: Machine, name: str, sentence: str):
    member(machine, "micro2", "micro3")
    assert sentence in refusal(machine, "remove-member", name=name, force=True)
    assert machine.lxd.members == ["micro1", "micro2", "micro3"]


def test_juju_still_knows_a_unit_that_it_is_removing(machine: Machine):
    three(machine)
    machine.juju_has("microcloud/2")
    said = refusal(machine, "remove-member", name="micro3", force=True)
    assert "juju remove-unit microcloud/2, with --force if the machine is gone" in said


def test_maintenance_and_back(machine: Machine):
    settled(machine, "micro2", "micro3")
    machine.lxd.instances = [instance("c1", "Running")]
    found = act(machine, "enter-maintenance", CEPH)
    assert found["done"] == [
        "LXD: evacuate c1",
        "LXD: take no new instances",
        "Ceph: set the flag noout",
    ]
    assert machine.lxd.evacuated == {"micro1"}
    assert machine.microceph.noout
    act(machine, "exit-maintenance", CEPH)
    assert not machine.lxd.evacuated
    assert not machine.microceph.noout


def test_a_dry_run_changes_nothing(machine: Machine):
    settled(machine, "micro2", "micro3")
    found = act(machine, "enter-maintenance", CEPH, **{"dry-run": True})
    assert found["plan"][-1] == "Ceph: set the flag noout"
    assert not machine.lxd.evacuated
    assert not machine.microceph.noout


def test_noout_stays_while_another_member_is_in_maintenance(machine: Machine):
    settled(machine, "micro2", "micro3")
    machine.microceph.noout = True
    machine.lxd.evacuated = {"micro1", "micro2"}
    act(machine, "exit-maintenance", CEPH)
    assert machine.microceph.noout


def test_one_at_a_time_unless_forced_and_all_reasons_at_once(machine: Machine):
    cloudy(machine, "micro2", "micro3")
    machine.lxd.evacuated = {"micro3"}
    machine.microovn.status["micro3"] = "UNREACHABLE"
    said = refusal(machine, "enter-maintenance", config=OVN)
    assert "micro1 cannot be spared: micro3 is away already; one at a time" in said
    assert "of OVN's 3 databases 1 would run, which is no majority" in said
    assert "micro1" not in machine.lxd.evacuated
    act(machine, "enter-maintenance", OVN, force=True)
    assert "micro1" in machine.lxd.evacuated


def test_what_microceph_says_against_it_is_passed_on(machine: Machine):
    settled(machine, "micro2", "micro3")
    machine.microceph.against = "osds.[1] cannot be safely stopped"
    said = refusal(machine, "enter-maintenance", config=CEPH)
    assert "micro1 cannot be spared: Ceph: osds.[1] cannot be safely stopped" in said


def test_a_unit_in_maintenance_says_so_and_heals_nothing(machine: Machine):
    cloudy(machine, "micro2")
    machine.lxd.evacuated = {"micro1"}
    machine.lxd.local_status = "Unavailable"
    relation = testing.PeerRelation("cluster", local_app_data=app(**ISSUER))
    state = machine.state(relation=relation, leader=True, config=OVN)
    state = machine.run(machine.context.on.update_status(), state)
    assert state.unit_status == testing.MaintenanceStatus(
        "in maintenance until the action exit-maintenance"
    )
    assert not any("restart" in call for call in machine.snap_calls)


def test_the_issuer_says_who_is_away(machine: Machine):
    member(machine, "micro2")
    machine.lxd.evacuated = {"micro2"}
    assert "micro2 is in maintenance" in tick(machine).unit_status.message
    machine.lxd.offline = {"micro2"}
    assert "micro2 is offline" in tick(machine).unit_status.message
