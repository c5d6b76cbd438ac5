"""Where Juju's machines come from: the lab's machines, or (for quick tests) the host itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class AttachedDisk:
    """A block device of a machine, as the machine sees it."""

    name: str
    device: str
    by_id: str
    serial: str


class Provider(Protocol):
    """What the controller needs of a machine. Every call may block for seconds."""

    def free(self, lab_id: str) -> bool:
        """Whether no machine of that id exists."""
        ...

    def create(self, lab_id: str) -> str:
        """Create and switch on a machine; returns its hostname."""
        ...

    def destroy(self, lab_id: str) -> None: ...

    def power_cycle(self, lab_id: str) -> None: ...

    def is_on(self, lab_id: str) -> bool: ...

    def data_dir(self, lab_id: str) -> Path:
        """The machine's /var/lib/juju, as a path that is valid on the host."""
        ...

    def start_agent(self, lab_id: str, name: str, argv: list[str], env: dict[str, str]) -> None:
        """Run a unit agent now, and again at each start of the machine."""
        ...

    def remove_agent(self, lab_id: str, name: str) -> None: ...

    def signal_agent(self, lab_id: str, name: str, number: int) -> None:
        """Send a signal to the agent's process only (not to its hook)."""
        ...

    def argv(self, lab_id: str, command: list[str]) -> list[str]:
        """The host command that runs `command` as root in the machine."""
        ...

    def run(self, lab_id: str, command: list[str], timeout: float) -> tuple[int, str, str]: ...

    def attach_disk(self, lab_id: str, name: str, size: int) -> AttachedDisk: ...

    def detach_disk(self, lab_id: str, name: str) -> None: ...

    def networks(self) -> dict[str, str]:
        """Name of each network's space -> its IPv4 subnet (and a second, `name/6`, for IPv6)."""
        ...

    def controller_address(self) -> tuple[str, int]:
        """What agents connect to."""
        ...

    def controller_netns(self) -> str:
        """Name of the network namespace to listen in; empty for the host's own."""
        ...

    def agent_options(self, lab_id: str) -> list[str]:
        """Further options of the agent."""
        ...


