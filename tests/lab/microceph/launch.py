"""What the snap's services run: `python -m lab.microceph.launch SERVICE`, in the foreground.

As in MicroCeph there is one service for all OSDs of a machine. It starts every OSD that is ready
when it starts, and those that came since when it gets SIGHUP. An OSD that dies stays down until
one of both happens again.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lab.microceph import paths
from lab.microcluster.cluster import log

# A manager loads every module below its module path, 10 MB and more apiece: these are what a
# cloud asks for.
MODULES = ("status", "orchestrator", "volumes")
# Ceph calls the cluster ill when one of these is missing. Some would do what MicroCeph's Ceph
# does otherwise: devicehealth makes a pool of its own, where newer managers use `.mgr`.
IDLE_MODULES = (
    "balancer", "crash", "devicehealth", "pg_autoscaler", "progress", "rbd_support", "telemetry",
)  # fmt: skip
IDLE_SOURCE = Path(__file__).with_name("mgr_idle")
MODULE_SOURCE = Path("/usr/share/ceph/mgr")
MODULE_LIBRARIES = ("mgr_module.py", "mgr_util.py")


def ready_file() -> Path:
    """Where the OSD service says that it understands SIGHUP: its pid."""
    return paths.RUN / "osd.ready"


def _exec(program: str, *argv: str) -> NoReturn:
    os.execvp(program, [program, "-f", "-c", str(paths.CEPH_CONF), "--cluster", "ceph", *argv])


def _mon() -> NoReturn:
    _exec("ceph-mon", "--id", socket.gethostname())


def _mgr() -> NoReturn:
    paths.MGR_MODULES.mkdir(parents=True, exist_ok=True)
    wanted = {name: MODULE_SOURCE / name for name in (*MODULE_LIBRARIES, *MODULES)}
    wanted |= dict.fromkeys(IDLE_MODULES, IDLE_SOURCE)
    for name, source in wanted.items():
        link = paths.MGR_MODULES / name
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    _exec("ceph-mgr", "--id", socket.gethostname())


def _mds() -> NoReturn:
    _exec("ceph-mds", "--id", socket.gethostname())


def _rgw() -> NoReturn:
    _exec("radosgw", "--id", "radosgw.gateway", *paths.RGW_CONF.read_text().splitlines())


class Osds:
    """The OSDs of this machine, as children of this process."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start_ready(self) -> None:
        """Start every OSD that is ready and does not run."""
        for directory in sorted((paths.DATA / "osd").glob("ceph-*")):
            number = int(directory.name.removeprefix("ceph-"))
            child = self._children.get(number)
            if (directory / "ready").exists() and (child is None or child.poll() is not None):
                self._children[number] = subprocess.Popen(
                    ["ceph-osd", "-f", "-c", str(paths.CEPH_CONF), "--cluster", "ceph",
                     "--pid-file", str(paths.osd_pid(number)), "--id", str(number)],
                    stdin=subprocess.DEVNULL,
                )  # fmt: skip

    def reap(self) -> None:
        """Say which OSDs have ended."""
        for number, child in list(self._children.items()):
            if child.poll() is not None:
                log(f"osd.{number} has ended with status {child.returncode}")
                del self._children[number]

    def stop(self) -> None:
        """End all of them, by force after 20 seconds."""
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(5)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal that only has to end the wait for one."""


def _osd() -> int:
    wanted = (signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    for number in wanted:
        signal.signal(number, _nothing)
    osds = Osds()
    # The children must not inherit the blocked signals.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
    osds.start_ready()
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    ready_file().write_text(str(os.getpid()))
    while True:
        # A child may have ended before its signal was blocked again, so look every second as well.
        got = signal.sigtimedwait(wanted, 1)
        if got is not None and got.si_signo == signal.SIGTERM:
            osds.stop()
            return 0
        osds.reap()
        if got is not None and got.si_signo == signal.SIGHUP:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
            osds.start_ready()
            signal.pthread_sigmask(signal.SIG_BLOCK, wanted)


SERVICES = {"mon": _mon, "mgr": _mgr, "mds": _mds, "rgw": _rgw, "osd": _osd}


def main() -> int:
    """Run the service that the command line names; its exit status."""
    # Who started this may ignore signals, and a program keeps what is ignored: nothing stops it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    paths.create()
    return SERVICES[sys.argv[1]]()


if __name__ == "__main__":
    sys.exit(main())
