"""The snap stand-in and the LXD that it installs: alone, and as a cluster. Needs root and LXD."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab import image, shape
from lab.host import teardown
from lab.host.machine import Machine
from lab.layout import Lab

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("lxd"),
    reason="needs root and the host's packages lxd, lxd-client, lxcfs and btrfs-progs",
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of this module's own, removed at the end."""
    mine = Lab("tsnap")
    teardown.remove(mine)
    shape.save(mine, shape.parse("defaults: {disks: {data: 2GiB}}"))
    yield mine
    assert teardown.remove(mine) == []


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Machine:
    """A running machine without any snap."""
    created = Machine.create(lab, "0")
    created.power_on()
    return created


@pytest.fixture
def lxd(machine: Machine) -> Iterator[Machine]:
    """The machine with LXD, which is removed afterwards."""
    machine.run("snap", "install", "lxd", "--channel=5.21/stable", "--cohort=+")
    machine.run("lxd", "waitready", "--timeout=90")
    yield machine
    machine.run("snap", "remove", "--purge", "lxd", timeout=120)


def snap(machine: Machine, *words: str) -> tuple[int, str, str]:
    """Run ``snap``; return its status and what it printed."""
    done = machine.run("snap", *words, check=False)
    return done.returncode, done.stdout, done.stderr


# ---- without any snap ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list"], (0, "", "No snaps are installed yet. Try 'snap install hello-world'.\n")),
        (["list", "lxd"], (1, "", "error: no matching snaps installed\n")),
        (["install", "nothing"], (1, "", 'error: snap "nothing" not found\n')),
        (["refresh", "lxd"], (1, "", 'error: snap "lxd" is not installed\n')),
        (["remove", "lxd"], (0, "", 'snap "lxd" is not installed\n')),
        (["wait", "system", "seed.loaded"], (0, "", "")),
        (
            ["changes"],
            (1, "", "error: the lab's snap does not support the command 'changes'\n"),
        ),
        (
            ["install", "lxd", "--dangerous"],
            (
                1,
                "",
                "error: the lab's snap command does not support this: "
                "unrecognized arguments: --dangerous\n",
            ),
        ),
    ],
)
def test_words_of_an_empty_system(
    machine: Machine, words: list[str], expected: tuple[int, str, str]
) -> None:
    assert snap(machine, *words) == expected


def test_unknown_track_is_refused(machine: Machine) -> None:
    status, _, error = snap(machine, "install", "lxd", "--channel=9/stable")
    assert status == 1
    assert error.startswith('error: snap "lxd" is not available on 9/stable')


def test_no_lxd_without_the_snap(machine: Machine) -> None:
    assert machine.run("sh", "-c", "command -v lxc lxd", check=False).stdout == ""


# ---- LXD, alone ---------------------------------------------------------------------------------


def test_install_list_and_layout(lxd: Machine) -> None:
    _, listed, _ = snap(lxd, "list", "lxd")
    header, row = (line.split() for line in listed.splitlines())
    assert header == ["Name", "Version", "Rev", "Tracking", "Publisher", "Notes"]
    assert row == ["lxd", "5.0.2", "30521", "5.21/stable", "canonical✓", "in-cohort"]
    assert lxd.run("readlink", "/snap/lxd/current").stdout == "30521\n"
    lxd.run("test", "-S", "/var/snap/lxd/common/lxd/unix.socket")
    # With LXD_DIR unset as well, as a client library without the snap's paths has it.
    lxd.run("curl", "-sf", "--unix-socket", "/var/lib/lxd/unix.socket", "http://lxd/1.0")
    again = snap(lxd, "install", "lxd")
    assert again == (0, "", "snap \"lxd\" is already installed, see 'snap help refresh'\n")


def test_lxd_sees_this_machines_disks_only(lxd: Machine) -> None:
    found = json.loads(lxd.run("lxc", "query", "/1.0/resources").stdout)["storage"]["disks"]
    assert [d["id"] for d in found] == ["sda"]
    assert found[0]["serial"] == "tsnap-m0-data"
    assert found[0]["device_id"] == "scsi-0QEMU_QEMU_HARDDISK_tsnap-m0-data"
    assert found[0]["model"] == "QEMU HARDDISK"
    assert found[0]["size"] == 2 << 30


def test_lxd_takes_the_cards_for_physical_ones(lxd: Machine) -> None:
    found = json.loads(lxd.run("lxc", "query", "/1.0/networks?recursion=1").stdout)
    assert {n["name"]: n["type"] for n in found} == {
        "lo": "loopback",
        "enp5s0": "physical",
        "enp6s0": "physical",
    }
    mac = lxd.run("cat", "/sys/class/net/enp5s0/address").stdout
    assert mac == f"{lxd.interfaces()[0].mac}\n"


