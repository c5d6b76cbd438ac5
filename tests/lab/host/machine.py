"""A machine of the lab: namespaces and cgroups around a PID 1, and a directory that persists.

Usage::

    machine = Machine.create(Lab("lab"), "0")
    machine.power_on()
    machine.run("hostname")                   # CompletedProcess; CommandFailed if it fails
    machine.add_service("web", ["python3", "-m", "http.server"])
    machine.power_off()                       # as hard as pulling the plug

A ``Machine`` is only a handle; all state is on disk or in the kernel, so any number of
processes may hold one for the same machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import shape as shapes
from lab.errors import LabError
from lab.host import cgroups, networks, rootfs, service, shims
from lab.host.commands import run as run_host
from lab.host.disks import Disk, DiskShelf, mount_devices, mount_points, stray_loops
from lab.host.supervisor import BASE_ENVIRONMENT, Service, save
from lab.layout import PACKAGE_PARENT, Lab

POWER_ON_DEADLINE = 20.0
POWER_OFF_DEADLINE = 10.0


class CommandFailed(LabError):
    """A command inside a machine failed; carries its exit status and what it printed."""

    def __init__(self, machine: Machine, cmd: Sequence[str], returncode: int, out: str, err: str):
        words = (err or out).strip()
        super().__init__(
            f"`{shlex.join(cmd)}` failed on {machine.hostname} ({returncode}): {words}"
        )
        self.returncode = returncode
        self.stdout = out
        self.stderr = err


@dataclass(frozen=True)
class Interface:
    """A network interface of a machine; ``addresses`` are pairs of address and subnet.

    Link-local addresses are left out.
    """

    name: str
    mac: str
    addresses: list[tuple[str, str]]
    up: bool
    mtu: int = 1500


class Machine:
    """A handle for one machine of a lab, by its id (a number, as text)."""

    def __init__(self, lab: Lab, machine_id: str) -> None:
        if not machine_id.isdigit() or int(machine_id) > 200:
            raise LabError(f"{machine_id!r} is no machine id: use a number from 0 to 200")
        self.lab = lab
        self.id = machine_id
        self.root = lab.machines_dir / machine_id

    def __repr__(self) -> str:
        return f"Machine({self.lab.name!r}, {self.id!r})"

    # ---- life -------------------------------------------------------------------------------

    @classmethod
    def create(cls, lab: Lab, machine_id: str) -> Machine:
        """Make a machine with the lab's shape for that id; it is left powered off.

        The networks are made as well if they are not there.

        Raises:
            LabError: there is a machine of that id, or the host refuses something.
        """
        machine = cls(lab, machine_id)
        shape = shapes.load(lab)
        networks.ensure(lab, shape)
        with lab.lock(f"machine-{machine_id}"):
            if machine.exists:
                raise LabError(f"machine {machine_id} exists already in lab {lab.name}")
            machine._make(shape)
        return machine

    def _make(self, shape: shapes.Shape) -> None:
        mine = shape.machine(self.id)
        nics = networks.machine_nics(self.lab, shape, self.id)
        address = next((a.split("/")[0] for n in nics for a in n.addresses), "")
        if self.root.exists():
            shutil.rmtree(self.root)  # what is left of a creation that was cut off
        self.root.mkdir(parents=True)
        identity = hashlib.md5(f"{self.lab.name}/{self.id}".encode()).hexdigest()
        rootfs.prepare(self.root, mine.hostname, address, identity)
        shims.install(self.lab, self.root)
        for disk in mine.disks:
            self._shelf.add(disk, self._serial(disk.name))
        # Last: only a directory with this file is a machine.
        self._write("machine.json", {"hostname": mine.hostname, "cut": []})

    @property
    def exists(self) -> bool:
        """Whether the machine has been created."""
        return (self.root / "machine.json").exists()

    @property
    def hostname(self) -> str:
        """The machine's host name."""
        return str(self._read("machine.json")["hostname"])

    @property
    def is_on(self) -> bool:
        """Whether the machine runs."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The host's process id of the machine's PID 1, or None when it is off."""
        try:
            pid, started = (self.root / "run/pid").read_text().split()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        # The kernel uses numbers again; the start time tells whether it is still the same one.
        return int(pid) if fields[19] == started and fields[0] not in "ZX" else None

    def power_on(self) -> None:
        """Boot the machine and start its services; nothing happens if it is on.

        Raises:
            LabError: it does not exist, or does not boot within 20 s.
        """
        self._must_exist()
        with self.lab.lock(f"machine-{self.id}"):
            if self.is_on:
                return
            self._clean_kernel()
            shape = shapes.load(self.lab)
            networks.ensure(self.lab, shape)
            cut = set(self._read("machine.json")["cut"])
            networks.plug_machine(self.lab, shape, self.id, cut)
            self._shelf.attach_all()
            self._fresh_directories()
            self._boot([n.name for n in networks.machine_nics(self.lab, shape, self.id)])

    def _fresh_directories(self) -> None:
        for name in ("run", "tmp"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir(exist_ok=True)
        os.chmod(self.root / "tmp", 0o1777)
        # For the stand-ins inside: which lab and machine they are in.
        facts = {
            "lab": self.lab.name,
            "lab_root": str(self.lab.base),
            "machine": self.id,
            "hostname": self.hostname,
            "python": sys.executable,
            "pythonpath": str(PACKAGE_PARENT),
            "payload": str(self.lab.root / "payload"),
            "snap_delay": shapes.load(self.lab).snap_delay,
        }
        self._write("run/lab.json", facts)

    def _boot(self, nics: list[str]) -> None:
        netns, log = self.lab.machine_netns(self.id), self.root / "boot.log"
        found = cgroups.hierarchies()
        layout = [
            {
                "directory": "" if h.only else h.path.name,
                "kind": h.kind,
                "options": h.options,
            }
            for h in found
        ]
        self._write("boot.json", {"hostname": self.hostname, "cgroups": layout, "nics": nics})
        joins = cgroups.create(netns)
        enter = "".join(f"echo $$ >{shlex.quote(str(p))} || exit 1; " for p in joins)
        unshare = "unshare --mount --uts --ipc --pid --cgroup --fork --propagation private"
        command = f'nsenter --net={networks.NETNS_DIR / netns} {unshare} -- "$@"'
        # In the background of a shell that ends: whoever powers a machine on is not its parent.
        script = f"{enter} {command} >{shlex.quote(str(log))} 2>&1 </dev/null & echo $!"
        init = [sys.executable, "-m", "lab.host.init", str(self.root)]
        started = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *init],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**BASE_ENVIRONMENT, "PYTHONPATH": str(PACKAGE_PARENT)},
            start_new_session=True,  # else it dies with the process group that started it
            timeout=POWER_ON_DEADLINE,
            check=False,
        )
        starter = Path("/proc", started.stdout.strip() or "0")
        end = time.monotonic() + POWER_ON_DEADLINE
        while not self.is_on:
            if not starter.exists() or time.monotonic() > end:
                self._clean_kernel()
                words = log.read_text(errors="replace").strip()
                raise LabError(f"machine {self.id} of lab {self.lab.name} does not boot: {words}")
            time.sleep(0.005)
        for hierarchy in found:
            if hierarchy.only:
                cgroups.delegate(hierarchy.path / netns)

    def power_off(self) -> None:
        """Kill everything that runs on the machine, at once, as a power cut does.

        Raises:
            LabError: something survives for 10 s.
        """
        self._must_exist()
        with self.lab.lock(f"machine-{self.id}"):
            self._clean_kernel()

    def _clean_kernel(self) -> None:
        """Remove what the machine has in the kernel: processes, cgroups, links, its own loops."""
        pid = self.pid
        # Loop devices that programs inside have made outlive them, and have to be let go of.
        devices = mount_devices(pid) - mount_devices("self") if pid else set[str]()
        stray = stray_loops(self.root, devices, mount_points(pid) if pid else ())
        netns = self.lab.machine_netns(self.id)
        with _mounts_kept(pid):
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            left = cgroups.kill(netns, POWER_OFF_DEADLINE)
        if left:
            raise LabError(f"machine {self.id}: processes {sorted(left)} cannot be killed")
        (self.root / "run/pid").unlink(missing_ok=True)
        cgroups.remove(netns)
        networks.unplug_machine(self.lab, self.id)
        for loop in stray:
            run_host(["losetup", "-d", f"/dev/loop{loop.minor}"], check=False)

    def destroy(self) -> None:
        """Power the machine off and remove it with everything it holds; may be half there.

        Raises:
            LabError: something cannot be removed; the message names it.
        """
        with self.lab.lock(f"machine-{self.id}"):
            self._clean_kernel()
            self._shelf.detach_all()
            if self.root.exists():
                shutil.rmtree(self.root)

    # ---- commands ---------------------------------------------------------------------------

    def argv(
        self, *cmd: str, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        """Return the argv with which the host runs ``cmd`` as root on the machine.

        The command gets a login's environment and ``env``, nothing of the caller's.

        Raises:
            LabError: the machine is off.
        """
        pid = self.pid
        if pid is None:
            raise LabError(f"machine {self.id} of lab {self.lab.name} is off")
        joins = cgroups.joins(self.lab.machine_netns(self.id))
        enter = "".join(f"echo $$ >{shlex.quote(str(p))}; " for p in joins)
        variables = {**BASE_ENVIRONMENT, **(env or {})}
        words = ["env", "-i", f"--chdir={cwd or '/root'}"]
        words += [f"{name}={value}" for name, value in variables.items()]
        return [
            "/bin/sh",
            "-c",
            f'{enter}exec nsenter -t {pid} -m -u -i -n -p -C -- "$@"',
            "sh",
            *words,
            *cmd,
        ]

    def run(
        self,
        *cmd: str,
        timeout: float = 60,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine and wait for it, not for daemons that it starts.

        Raises:
            CommandFailed: it fails, unless ``check`` is false.
            LabError: the machine is off, or the command takes longer than ``timeout`` seconds
                (it is killed then).
        """
        argv = self.argv(*cmd, env=env, cwd=cwd)
        # Files, not pipes: a daemon that keeps its standard output open would block a pipe.
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
            tempfile.TemporaryFile("w+") as given,
        ):
            given.write(input or "")
            given.seek(0)
            process = subprocess.Popen(
                argv, stdin=given, stdout=out, stderr=err, start_new_session=True
            )
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise LabError(
                    f"`{shlex.join(cmd)}` did not end within {timeout} s on {self.hostname}"
                ) from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            out.seek(0)
            err.seek(0)
            printed = out.read(), err.read()
        done = subprocess.CompletedProcess(list(cmd), process.returncode, *printed)
        if check and done.returncode != 0:
            raise CommandFailed(self, cmd, done.returncode, done.stdout, done.stderr)
        return done

    # ---- services ---------------------------------------------------------------------------

    def add_service(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        restart: str = "always",
        start: bool = True,
        *,
        cwd: str = "/",
        kill: str = "group",
        stop_timeout: float = 10.0,
    ) -> None:
        """Have PID 1 run a daemon, now (if ``start``) and at each power-on.

        Works on a machine that is off as well. ``restart`` is ``always``, ``on-failure`` or
        ``no``; ``kill`` is ``group`` or ``process``. Its output goes to
        ``/var/log/lab/<name>.log``.
        """
        self._must_exist()
        if restart not in ("always", "on-failure", "no") or kill not in ("group", "process"):
            raise LabError(f"service {name}: restart={restart!r}, kill={kill!r} is not supported")
        spec = Service(name, list(argv), dict(env or {}), restart, cwd, kill, stop_timeout)
        if self.is_on:
            service.add(spec, start=start, path=self._socket)
        else:
            save(self.root / "services", spec)

    def start_service(self, name: str) -> None:
        """Start a service that is not running."""
        service.act("start", name, path=self._socket)

    def stop_service(self, name: str) -> None:
        """Stop a service until it is started again or the machine boots; waits for its end."""
        service.act("stop", name, path=self._socket)

    def restart_service(self, name: str) -> None:
        """Stop a service and start it again."""
        service.act("restart", name, path=self._socket)

    def remove_service(self, name: str) -> None:
        """Stop a service and forget it."""
        if self.is_on:
            service.act("remove", name, path=self._socket)
        else:
            (self.root / f"services/{name}.json").unlink(missing_ok=True)

    def services(self) -> dict[str, str]:
        """Return the state of each service: active, activating, inactive, failed ..."""
        if not self.is_on:
            return {p.stem: "inactive" for p in (self.root / "services").glob("*.json")}
        found = service.states(path=self._socket)
        return {name: str(report["state"]) for name, report in found.items()}

    def log_file(self, name: str) -> Path:
        """The host's path of a service's log."""
        return self.root / "real/var/log/lab" / f"{name}.log"

    @property
    def _socket(self) -> Path:
        if not self.is_on:
            raise LabError(f"machine {self.id} of lab {self.lab.name} is off")
        return self.root / "run/init.sock"

    # ---- network ----------------------------------------------------------------------------

    def interfaces(self) -> list[Interface]:
        """Return the machine's interfaces as they are now, loopback left out.

        Raises:
            LabError: the machine is off.
        """
        if not self.is_on:
            raise LabError(f"machine {self.id} of lab {self.lab.name} is off")
        # The namespace is the machine's own; to look from outside saves entering the others.
        shown = run_host(["ip", "-n", self.lab.machine_netns(self.id), "-j", "address"]).stdout
        loaded: list[dict[str, Any]] = json.loads(shown or "[]")
        return [_interface(link) for link in loaded if link["ifname"] != "lo"]

    def nic_of(self, network: str) -> str:
        """The name of the machine's network card on a network of the lab.

        Raises:
            LabError: it has none there.
        """
        return self._nic(network).name

    def set_link(self, network: str, *, up: bool) -> None:
        """Plug or pull the machine's cable to a network; stays so over power cycles."""
        nic = self._nic(network)
        record = self._read("machine.json")
        cut = set(record["cut"]) - {network}
        self._write("machine.json", {**record, "cut": sorted(cut if up else cut | {network})})
        if self.is_on:
            networks.set_cable(self.lab, nic.port, up=up)

    def links_cut(self) -> list[str]:
        """Return the networks that the machine is cut off from."""
        return list(self._read("machine.json")["cut"])

    def _nic(self, network: str) -> networks.Nic:
        for nic in networks.machine_nics(self.lab, shapes.load(self.lab), self.id):
            if nic.network == network:
                return nic
        raise LabError(f"machine {self.id} has no network card on {network!r}")

    # ---- disks ------------------------------------------------------------------------------

    def disks(self) -> list[Disk]:
        """Return the machine's disks."""
        return [Disk.of(record) for record in self._shelf.records()]

    def attach_disk(
        self, name: str, size_bytes: int, *, model: str = "QEMU HARDDISK", rotational: bool = False
    ) -> Disk:
        """Give the machine a new empty disk; a running machine sees it at once.

        Raises:
            LabError: it has a disk of that name already.
        """
        self._must_exist()
        disk = shapes.DiskShape(name, size_bytes, model=model, rotational=rotational)
        with self.lab.lock(f"machine-{self.id}"):
            record = self._shelf.add(disk, self._serial(name))
            self._show_disks()
        return Disk.of(record)

    def detach_disk(self, name: str) -> None:
        """Take a disk away and delete its content.

        Raises:
            LabError: there is no such disk.
        """
        with self.lab.lock(f"machine-{self.id}"):
            record = self._shelf.remove(name)
            self._show_disks()
            self._shelf.discard(record)

    def _show_disks(self) -> None:
        if self.is_on:
            service.request({"op": "disks"}, path=self._socket)

    def _serial(self, disk: str) -> str:
        return f"{self.lab.name}-m{self.id}-{disk}"

    @property
    def _shelf(self) -> DiskShelf:
        return DiskShelf(self.root)

    # ---- files ------------------------------------------------------------------------------

    def _must_exist(self) -> None:
        if not self.exists:
            raise LabError(f"lab {self.lab.name} has no machine {self.id}")

    def _read(self, name: str) -> dict[str, Any]:
        self._must_exist()
        loaded: dict[str, Any] = json.loads((self.root / name).read_text(encoding="utf-8"))
        return loaded

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        partial = self.root / f"{name}.new"
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(self.root / name)


def machines(lab: Lab) -> list[Machine]:
    """Return all machines of a lab, in the order of their ids."""
    if not lab.machines_dir.is_dir():
        return []
    ids = sorted((p.name for p in lab.machines_dir.iterdir() if p.name.isdigit()), key=int)
    return [m for m in (Machine(lab, i) for i in ids) if m.exists]


def _interface(link: Mapping[str, Any]) -> Interface:
    addresses: list[tuple[str, str]] = []
    for info in link.get("addr_info", []):
        if info["scope"] == "global":
            subnet = ipaddress.ip_network(f"{info['local']}/{info['prefixlen']}", strict=False)
            addresses.append((info["local"], str(subnet)))
    up = link.get("operstate") == "UP" or (
        link.get("operstate") == "UNKNOWN" and "LOWER_UP" in link.get("flags", [])
    )
    return Interface(link["ifname"], link.get("address", ""), addresses, up, link["mtu"])


@contextlib.contextmanager
def _mounts_kept(pid: int | None) -> Iterator[None]:
    """Keep what a process has mounted until the block ends.

    Who ends last in a mount namespace unmounts what is in it. If that is the program that serves
    the file behind a mounted loop device, it waits for itself, and cannot be killed any more.
    """
    try:
        handle = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    except OSError:
        yield  # there is no such process
        return
    try:
        yield
    finally:
        os.close(handle)
