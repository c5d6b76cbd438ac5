"""The actions on disks, and storage that is detached: what they do, and what they refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from ops import testing

import osd_removal
from unit.conftest import Machine
from unit.test_ceph import racks
from unit.test_osds import ALL, CEPH, ID, cluster, member, osds, run  # noqa: F401 - a fixture

GIB = 1024**3
# A `ceph` that knows the OSDs 1 to 6, which hold data as long as the file `busy` is there.
CEPH_TOOL = """\
#!/usr/bin/python3
import json, pathlib, sys
here = pathlib.Path(__file__).parent
words = sys.argv[1:-2]
with open(here / "ceph.log", "a") as log:
    print(*words, file=log)
if words[:2] == ["osd", "df"]:
    used = json.loads((here / "used").read_text()) if (here / "used").exists() else 1
    print(json.dumps({"nodes": [
        {"id": n, "kb": 10 << 20, "kb_used_data": used, "reweight": 1, "pgs": 7,
         "crush_weight": 0.0098} for n in range(1, 7)]}))
elif words[:2] == ["osd", "safe-to-destroy"]:
    busy = here / "busy"
    if busy.exists():
        left = int(busy.read_text()) - 1
        busy.write_text(str(left)) if left else busy.unlink()
        sys.exit("Error EBUSY: OSD(s) 1 have 7 pgs currently mapped to them.")
    print(json.dumps({"safe_to_destroy": [int(words[2].removeprefix("osd."))]}))
elif words == ["osd", "tree"]:
    print((here / "tree").read_text())
elif words == ["df"]:
    print(json.dumps({"pools": [{"name": "lxd_remote", "stats": {"stored": 1000}}]}))
elif words == ["osd", "dump"]:
    print(json.dumps({"epoch": 7}))
elif words == ["pg", "ls"]:
    print(json.dumps({"pg_stats": [
        {"state": "active+clean", "reported_epoch": "7", "up": [2, 3], "acting": [2, 3]}]}))
elif words == ["status"]:
    print(json.dumps({"health": {"status": "HEALTH_OK"}, "osdmap": {}}))
else:
    print()
"""


@pytest.fixture
def six(member: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:  # noqa: F811
    """Three machines with two OSDs each; this one's are 1 and 4, on sdb and sdc."""
    monkeypatch.setattr(osd_removal, "PAUSE", 0.0)
    tool = member.folder / "bin/microceph.ceph"
    tool.parent.mkdir()
    tool.write_text(CEPH_TOOL)
    tool.chmod(0o755)
    for disk in ("sdb", "sdc"):
        for host in ("micro1", "micro2", "micro3"):
            member.microceph.disk(ID + disk, host)
    member.microceph.pools = {"lxd_remote": 3}
    return member


def said(machine: Machine) -> list[str]:
    """What was asked of the command `ceph`, but for questions."""
    log = machine.folder / "bin/ceph.log"
    lines = log.read_text().splitlines() if log.exists() else ()
    return [line for line in lines if "reweight" in line]


def act(machine: Machine, name: str, relation: Any = None, **params: Any) -> Any:
    """The result of an action; ops.testing.ActionFailed if it fails."""
    params = {key.replace("_", "-"): value for key, value in params.items()}
    state = machine.state(relation=relation or cluster(), config=CEPH)
    machine.run(machine.context.on.action(name, params=params), state)
    (result,) = (machine.context.action_results or {}).values()
    return json.loads(result)


def refused(machine: Machine, name: str, **params: Any) -> str:
    """Why an action failed."""
    with pytest.raises(testing.ActionFailed) as caught:
        act(machine, name, **params)
    return caught.value.message


