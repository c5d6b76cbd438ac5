"""Commands that a machine has instead of the host's: ``snap``, and what a missing kernel needs.

The host's LXD binaries are hidden, so that a machine has ``lxc`` only once the snap is
installed; the snap's launchers run them from a directory that all machines of a lab share.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

from lab.layout import PACKAGE_PARENT, Lab

# Binaries of the host that are reached through the lab's payload directory only.
PAYLOAD = ("lxd", "lxc", "lxcfs", "ovs-vsctl")
HIDDEN = ("lxd", "lxc")

_SNAP = """#!/bin/sh
PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 exec {python} -m lab.snapd "$@"
"""

# There is no openvswitch kernel module, so every bridge gets the userspace datapath. That one
# forwards packets whose checksum is still to be computed as they are, so the other end of a
# veth that is plugged into a bridge (a container's card, before it is moved) computes its own.
_OVS_VSCTL = """#!/bin/sh
real={payload}/ovs-vsctl
case " $* " in *" add-br "* | *" add-port "*) ;; *) exec "$real" "$@" ;; esac
extra= word= previous=
for word in "$@"; do
  case $previous in
  add-br) extra="$extra -- set bridge $word datapath_type=netdev" ;;
  add-port) port=bridge ;;
  *)
    if [ "$port" = bridge ] && [ "${{previous#-}}" = "$previous" ]; then
      port=
      if [ -e "/sys/class/net/$word" ]; then
        ethtool -K "$word" tx off >/dev/null 2>&1
        peer=$(ip -o link show dev "$word" 2>/dev/null | cut -d: -f2)
        case $peer in *@*) peer=${{peer#*@}} ;; *) peer= ;; esac
        case $peer in '' | if[0-9]*) ;; *) ethtool -K "$peer" tx off >/dev/null 2>&1 ;; esac
      fi
    fi ;;
  esac
  previous=$word
done
exec "$real" "$@" $extra
"""


def install(lab: Lab, home: Path) -> None:
    """Put the commands into a new machine's directory."""
    payload = lab.root / "payload"
    _fill_payload(lab, payload)
    binaries = home / "overlay/usr/upper/bin"
    binaries.mkdir(parents=True, exist_ok=True)
    _write(binaries / "snap", _SNAP.format(path=PACKAGE_PARENT, python=sys.executable))
    if (payload / "ovs-vsctl").exists():
        _write(binaries / "ovs-vsctl", _OVS_VSCTL.format(payload=payload))
    for name in HIDDEN:
        # An overlay's way to say "not there".
        os.mknod(binaries / name, stat.S_IFCHR, os.makedev(0, 0))


def _fill_payload(lab: Lab, payload: Path) -> None:
    with lab.lock("payload"):
        payload.mkdir(parents=True, exist_ok=True)
        for name in PAYLOAD:
            source = shutil.which(name)
            if source and not (payload / name).exists():
                partial = payload / f".{name}"
                shutil.copy2(source, partial)
                partial.replace(payload / name)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
