"""`rbd map`, `unmap`, `showmapped` and `resize` without the rbd kernel module.

An image is exported as a file by qemu-storage-daemon (FUSE), a loop device makes a block device
of the file, and `/dev/rbdN` with `/sys/devices/rbd/N` show it as the kernel would; both
directories are the machine's own. LXD runs this in place of `rbd`, with exit statuses that it
knows: 22 not mapped, 16 in use. Any other command is left to the real `rbd`. It is run by file
name, outside the package, so it imports nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

REAL = "/usr/bin/rbd"
DEVICES = Path("/sys/devices/rbd")
RUN = Path("/run/rbd-map")
NOT_MAPPED, BUSY = 22, 16
WITH_VALUE = frozenset(
    (
        "--id",
        "--name",
        "-n",
        "--cluster",
        "--pool",
        "-p",
        "--image",
        "--snap",
        "--size",
        "-s",
        "--image-feature",
        "--data-pool",
        "-c",
        "--conf",
        "-t",
        "--device-type",
        "--namespace",
        "--format",
        "-o",
        "--options",
        "-m",
        "-k",
        "--keyring",
    )
)
UNITS = {"B": 1, "K": 1 << 10, "": 1 << 20, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class RbdError(Exception):
    """A failure with the exit status that `rbd` would have."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Image:
    """An image, or a snapshot of one (`snap` is `-` for the image itself)."""

    pool: str
    name: str
    snap: str = "-"


@dataclass(frozen=True)
class Mapping:
    """A mapped image: its number, and the loop device behind it."""

    number: int
    image: Image

    @property
    def device(self) -> Path:
        return Path(f"/dev/rbd{self.number}")

    @property
    def directory(self) -> Path:
        return DEVICES / str(self.number)

    @property
    def export(self) -> Path:
        # A name that no other machine has: by it the host knows whose loop device it is behind.
        return RUN / f"{RUN.stat().st_dev}-{self.number}.img"

    @property
    def pid_file(self) -> Path:
        return RUN / f"{self.number}.pid"

    @property
    def monitor(self) -> Path:
        return RUN / f"{self.number}.qmp"

    @property
    def loop(self) -> str:
        return (self.directory / "loop").read_text().strip()


