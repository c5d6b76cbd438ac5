"""The few Linux calls that Python's library lacks: mounts, pivot_root and inotify."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
IN_CLOSE_WRITE = 8
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2).

    Raises:
        OSError: with source and target in its text.
    """
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _checked(result, f"mount {kind or 'bind'} {source} on {target}")


def bind(source: str, target: str) -> None:
    """Mount one file or directory over another, without what is mounted below it."""
    mount(source, target, flags=MS_BIND)


def unmount(target: str) -> None:
    """Detach a mount and everything below it, at once."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def pivot_root(new_root: str) -> None:
    """Make ``new_root`` the root of this mount namespace and let go of the old one."""
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root: this is not known for {platform.machine()} machines")
    os.chdir(new_root)
    # Old and new root stacked on one directory: no place for the old one is needed.
    _checked(_libc.syscall(ctypes.c_long(number), b".", b"."), f"pivot_root {new_root}")
    unmount(".")
    os.chdir("/")


def inotify_open() -> int:
    """Return a new inotify descriptor (non-blocking, close-on-exec)."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def inotify_add(descriptor: int, path: str, mask: int) -> int:
    """Watch a path; return the watch's number, which events carry."""
    watch = _libc.inotify_add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(mask))
    return _checked(watch, f"inotify_add_watch {path}")