def test_list_disks(member: Machine):  # noqa: F811
    member.microceph.disk(ID + "sdc")
    member.microceph.disk("/var/snap/microceph/common/data/osd/ceph-2/osd-backing.img")
    member.microceph.disk(ID + "sdb", "micro2")
    sda, sdb, sdc, file = act(member, "list-disks")
    assert sda["id"] == "sda"
    assert sda["ceph"]["eligible"] is False
    assert any("sda1" in reason for reason in sda["ceph"]["reasons"])
    assert (sdb["path"], sdb["size"], sdb["osd"]) == (ID + "sdb", 20 * GIB, None)
    assert sdb["ceph"] == sdb["local"] == {"eligible": True, "reasons": []}
    assert (sdc["osd"], sdc["used-by"]) == (1, "osd.1")
    assert sdc["ceph"] == sdc["local"] == {"eligible": False, "reasons": ["is used by osd.1"]}
    assert file == {"path": member.microceph.disks[1]["path"], "osd": 2}


@pytest.mark.parametrize(
    ("params", "taken"),
    [
        ({"disks": "/dev/sdb"}, ["sdb"]),
        ({"disks": f"{ID}sdb,/dev/sdc"}, ["sdb", "sdc"]),
        ({"filter": "size > 10GiB"}, ["sdb", "sdc"]),
        ({"filter": "[{find: size > 10GiB, find_min: 2, find_max: 2}]"}, ["sdb", "sdc"]),
    ],
)
def test_add_disks(member: Machine, params: dict[str, str], taken: list[str]):  # noqa: F811
    planned = act(member, "add-disks", dry_run=True, **params)
    assert [disk["path"] for disk in planned] == [ID + name for name in taken]
    assert osds(member) == []
    found = act(member, "add-disks", **params)
    assert [(disk["path"], disk["osd"]) for disk in found] == [
        (ID + name, number) for number, name in enumerate(taken, 1)
    ]
    assert osds(member) == [ID + name for name in taken]
    assert member.lxd.pools["remote"]["status"] == "Created", "what they are for goes on at once"


@pytest.mark.parametrize(
    ("params", "reasons"),
    [
        ({}, ["give one of disks, filter and loop"]),
        ({"disks": "/dev/sdb", "loop": "4G,1"}, ["not disks and loop"]),
        ({"disks": "/dev/sdb /dev/sdx"}, ["/dev/sdx is no disk"]),
        ({"disks": "/dev/sda /dev/sdd /dev/sdb"}, ["sda is mounted", "sda1", "sdd holds an ext4"]),
        ({"disks": f"/dev/sdb {ID}sdb"}, ["are the same disk"]),
        ({"filter": "size > 99GiB"}, ["Failed to find at least 1 disks"]),
        ({"filter": "[{find: size > 10GiB, find_max: 2}]"}, ["Found more than 2 disks"]),
        ({"filter": "colour == red"}, ['Invalid type "invalid"']),
        ({"loop": "4G"}, ["is not size and number"]),
        ({"loop": "4G,1", "encrypt": True}, ["for disks, not for the files"]),
    ],
)
def test_add_disks_refuses_with_all_reasons(
    member: Machine,  # noqa: F811
    params: dict[str, Any],
    reasons: list[str],
):
    member.disk("sdd", 40)
    member.probe.data["sdd"] = ["an ext4 file system"]
    message = refused(member, "add-disks", **params)
    assert all(reason in message for reason in reasons), message
    assert member.microceph.bodies == []


def test_add_files(member: Machine):  # noqa: F811
    assert [disk["osd"] for disk in act(member, "add-disks", loop="4G,1")] == [1]
    assert osds(member) == ["loop,4G,1"]


def test_add_disks_tells_what_failed_and_what_did_not(member: Machine):  # noqa: F811
    member.microceph.refused = {ID + "sdb": "it burns"}
    assert refused(member, "add-disks", filter="size > 10GiB") == f"MicroCeph: {ID}sdb: it burns"
    assert osds(member) == [ID + "sdc"]


def test_disks_need_a_member(machine: Machine):
    machine.install()
    assert "no member of a MicroCeph cluster" in refused(machine, "add-disks", disks="/dev/sdb")


