"""A tiny container image for tests: a static busybox with a web server, about 1 MB.

Imported into LXD as any image (``lxc image import PATH --alias mini``). A container of it gets
an address by DHCP on eth0 and serves ``/index.html`` (its host name) and ``/blob`` (5 MB).
"""

from __future__ import annotations

import io
import shutil
import tarfile
import time
from pathlib import Path

from lab.errors import LabError
from lab.host.commands import run
from lab.layout import Lab

DIRECTORIES = ("bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/run")
METADATA = """architecture: {architecture}
creation_date: {date}
properties: {{os: busybox, release: "1", description: busybox mini}}
templates:
  /etc/hostname: {{when: [create, copy, rename], template: hostname.tpl}}
"""
INITTAB = """::sysinit:/etc/rc
::respawn:/bin/httpd -f -p 80 -h /root
::shutdown:/bin/true
"""
RC = """#!/bin/sh
ip link set lo up
[ -e /etc/resolv.conf ] || : >/etc/resolv.conf
hostname >/root/index.html
[ -e /root/blob ] || dd if=/dev/zero of=/root/blob bs=1M count=5 2>/dev/null
ip link set eth0 up 2>/dev/null || exit 0
(while ! udhcpc -i eth0 -q -n -t 3 -T 1 -s /etc/udhcpc.script; do sleep 1; done) \
  >/run/udhcpc.log 2>&1 &
"""
DHCP = """#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/$mask dev $interface
[ -n "$mtu" ] && ip link set $interface mtu $mtu
for r in $router; do ip route add default via $r dev $interface; done
for d in $dns; do echo nameserver $d; done >/etc/resolv.conf
"""


def build(lab: Lab) -> Path:
    """Return the path of the lab's image, which is made if it is not there.

    Raises:
        LabError: the host has no static busybox.
    """
    path = lab.root / "mini.tar.xz"
    with lab.lock("image"):
        if not path.exists():
            partial = lab.root / "mini.new.tar.xz"
            _write(partial)
            partial.replace(path)
    return path


def _write(path: Path) -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        raise LabError("busybox is not installed on this host: install busybox-static")
    applets = run([busybox, "--list"]).stdout.split()
    architecture = run(["uname", "-m"]).stdout.strip()
    # The quickest level: the image is small and read once.
    with tarfile.open(path, "w:xz", preset=0) as archive:
        now = int(time.time())
        metadata = METADATA.format(architecture=architecture, date=now)
        _add(archive, "metadata.yaml", metadata)
        _add(archive, "templates/hostname.tpl", "{{ container.name }}\n")
        for name in DIRECTORIES:
            _add_directory(archive, f"rootfs/{name}", 0o1777 if name == "tmp" else 0o755)
        _add(archive, "rootfs/bin/busybox", Path(busybox).read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                _add_link(archive, f"rootfs/bin/{applet}", "/bin/busybox")
        _add_link(archive, "rootfs/sbin/init", "/bin/busybox")
        _add(archive, "rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        _add(archive, "rootfs/etc/group", "root:x:0:\n")
        _add(archive, "rootfs/etc/hosts", "127.0.0.1 localhost\n")
        _add(archive, "rootfs/etc/hostname", "mini\n")
        _add(archive, "rootfs/etc/inittab", INITTAB)
        _add(archive, "rootfs/etc/rc", RC, 0o755)
        _add(archive, "rootfs/etc/udhcpc.script", DHCP, 0o755)


def _add(archive: tarfile.TarFile, name: str, content: str | bytes, mode: int = 0o644) -> None:
    data = content.encode() if isinstance(content, str) else content
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _add_directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    archive.addfile(entry)
