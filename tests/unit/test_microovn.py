"""The driver of MicroOVN, and with it of what MicroCeph and MicroOVN share."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import DaemonError, JoinFailed
from services import microcluster
from services.microovn import Microovn, connections
from unit.conftest import Machine
from unit.fake_microcluster import ALONE
from view import Member, Presence
from world import Ticket


@pytest.fixture
def ovn(machine: Machine) -> Microovn:
    machine.install("lxd", "microovn")
    return Microovn(machine.folder / "state", lambda _: {"ovn-encap-ip": "10.3.0.1"})


def ticket(token: str = "secret") -> Ticket:
    return Ticket("micro1", "10.0.0.1", token, 7, ())


def test_presence(machine: Machine):
    driver = Microovn(machine.folder / "state")
    assert driver.look().presence is Presence.ABSENT
    machine.install("microovn")
    assert driver.look().presence is Presence.ALONE
    machine.microovn.members = {"micro1": "10.0.0.1:6443", "micro2": "[fd00::2]:6443"}
    machine.microovn.status = {"micro2": "UNREACHABLE"}
    machine.microovn.tokens = {"micro3": "secret"}
    seen = driver.look(tokens=True)
    assert seen.presence is Presence.MEMBER
    assert seen.tokens == ("micro3",)
    assert [(m.name, m.address, m.online) for m in seen.members] == [
        ("micro1", "10.0.0.1", True),
        ("micro2", "fd00::2", False),
    ]
    machine.microovn.refuse = {"GET /core/1.0/cluster": (503, "Daemon not ready yet")}
    assert driver.look().presence is Presence.BROKEN
    assert driver.look().detail == "MicroOVN: Daemon not ready yet"


def test_bootstrap_says_where_and_is_done_once(machine: Machine, ovn: Microovn):
    ovn.bootstrap("micro1", "fd00::1")
    ovn.bootstrap("micro1", "fd00::1")
    assert machine.microovn.controls == [
        {
            "bootstrap": True,
            "name": "micro1",
            "address": "[fd00::1]:6443",
            "config": {"ovn-encap-ip": "10.3.0.1"},
        }
    ]


def test_lxd_is_connected_before_this_machine_is_a_member(machine: Machine, ovn: Microovn):
    machine.connections = ["content lxd:ovn-chassis - -", "content lxd:ovn-env - -"]
    machine.connections += ["content lxd:ovn-certificates microovn:ovn-certificates -"]
    ovn.bootstrap("micro1", "10.0.0.1")
    assert machine.snap_calls == [
        "connections lxd",
        "connect lxd:ovn-chassis microovn:ovn-chassis",
        "connect lxd:ovn-env microovn:ovn-env",
    ]


def test_a_token_replaces_an_earlier_one(machine: Machine, ovn: Microovn):
    ovn.bootstrap("micro1", "10.0.0.1")
    first = ovn.issue_token("micro2")
    second = ovn.issue_token("micro2")
    assert first != second
    assert machine.microovn.tokens == {"micro2": second}
    ovn.withdraw_token("micro2")
    assert not machine.microovn.tokens


def test_tokens_are_withdrawn_where_older_versions_have_them(machine: Machine, ovn: Microovn):
    ovn.bootstrap("micro1", "10.0.0.1")
    ovn.issue_token("micro2")
    machine.microovn.refuse = {"DELETE /core/control/tokens": (404, "not found")}
    ovn.withdraw_token("micro2")
    assert "DELETE /core/1.0/tokens/micro2" in machine.microovn.requests
    assert ovn.look(tokens=True).tokens == (), "nobody can withdraw it, so nobody tries again"


def test_join(machine: Machine, ovn: Microovn):
    ovn.join(ticket(), 10)
    ovn.join(ticket(), 10)
    (asked,) = machine.microovn.controls
    assert asked["join_token"] == "secret"
    assert asked["address"] == "10.0.0.1:6443"
    assert ovn.look().joining == 0


def test_a_failed_join_is_cleaned_and_says_why(machine: Machine, ovn: Microovn):
    left = machine.folder / "microovn/data/central/db/ovnnb_db.db"
    left.parent.mkdir(parents=True)
    left.touch()
    machine.microovn.refuse = {"POST /core/control": (500, "Token expired")}
    with pytest.raises(JoinFailed, match="MicroOVN: Token expired"):
        ovn.join(ticket(), 10)
    assert not left.exists()
    assert ovn.look().joining == 0
    assert machine.snap_calls[-2:] == [
        "stop --disable microovn",
        "start --enable microovn.daemon",
    ]


def test_a_join_that_worked_after_all_is_not_cleaned(machine: Machine, ovn: Microovn):
    machine.microovn.refuse = {"POST /core/control": (500, "context deadline exceeded")}
    machine.microovn.joins_anyway = True
    ovn.join(ticket(), 10)
    assert ovn.look().presence is Presence.MEMBER
    assert not [call for call in machine.snap_calls if call.startswith("stop")]


def test_an_interrupted_join_is_told_and_cleaned(
    machine: Machine, ovn: Microovn, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Microovn, "_control", die)
    with pytest.raises(Killed):
        ovn.join(ticket(), 10)
    assert ovn.look().joining == 7
    ovn.reset()
    assert ovn.look().joining == 0
    ovn.reset()
    assert [call for call in machine.snap_calls if call.startswith("stop")] == [
        "stop --disable microovn"
    ]


def test_remove(machine: Machine, ovn: Microovn):
    machine.microovn.members = {"micro1": "10.0.0.1:6443", "micro2": "10.0.0.2:6443"}
    ovn.remove("micro9", force=True)
    ovn.remove("micro2", force=True)
    assert "DELETE /core/1.0/cluster/micro2?force=1" in machine.microovn.requests
    assert list(machine.microovn.members) == ["micro1"]
    machine.microovn.refuse = {"DELETE": (500, "Cannot leave a cluster with 1 members")}
    with pytest.raises(DaemonError, match="MicroOVN: Cannot leave"):
        ovn.remove("micro1", force=False)


def test_waiting_has_an_end(machine: Machine, ovn: Microovn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(microcluster, "READY_TIMEOUT", 0.2)
    machine.microovn.refuse = {"GET /core/1.0": (503, "starting")}
    with pytest.raises(DaemonError, match="MicroOVN is not ready after 0 s"):
        ovn.wait_ready()


def test_northd_is_asked_what_it_was_started_with(machine: Machine, ovn: Microovn):
    assert ovn.northd_database() is None
    northd(machine, "ssl:10.0.0.1:6641")
    assert ovn.northd_database() == "ssl:10.0.0.1:6641"


def northd(machine: Machine, database: str) -> None:
    pid = machine.folder / "microovn/run/ovn/ovn-northd.pid"
    command = machine.folder / "proc/42/cmdline"
    for path in (pid, command):
        path.parent.mkdir(parents=True, exist_ok=True)
    pid.write_text("42\n")
    command.write_text(f"/snap/microovn/1/bin/ovn-northd\0-vconsole:emer\0--ovnnb-db={database}\0")


def test_what_ovns_commands_say_is_read(machine: Machine, ovn: Microovn):
    control = "ovn-appctl"
    assert ovn.northd_state() == ""
    socket = machine.folder / "microovn/run/ovn/ovn-northd.42.ctl"
    socket.parent.mkdir(parents=True)
    socket.touch()
    machine.tool(f"microovn.{control}", "Status: standby")
    assert ovn.northd_state() == "standby"
    servers = """Name: OVN_Northbound