def test_remove_disk_drains_first(six: Machine):
    (six.folder / "bin/busy").write_text("2")
    assert act(six, "remove-disk", osd="osd.1") == {
        "osd": 1, "path": ID + "sdb", "member": "micro1"
    }  # fmt: skip
    assert len(osds(six)) == 5
    assert said(six) == ["osd crush reweight osd.1 0"]
    assert [log for log in six.context.action_logs if "placement groups" in log] == [
        "osd.1: 7 placement groups still to move"
    ]
    body = next(body for body in six.microceph.bodies if "bypass_safety" in body)
    assert body["bypass_safety"] is False


def test_what_does_not_move_in_time_stays(six: Machine):
    (six.folder / "bin/busy").write_text("1000000000")
    message = refused(six, "remove-disk", osd="1", timeout=1)
    assert "osd.1 still holds 7 placement groups after 1 s" in message
    assert len(osds(six)) == 6
    assert said(six) == ["osd crush reweight osd.1 0", "osd crush reweight osd.1 0.00980"]


def test_a_removed_disk_is_not_taken_again_before_somebody_asks(six: Machine):
    act(six, "remove-disk", disk="/dev/sdc")
    run(six, storage="size > 10GiB")
    run(six, "update_status", storage="/dev/sdb /dev/sdc")
    assert len(osds(six)) == 5
    found = act(six, "list-disks")[2]
    assert found["ceph"]["reasons"] == [
        "was taken out of Ceph; the action add-disks takes it again"
    ]
    act(six, "add-disks", disks="/dev/sdc")
    assert len(osds(six)) == 6


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "give one of osd (osd=osd.3) and disk (a path)"),
        ({"osd": "1", "disk": "/dev/sdb"}, "give one of"),
        ({"osd": "9"}, f"9 is no OSD; this machine has osd.1 ({ID}sdb), osd.4 ({ID}sdc)"),
        ({"osd": "all"}, "all is no OSD"),
        ({"disk": "/dev/sda"}, "/dev/sda is no OSD"),
        ({"disk": "/dev/sdx"}, "/dev/sdx is no disk of this machine"),
        ({"osd": "2"}, "osd.2 is on micro2, not on micro1; run this on microcloud/1"),
        ({"osd": "1", "force": "yes"}, "that would be force=osd.1"),
        ({"osd": "1", "force": "osd.4"}, "force=osd.4 does not name the OSD"),
    ],
)
def test_remove_disk_wants_one_osd_of_this_machine(six: Machine, params: Any, reason: str):
    from unit.test_osds import peers

    relation = cluster(peers.Report(joined=ALL))
    with pytest.raises(testing.ActionFailed) as caught:
        act(six, "remove-disk", relation=relation, **params)
    assert reason in caught.value.message
    assert len(osds(six)) == 6


def without(machine: Machine, *numbers: int) -> None:
    disks = machine.microceph.disks
    machine.microceph.disks = [disk for disk in disks if disk["osd"] not in numbers]


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ((4, 5, 6), "Ceph needs at least 3 OSDs and has 3"),
        ((4,), "it is the only one on micro1, and with OSDs on 2 machines instead of 3"),
    ],
)
def test_no_redundancy_is_lost(six: Machine, gone: tuple[int, ...], reason: str):
    without(six, *gone)
    message = refused(six, "remove-disk", osd="1")
    assert message.startswith("cannot remove osd.1: ")
    assert reason in message
    assert len(osds(six)) == 6 - len(gone)
    assert said(six) == []


