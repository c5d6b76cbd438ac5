"""Whether this machine can encrypt disks for Ceph: found out before any disk is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import snaps

CONTROL = Path("/dev/mapper/control")
MODULE = Path("/sys/module/dm_crypt")
PLUG = "microceph:dm-crypt"


def unsupported() -> Iterator[str]:
    """Every reason why it cannot, with what to do; raises CharmError if snapd does not tell."""
    if not CONTROL.exists():
        yield f"this machine cannot encrypt disks: it has no {CONTROL} (device mapper)"
    if not MODULE.exists():
        yield "this machine cannot encrypt disks: its kernel has not loaded dm_crypt; modprobe it"
    rows = [line.split() for line in snaps.run("connections", "microceph").splitlines()]
    slots = {row[1]: row[2] for row in rows if len(row) > 2}
    if slots.get(PLUG, "-") == "-":
        yield (
            f"MicroCeph may not encrypt disks: run `snap connect {PLUG}` and `snap restart "
            "microceph.daemon` on this machine"
        )
