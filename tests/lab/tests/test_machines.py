"""Machines, networks, disks, services and the clean-up, on real namespaces. Needs root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lab import cli, faults, shape, status
from lab.errors import LabError
from lab.host import networks, teardown
from lab.host.disks import loops
from lab.host.machine import CommandFailed, Machine, machines
from lab.layout import Lab

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nsenter"),
    reason="the lab makes namespaces and loop devices: it needs root and util-linux",
)
MIB = 1 << 20


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait until a condition holds; return whether it did in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of this module's own, removed at the end."""
    mine = Lab("tmach")
    teardown.remove(mine)
    yield mine
    assert teardown.remove(mine) == []


@pytest.fixture(scope="module")
def pair(lab: Lab) -> tuple[Machine, Machine]:
    """Two running machines with small disks and a third network."""
    text = """
    networks:
      mgmt: {cidr: 10.71.0.0/24, cidr6: "fd42:71::/64", ipv6: true}
      uplink: {cidr: 10.72.0.0/24, cidr6: "fd42:72::/64", addresses: false}
      store: {cidr: 10.74.0.0/24, mtu: 9000}
    defaults: {disks: {data: 256MiB}}
    machines: {"1": {hostname: other, networks: [mgmt, uplink]}}
    """
    shape.save(lab, shape.parse(text))
    found = Machine.create(lab, "0"), Machine.create(lab, "1")
    for machine in found:
        machine.power_on()
    return found


# ---- what a machine is -------------------------------------------------------------------------