def parse(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options by their name, and the words that are none."""
    options: dict[str, str] = {}
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in WITH_VALUE:
            options[word] = next(rest, "")
        elif word.startswith("-"):
            name, _, value = word.partition("=")
            options[name] = value
        else:
            words.append(word)
    return options, words


def image_of(spec: str, options: dict[str, str]) -> Image:
    """`[POOL/]NAME[@SNAP]`, with the options that say the same."""
    pool = options.get("--pool") or options.get("-p") or "rbd"
    snap = options.get("--snap") or "-"
    if "/" in spec:
        pool, spec = spec.split("/", 1)
    if "@" in spec:
        spec, snap = spec.split("@", 1)
    return Image(pool, spec, snap)


def mapped() -> list[Mapping]:
    """What is mapped on this machine, in the order of the numbers."""
    found: list[Mapping] = []
    for directory in DEVICES.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pool, name, snap = (
                (directory / part).read_text().strip() for part in ("pool", "name", "current_snap")
            )
            found.append(Mapping(int(directory.name), Image(pool, name, snap)))
    return sorted(found, key=lambda mapping: mapping.number)


# map


def map_image(spec: str, options: dict[str, str]) -> None:
    """Map an image and print the device; RbdError when that fails, nothing is left then."""
    mapping = Mapping(_free_number(), image_of(spec, options))
    mapping.export.touch()
    try:
        _start_export(mapping, options)
        loop = _attach_loop(mapping)
        device = os.stat(loop).st_rdev
        mapping.device.unlink(missing_ok=True)
        os.mknod(mapping.device, stat.S_IFBLK | 0o660, device)
        image = mapping.image
        for part, value in (
            ("loop", loop), ("pool", image.pool), ("name", image.name),
            ("current_snap", image.snap),
        ):  # fmt: skip
            (mapping.directory / part).write_text(f"{value}\n")
    except RbdError:
        _stop_export(mapping)
        raise
    print(mapping.device)


def _free_number() -> int:
    """Take a number by making its directory; a lock would make others wait for a slow map."""
    for number in range(4096):
        try:
            (DEVICES / str(number)).mkdir()
        except FileExistsError:
            continue
        return number
    raise RbdError("rbd: map failed: 4096 images are mapped already", BUSY)


def _start_export(mapping: Mapping, options: dict[str, str]) -> None:
    image = mapping.image
    writable = image.snap == "-"
    conf = (
        options.get("-c")
        or options.get("--conf")
        or f"/etc/ceph/{options.get('--cluster', 'ceph')}.conf"
    )
    user = options.get("--id") or options.get("--name", "client.admin").removeprefix("client.")
    drive = f"driver=rbd,node-name=d,pool={image.pool},image={image.name},conf={conf},user={user}"
    drive += ",discard=unmap" if writable else f",snapshot={image.snap},read-only=on"
    export = f"type=fuse,id=e,node-name=d,mountpoint={mapping.export},allow-other=off,growable=off"
    _run(
        "qemu-storage-daemon", "--daemonize", "--pidfile", str(mapping.pid_file),
        "--chardev", f"socket,id=m,path={mapping.monitor},server=on,wait=off",
        "--monitor", "chardev=m",
        "--blockdev", drive, "--export", export + (",writable=on" if writable else ""),
    )  # fmt: skip


def _attach_loop(mapping: Mapping) -> str:
    read_only = [] if mapping.image.snap == "-" else ["--read-only"]
    return _run("losetup", "--find", "--show", *read_only, str(mapping.export)).strip()


def _run(*argv: str) -> str:
    """Run a program of this machine; RbdError with its words when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as error:
        text = f"rbd: map failed: {argv[0]} is not installed on this host (qemu-system-common)"
        raise RbdError(text, 2) from error
    except subprocess.TimeoutExpired as error:
        raise RbdError(f"rbd: map failed: {argv[0]} did not end within 60 s", 110) from error
    if done.returncode:
        status = 2 if "No such file" in done.stderr else 1
        raise RbdError(f"rbd: map failed: {done.stderr.strip()}", status)
    return done.stdout


# unmap


def unmap(spec: str, options: dict[str, str]) -> None:
    """Take a mapping away; RbdError 22 when there is none, 16 when it is in use."""
    wanted = image_of(spec, options)
    for mapping in mapped():
        if str(mapping.device) == spec or mapping.image == wanted:
            break
    else:
        raise RbdError(
            f"rbd: {spec}: not a mapped image or snapshot\n"
            "rbd: unmap failed: (22) Invalid argument",
            NOT_MAPPED,
        )
    loop = mapping.loop
    if _is_mounted(os.stat(loop).st_rdev):
        text = "rbd: sysfs write failed\nrbd: unmap failed: (16) Device or resource busy"
        raise RbdError(text, BUSY)
    subprocess.run(["blockdev", "--flushbufs", loop], check=False, capture_output=True, timeout=60)
    subprocess.run(["losetup", "-d", loop], check=False, capture_output=True, timeout=60)
    _wait_until(lambda: not _attached(loop), 5)
    _stop_export(mapping)


def _attached(loop: str) -> bool:
    return Path("/sys/devices/virtual/block", Path(loop).name, "loop/backing_file").exists()


def _is_mounted(device: int) -> bool:
    """Whether any process of this machine sees a file system mounted from the device."""
    number = f" {os.major(device)}:{os.minor(device)} "
    seen: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            namespace = os.readlink(process / "ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            if number in (process / "mountinfo").read_text(errors="replace"):
                return True
    return False


def _stop_export(mapping: Mapping) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int(mapping.pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        _wait_until(lambda: not _alive(pid), 10)
    subprocess.run(
        ["umount", "-l", str(mapping.export)], check=False, capture_output=True, timeout=60
    )
    mapping.device.unlink(missing_ok=True)
    shutil.rmtree(mapping.directory, ignore_errors=True)
    for path in (mapping.export, mapping.monitor, mapping.pid_file):
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


# resize


def resize(words: list[str], options: dict[str, str], arguments: Sequence[str]) -> None:
    """Resize an image: through its daemon when it is mapped here, else by the real `rbd`."""
    wanted = image_of(options.get("--image") or (words[1] if len(words) > 1 else ""), options)
    hits = [mapping for mapping in mapped() if mapping.image == wanted]
    if not hits:
        os.execv(REAL, ["rbd", *arguments])
    size = size_of(options.get("--size") or options.get("-s") or "")
    for mapping in hits:
        _ask_daemon(mapping, "block_resize", {"node-name": "d", "size": size})
        # The kernel asks the file system for the new size only when it does not trust its cache.
        _run("stat", "--cached=never", str(mapping.export))
        _run("losetup", "-c", mapping.loop)


def size_of(text: str) -> int:
    """`10G`, `512` (MiB), `1048576B` in bytes; RbdError otherwise."""
    match = re.fullmatch(r"(\d+)([BKMGT]?)(?:i?B)?", text)
    if not match:
        raise RbdError(f"rbd: invalid size {text!r}", 1)
    return int(match[1]) * UNITS[match[2]]


def _ask_daemon(mapping: Mapping, command: str, arguments: dict[str, object]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(mapping.monitor))
        stream = connection.makefile("rw")
        stream.readline()  # the greeting
        for request in (
            {"execute": "qmp_capabilities"},
            {"execute": command, "arguments": arguments},
        ):
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            answer: dict[str, dict[str, str]] = {}
            while "return" not in answer and "error" not in answer:
                answer = json.loads(stream.readline())
            if "error" in answer:
                raise RbdError(f"rbd: resize error: {answer['error']['desc']}", 1)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; its exit status."""
    options, words = parse(arguments)
    if words[:1] == ["device"]:
        words = words[1:]
    command = words[0] if words else ""
    if command not in ("map", "unmap", "showmapped", "resize"):
        os.execv(REAL, ["rbd", *arguments])
    RUN.mkdir(parents=True, exist_ok=True)
    try:
        if command == "showmapped":
            print("id pool image snap device")
            for m in mapped():
                print(m.number, m.image.pool, m.image.name, m.image.snap, m.device)
        elif command == "resize":
            resize(words, options, arguments)
        elif len(words) < 2:
            raise RbdError(f"rbd: {command}: image name was not specified", NOT_MAPPED)
        else:
            (map_image if command == "map" else unmap)(words[1], options)
    except RbdError as error:
        print(error, file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
