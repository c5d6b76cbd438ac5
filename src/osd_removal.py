"""How an OSD leaves Ceph: nothing may be lost by it, and its data moves away first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from errors import CharmError, DaemonError, Findings

if TYPE_CHECKING:
    from services.microceph import Microceph, Osd

MIN_OSDS = 3  # MicroCeph takes none out of fewer or as many; so it is with zones
TIMEOUT = 1800.0  # seconds; MicroCeph's own
PAUSE = 2.0  # seconds between two looks at Ceph
FULL = 0.85  # the part of a disk above which Ceph calls it nearly full


class NotDrained(CharmError):
    """The data of an OSD has not moved away in time; it serves as before."""


def check(driver: Microceph, osd: Osd) -> None:
    """Whether an OSD may leave.

    Raises:
        Findings: data or redundancy would be lost; every reason.
        DaemonError: Ceph does not tell.
    """
    faults = tuple(_against(driver, osd))
    if faults:
        raise Findings(f"cannot remove osd.{osd.number}: {fault}" for fault in faults)


def _against(driver: Microceph, osd: Osd) -> Iterator[str]:
    osds = driver.disks()
    if len(osds) <= MIN_OSDS:
        yield f"Ceph needs at least {MIN_OSDS} OSDs and has {len(osds)}; add a disk first"
        return
    hosts = {one.member for one in osds}
    left = {one.member for one in osds if one.number != osd.number}
    pools = driver.pools()
    copies = max((pool.size for pool in pools), default=0)
    zones = driver.zones()
    if zones:
        yield from _last_of_zone({zones.get(member, "") for member in left})
    elif len(left) < min(len(hosts), max(copies, MIN_OSDS)):
        yield (
            f"it is the only one on {osd.member}, and with OSDs on {len(left)} machines instead "
            f"of {len(hosts)}, copies of data could no longer be on as many; add a disk to "
            f"{osd.member} or to another machine first"
        )
    for pool in pools:
        if pool.size > len(osds) - 1:
            yield f"pool {pool.name} keeps {pool.size} copies, for which too few OSDs would remain"
    yield from _full(_usage(driver), osd.number)


def _last_of_zone(left: set[str]) -> Iterator[str]:
    if len(left) < MIN_OSDS:
        yield (
            f"Ceph keeps copies apart by zone, and would have OSDs in {len(left)} "
            f"({', '.join(sorted(left))}) of the {MIN_OSDS} zones that it needs; add a disk in "
            "another zone first"
        )


def _full(usage: dict[int, dict[str, Any]], number: int) -> Iterator[str]:
    used = sum(osd["kb_used_data"] for osd in usage.values())
    room = sum(osd["kb"] for one, osd in usage.items() if one != number and osd["reweight"] > 0)
    if used > room * FULL:
        yield (
            f"the others have no room for its data: {used >> 10} MiB are in use, "
            f"and they have {room >> 10} MiB, of which {FULL:.0%} may be"
        )


def _usage(driver: Microceph) -> dict[int, dict[str, Any]]:
    """What each OSD holds, as `ceph osd df` tells it."""
    return {osd["id"]: osd for osd in driver.ceph("osd", "df")["nodes"]}


def drain(driver: Microceph, osd: Osd, *, timeout: float, tell: Callable[[str], None]) -> None:
    """Move all data away from an OSD, within `timeout` seconds; `tell` is told of progress.

    Interrupted, it can be begun again. It is Ceph that is waited for, and told in time: an OSD
    whose data has nowhere to go takes it back.

    Raises:
        NotDrained: there is still data on it.
        DaemonError: Ceph does not answer.
    """
    name = f"osd.{osd.number}"
    usage = _usage(driver).get(osd.number)
    if usage is None:
        return  # MicroCeph has it, Ceph has not: half removed
    weight = usage["crush_weight"] or usage["kb"] / (1 << 30)
    deadline = time.monotonic() + timeout
    driver.ceph("osd", "crush", "reweight", name, "0")
    said = -1
    while not _is_safe(driver, osd.number):
        left = _usage(driver)[osd.number]["pgs"]
        if left != said:
            tell(f"{name}: {left} placement groups still to move")
            said = left
        if time.monotonic() > deadline:
            driver.ceph("osd", "crush", "reweight", name, f"{weight:.5f}")
            raise NotDrained(
                f"{name} still holds {left} placement groups after {timeout:.0f} s; it takes "
                "its data back and serves as before. See `microceph.ceph status`, and give it "
                "more time"
            )
        time.sleep(PAUSE)
    tell(f"{name}: no data left on it")


def _is_safe(driver: Microceph, number: int) -> bool:
    """Whether Ceph says that the OSD can be destroyed without loss; a no is an error to it."""
    try:
        told = driver.ceph("osd", "safe-to-destroy", f"osd.{number}")
    except DaemonError as fault:
        if "EBUSY" in str(fault) or "EAGAIN" in str(fault):
            return False
        raise
    return number in told["safe_to_destroy"]


def remove(
    driver: Microceph, osd: Osd, *, timeout: float = TIMEOUT, tell: Callable[[str], None]
) -> None:
    """Take an OSD out of Ceph if nothing is lost by it; raises what check and drain raise."""
    check(driver, osd)
    drain(driver, osd, timeout=timeout, tell=tell)
    driver.remove_disk(osd.number, timeout=timeout)
