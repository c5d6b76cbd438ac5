"""A member leaves Ceph: no copy is lost, and what it ran others run."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from ops import testing

import drain_ceph
from unit.conftest import Machine, noted
from unit.test_ceph import CONFIG, issuer, racks, settled

GIB = 1 << 30
SCRIPT = """#!/bin/sh
echo "$@" >>"{folder}/ceph.log"
for said in "$1-$2" "$1"; do
  if [ -f "{folder}/said/$said" ]; then exec cat "{folder}/said/$said"; fi
done
"""


class Ceph:
    """A `ceph` command that says what a test has told it, and remembers what it was asked."""

    def __init__(self, machine: Machine) -> None:
        self.folder = machine.folder
        (self.folder / "said").mkdir()
        tool = self.folder / "bin/microceph.ceph"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(SCRIPT.format(folder=self.folder))
        tool.chmod(0o755)
        self.says("df", {"pools": [{"name": "lxd_remote", "stats": {"stored": GIB}}]})
        self.says("osd-df", {"nodes": [{"id": n, "kb": 10 * GIB >> 10} for n in range(1, 9)]})
        self.says("status", {"health": {"status": "HEALTH_OK"}, "osdmap": {}})
        self.says("mon-dump", {"mons": []})
        self.group(acting=[2])

    def says(self, words: str, answer: Any) -> None:
        (self.folder / f"said/{words}").write_text(json.dumps(answer))

    def group(
        self,
        *,
        state: str = "active+clean",
        acting: list[int],
        up: list[int] | None = None,
    ) -> None:
        """The only placement group that there is."""
        found = {"pgid": "2.0", "state": state, "acting": acting}
        found["up"] = acting if up is None else up
        self.says("pg-ls", {"pg_stats": [found]})

    @property
    def asked(self) -> list[str]:
        log = self.folder / "ceph.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.removesuffix(" --format json") for line in lines]


@pytest.fixture
def ceph(machine: Machine) -> Ceph:
    return Ceph(machine)


def leave(machine: Machine) -> testing.State:
    state = machine.state(planned_units=1, config=CONFIG)
    return machine.run(machine.context.on.stop(), state)


def refusal(machine: Machine) -> str:
    with pytest.raises(testing.errors.UncaughtCharmError) as caught:
        leave(machine)
    assert "micro1" in machine.lxd.members
    return str(caught.value.__cause__)


def two(machine: Machine) -> None:
    """A cloud of two members with a disk and a copy each."""
    settled(machine, "micro2")
    machine.microceph.disks.pop()
    machine.microceph.pools = {"lxd_remote": 2, ".mgr": 2}
    machine.lxd.config["user.microcloud.copies"] = "2"


def test_with_four_disks_microceph_drains_by_itself(machine: Machine, ceph: Ceph):
    settled(machine, "micro2", "micro3", "micro4")
    machine.microceph.disk("/dev/disk/by-id/scsi-9", "micro4")
    machine.microceph.pools = {"lxd_remote": 3}
    leave(machine)
    assert [disk["location"] for disk in machine.microceph.disks] == ["micro2", "micro3", "micro4"]
    (removal,) = [body for body in machine.microceph.bodies if "osdid" in body]
    assert removal["bypass_safety"] is False
    assert machine.microceph.pools == {"lxd_remote": 3}
    assert machine.microceph.services["mon"] == ["micro2", "micro3", "micro4"]
    assert sorted(machine.microceph.members) == ["micro2", "micro3", "micro4"]
    assert "osd crush rm micro1" in ceph.asked


def test_a_disk_is_out_before_fewer_copies_are_kept(machine: Machine, ceph: Ceph, monkeypatch):
    """The other way round Ceph throws a copy away that may be the one that was to stay."""
    two(machine)
    answer, order = machine.microceph.more, []

    def watch(call: str, query: Any, body: Any) -> Any:
        if call == "PUT /1.0/pools-op":
            order.append(("fewer", "osd out 1" in ceph.asked, body["size"]))
        return answer(call, query, body)

    monkeypatch.setattr(machine.microceph, "more", watch)
    leave(machine)
    assert order == [("fewer", True, 1)]
    assert machine.microceph.pools == {"lxd_remote": 1, ".mgr": 1}
    assert machine.lxd.config["user.microcloud.copies"] == "1"
    assert [disk["location"] for disk in machine.microceph.disks] == ["micro2"]
    assert machine.microceph.services["mon"] == ["micro2"]
    assert list(machine.microceph.members) == ["micro2"]


def test_the_last_disk_of_one_of_three_zones_leaves_two_copies(machine: Machine, ceph: Ceph):
    """MicroCeph refuses it, as copies would not be apart: then there are to be fewer."""
    settled(machine, "micro2", "micro3")
    for member in ("micro1", "micro2", "micro3"):
        machine.microceph.disk(f"/dev/disk/by-id/scsi-{member}", member)
    machine.microceph.rule = "microceph_auto_rack"
    machine.microceph.pools = {"lxd_remote": 3}
    ceph.says("osd-tree", racks(micro1="a", micro2="b", micro3="c"))
    leave(machine)
    removals = [body for body in machine.microceph.bodies if "osdid" in body]
    assert [body["bypass_safety"] for body in removals] == [False, True]
    assert machine.microceph.pools == {"lxd_remote": 2}
    assert machine.lxd.config["user.microcloud.copies"] == "2"
    assert [words for words in ceph.asked if words.startswith("osd out")] == ["osd out 4"]


def test_a_zone_with_another_disk_keeps_its_copy(machine: Machine, ceph: Ceph):
    settled(machine, "micro2", "micro3", "micro4")
    machine.microceph.disk("/dev/disk/by-id/scsi-9", "micro4")
    machine.microceph.rule = "microceph_auto_rack"
    machine.microceph.pools = {"lxd_remote": 3}
    ceph.says("osd-tree", racks(micro1="a", micro2="b", micro3="c", micro4="a"))
    leave(machine)
    assert machine.microceph.pools == {"lxd_remote": 3}
    assert not any(words.startswith("osd out") for words in ceph.asked)


@pytest.mark.parametrize(
    "group",
    [
        {"acting": [1]},
        {"acting": [2], "up": [1]},
        {"acting": [2], "state": "active+undersized+degraded+remapped+backfilling"},
        {"acting": [2], "state": "incomplete"},
    ],
    ids=["on it", "told before the change", "on its way", "nowhere"],
)
def test_a_disk_that_holds_data_stays(machine: Machine, ceph: Ceph, monkeypatch, group):
    two(machine)
    monkeypatch.setattr(drain_ceph, "DRAIN_TIMEOUT", 0.0)
    ceph.group(**group)
    assert "1 of Ceph's placement groups still need osd.1" in refusal(machine)
    assert len(machine.microceph.disks) == 2
    assert machine.microceph.pools == {"lxd_remote": 2, ".mgr": 2}


def test_a_disk_that_only_serves_on_does_not_hold_up_fewer_copies(
    machine: Machine, ceph: Ceph, monkeypatch
):
    """While too few others are found, Ceph goes on using a disk that is out."""
    two(machine)
    ceph.group(state="active+clean+remapped", acting=[2, 1], up=[2])
    answer = machine.microceph.more

    def fewer(call: str, query: Any, body: Any) -> Any:
        if call == "PUT /1.0/pools-op":
            ceph.group(acting=[2])
        return answer(call, query, body)

    monkeypatch.setattr(machine.microceph, "more", fewer)
    monkeypatch.setattr(drain_ceph, "DRAIN_TIMEOUT", 5.0)
    leave(machine)
    assert list(machine.microceph.members) == ["micro2"]


def test_a_monitor_runs_until_it_is_out_of_the_map(machine: Machine, ceph: Ceph, monkeypatch):
    """Ceph answers before its monitors have agreed, and the one that leads sees to that."""
    two(machine)
    ceph.says("mon-dump", {"mons": [{"name": "micro2"}, {"name": "micro1"}]})
    seen = []

    def agree(_: float) -> None:
        seen.append(list(machine.microceph.services["mon"]))
        ceph.says("mon-dump", {"mons": [{"name": "micro2"}]})

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=agree)
    monkeypatch.setattr(drain_ceph, "time", clock)
    leave(machine)
    assert seen == [["micro1", "micro2"]]
    assert machine.microceph.services["mon"] == ["micro2"]


def test_a_monitor_that_stays_in_the_map_is_not_stopped(machine: Machine, ceph: Ceph, monkeypatch):
    two(machine)
    ceph.says("mon-dump", {"mons": [{"name": "micro2"}, {"name": "micro1"}]})
    monkeypatch.setattr(drain_ceph, "MAP_TIMEOUT", 0.0)
    with pytest.raises(testing.errors.UncaughtCharmError) as caught:
        leave(machine)
    said = "Ceph's monitors still count on the one of micro1 after 0 s: they list it; see "
    assert said in str(caught.value.__cause__)
    assert machine.microceph.services["mon"] == ["micro1", "micro2"]


def test_the_last_disks_do_not_leave(machine: Machine, ceph: Ceph):
    settled(machine, "micro2")
    for disk in machine.microceph.disks:
        disk["location"] = "micro1"
    said = refusal(machine)
    assert "micro1 cannot leave: it holds the last disks of Ceph (osd.1, osd.2, osd.3)" in said
    assert not any("out" in words for words in ceph.asked)


def test_what_finds_no_room_does_not_leave(machine: Machine, ceph: Ceph):
    settled(machine, "micro2", "micro3")
    machine.microceph.pools = {"lxd_remote": 3}
    ceph.says("df", {"pools": [{"name": "lxd_remote", "stats": {"stored": 9 * GIB}}]})
    said = refusal(machine)
    assert "Ceph has no room without osd.1: what it holds needs 18432 MiB" in said
    assert "the other disks have 20480 MiB" in said


def gone(machine: Machine, name: str = "micro3") -> None:
    """A machine that is off for good, and that Juju has removed."""
    settled(machine, "micro2", "micro3", "micro4")
    machine.lxd.offline = {name}
    machine.lxd.member_config[name] = noted("microcloud/2")
    machine.microceph.status[name] = "UNREACHABLE"


def tick(machine: Machine) -> testing.State:
    return machine.run(machine.context.on.update_status(), issuer(machine))


def test_a_machine_that_is_gone_is_taken_out_of_ceph(machine: Machine, ceph: Ceph):
    gone(machine)
    ceph.says("pg-stat", {"pg_summary": {"num_pg_by_state": [{"name": "active+clean", "num": 9}]}})
    tick(machine)
    done = [words for words in ceph.asked if not words.startswith(("status", "pg stat"))]
    assert done == [
        "osd out 3",
        "osd purge 3 --yes-i-really-mean-it",
        "mon rm micro3",
        "auth rm mgr.micro3",
        "auth rm mds.micro3",
        "osd crush rm micro3",
    ]
    assert "micro3" not in machine.microceph.members
    assert "micro3" not in machine.lxd.members


def test_disks_that_may_hold_the_only_copy_stay_known(machine: Machine, ceph: Ceph):
    gone(machine)
    states = [{"name": "active+clean", "num": 9}, {"name": "stale+down", "num": 2}]
    ceph.says("pg-stat", {"pg_summary": {"num_pg_by_state": states}})
    state = tick(machine)
    assert "Ceph cannot reach 2 placement groups without micro3" in state.unit_status.message
    assert "osd out 3" not in ceph.asked
    assert "micro3" in machine.microceph.members


def test_what_a_lost_member_ran_another_one_runs(machine: Machine, ceph: Ceph):
    settled(machine, "micro2", "micro3", "micro4")
    machine.microceph.services["mon"] = ["micro1", "micro2"]
    tick(machine)
    # Nobody but this unit has said that it is done joining.
    assert machine.microceph.services["mon"] == ["micro1", "micro2"]
    machine.microceph.services["mon"] = ["micro2", "micro3"]
    tick(machine)
    assert machine.microceph.services["mon"] == ["micro2", "micro3", "micro1"]