Servers:
    1e6f (1e6f at ssl:10.0.0.1:6643) (self)
    9a0c (9a0c at ssl:[fd00::2]:6643) last msg 100 ms ago"""
    machine.tool(f"microovn.{control}", servers)
    assert ovn.raft("nb") == ("ssl:10.0.0.1:6643", "ssl:[fd00::2]:6643")
    machine.tool("microovn.ovs-vsctl", '"ssl:10.0.0.1:6642"')
    assert ovn.remote() == "ssl:10.0.0.1:6642"
    with pytest.raises(DaemonError, match=r"microovn\.ovn-sbctl failed"):
        ovn.chassis()


def test_chassis(machine: Machine, ovn: Microovn):
    path = Path(machine.folder / "bin/microovn.ovn-sbctl")
    path.parent.mkdir()
    encaps = '{"headings":["_uuid","ip"],"data":[[["uuid","e1"],"10.0.0.1"],[["uuid","e2"],"x"]]}'
    chassis = (
        '{"headings":["name","encaps"],"data":[["b",["set",[["uuid","e2"],["uuid","e1"]]]],'
        '["a",["uuid","e1"]]]}'
    )
    path.write_text(f"#!/bin/sh\ncase $4 in Encap) echo '{encaps}';; *) echo '{chassis}';; esac\n")
    path.chmod(0o755)
    assert {one.name: one.encap for one in ovn.chassis()} == {"a": "10.0.0.1", "b": "10.0.0.1, x"}


def test_connections_of_both_families():
    members = (Member("a", "10.0.0.1"), Member("b", "fd00::2"), Member("c", "10.0.0.3"))
    assert connections(members, ("a", "b", "gone"), 6641) == (
        "ssl:10.0.0.1:6641",
        "ssl:[fd00::2]:6641",
    )


def test_the_sentence_for_a_machine_in_no_cluster_is_upstreams(machine: Machine, ovn: Microovn):
    machine.microovn.refuse = {"GET /core/1.0/cluster": (503, ALONE)}
    assert ovn.look().presence is Presence.ALONE