@pytest.mark.parametrize(
    ("zones", "left"),
    [
        ({"micro1": "a", "micro2": "b", "micro3": "c"}, "2 (b, c)"),
        ({"micro1": "a", "micro2": "a", "micro3": "c"}, "2 (a, c)"),
        ({"micro1": "a", "micro2": "a", "micro3": "c", "micro4": "d"}, ""),
    ],
)
def test_three_zones_keep_a_disk(six: Machine, zones: dict[str, str], left: str):
    without(six, 4)
    six.microceph.rule = "microceph_auto_rack"
    if "micro4" in zones:
        six.microceph.disk(ID + "sdd", "micro4")
    (six.folder / "bin/tree").write_text(json.dumps(racks(**zones)))
    if not left:
        assert act(six, "remove-disk", osd="osd.1")["osd"] == 1
        return
    assert refused(six, "remove-disk", osd="1") == (
        "cannot remove osd.1: Ceph keeps copies apart by zone, and would have OSDs in "
        f"{left} of the 3 zones that it needs; add a disk in another zone first"
    )
    assert said(six) == []


def test_no_osd_goes_whose_data_has_no_room_elsewhere(six: Machine):
    (six.folder / "bin/used").write_text(str(9 << 20))
    assert "the others have no room for its data" in refused(six, "remove-disk", osd="1")
    assert len(osds(six)) == 6


def test_force_names_the_osd(six: Machine):
    without(six, 4, 5, 6)
    act(six, "remove-disk", osd="1", force="osd.1")
    assert len(osds(six)) == 2
    body = next(body for body in six.microceph.bodies if "bypass_safety" in body)
    assert body["bypass_safety"] is True


# Storage that is detached


@pytest.fixture(autouse=True)
def goal(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Juju's `goal-state`, which ops.testing leaves to the machine; set the unit's status."""
    tool = machine.folder / "tools/goal-state"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)

    def be(status: str) -> None:
        units = {"microcloud/0": {"status": status, "since": "2026-01-01 00:00:00Z"}}
        tool.write_text(f"#!/bin/sh\necho '{json.dumps({'units': units, 'relations': {}})}'\n")
        tool.chmod(0o755)

    be("active")
    return be


def detach(machine: Machine, name: str, **more: Any) -> testing.State:
    storage = testing.Storage("osd", index=0)
    machine.probe.nodes[str(storage.get_filesystem(machine.context))] = name
    state = machine.state(relation=cluster(), config=CEPH, storages={storage}, **more)
    return machine.run(machine.context.on.storage_detaching(storage), state)


def test_detaching_drains_the_disk(six: Machine):
    detach(six, "sdc")
    assert [disk["osd"] for disk in six.microceph.disks] == [1, 2, 3, 5, 6]


def test_detaching_what_is_no_osd_is_nothing(six: Machine):
    detach(six, "sda")
    assert len(osds(six)) == 6


def test_detaching_refuses_with_the_reason(six: Machine):
    without(six, 4, 5, 6)
    with pytest.raises(testing.errors.UncaughtCharmError, match="at least 3 OSDs"):
        detach(six, "sdb")
    assert len(osds(six)) == 3


def test_the_cloud_stays_when_the_application_goes(six: Machine):
    without(six, 4, 5, 6)
    detach(six, "sdb", planned_units=0)
    assert len(osds(six)) == 3


def test_a_unit_that_is_removed_takes_its_storage_with_it(six: Machine, goal):
    """With fewer copies, as for all disks of a member that leaves; not with the last data."""
    without(six, 4, 5, 6)
    goal("dying")
    detach(six, "sdb")
    assert [disk["osd"] for disk in six.microceph.disks] == [2, 3]
    assert six.microceph.pools == {"lxd_remote": 2}


def test_storage_that_is_attached_anew_is_taken_again(six: Machine):
    act(six, "remove-disk", disk="/dev/sdc")
    storage = testing.Storage("osd", index=1)
    six.probe.nodes[str(storage.get_filesystem(six.context))] = "sdc"
    state = six.state(relation=cluster(), config=CEPH, storages={storage})
    six.run(six.context.on.storage_attached(storage), state)
    assert len(osds(six)) == 6