class LocalProvider:
    """Machines that are only directories: agents run on the host, without namespaces."""

    def __init__(self, root: Path):
        self.root = root / "local"

    def _dir(self, lab_id: str) -> Path:
        return self.root / lab_id

    def free(self, lab_id: str) -> bool:
        return not self._dir(lab_id).exists()

    def create(self, lab_id: str) -> str:
        self._dir(lab_id).mkdir(parents=True, exist_ok=True)
        return f"micro{int(lab_id) + 1}"

    def destroy(self, lab_id: str) -> None:
        import shutil

        for pidfile in self._dir(lab_id).glob("*.pid"):
            self.remove_agent(lab_id, pidfile.stem)
        shutil.rmtree(self._dir(lab_id), ignore_errors=True)

    def power_cycle(self, lab_id: str) -> None:
        raise NotImplementedError("machines of the local provider cannot be rebooted")

    def is_on(self, lab_id: str) -> bool:
        return self._dir(lab_id).exists()

    def data_dir(self, lab_id: str) -> Path:
        return self._dir(lab_id) / "juju"

    def start_agent(self, lab_id: str, name: str, argv: list[str], env: dict[str, str]) -> None:
        """Start under a small supervising loop, since there is no PID 1 to restart it."""
        loop = 'trap "exit 0" TERM; while :; do "$@"; rc=$?; [ $rc = 0 ] && exit; sleep 0.2; done'
        log = (self._dir(lab_id) / f"{name}.log").open("ab")
        process = subprocess.Popen(
            ["bash", "-c", loop, "agent", *argv],
            env={**os.environ, **env},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()
        (self._dir(lab_id) / f"{name}.pid").write_text(str(process.pid))

    def _group(self, lab_id: str, name: str) -> int:
        try:
            return int((self._dir(lab_id) / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return 0

    def remove_agent(self, lab_id: str, name: str) -> None:
        group = self._group(lab_id, name)
        if group:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                os.waitpid(group, os.WNOHANG)
            except ChildProcessError:
                pass
        (self._dir(lab_id) / f"{name}.pid").unlink(missing_ok=True)

    def signal_agent(self, lab_id: str, name: str, number: int) -> None:
        os.kill(_agent_pid(self.data_dir(lab_id), name), number)

    def argv(self, lab_id: str, command: list[str]) -> list[str]:
        return command

    def run(self, lab_id: str, command: list[str], timeout: float) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        return done.returncode, done.stdout, done.stderr

    def attach_disk(self, lab_id: str, name: str, size: int) -> AttachedDisk:
        folder = self._dir(lab_id) / "disks"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / name
        with file.open("wb") as stream:
            stream.truncate(size)
        return AttachedDisk(name, str(file), str(file), name)

    def detach_disk(self, lab_id: str, name: str) -> None:
        (self._dir(lab_id) / "disks" / name).unlink(missing_ok=True)

    def networks(self) -> dict[str, str]:
        return {"alpha": "10.71.0.0/24", "uplink": "10.72.0.0/24"}

    def controller_address(self) -> tuple[str, int]:
        import zlib

        return ("127.0.0.1", 20000 + zlib.crc32(str(self.root).encode()) % 20000)

    def controller_netns(self) -> str:
        return ""

    def agent_options(self, lab_id: str) -> list[str]:
        address = f"10.71.0.{10 + int(lab_id)}"
        return ["--interfaces", f"eth0,02:00:00:00:00:{int(lab_id):02x},{address}/24"]


def _agent_pid(data_dir: Path, name: str) -> int:
    """The agent's own process id as its namespace numbers it (it writes it at its start)."""
    return int((data_dir / "agents" / name.removeprefix("jujud-") / "agent.pid").read_text())


class LabProvider:
    """The lab's machines: namespaces with networks, disks and a PID 1 of their own."""

    def __init__(self, lab: Any):
        self.lab = lab
        self._networks: dict[str, str] = {}

    def _machine(self, lab_id: str) -> Any:
        from lab.host.machine import Machine

        return Machine(self.lab, lab_id)

    def free(self, lab_id: str) -> bool:
        return not self._machine(lab_id).root.exists()

    def create(self, lab_id: str) -> str:
        from lab.host.machine import Machine

        machine = self._machine(lab_id)
        if not machine.exists:
            machine = Machine.create(self.lab, lab_id)
        if not machine.is_on:
            machine.power_on()
        return str(machine.hostname)

    def destroy(self, lab_id: str) -> None:
        machine = self._machine(lab_id)
        if machine.root.exists():
            machine.destroy()

    def power_cycle(self, lab_id: str) -> None:
        machine = self._machine(lab_id)
        machine.power_off()
        machine.power_on()

    def is_on(self, lab_id: str) -> bool:
        machine = self._machine(lab_id)
        return bool(machine.exists and machine.is_on)

    def data_dir(self, lab_id: str) -> Path:
        raise NotImplementedError

    def start_agent(self, lab_id: str, name: str, argv: list[str], env: dict[str, str]) -> None:
        self._machine(lab_id).add_service(name, argv, env=env, restart="always")

    def remove_agent(self, lab_id: str, name: str) -> None:
        machine = self._machine(lab_id)
        if machine.exists and name in machine.services():
            machine.remove_service(name)

    def signal_agent(self, lab_id: str, name: str, number: int) -> None:
        unit = name.removeprefix("jujud-")
        pid = f"$(cat /var/lib/juju/agents/{unit}/agent.pid)"
        self._machine(lab_id).run("sh", "-c", f"kill -{number} {pid}", timeout=10)

    def argv(self, lab_id: str, command: list[str]) -> list[str]:
        return list(self._machine(lab_id).argv(*command))

    def run(self, lab_id: str, command: list[str], timeout: float) -> tuple[int, str, str]:
        done = self._machine(lab_id).run(*command, timeout=timeout, check=False)
        return done.returncode, done.stdout, done.stderr

    def attach_disk(self, lab_id: str, name: str, size: int) -> AttachedDisk:
        disk = self._machine(lab_id).attach_disk(name, size)
        return AttachedDisk(disk.name, disk.device, disk.by_id, disk.serial)

    def detach_disk(self, lab_id: str, name: str) -> None:
        self._machine(lab_id).detach_disk(name)

    def networks(self) -> dict[str, str]:
        if not self._networks:
            from lab import shape

            for network in shape.load(self.lab).networks:
                space = "alpha" if network.name == "mgmt" else network.name
                self._networks[space] = network.cidr
                if network.ipv6 and network.cidr6:
                    self._networks[f"{space}/6"] = network.cidr6
        return self._networks

    def controller_address(self) -> tuple[str, int]:
        return ("10.71.0.2", 17070)

    def controller_netns(self) -> str:
        return str(self.lab.controller_netns)

    def agent_options(self, lab_id: str) -> list[str]:
        return []


def choose(lab: Any) -> Provider:
    """The provider named by LAB_PROVIDER: `local`, or the lab's machines."""
    if os.environ.get("LAB_PROVIDER") == "local":
        return LocalProvider(Path(lab.root))
    return LabProvider(lab)


def python() -> str:
    """The interpreter agents run with: the one of this process."""
    return sys.executable
