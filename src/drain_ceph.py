"""Taking a member out of Ceph: its disks without losing a copy, its services handed over.

MicroCeph drains disks by itself as long as three others stay, in three zones if it keeps copies
apart by zone. Below that it refuses: then Ceph first keeps fewer copies, as many as disks or zones
stay, and a disk goes only when Ceph says that nothing is on it alone.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from errors import DaemonError
from osd_removal import FULL

if TYPE_CHECKING:
    from services.lxd import Lxd
    from services.microceph import Microceph, Osd

logger = logging.getLogger(__name__)

PLACES = 3  # as many members as MicroCeph gives each of the services to by itself
CORE = ("mon", "mgr", "mds")
DRAIN_TIMEOUT = 3600.0  # seconds for one disk; then Juju tries the hook again, and it goes on
MAP_TIMEOUT = 60.0  # seconds for the monitors to agree that one of them leaves
POLL = 1.0  # seconds
# States of a placement group of which some OSD does not have all.
_MOVING = frozenset(
    f"{what}{how}"
    for what in ("backfill", "recovery")
    for how in ("_wait", "_toofull", "_unfound")
) | {"backfilling", "recovering", "peered", "forced_backfill", "forced_recovery"}


def findings(driver: Microceph, name: str) -> tuple[str, ...]:
    """What stands against the member's leaving Ceph; raises DaemonError."""
    mine, rest = _split(driver.disks(), name)
    if not mine:
        return ()
    listed = ", ".join(f"osd.{osd.number}" for osd in mine)
    told = driver.ceph("df")
    stored = sum(pool["stats"]["stored"] for pool in told["pools"] if pool["name"] != ".mgr")
    if not rest:
        return (f"it holds the last disks of Ceph ({listed}), and data is on them",) * bool(stored)
    places = driver.places(rest)
    sizes = {pool.name: min(pool.size, places) for pool in driver.pools()}
    needed = sum(pool["stats"]["stored"] * sizes.get(pool["name"], 1) for pool in told["pools"])
    staying = {osd.number for osd in rest}
    nodes = driver.ceph("osd", "df")["nodes"]
    room = sum(node["kb"] << 10 for node in nodes if node["id"] in staying)
    if needed > FULL * room:
        return (
            f"Ceph has no room without {listed}: what it holds needs {needed >> 20} MiB, and "
            f"the other disks have {room >> 20} MiB; add disks elsewhere first",
        )
    return ()


def _split(osds: Iterable[Osd], name: str) -> tuple[list[Osd], list[Osd]]:
    found = list(osds)
    mine = [osd for osd in found if osd.member == name]
    return mine, [osd for osd in found if osd.member != name]


def hand_over(driver: Microceph, name: str, staying: Iterable[str]) -> None:
    """Others run what the member runs, as far as there are others, before it stops doing so."""
    for service, where in driver.placed().items():
        if service not in CORE or name not in where:
            continue
        rest = [member for member in where if member != name]
        new = next((member for member in staying if member not in rest), "")
        if new and len(rest) < PLACES:
            logger.info("%s of Ceph moves from %s to %s", service, name, new)
            driver.enable(service, new)


def drain(driver: Microceph, lxd: Lxd, name: str, say: Callable[[str], None]) -> None:
    """Take the member's disks out of Ceph, one after the other, none before it is empty."""
    mine, _ = _split(driver.disks(), name)
    for osd in mine:
        drain_disk(driver, lxd, osd, say)
    with contextlib.suppress(DaemonError):  # it was no host of data
        driver.ceph("osd", "crush", "rm", name)


def drain_disk(driver: Microceph, lxd: Lxd, osd: Osd, say: Callable[[str], None]) -> None:
    """Take one disk of a member that leaves out of Ceph."""
    rest = [other for other in driver.disks() if other.number != osd.number]
    left = driver.places(rest)
    say(f"moving Ceph's data off osd.{osd.number}")
    if left < PLACES and any(other.member != osd.member for other in rest):
        # Not the other way round: of fewer copies Ceph throws one away at once, and it may
        # be the one that was to stay.
        driver.ceph("osd", "out", str(osd.number))
        _wait(driver, osd, clean=False)
        _keep_fewer(driver, lxd, left)
        _wait(driver, osd, clean=True)
    driver.remove_disk(osd.number, force=left < PLACES, confirm=True, timeout=DRAIN_TIMEOUT)


def _keep_fewer(driver: Microceph, lxd: Lxd, copies: int) -> None:
    from cloud import ceph

    if all(pool.size <= copies for pool in driver.pools()):
        return
    logger.warning("Ceph keeps %d copies of everything from now on, as disks leave", copies)
    ceph.keep_copies(driver, lxd, copies, fewer=True)


