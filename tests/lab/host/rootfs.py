"""The file tree of a machine, built by its PID 1 before anything else runs.

The root is a small tmpfs. System directories are overlays: the host's are below, what the
machine changes is kept in its own directory. Directories whose programs do not work on an
overlay (sockets, extended attributes, big files) are real directories of the machine. Every
other top-level directory of the host, ``/srv`` above all, is shared as it is.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.host import syscalls as sc

CHECKOUT = Path(__file__).resolve().parents[3]
OVERLAYS = ("etc", "var", "root", "home", "opt", "usr")
OWN = ("proc", "sys", "dev", "run", "tmp", "mnt", "media", "snap")
NEVER = ("lost+found", "old_root", "boot")
# Real directories of the machine, mounted over the overlays.
REAL = (
    "var/snap",
    "var/log",
    "var/lib/juju",
    "var/lib/ceph",
    "var/lib/ovn",
    "var/lib/openvswitch",
    "var/cache/lxd",
    "etc/ovn",
    "etc/openvswitch",
)
# Made empty in the overlay: what the host's packages or their users put there is hidden.
EMPTIED = ("etc/ceph", "var/lib/lxcfs", "var/lib/cloud", "var/tmp")
_NODES = {
    "null": (1, 3, 0o666),
    "zero": (1, 5, 0o666),
    "full": (1, 7, 0o666),
    "random": (1, 8, 0o666),
    "urandom": (1, 9, 0o666),
    "kmsg": (1, 11, 0o600),
    "tty": (5, 0, 0o666),
    "fuse": (10, 229, 0o666),
    "net/tun": (10, 200, 0o666),
    "loop-control": (10, 237, 0o660),
}
LOOP_NODES = 256


@dataclass(frozen=True)
class Hierarchy:
    """A cgroup hierarchy to mount: its directory below /sys/fs/cgroup ('' for the only one)."""

    directory: str
    kind: str
    options: str


def prepare(home: Path, hostname: str, address: str, machine_id: str) -> None:
    """Make the machine's directories, once, when it is created (on the host)."""
    for name in OVERLAYS:
        (home / "overlay" / name / "upper").mkdir(parents=True, exist_ok=True)
        (home / "overlay" / name / "work").mkdir(parents=True, exist_ok=True)
    for name in REAL:
        (home / "real" / name).mkdir(parents=True, exist_ok=True)
        _copy_skeleton(Path("/", name), home / "real" / name)
    for name in EMPTIED:
        _empty(home, name)
    for name in ("boot", "tmp", "run", "services", "snap", "shims"):
        (home / name).mkdir(exist_ok=True)
    os.chmod(home / "tmp", 0o1777)
    etc = home / "overlay/etc/upper"
    (etc / "hostname").write_text(f"{hostname}\n", encoding="utf-8")
    (etc / "hosts").write_text(
        f"127.0.0.1 localhost\n{address or '127.0.1.1'} {hostname}\n"
        "::1 ip6-localhost ip6-loopback\n",
        encoding="utf-8",
    )
    (etc / "resolv.conf").write_text("", encoding="utf-8")
    (etc / "machine-id").write_text(f"{machine_id}\n", encoding="utf-8")
    library = home / "overlay/var/upper/lib"
    library.mkdir(exist_ok=True)
    # A bare `lxc` of the Debian package must find the daemon that the snap stand-in runs.
    (library / "lxd").symlink_to("/var/snap/lxd/common/lxd")


