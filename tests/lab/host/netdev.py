"""A machine's network cards as sysfs shows them: as cards on the PCI bus, not as veths.

LXD and others take an interface with a ``device`` in ``/sys/class/net/<name>`` for a physical
one. A veth has none, so each card's directory is covered by one with the same attributes (links
into an untouched sysfs) and a device. An attribute directory that the kernel adds later, such as
``brport``, does not show; programs that care ask the kernel by netlink.
"""

from __future__ import annotations

import os
from pathlib import Path

from lab.host import syscalls as sc

CLEAN = Path("/run/.clean/sys/devices/virtual/net")
BUS = Path("/sys/devices/pci0000:00")
FIRST_SLOT = 0x10
# A virtio network card, as machines of most clouds have.
ATTRIBUTES = {
    "vendor": "0x1af4",
    "device": "0x1000",
    "class": "0x020000",
    "numa_node": "-1",
    "uevent": "DRIVER=virtio-pci",
}


def show_as_cards(names: list[str]) -> None:
    """Cover the sysfs directories of these interfaces. Runs in the machine, once per boot."""
    cover = Path("/run/.clean/net")
    cover.mkdir()
    for index, name in enumerate(names):
        if not (CLEAN / name).is_dir():
            continue
        directory = cover / name
        directory.mkdir()
        for entry in os.scandir(CLEAN / name):
            (directory / entry.name).symlink_to(entry.path)
        device = _device(f"0000:00:{FIRST_SLOT + index:02x}.0")
        (directory / "device").symlink_to(device)
        sc.bind(str(directory), f"/sys/devices/virtual/net/{name}")


def _device(address: str) -> Path:
    """Make a PCI device; return its path."""
    bus = BUS / "bus/pci"
    bus.mkdir(parents=True, exist_ok=True)
    place = BUS / address
    place.mkdir()
    for name, value in ATTRIBUTES.items():
        (place / name).write_text(f"{value}\n")
    (place / "subsystem").symlink_to(bus)
    driver = BUS / "drivers/virtio_net"
    driver.mkdir(parents=True, exist_ok=True)
    (place / "driver").symlink_to(driver)
    return place