def test_hold_is_noted(lxd: Machine) -> None:
    status, out, _ = snap(lxd, "refresh", "--hold", "lxd")
    assert (status, out) == (0, 'General refreshes of "lxd" held indefinitely\n')
    assert "held,in-cohort" in snap(lxd, "list")[1]
    assert (
        snap(lxd, "refresh", "--hold=forever", "nix")[2] == 'error: snap "nix" is not installed\n'
    )
    assert snap(lxd, "refresh", "--unhold", "lxd")[0] == 0
    assert "held" not in snap(lxd, "list")[1]


def test_services(lxd: Machine) -> None:
    assert snap(lxd, "services", "lxd")[1].split()[4:] == ["lxd.daemon", "enabled", "active", "-"]
    assert snap(lxd, "stop", "lxd") == (0, "Stopped.\n", "")
    assert snap(lxd, "services", "lxd")[1].split()[4:] == [
        "lxd.daemon",
        "enabled",
        "inactive",
        "-",
    ]
    assert snap(lxd, "start", "lxd.daemon") == (0, "Started.\n", "")
    assert snap(lxd, "restart", "lxd") == (0, "Restarted.\n", "")
    lxd.run("lxd", "waitready", "--timeout=90")
    assert snap(lxd, "restart", "lxd.nothing")[2] == 'error: snap "lxd" has no service "nothing"\n'


def test_daemon_is_back_after_power_loss(lxd: Machine) -> None:
    lxd.power_off()
    lxd.power_on()
    lxd.run("lxd", "waitready", "--timeout=90")


def test_refresh_to_another_track(lxd: Machine) -> None:
    before = lxd.run("lxc", "query", "/1.0").stdout
    assert snap(lxd, "refresh", "lxd") == (0, "", 'snap "lxd" has no updates available\n')
    status, out, _ = snap(lxd, "refresh", "lxd", "--channel=6/stable")
    assert (status, out) == (0, "lxd (6/stable) 5.0.2 from Canonical✓ refreshed\n")
    assert lxd.run("readlink", "/snap/lxd/current").stdout == "30600\n"
    lxd.run("lxd", "waitready", "--timeout=90")
    fingerprint = [json.loads(before)["environment"]["certificate_fingerprint"]]
    after = json.loads(lxd.run("lxc", "query", "/1.0").stdout)
    assert [after["environment"]["certificate_fingerprint"]] == fingerprint


def test_options(lxd: Machine) -> None:
    assert snap(lxd, "set", "lxd", "ceph.external=true", "daemon.group=adm")[0] == 0
    assert snap(lxd, "get", "lxd", "ceph.external")[1] == "true\n"
    assert json.loads(snap(lxd, "get", "-d", "lxd", "daemon")[1]) == {"daemon": {"group": "adm"}}
    assert snap(lxd, "unset", "lxd", "ceph.external")[0] == 0
    assert snap(lxd, "get", "lxd", "ceph.external") == (
        1,
        "",
        'error: snap "lxd" has no "ceph.external" configuration option\n',
    )


def test_connections(lxd: Machine) -> None:
    rows = [line.split() for line in snap(lxd, "connections", "lxd")[1].splitlines()]
    assert ["lxd-support", "lxd:lxd-support", ":lxd-support", "-"] in rows
    assert ["content", "lxd:ceph-conf", "-", "-"] in rows
    assert (
        snap(lxd, "connect", "lxd:nothing")[2] == 'error: snap "lxd" has no plug named "nothing"\n'
    )


def test_change_goes_on_when_the_caller_is_killed(lxd: Machine) -> None:
    snap(lxd, "remove", "lxd")
    argv = lxd.argv("snap", "install", "lxd")
    caller = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
    lock = lxd.root / "overlay/var/upper/lib/snapd/change-lxd.lock"
    end = time.monotonic() + 10
    while lock.read_text() != "install-snap" and time.monotonic() < end:
        time.sleep(0.005)
    os.killpg(caller.pid, signal.SIGKILL)
    caller.wait()
    while "snap.lxd.daemon" not in lxd.services() and time.monotonic() < end:
        time.sleep(0.05)
    lxd.run("lxd", "waitready", "--timeout=90")


