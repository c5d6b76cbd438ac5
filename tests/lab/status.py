"""What ``lab status`` tells: each machine's power, addresses, disks, links and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab import shape as shapes
from lab.host import cgroups, networks
from lab.host.machine import Machine, machines
from lab.layout import Lab


def collect(lab: Lab) -> dict[str, Any]:
    """Return the lab's state as plain data (the content of ``lab status --json``).

    Memory is in KiB and is the sum over a machine's processes of what they do not share
    (proportional set size).
    """
    shape = shapes.load(lab)
    return {
        "lab": lab.name,
        "root": str(lab.root),
        "up": networks.exists(lab.switch_netns),
        "networks": {n.name: n.cidr for n in shape.networks},
        "machines": {m.id: _machine(m) for m in machines(lab)},
    }


def _machine(machine: Machine) -> dict[str, Any]:
    on = machine.is_on
    group = machine.lab.machine_netns(machine.id)
    pids = cgroups.processes(group) if on else set[int]()
    addresses = [a for i in machine.interfaces() for a, _ in i.addresses] if on else []
    return {
        "hostname": machine.hostname,
        "power": "on" if on else "off",
        "pid": machine.pid,
        "addresses": addresses,
        "links-cut": machine.links_cut(),
        "disks": {d.name: {"device": d.device, "size": d.size} for d in machine.disks()},
        "services": machine.services(),
        "processes": len(pids),
        "memory-kib": sum(map(_memory, pids)),
        "disk-use-kib": _disk_use(machine.root),
    }


def _memory(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as table:
            for line in table:
                if line.startswith("Pss:"):
                    return int(line.split()[1])
    except OSError:
        return 0  # it ended, or is a zombie
    return 0


def _disk_use(root: Path) -> int:
    """What the machine's disks really take on the host (the files are sparse)."""
    return sum(p.stat().st_blocks // 2 for p in (root / "disks").glob("*.img"))


def text(found: dict[str, Any]) -> str:
    """Return the state as lines for a person."""
    lines = [f"lab {found['lab']} in {found['root']}: {'up' if found['up'] else 'down'}"]
    rows = [["ID", "HOSTNAME", "POWER", "ADDRESSES", "CUT", "PROCS", "MEMORY", "DISKS"]]
    for machine_id, machine in found["machines"].items():
        rows.append(
            [
                machine_id,
                machine["hostname"],
                machine["power"],
                ",".join(machine["addresses"]) or "-",
                ",".join(machine["links-cut"]) or "-",
                str(machine["processes"]),
                f"{machine['memory-kib'] // 1024} MiB",
                ",".join(machine["disks"]) or "-",
            ]
        )
    if len(rows) > 1:
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            lines.append("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        total = sum(m["memory-kib"] for m in found["machines"].values())
        lines.append(f"memory of all machines' processes: {total // 1024} MiB")
    return "\n".join(lines)
