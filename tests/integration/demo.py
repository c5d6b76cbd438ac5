"""`make lab`: a cloud of three machines, formed before your eyes, and what to look at then."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import jubilant
from rich.console import Console
from rich.live import Live
from rich.table import Table

from integration import ceph, cloud, ovn
from integration.cloud import APP
from lab import image
from lab.layout import Lab
from lab.pack import pack

REPO = Path(__file__).parent.parent.parent
BIN = REPO / "tests/lab/bin"
MODEL = "demo"
CONFIG: ovn.Config = {
    "local-driver": "btrfs",
    **ceph.WITH_CEPH,
    "ceph-storage": ceph.DISKS,
    **ovn.UPLINK,
}
TIMEOUT = 300.0
LOOK = (
    "lxc cluster list",
    "lxc storage list",
    "lxc network list",
    "lxc profile show default",
    "lxc list",
    "microceph status",
    "microceph.ceph status",
)
GO_ON = """\
How to go on (`. tests/lab/env` puts `lab` and `juju` of this lab on your PATH):

  juju status                              what Juju sees
  juju run microcloud/0 status             what the charm sees
  juju run microcloud/0 list-disks         what its disks are fit for
  juju run microcloud/0 list-interfaces    what its network cards are fit for
  juju add-unit microcloud                 a fourth machine
  juju ssh microcloud/0                    a shell on a machine; `lxc` works there
  juju debug-log --replay                  what happened
  lab --help                               power, links, faults
  make lab-down                            take it all away
"""


def main() -> int:
    """Bring the lab up, deploy if nothing is there yet, and show the cloud."""
    console = Console()
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    os.environ.setdefault("LAB", "lab")
    started = time.monotonic()
    subprocess.run([BIN / "lab", "up"], check=True, timeout=120)
    juju = jubilant.Juju(model=MODEL)
    fresh = _deploy(juju, console)
    try:
        _watch(juju, console, started)
        ceph.wait_healthy(juju, f"{APP}/0", 3)
    except (AssertionError, TimeoutError, jubilant.WaitError) as fault:
        console.print(f"[red]The cloud did not come up:[/red] {fault}")
        console.print("See `juju debug-log --replay` (after `. tests/lab/env`).")
        return 1
    took = time.monotonic() - started
    console.print(f"\n{'Formed' if fresh else 'Found'} in {took:.1f} s.\n")
    if fresh:
        _use(juju, console)
    for command in LOOK:
        console.print(f"[bold]$ {command}[/bold]", highlight=False)
        sys.stdout.write(cloud.sh(juju, f"{APP}/0", command) + "\n")
        sys.stdout.flush()
    print(GO_ON)
    return 0


def _deploy(juju: jubilant.Juju, console: Console) -> bool:
    """Deploy three units unless the model has them; whether it was needed."""
    try:
        if APP in juju.status().apps:
            console.print("A cloud is here already (make lab-down takes it away); this is it.")
            return False
    except jubilant.CLIError:
        juju.add_model(MODEL)
    charm = pack(REPO, REPO / "build/microcloud.charm")
    console.print(
        "$ juju deploy ./build/microcloud.charm -n 3 " + _flags(), highlight=False, soft_wrap=True
    )
    juju.deploy(charm, APP, num_units=3, config=CONFIG)
    return True


def _use(juju: jubilant.Juju, console: Console) -> None:
    """Launch a container on every member, and see that they reach each other and the router."""
    first = cloud.units(juju)[0]
    juju.scp(str(image.build(Lab.from_environment())), f"{first}:/root/mini.tar.xz")
    cloud.lxc(juju, first, "image import /root/mini.tar.xz --alias mini")
    names: list[str] = []
    for member in sorted(cloud.members(juju, first)):
        names.append(f"c{len(names) + 1}")
        console.print(
            f"$ lxc launch mini {names[-1]} --target {member}", highlight=False, soft_wrap=True
        )
        cloud.lxc(juju, first, f"launch mini {names[-1]} --target {member}")
    for target in [*names[1:], ovn.ROUTER]:
        where = target if target == ovn.ROUTER else f"{target}.lxd"
        ping = f"ping -c 1 -W 2 {where} >/dev/null"
        tries = f"for i in $(seq 20); do {ping} && exit 0; sleep 0.5; done; exit 1"
        cloud.lxc(juju, first, f"exec -T -n c1 -- sh -c '{tries}'")
        console.print(f"c1 reaches {target}", highlight=False, soft_wrap=True)
    console.print()


def _flags() -> str:
    return " ".join(f"--config {shlex.quote(f'{key}={value}')}" for key, value in CONFIG.items())


def _watch(juju: jubilant.Juju, console: Console, started: float) -> None:
    """Show what each unit is doing until all are active."""
    deadline = time.monotonic() + TIMEOUT
    seen: dict[str, str] = {}
    with Live(console=console, refresh_per_second=8, transient=False) as live:
        while time.monotonic() < deadline:
            status = juju.status()
            elapsed = time.monotonic() - started
            if console.is_terminal:
                live.update(_table(status, elapsed))
            else:
                _print_changes(status, seen, elapsed, console)
            if jubilant.any_error(status, APP):
                raise jubilant.WaitError(f"a hook failed:\n{status}")
            done = len(status.apps[APP].units) >= 3 and jubilant.all_active(status, APP)
            if done and jubilant.all_agents_idle(status, APP):
                return
            time.sleep(0.2)
    raise TimeoutError(f"not active after {TIMEOUT:.0f} s")


def _table(status: jubilant.Status, elapsed: float) -> Table:
    table = Table(title=f"{elapsed:5.1f} s", title_justify="left")
    for column in ("Unit", "Machine", "Status", "What it is doing"):
        table.add_column(column)
    for name, unit in sorted(status.apps[APP].units.items()):
        state = unit.workload_status
        leader = "*" if unit.leader else ""
        table.add_row(name + leader, unit.public_address, state.current, state.message)
    return table


def _print_changes(
    status: jubilant.Status, seen: dict[str, str], elapsed: float, console: Console
) -> None:
    for name, unit in sorted(status.apps[APP].units.items()):
        state = unit.workload_status
        text = f"{state.current}: {state.message}" if state.message else state.current
        if seen.get(name) != text:
            seen[name] = text
            console.print(f"{elapsed:6.1f} s  {name}  {text}", highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
