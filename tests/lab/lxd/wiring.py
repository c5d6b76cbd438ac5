"""What the LXD snap's launcher does before it becomes the daemon: links to Ceph and OVN, lxcfs.

The real snap does this in a mount namespace of its own. Here the links are the machine's own
``/etc/ceph``, ``/etc/ovn`` and ``/run/openvswitch``, ``/run/ovn``, made only where no other
directory with content is in the way.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.errors import LabError
from lab.snapd import catalog, machine_facts

DATA = Path("/var/snap/lxd/current")
COMMON = Path("/var/snap/lxd/common")
_CERTIFICATES = DATA / "microovn/certificates/pki"
_CHASSIS = DATA / "microovn/chassis"
# Where LXD looks, and what it finds there when the snap that offers it is connected.
LINKS = {
    Path("/etc/ceph"): DATA / "microceph/conf",
    Path("/etc/ovn/cert_host"): _CERTIFICATES / "client-cert.pem",
    Path("/etc/ovn/key_host"): _CERTIFICATES / "client-privkey.pem",
    Path("/etc/ovn/ovn-central.crt"): _CERTIFICATES / "cacert.pem",
    Path("/run/openvswitch"): _CHASSIS / "switch",
    Path("/run/ovn"): _CHASSIS / "ovn",
}
LINKS_LOCK = Path("/run/lxd-links.lock")
LXCFS_PID = Path("/run/lxcfs.pid")


def binary(name: str) -> Path:
    """The real program behind one of the snap's commands."""
    return Path(machine_facts.load().payload, name)


def link_all() -> None:
    """Make the links for what is connected now, and remove those for what is not.

    One at a time: snaps that are installed at the same time come here at the same time.
    """
    with LINKS_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _link_all()


def _link_all() -> None:
    for link, target in LINKS.items():
        if not _connected(target):
            if link.is_symlink() and os.readlink(link) == str(target):
                link.unlink()
                if link.parent == Path("/etc"):
                    link.mkdir()
            continue
        if link.is_dir() and not link.is_symlink():
            try:
                link.rmdir()
            except OSError:
                continue  # somebody's own files: what is there wins
        if not link.is_symlink() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)


def _connected(target: Path) -> bool:
    """Whether the directory that a connection provides for this target is there."""
    return target.exists() or target.parent.is_symlink() or target.is_symlink()


def start_lxcfs() -> None:
    """Run lxcfs if it does not run; it outlives the daemon, containers depend on it."""
    if _lxcfs_pid() is not None:
        return
    where = Path("/var/lib/lxcfs")
    where.mkdir(exist_ok=True)
    with open("/var/log/lab/lxcfs.log", "ab") as log:
        process = subprocess.Popen(
            [str(binary("lxcfs")), "-p", "/run/lxcfs.lock", str(where)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    LXCFS_PID.write_text(str(process.pid))


def stop_lxcfs() -> None:
    """Stop lxcfs and wait for up to 3 s until it has gone."""
    end = time.monotonic() + 3
    while (pid := _lxcfs_pid()) is not None and time.monotonic() < end:
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    LXCFS_PID.unlink(missing_ok=True)


def _lxcfs_pid() -> int | None:
    try:
        pid = int(LXCFS_PID.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"lxcfs" in command else None


def _shims() -> list[catalog.Shim]:
    """What other snaps of the catalogue put around LXD; one that fails is left out and named."""
    found: list[catalog.Shim] = []
    for snap in catalog.store().values():
        if "lxd" in snap.shims:
            try:
                found.append(snap.shims["lxd"]())
            except LabError as error:
                print(f"LXD runs without what {snap.name} adds to it: {error}", flush=True)
    return found


def main() -> None:
    """Prepare, then become the daemon."""
    link_all()
    start_lxcfs()
    path, prefix = [os.environ["PATH"]], list[str]()
    environment = {**os.environ, "LXD_DIR": str(COMMON / "lxd")}
    for shim in _shims():
        path = [*shim.path, *path]
        prefix += shim.prefix
        environment.update(shim.env)
    environment["PATH"] = ":".join(path)
    environment.pop("PYTHONPATH", None)
    logs = COMMON / "lxd/logs"
    logs.mkdir(parents=True, exist_ok=True)
    argv = [*prefix, str(binary("lxd")), "--group", "lxd", f"--logfile={logs}/lxd.log"]
    os.execvpe(argv[0], argv, environment)


if __name__ == "__main__":
    sys.exit(main())