def test_remove_leaves_nothing(lxd: Machine) -> None:
    device = lxd.disks()[0].by_id
    lxd.run("lxc", "storage", "create", "pool", "btrfs", f"source={device}")
    lxd.run("lxc", "profile", "device", "add", "default", "root", "disk", "path=/", "pool=pool")
    lxd.run("lxc", "image", "import", str(image.build(lxd.lab)), "--alias", "mini")
    lxd.run("lxc", "launch", "mini", "c1")
    assert snap(lxd, "remove", "--purge", "lxd") == (0, "lxd removed\n", "")
    assert lxd.run("ls", "/var/snap", "/snap", "/snap/bin").stdout.split() == [
        "/snap:",
        "bin",
        "/snap/bin:",
        "/var/snap:",
    ]
    assert "/var/snap" not in lxd.run("cat", "/proc/mounts").stdout.replace("/var/snap ext4", "")
    assert lxd.run("pgrep", "-f", "lxd|lxcfs", check=False).stdout == ""
    lxd.run("wipefs", "-qa", device)


# ---- LXD, three of them -------------------------------------------------------------------------


def join(first: Machine, joiner: Machine) -> None:
    """Make ``joiner`` a member of the first one's cluster."""
    request = json.dumps({"server_name": joiner.hostname})
    answer = first.run("lxc", "query", "-X", "POST", "-d", request, "/1.0/cluster/members")
    given = json.loads(answer.stdout)["metadata"]
    token = {
        "server_name": given["serverName"],
        "fingerprint": given["fingerprint"],
        "addresses": given["addresses"],
        "secret": given["secret"],
        "expires_at": given["expiresAt"],
    }
    body = {
        "server_name": joiner.hostname,
        "enabled": True,
        "member_config": [],
        "cluster_address": "10.71.0.10:8443",
        "server_address": f"{joiner.interfaces()[0].addresses[0][0]}:8443",
        "cluster_certificate": first.run("cat", "/var/snap/lxd/common/lxd/cluster.crt").stdout,
        "cluster_password": base64.b64encode(json.dumps(token).encode()).decode(),
    }
    joiner.run(
        "lxc", "query", "-X", "PUT", "--wait", "-d", json.dumps(body), "/1.0/cluster", timeout=120
    )


def test_cluster_of_three_with_a_container_each(lab: Lab, machine: Machine) -> None:
    others = [Machine.create(lab, str(i)) for i in (1, 2)]
    members = [machine, *others]
    for member in others:
        member.power_on()
    for member in members:
        member.run("snap", "install", "lxd")
    for member in members:
        member.run("lxd", "waitready", "--timeout=90")
    config = json.dumps({"config": {"core.https_address": "10.71.0.10:8443"}})
    machine.run("lxc", "query", "-X", "PATCH", "-d", config, "/1.0")
    body = json.dumps({"server_name": "micro1", "enabled": True})
    machine.run("lxc", "query", "-X", "PUT", "--wait", "-d", body, "/1.0/cluster")
    for member in others:
        join(machine, member)
    for member in members:
        source = f"source={member.disks()[0].by_id}"
        target = ["--target", member.hostname]
        machine.run("lxc", "storage", "create", "local", "btrfs", source, *target)
    machine.run("lxc", "storage", "create", "local", "btrfs")
    root = ["default", "root", "disk", "path=/", "pool=local"]
    machine.run("lxc", "profile", "device", "add", *root)
    machine.run("lxc", "image", "import", str(image.build(lab)), "--alias", "mini")
    for number, member in enumerate(members):
        machine.run("lxc", "launch", "mini", f"c{number}", "--target", member.hostname)
    listed = machine.run("lxc", "list", "-f", "csv", "-c", "nsL").stdout.split()
    assert listed == ["c0,RUNNING,micro1", "c1,RUNNING,micro2", "c2,RUNNING,micro3"]
    # Containers come back with their machine.
    others[1].power_off()
    others[1].power_on()
    others[1].run("lxd", "waitready", "--timeout=90")
    ask = ["lxc", "exec", "-T", "c2", "--", "hostname"]
    end = time.monotonic() + 90
    while others[1].run(*ask, check=False).stdout != "c2\n":
        assert time.monotonic() < end, "the container did not come back within 90 s"
        time.sleep(0.1)
    # A reload keeps instances going, a restart does not.
    uptime = ["lxc", "query", "/1.0/instances/c0/state"]
    before = json.loads(machine.run(*uptime).stdout)["pid"]
    machine.run("snap", "restart", "--reload", "lxd", timeout=120)
    machine.run("lxd", "waitready", "--timeout=90")
    assert json.loads(machine.run(*uptime).stdout)["pid"] == before
