"""What the machine itself tells of its disks: the real Probe of machine.disks.

It reads /proc and /sys, runs wipefs without writing, and opens devices for reading only. Each
question is bounded in time; one that gets no answer counts as a reason not to take the disk.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

_BLUESTORE = b"bluestore block device\n"
_SECTOR = 512
_NAMES = {
    "LVM2_member": "an LVM physical volume",
    "LVM1_member": "an LVM physical volume",
    "crypto_LUKS": "a LUKS encrypted volume",
    "linux_raid_member": "a member of an MD array",
    "ddf_raid_member": "a member of a RAID set",
    "zfs_member": "a member of a ZFS pool",
    "bcache": "a bcache device",
    "ceph_bluestore": "Ceph BlueStore data",
    "swap": "swap space",
}
_TABLES = ("gpt", "dos", "mac", "sun", "bsd", "atari", "sgi")
_HOLDERS = (("dm-", "device mapper"), ("md", "MD array"), ("bcache", "bcache"))


class HostProbe:
    """The machine this runs on. What it has read of mounts and links it keeps: use it once.

    `timeout` in seconds is for one question about one disk. The roots are for tests.
    """

    def __init__(
        self,
        *,
        timeout: float = 10,
        sys: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        dev: Path = Path("/dev"),
    ) -> None:
        self._timeout = timeout
        self._block = sys / "class" / "block"
        self._proc = proc
        self._dev = dev

    def links(self) -> Mapping[str, str]:
        """The links below /dev/disk that tell disks apart for good."""
        return self._links

    @cached_property
    def _links(self) -> dict[str, str]:
        links: dict[str, str] = {}
        for folder in ("by-id", "by-path"):
            for link in sorted(self._dev.glob(f"disk/{folder}/*")):
                if name := self.resolve(str(link)):
                    links[f"/dev/disk/{folder}/{link.name}"] = name
        return links

    def resolve(self, path: str) -> str | None:
        """The kernel's name of the block device at a path."""
        try:
            real = Path(path).resolve(strict=True)
            status = real.stat()
        except (OSError, ValueError, RuntimeError):
            return None
        if not stat.S_ISBLK(status.st_mode):
            return None
        # A node may have any name; its number is what counts.
        return self._names_by_number.get(_number(status.st_rdev), real.name)

    @cached_property
    def _names_by_number(self) -> dict[str, str]:
        if not self._block.is_dir():
            return {}
        return {_read(entry / "dev"): entry.name for entry in self._block.iterdir()}

    def facts(self, name: str) -> Mapping[str, object] | None:
        """A device as LXD would describe it, from /sys; None for what is no whole device."""
        entry = self._block / name
        if not entry.is_dir() or (entry / "partition").exists():
            return None
        return {
            "id": name,
            "device": _read(entry / "dev"),
            "model": _read(entry / "device" / "model"),
            "size": int(_read(entry / "size") or 0) * _SECTOR,
            "read_only": _read(entry / "ro") == "1",
            "removable": _read(entry / "removable") == "1",
        }

    def partitions(self, name: str) -> Sequence[str]:
        """The partitions that the kernel has found."""
        return sorted(entry.parent.name for entry in (self._block / name).glob("*/partition"))

    def uses(self, name: str) -> Sequence[str]:
        """Mounts, swap and holders; failing these, that something has the device for itself."""
        found = [f"is mounted on {target}" for target in self._mounts.get(name, ())]
        if name in self._swaps:
            found.append("is swap space in use")
        found += self._held_by(name)
        if not found and not self.partitions(name) and self._is_busy(name):
            found.append("is in use: something on this machine has opened it for itself alone")
        return found

    def _held_by(self, name: str) -> Iterator[str]:
        holders = self._block / name / "holders"
        for holder in sorted(holders.iterdir() if holders.is_dir() else ()):
            kinds = (kind for prefix, kind in _HOLDERS if holder.name.startswith(prefix))
            kind = next(kinds, "another device")
            label = _read(self._block / holder.name / "dm" / "name")
            targets = ", ".join(self._mounts.get(holder.name, ()))
            yield (
                f"is held by {holder.name} ({kind}{' ' + label if label else ''}"
                f"{', mounted on ' + targets if targets else ''})"
            )

    @cached_property
    def _mounts(self) -> dict[str, list[str]]:
        """Where each device is mounted. Device numbers are compared, not names."""
        mounts: dict[str, list[str]] = {}
        for line in _read(self._proc / "self" / "mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            words, kind = before.split(), after.split()
            if len(words) < 5 or len(kind) < 2:
                continue
            # btrfs shows a number that is no device's; what it was mounted from is one.
            name = self._names_by_number.get(words[2])
            if name is None and kind[1].startswith("/dev/"):
                name = self.resolve(_unescape(kind[1]))
            if name is not None and _unescape(words[4]) not in mounts.get(name, ()):
                mounts.setdefault(name, []).append(_unescape(words[4]))
        return mounts

    @cached_property
    def _swaps(self) -> frozenset[str]:
        lines = _read(self._proc / "swaps").splitlines()[1:]
        names = (self.resolve(_unescape(line.split()[0])) for line in lines if line.split())
        return frozenset(name for name in names if name)

    def _is_busy(self, name: str) -> bool:
        """Whether the kernel would not let this process have the device for itself.

        This finds ZFS and multi-device btrfs, which show no holder.
        """
        try:
            handle = os.open(self._dev / name, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK)
        except OSError as fault:
            return fault.errno == errno.EBUSY
        os.close(handle)
        return False

    def signatures(self, name: str) -> Sequence[str]:
        """What data the device holds, as wipefs and BlueStore's own label tell."""
        device = self._dev / name
        if (bluestore := self._bluestore(device)) is not None:
            return (bluestore,)
        command = ["wipefs", "--no-act", "--json", "--", str(device)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._timeout, check=True
            )
            found = json.loads(done.stdout or "{}").get("signatures") or ()
        except subprocess.TimeoutExpired:
            return (f"what cannot be told: wipefs did not answer in {self._timeout:g} s",)
        except subprocess.CalledProcessError as fault:
            # No medium is no data; anything else is not known to be none.
            if "No medium" in fault.stderr:
                return ()
            return (f"what cannot be told: {_last_line(fault.stderr)}",)
        except (OSError, ValueError) as fault:
            return (f"what cannot be told: {fault}",)
        # A primary and a backup copy of one signature are one piece of news.
        return tuple(dict.fromkeys(describe(signature) for signature in found))

    def _bluestore(self, device: Path) -> str | None:
        try:
            handle = os.open(device, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            return describe_bluestore(os.read(handle, 4096))
        except OSError:
            return None
        finally:
            os.close(handle)


def describe(signature: Mapping[str, Any]) -> str:
    """One signature that wipefs lists, for a person: `an ext4 file system labelled data`."""
    kind = str(signature.get("type") or "unknown data")
    label = signature.get("label")
    if kind in _TABLES:
        return f"a partition table ({kind})"
    if kind in _NAMES:
        return _NAMES[kind] + (f" labelled {label}" if label else "")
    article = "an" if kind[0] in "aeiouAEIOUx" else "a"
    return f"{article} {kind} file system" + (f" labelled {label}" if label else "")


def describe_bluestore(head: bytes) -> str | None:
    """What BlueStore's label says, None if a device's first bytes are none.

    Its fields are a map of texts, each with its length before it in four bytes.
    """
    if not head.startswith(_BLUESTORE):
        return None
    fsid = re.search(rb"ceph_fsid\x24\0\0\0([0-9a-f-]{36})", head)
    number = re.search(rb"whoami[\x01-\x0a]\0\0\0([0-9]{1,10})", head)
    osd = f" of osd.{number[1].decode()}" if number else ""
    cluster = f" in the Ceph cluster {fsid[1].decode()}" if fsid else ""
    return f"Ceph BlueStore data{osd}{cluster}"


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _unescape(text: str) -> str:
    """Paths in /proc have spaces and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "wipefs failed without a word"
