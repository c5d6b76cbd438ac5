"""Ceph as this unit sees it, for the action `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from errors import CharmError
from record import plain

if TYPE_CHECKING:
    from world import World


def describe(world: World) -> dict[str, Any]:
    """Health, disks, where services run, pools and networks; `faults` says what is not told."""
    driver = world.microceph
    told: dict[str, Any] = {}
    faults: list[str] = []
    parts = {
        "osds": lambda: [plain(osd) for osd in driver.disks()],
        "services": lambda: plain(driver.placed()),
        "networks": lambda: plain(driver.networks()),
        "health": lambda: plain(driver.health()),
        "pools": lambda: {p.name: {"copies": p.size, "rule": p.rule} for p in driver.pools()},
    }
    for name, ask in parts.items():
        try:
            told[name] = ask()
        except CharmError as fault:
            faults.append(str(fault))
    return {**told, "faults": faults}