def _wait(driver: Microceph, osd: Osd, *, clean: bool) -> None:
    """Wait until all data is on other disks; `clean`: in as many copies as it should be.

    What Ceph says of data may be old. It says with it for which OSDs the data is meant, and so
    whether it is older than this one's going.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while True:
        stats = driver.ceph("pg", "ls")
        groups = stats.get("pg_stats", []) if isinstance(stats, dict) else stats
        waiting = sum(not _is_elsewhere(group, osd.number, clean) for group in groups)
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise DaemonError(
                f"{waiting} of Ceph's placement groups still need osd.{osd.number} after "
                f"{DRAIN_TIMEOUT:.0f} s; see `microceph.ceph health detail`"
            )
        time.sleep(POLL)


def _is_elsewhere(group: Mapping[str, Any], number: int, clean: bool) -> bool:
    """Whether the OSDs that a placement group is meant for have all of it, this one not needed.

    Ceph lets one that is out serve on (`remapped`) as long as it finds too few others.
    """
    states, meant = set(group["state"].split("+")), set(group["up"])
    if number in meant or not meant:
        return False
    if clean:
        return {"active", "clean"} <= states and number not in group["acting"]
    return "active" in states and meant <= set(group["acting"]) and not states & _MOVING


def leave(driver: Microceph, name: str) -> None:
    """Take the member, which has no disks any more, out of the cluster."""
    placed = driver.placed()
    for service in reversed(CORE):  # the monitor last, as the others are taken out by its help
        where = placed.get(service, ())
        if name in where and len(where) > 1:
            if service == "mon":
                _leave_monitors(driver, name)
            driver.disable(service, name)
    # MicroCeph lets go without force only where three monitors stay.
    elsewhere = [member for member in placed.get("mon", ()) if member != name]
    driver.remove(name, force=len(elsewhere) < PLACES)


def _leave_monitors(driver: Microceph, name: str) -> None:
    """Take the member's monitor out of Ceph's map of monitors, and wait until it is out.

    Ceph answers before the monitors have agreed, and MicroCeph stops the monitor at that answer.
    If that is the one that leads, it may stay in the map for good, as one that is down; of two,
    the other one has no majority then.
    """
    deadline = time.monotonic() + MAP_TIMEOUT
    while True:
        why = "they list it"
        try:
            driver.ceph("mon", "rm", name)
            if all(monitor["name"] != name for monitor in driver.ceph("mon", "dump")["mons"]):
                return
        except DaemonError as fault:  # nobody answers while they elect a leader
            why = str(fault)
        if time.monotonic() > deadline:
            raise DaemonError(
                f"Ceph's monitors still count on the one of {name} after {MAP_TIMEOUT:.0f} s: "
                f"{why}; see `microceph.ceph quorum_status`"
            )
        time.sleep(POLL)


def forget(driver: Microceph, name: str, *, force: bool) -> None:
    """Take out what a machine that is gone for good had in Ceph.

    Raises:
        DaemonError: `force` is not given, and some data may be on its disks only.
    """
    mine, _ = _split(driver.disks(), name)
    if mine and not force:
        _check_active(driver, name)
    for osd in mine:
        number = str(osd.number)
        driver.ceph("osd", "out", number)
        driver.ceph("osd", "purge", number, "--yes-i-really-mean-it")
    driver.ceph("mon", "rm", name)
    for service in ("mgr", "mds"):
        driver.ceph("auth", "rm", f"{service}.{name}")
    with contextlib.suppress(DaemonError):  # it was no host of data
        driver.ceph("osd", "crush", "rm", name)


def _check_active(driver: Microceph, name: str) -> None:
    summary = driver.ceph("pg", "stat")
    states = summary.get("pg_summary", summary)["num_pg_by_state"]
    lost = sum(state["num"] for state in states if "active" not in state["name"].split("+"))
    if lost:
        raise DaemonError(
            f"Ceph cannot reach {lost} placement groups without {name}, so its disks stay known; "
            f"power it on, or give the data up by the action remove-member name={name} force=true"
        )


def next_service(driver: Microceph, fit: Iterable[str], members: int) -> tuple[str, str] | None:
    """A service of Ceph's that too few members run since one has gone, and who may run it."""
    placed = driver.placed()
    for service in CORE:
        where = placed.get(service, ())
        new = next((member for member in fit if member not in where), "")
        if new and len(where) < min(PLACES, members):
            return service, new
    return None
