"""PID 1 of a machine: builds its file tree, then supervises its services.

Started by :meth:`lab.host.machine.Machine.power_on` inside fresh namespaces, with the machine's
directory as its only argument.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

from lab.host import netdev, rootfs
from lab.host.blockdev import DeviceTree
from lab.host.supervisor import BASE_ENVIRONMENT, Supervisor


def main(home: Path) -> None:
    """Boot the machine whose directory is ``home``; never returns."""
    # /proc is still the host's: this is the process id that the host knows us by.
    pid = os.readlink("/proc/self")
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    boot = json.loads((home / "boot.json").read_text(encoding="utf-8"))
    os.umask(0o022)
    socket.sethostname(boot["hostname"])
    hierarchies = [rootfs.Hierarchy(**h) for h in boot["cgroups"]]
    rootfs.build(home, hierarchies)
    os.environ.clear()
    os.environ.update(BASE_ENVIRONMENT)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    supervisor = Supervisor(home, Path("/var/log/lab"))
    devices = DeviceTree(home / "disks.json")
    devices.start()
    netdev.show_as_cards(boot["nics"])
    rootfs.share()
    supervisor.selector.register(devices.descriptor, 1, devices.written)
    supervisor.operations["disks"] = devices.refresh
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/run/lab/init.sock")
    listener.listen(64)
    # Last: who sees this file may use the machine.
    Path("/run/lab/pid").write_text(f"{pid} {started}\n")
    supervisor.serve(listener)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"the machine cannot boot: {error}")