def test_has_its_own_identity(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    assert first.run("hostname").stdout == "micro1\n"
    assert second.run("cat", "/etc/hostname").stdout == "other\n"
    ids = {m.run("cat", "/etc/machine-id").stdout for m in pair}
    assert len(ids) == 2
    assert first.run("getent", "hosts", "micro1").stdout.split() == ["10.71.0.10", "micro1"]


def test_changes_stay_on_the_machine(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    script = "for d in /etc /var /root /opt /usr/lib /tmp; do echo mine >$d/trace; done"
    first.run("sh", "-c", script)
    for directory in ("/etc", "/var", "/root", "/opt", "/usr/lib", "/tmp"):
        assert not Path(directory, "trace").exists()
        assert second.run("test", "-e", f"{directory}/trace", check=False).returncode == 1


def test_srv_is_shared(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.run("sh", "-c", f"echo hello >{first.lab.root}/shared")
    assert (first.lab.root / "shared").read_text() == "hello\n"


def test_host_is_not_seen(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    assert first.run("sh", "-c", "ps -e --no-headers | wc -l").stdout.strip() in ("4", "5")
    mounts = first.run("cat", "/proc/mounts").stdout
    assert str(Path(first.root, "boot")) not in mounts
    assert "LAB" not in first.run("env").stdout


def test_run_tells_what_failed(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    with pytest.raises(CommandFailed, match=r"`ls /nowhere` failed on micro1 \(2\)"):
        first.run("ls", "/nowhere")
    assert first.run("cat", input="in").stdout == "in"
    assert first.run("sh", "-c", "echo $X; pwd", env={"X": "1"}, cwd="/etc").stdout == "1\n/etc\n"


def test_run_has_a_deadline_and_kills(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    with pytest.raises(LabError, match=r"did not end within 0.2 s on micro1"):
        first.run("sleep", "1234", timeout=0.2)
    assert until(lambda: first.run("pgrep", "-f", "^sleep 1234", check=False).returncode == 1)


def test_run_does_not_wait_for_daemons(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.run("sh", "-c", "setsid sleep 1000 & echo started")
    assert first.run("pkill", "-f", "^sleep 1000").returncode == 0


def test_cgroups_are_its_own(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    inside = first.run("cat", "/proc/self/cgroup").stdout
    assert all(line.endswith((":/", ":/init.scope")) for line in inside.splitlines())


# ---- network ------------------------------------------------------------------------------------


def test_addresses_and_names(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    found = {i.name: i for i in first.interfaces()}
    assert found["enp5s0"].addresses == [
        ("10.71.0.10", "10.71.0.0/24"),
        ("fd42:71::10", "fd42:71::/64"),
    ]
    assert found["enp6s0"].addresses == []
    assert (found["enp7s0"].mtu, found["enp7s0"].up) == (9000, True)
    assert first.nic_of("uplink") == "enp6s0"
    assert [i.name for i in second.interfaces()] == ["enp5s0", "enp6s0"]
    with pytest.raises(LabError, match="no network card on 'store'"):
        second.nic_of("store")


def test_reaches_others(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    for address in ("10.71.0.1", "10.71.0.2", "10.71.0.11", "fd42:71::1", "10.72.0.1"):
        first.run("ping", "-c1", "-W2", address)


def test_cut_link_is_cut_and_stays_so(pair: tuple[Machine, Machine]) -> None:
    _, second = pair
    second.set_link("mgmt", up=False)
    assert second.run("ping", "-c1", "-W1", "10.71.0.1", check=False).returncode != 0
    assert not next(i for i in second.interfaces() if i.name == "enp5s0").up
    second.power_off()
    second.power_on()
    assert second.links_cut() == ["mgmt"]
    assert second.run("ping", "-c1", "-W1", "10.71.0.1", check=False).returncode != 0
    second.set_link("mgmt", up=True)
    second.run("ping", "-c1", "-W5", "10.71.0.1")


def test_power_cycle_leaves_no_links_behind(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.run("ip", "tuntap", "add", "dev", "tap9", "mode", "tap")
    first.run("ip", "addr", "add", "10.71.0.99/24", "dev", "tap9")
    first.power_off()
    first.power_on()
    assert [i.name for i in first.interfaces()] == ["enp5s0", "enp6s0", "enp7s0"]


# ---- services and power -------------------------------------------------------------------------


def test_services_are_restarted_and_come_back(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.add_service("steady", ["sh", "-c", "echo up; exec sleep 1000"])
    assert first.services()["steady"] == "active"
    first.run("pkill", "-f", "^sleep 1000")
    assert until(lambda: first.log_file("steady").read_text() == "up\nup\n")
    first.power_off()
    assert not first.is_on
    first.power_on()
    assert first.services()["steady"] == "active"
    first.remove_service("steady")
    assert "steady" not in first.services()
    assert first.run("pgrep", "-f", "^sleep 1000", check=False).returncode == 1


def test_failing_service_is_given_pauses(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.add_service("broken", ["false"], restart="on-failure")
    first.add_service("once", ["true"], restart="on-failure")
    assert until(lambda: first.services() == {"broken": "activating", "once": "inactive"})
    first.remove_service("broken")
    first.remove_service("once")


def test_stop_ends_the_whole_group(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    stubborn = "trap '' TERM; sleep 777 & sleep 778"
    first.add_service("stubborn", ["bash", "-c", stubborn], stop_timeout=0.3)
    assert until(lambda: first.run("pgrep", "-f", "^sleep 778", check=False).returncode == 0)
    first.stop_service("stubborn")
    assert first.services()["stubborn"] == "inactive"
    assert first.run("pgrep", "-f", "^sleep 77", check=False).returncode == 1
    first.start_service("stubborn")
    assert first.services()["stubborn"] == "active"
    first.remove_service("stubborn")


def test_services_from_inside(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.add_service("inner", ["sleep", "1000"])
    helper = [sys.executable, "-m", "lab.host.service"]
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    first.run(*helper, "stop", "inner", env=env)
    assert "inner" in first.run(*helper, "list", env=env).stdout
    failed = first.run(*helper, "stop", "nothing", env=env, check=False)
    assert (failed.returncode, failed.stderr) == (
        1,
        "error: stop: there is no service 'nothing'\n",
    )
    first.remove_service("inner")


def test_supervisor_survives_nonsense(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.run("rm", "-r", "/var/log/lab")
    for message in (
        b"\n",
        b"[]\n",
        b"[1]\n",
        b'{"op": "add"}\n',
        b'{"op": "add", "service": {"a": 1}}\n',
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(first.root / "run/init.sock"))
            client.sendall(message)
            assert json.loads(client.recv(4096))["ok"] is False
    first.add_service("fine", ["sleep", "1000"])
    assert first.services()["fine"] == "active"
    first.remove_service("fine")


def test_machine_outlives_its_starter(lab: Lab, pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.power_off()
    code = (
        "from lab.layout import Lab; from lab.host.machine import Machine; import time;"
        "Machine(Lab('tmach'), '0').power_on(); print('on', flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"on\n"
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    assert first.run("hostname").stdout == "micro1\n"


def test_off_is_off(pair: tuple[Machine, Machine]) -> None:
    _, second = pair
    second.power_off()
    with pytest.raises(LabError, match="machine 1 of lab tmach is off"):
        second.run("true")
    second.power_off()
    second.power_on()
    second.power_on()


def test_killed_from_outside_is_off(pair: tuple[Machine, Machine]) -> None:
    _, second = pair
    second.run("sh", "-c", "setsid sleep 4321 & true")
    pid = second.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: not second.is_on)
    second.power_on()
    assert second.run("pgrep", "-f", "^sleep 4321", check=False).returncode == 1


def test_power_cycle_lets_go_of_loops_made_inside(pair: tuple[Machine, Machine]) -> None:
    _, second = pair
    script = "truncate -s 8M $d/{0}; losetup -f --show $d/{0}"
    for directory in ("/var/snap", "/opt", "/tmp"):
        second.run("sh", "-c", f"d={directory}; {script.format('inside.img')}")
    assert len([x for x in loops() if "inside.img" in x.backing]) == 3
    second.power_off()
    assert not [x for x in loops() if "inside.img" in x.backing]
    second.power_on()


def test_refuses_what_it_cannot_be(lab: Lab, pair: tuple[Machine, Machine]) -> None:
    with pytest.raises(LabError, match="no machine id"):
        Machine(lab, "x")
    with pytest.raises(LabError, match="exists already"):
        Machine.create(lab, "0")
    with pytest.raises(LabError, match="no name for a disk"):
        pair[0].attach_disk("osd/3", MIB)
    with pytest.raises(LabError, match="has no machine 7"):
        Machine(lab, "7").power_on()
    with pytest.raises(LabError, match="no name for a lab"):
        Lab("Much-too-long")


# ---- disks --------------------------------------------------------------------------------------


def test_disks_look_like_disks(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    columns = "NAME,TYPE,SIZE,MODEL,SERIAL"
    found = json.loads(first.run("lsblk", "-J", "-b", "-o", columns).stdout)["blockdevices"]
    assert found == [
        {
            "name": "sda",
            "type": "disk",
            "size": 256 * MIB,
            "model": "QEMU HARDDISK",
            "serial": "tmach-m0-data",
        }
    ]
    link = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_tmach-m0-data"
    assert first.run("readlink", link).stdout == "../../sda\n"
    assert first.run("readlink", "-f", link).stdout == "/dev/sda\n"
    assert first.run("blockdev", "--getsize64", link).stdout == f"{256 * MIB}\n"
    assert first.run("ls", "/sys/block", "/sys/class/block").stdout.count("sda") == 2
    assert "vda" not in first.run("cat", "/proc/partitions").stdout


def test_disk_comes_and_goes(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    disk = first.attach_disk("extra", 300 * MIB)
    assert disk.device == "/dev/sdb"
    assert disk in first.disks()
    first.run("mkfs.btrfs", "-q", disk.by_id)
    assert until(lambda: "sdb" in first.run("ls", "-l", "/dev/disk/by-uuid").stdout)
    first.run("wipefs", "-qa", disk.device)
    assert until(lambda: "sdb" not in first.run("ls", "-l", "/dev/disk/by-uuid").stdout)
    with pytest.raises(LabError, match="already has a disk called 'extra'"):
        first.attach_disk("extra", MIB)
    first.detach_disk("extra")
    assert "sdb" not in first.run("sh", "-c", "lsblk; ls /dev/disk/* /sys/class/block").stdout
    with pytest.raises(LabError, match="has no disk called 'extra'"):
        first.detach_disk("extra")


def test_disk_content_survives_power_off(pair: tuple[Machine, Machine]) -> None:
    first, _ = pair
    first.run("mkfs.btrfs", "-qf", "/dev/sda")
    first.run("sh", "-c", "mount /dev/sda /mnt && echo kept >/mnt/file && sync")
    first.power_off()
    first.power_on()
    assert first.run("sh", "-c", "mount /dev/sda /mnt && cat /mnt/file").stdout == "kept\n"
    first.run("umount", "/mnt")


# ---- command line and clean-up ------------------------------------------------------------------


def test_status(lab: Lab, pair: tuple[Machine, Machine]) -> None:
    found = status.collect(lab)
    assert found["up"]
    assert found["machines"]["0"]["power"] == "on"
    assert found["machines"]["0"]["memory-kib"] > 1000
    assert "micro1" in status.text(found)


def test_command_line(
    pair: tuple[Machine, Machine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB", "tmach")
    assert cli.main(["power", "cycle", "other"]) == 0
    assert cli.main(["link", "cut", "1"]) == 0
    assert pair[1].links_cut() == ["mgmt"]
    assert cli.main(["link", "heal", "1"]) == 0
    assert cli.main(["disk", "add", "0", "more", "64MiB"]) == 0
    assert capsys.readouterr().out.startswith("/dev/sdb ")
    assert cli.main(["disk", "remove", "0", "more"]) == 0
    assert cli.main(["power", "on", "nobody"]) == 1
    assert "it has: 0 (micro1), 1 (other)" in capsys.readouterr().err


def test_faults_are_the_functions_of_jujus_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fakes")
    code = """
def kill_hook(lab, unit: str, call: int, before: bool = True, *, hook: str = ""):
    'Kill a hook.'
    return [lab.name, unit, call, before, hook]
def helper(path): ...
"""
    exec(code, module.__dict__)  # functions that say they are of this module
    module.kill_hook.__module__ = "fakes"
    monkeypatch.setattr(faults, "_module", lambda: module)
    mine = Lab("tmach")
    assert list(faults.faults()) == ["kill-hook"]
    assert faults.call(mine, "kill-hook", ["app/0", "3", "no", "--hook=install"]) == [
        "tmach",
        "app/0",
        3,
        False,
        "install",
    ]
    assert "lab fault kill-hook UNIT CALL [BEFORE] [--hook VALUE]" in faults.usage()
    for words in (["app/0"], ["app/0", "x"], ["app/0", "1", "no", "more"], ["a", "1", "--z=1"]):
        with pytest.raises(LabError):
            faults.call(mine, "kill-hook", words)
    with pytest.raises(LabError, match="no fault 'other'; there are: kill-hook"):
        faults.call(mine, "other", [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("networks: {other: {cidr: 10.0.0.0/24}}", "first network must be mgmt"),
        ("networks: {mgmt: {cidr: nonsense}}", "network 'mgmt'"),
        ("networks: {mgmt: {cidr: 10.0.0.0/24, speed: 3}}", "unknown keys speed"),
        ("defaults: {disks: {data: big}}", "'big' is no size"),
        ("machines: {'1': {cpus: 3}}", "machine 1: unknown keys cpus"),
        ("colour: red", "unknown keys: colour"),
        ("[", "not YAML"),
    ],
)
def test_bad_shape_is_refused(text: str, words: str) -> None:
    with pytest.raises(LabError, match=words):
        shape.parse(text)


def test_two_labs_share_nothing(pair: tuple[Machine, Machine]) -> None:
    other = Lab("tmach2")
    try:
        machine = Machine.create(other, "0")
        machine.power_on()
        assert machine.interfaces()[0].addresses[0] == pair[0].interfaces()[0].addresses[0]
        machine.run("ping", "-c1", "-W2", "10.71.0.1")
        assert machine.run("ping", "-c1", "-W1", "10.71.0.11", check=False).returncode != 0
    finally:
        assert teardown.remove(other) == []
    assert pair[0].is_on


def test_everything_goes_even_from_half_a_lab() -> None:
    lab = Lab("tmach3")
    machine = Machine.create(lab, "0")
    machine.power_on()
    machine.run("sh", "-c", "truncate -s 64M /var/snap/x.img; losetup -f --show /var/snap/x.img")
    pid = machine.pid
    assert pid is not None
    (machine.root / "run/pid").unlink()
    (machine.root / "machine.json").unlink()
    subprocess.run(["ip", "netns", "del", lab.router_netns], check=True)
    assert teardown.remove(lab) == []
    assert until(lambda: not Path(f"/proc/{pid}").exists())
    assert networks.namespaces(lab) == []
    assert not lab.root.exists()
    assert not [x for x in loops() if "tmach3" in x.backing or "x.img" in x.backing]
    assert machines(lab) == []