def _copy_skeleton(source: Path, target: Path) -> None:
    """Copy the first level of directories with owner and mode: what packages had made."""
    if not source.is_dir():
        return
    _copy_owner(source, target)
    if source in (Path("/var/snap"), Path("/var/lib/juju")):
        return
    for entry in sorted(source.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            (target / entry.name).mkdir(exist_ok=True)
            _copy_owner(entry, target / entry.name)


def _copy_owner(source: Path, target: Path) -> None:
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _empty(home: Path, name: str) -> None:
    top, _, rest = name.partition("/")
    upper = home / "overlay" / top / "upper" / rest
    upper.mkdir(parents=True, exist_ok=True)
    if Path("/", name).is_dir():
        _copy_owner(Path("/", name), upper)
    os.setxattr(upper, "trusted.overlay.opaque", b"y")


def build(home: Path, hierarchies: list[Hierarchy]) -> None:
    """Build the tree and switch to it. Runs in the machine's namespaces, as its PID 1."""
    sc.mount("", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    root = str(home / "boot")
    sc.mount("rootfs", root, "tmpfs", data="mode=755,size=64m")
    for name in OWN:
        os.mkdir(f"{root}/{name}")
    for name in sorted(os.listdir("/")):
        if name not in OWN and name not in NEVER:
            _graft(name, root, home)
    for name in REAL:
        os.makedirs(f"{root}/{name}", exist_ok=True)
        sc.bind(str(home / "real" / name), f"{root}/{name}")
    sc.bind(str(home / "snap"), f"{root}/snap")
    sc.bind(str(home / "tmp"), f"{root}/tmp")
    sc.mount("tmpfs", f"{root}/run", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755")
    _show_code(root)
    for name in ("lock", "lab", "udev/data", ".clean/proc", ".clean/sys"):
        os.makedirs(f"{root}/run/{name}")
    os.chmod(f"{root}/run/lock", 0o1777)
    sc.bind(str(home / "run"), f"{root}/run/lab")
    _pseudo_filesystems(root, hierarchies)
    _devices(f"{root}/dev")
    sc.pivot_root(root)


def _show_code(root: str) -> None:
    """Bring the lab's own code and its Python along if they stand where a machine has its own."""
    hidden = [Path("/", name) for name in (*OWN, *REAL, *EMPTIED)]
    for place in {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}:
        if any(place.is_relative_to(own) for own in hidden):
            os.makedirs(f"{root}{place}", exist_ok=True)
            sc.bind(str(place), f"{root}{place}")


def share() -> None:
    """Let mounts propagate, as on any machine. After all covering of parts of sysfs.

    Earlier, what covers a directory would cover it in the untouched copy too.
    """
    sc.mount("", "/", flags=sc.MS_REC | sc.MS_SHARED)


def _graft(name: str, root: str, home: Path) -> None:
    """Bring one of the host's top-level entries into the new root."""
    source, target = f"/{name}", f"{root}/{name}"
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif name in OVERLAYS:
        os.mkdir(target)
        sc.mount("overlay", target, "overlay", data=_overlay_options(name, home))
    elif os.path.isdir(source):
        os.mkdir(target)
        sc.bind(source, target)


def _overlay_options(name: str, home: Path) -> str:
    base = home / "overlay" / name
    return f"lowerdir=/{name},upperdir={base}/upper,workdir={base}/work"


def _pseudo_filesystems(root: str, hierarchies: list[Hierarchy]) -> None:
    usual = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
    # A second, untouched pair: the kernel lets an unprivileged container mount its own proc
    # and sysfs only where somebody already sees all of them, and parts of ours get covered.
    for target in ("", "run/.clean/"):
        sc.mount("proc", f"{root}/{target}proc", "proc", usual)
        sc.mount("sysfs", f"{root}/{target}sys", "sysfs", usual)
    base = f"{root}/sys/fs/cgroup"
    if [h.directory for h in hierarchies] != [""]:
        sc.mount("cgroup", base, "tmpfs", usual, "mode=755")
    for hierarchy in hierarchies:
        target = f"{base}/{hierarchy.directory}".rstrip("/")
        if hierarchy.directory:
            os.mkdir(target)
        options = hierarchy.options if hierarchy.kind == "cgroup" else ""
        if options.startswith("name="):
            options = f"none,{options}"
        sc.mount("cgroup", target, hierarchy.kind, usual, options)


def _devices(dev: str) -> None:
    sc.mount("dev", dev, "tmpfs", sc.MS_NOSUID, "mode=755,size=16m")
    for directory in ("net", "pts", "shm", "mqueue", "mapper", "disk/by-id", "disk/by-uuid"):
        os.makedirs(f"{dev}/{directory}")
    os.makedirs(f"{dev}/disk/by-path")
    for name, (major, minor, mode) in _NODES.items():
        _node(f"{dev}/{name}", stat.S_IFCHR | mode, os.makedev(major, minor))
    if os.path.exists("/dev/btrfs-control"):
        _node(f"{dev}/btrfs-control", stat.S_IFCHR | 0o600, os.stat("/dev/btrfs-control").st_rdev)
    for number in range(LOOP_NODES):
        _node(f"{dev}/loop{number}", stat.S_IFBLK | 0o660, os.makedev(7, number))
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ):
        os.symlink(target, f"{dev}/{name}")
    sc.mount("devpts", f"{dev}/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620,gid=5")
    sc.mount("tmpfs", f"{dev}/shm", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=1777")


def _node(path: str, mode: int, device: int) -> None:
    os.mknod(path, mode, device)
    os.chmod(path, stat.S_IMODE(mode))
