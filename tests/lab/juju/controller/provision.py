"""Make the machines, agents and disks that the state asks for, and unmake what it forgot."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.errors import LabError
from lab.juju import clock
from lab.juju.controller import lifecycle, storage_rules
from lab.juju.controller.core import Controller
from lab.juju.controller.entities import Machine, Storage, Unit
from lab.juju.provider import PACKAGE_PARENT, python

_BROKEN = (LabError, OSError, RuntimeError, ValueError, subprocess.SubprocessError)

# A machine's own, never the one of whoever started the controller: hooks inherit it.
MACHINE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"


class Provisioner:
    """Watches for work; one job at a time per machine, several machines at once."""

    def __init__(self, ctl: Controller):
        self.ctl = ctl
        self._pool = ThreadPoolExecutor(4, "provision")
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._taken: set[str] = set()
        self._wake = asyncio.Event()
        ctl.wake_provisioner = self._wake.set
        ctl.reboot_machine = self.reboot

    async def run(self) -> None:
        """Until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for machine in list(self.ctl.store.all(Machine).values()):
                if machine.key not in self._busy and self._needs_work(machine):
                    task = asyncio.create_task(self._work(machine))
                    self._busy[machine.key] = task
            self.ctl.commit()

    def _needs_work(self, machine: Machine) -> bool:
        if machine.life == "dead" or machine.retired or machine.state == "pending":
            return True
        if machine.state == "error":
            return False
        return bool(self._undeployed(machine) or self._disks(machine))

    def _undeployed(self, machine: Machine) -> list[Unit]:
        return [
            u for u in self.ctl.units(machine.model) if u.machine == machine.id and not u.deployed
        ]

    def _disks(self, machine: Machine) -> list[Storage]:
        return [
            s
            for s in self.ctl.storages(machine.model)
            if s.machine == machine.id and (s.life == "dead" or (s.state == "pending" and s.owner))
        ]

    async def _work(self, machine: Machine) -> None:
        try:
            await self._settle(machine)
        except _BROKEN as err:
            machine.state, machine.message = "error", str(err)
            machine.since = clock.now()
            self.ctl.log(
                machine.model,
                f"machine-{machine.id}",
                "ERROR",
                "juju.provisioner",
                machine.message,
            )
        finally:
            del self._busy[machine.key]
            self._wake.set()
            self.ctl.commit()

    async def _settle(self, machine: Machine) -> None:
        if machine.life == "dead":
            await self._destroy(machine)
            return
        if machine.state == "pending":
            await self._create(machine)
        for name in machine.retired:
            await self._do(self.ctl.provider.remove_agent, machine.lab_id, name)
            machine.retired = [n for n in machine.retired if n != name]
        for storage in self._disks(machine):
            try:
                await self._disk(machine, storage)
            except _BROKEN as err:
                storage.state, storage.message = "error", str(err)
        for unit in self._undeployed(machine):
            await self._deploy(machine, unit)
            unit.deployed = True
        self.ctl.commit()

    async def _do(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _choose(self, machine: Machine) -> str:
        """The lab machine of the same number if it is free, else the lowest free one."""
        used = {m.lab_id for m in self.ctl.store.all(Machine).values() if m.lab_id} | self._taken
        for candidate in [machine.id, *map(str, range(240))]:
            if candidate not in used and self.ctl.provider.free(candidate):
                return candidate
        raise RuntimeError("all 240 machines of the lab are in use")

    async def _create(self, machine: Machine) -> None:
        if not machine.lab_id:
            machine.lab_id = self._choose(machine)
            self.ctl.commit()
        machine.hostname = await self._do(self.ctl.provider.create, machine.lab_id)
        machine.state, machine.since = "started", clock.now()
        self.ctl.commit()

    async def _destroy(self, machine: Machine) -> None:
        for name in machine.retired:
            await self._do(self.ctl.provider.remove_agent, machine.lab_id, name)
        if machine.lab_id and not machine.keep:
            await self._do(self.ctl.provider.destroy, machine.lab_id)
        storage_rules.machine_gone(self.ctl, machine.model, machine.id)
        self.ctl.store.remove(machine)
        lifecycle.collect_model(self.ctl, machine.model)

    async def _disk(self, machine: Machine, storage: Storage) -> None:
        name = f"juju{storage.number}"
        if storage.life == "dead":
            if storage.disk:
                await self._do(self.ctl.provider.detach_disk, machine.lab_id, name)
            self.ctl.store.remove(storage)
            return
        if storage.kind == "block" and not storage.disk:
            disk = await self._do(
                self.ctl.provider.attach_disk, machine.lab_id, name, storage.size << 20
            )
            storage.disk, storage.location = disk.name, disk.device
            storage.link, storage.hardware_id = disk.by_id, disk.serial
        elif storage.kind == "filesystem":
            unit = self.ctl.unit(storage.model, storage.owner)
            storage.location = await self._directory(machine, storage, unit)
        storage.state = "attached"
        self.ctl.commit()

    async def _directory(self, machine: Machine, storage: Storage, unit: Unit) -> str:
        app = self.ctl.app(unit.model, unit.app)
        spec = storage_rules.spec_of(self.ctl, app, storage.name)
        location = spec.get("location") or f"/var/lib/juju/storage/{storage.name}"
        if spec.get("multiple") or not spec.get("location"):
            location = f"{location}/{storage.number}"
        code, _, err = await self._do(
            self.ctl.provider.run, machine.lab_id, ["mkdir", "-p", location], 10.0
        )
        if code:
            raise RuntimeError(f"cannot make {location} on machine {machine.id}: {err}")
        return location

    async def _deploy(self, machine: Machine, unit: Unit) -> None:
        provider = self.ctl.provider
        address, port = provider.controller_address()
        argv = [
            python(),
            "-m",
            "lab.juju.agent",
            "--unit",
            unit.name,
            "--model",
            unit.model,
            "--controller",
            f"{address}:{port}",
            "--tool",
            str(self.ctl.root / "hooktool"),
            "--trace",
            str(self.ctl.root / "hooks.jsonl"),
            *provider.agent_options(machine.lab_id),
        ]
        env = {
            "PYTHONPATH": str(PACKAGE_PARENT),
            "AGENT_PASSWORD": unit.password,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": MACHINE_PATH,
        }
        with contextlib.suppress(NotImplementedError):
            argv += ["--data-dir", str(provider.data_dir(machine.lab_id))]
        name = lifecycle.agent_name(unit.name)
        await self._do(provider.start_agent, machine.lab_id, name, argv, env)

    def reboot(self, machine: Machine) -> None:
        """Power-cycle a machine in the background."""
        task = asyncio.get_running_loop().create_task(
            self._do(self.ctl.provider.power_cycle, machine.lab_id)
        )
        self.ctl.background.add(task)
        task.add_done_callback(self.ctl.background.discard)
