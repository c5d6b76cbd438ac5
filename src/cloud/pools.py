"""The storage pool `local`, and the volumes `images` and `backups` on it.

Every member makes its own part, since only it knows its disk; once all have, the issuer makes
the pool. A new member brings its part along when it joins (`member_config`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from cloud import CREATED, MARK, VOLUMES, Cloud, Task
from errors import CharmError, DaemonError
from settings import Backing

if TYPE_CHECKING:
    from services.lxd import Lxd

LOCAL, REMOTE, REMOTE_FS = "local", "remote", "remote-fs"
_DESCRIPTION = "Local storage on {driver}"


def tasks(cloud: Cloud) -> Iterator[Task]:
    """What is due for the pool `local`."""
    if cloud.settings.local.backing is Backing.NONE or cloud.facts.local_is_in_use:
        return
    pool = cloud.facts.pools.get(LOCAL)
    if pool is None or (pool.status != CREATED and cloud.name not in pool.locations):
        if cloud.local is not None:
            yield Task("local storage of this member", partial(_make_part, cloud))
        return
    if pool.status != CREATED:
        if cloud.issuer and cloud.everywhere(pool):
            yield Task("storage pool local", partial(_make, cloud))
        return
    for volume, key in VOLUMES.items():
        if key not in cloud.facts.config:
            yield Task(f"volume {volume}", partial(_make_volume, cloud, volume, key))


def advice(cloud: Cloud) -> Iterator[str]:
    """A pool `local` that is not the configured one stays as it is."""
    pool = cloud.facts.pools.get(LOCAL)
    wanted = cloud.settings.local.driver
    if cloud.settings.local.backing is Backing.NONE or pool is None:
        return
    if pool.kind != wanted:
        yield f"storage pool local stays {pool.kind}, as local-driver={wanted} came after it"
    if pool.status == "Errored":
        yield "storage pool local is in error; see `lxc storage show local`"


def _make_part(cloud: Cloud, lxd: Lxd) -> None:
    config = wiped(cloud.local or {}, cloud.facts.extensions)
    body = {"name": LOCAL, "driver": cloud.settings.local.driver, "config": config}
    lxd.post("storage-pools", body, target=cloud.name)


def wiped(config: Mapping[str, str], extensions: Collection[str]) -> dict[str, str]:
    """The part's configuration as this LXD takes it; one that wipes no disks finds it wiped.

    Raises:
        CharmError: the disk could not be wiped.
    """
    if "source.wipe" not in config or "storage_pool_source_wipe" in extensions:
        return dict(config)
    done = subprocess.run(
        ["wipefs", "--all", config["source"]], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CharmError(f"cannot wipe {config['source']}: {done.stderr.strip()}")
    return {key: value for key, value in config.items() if key != "source.wipe"}


def _make(cloud: Cloud, lxd: Lxd) -> None:
    driver = cloud.settings.local.driver
    description = _DESCRIPTION.format(driver=driver.upper() if driver != "dir" else "a directory")
    lxd.post("storage-pools", {"name": LOCAL, "driver": driver, "description": description})


def _make_volume(cloud: Cloud, volume: str, key: str, lxd: Lxd) -> None:
    """Make a volume and put it to its use, unless somebody took it out of use again.

    A volume that is there but not in use is the user's doing, as before a member's removal;
    the mark tells it from one whose making was interrupted.
    """
    path = f"storage-pools/{LOCAL}/volumes/custom"
    try:
        marked = lxd.get(f"/1.0/{path}/{volume}?target={cloud.name}")["config"].get(MARK)
    except DaemonError as fault:
        if fault.code != 404:
            raise
        lxd.post(path, {"name": volume, "config": {MARK: "new"}}, target=cloud.name)
        marked = "new"
    if marked == "new":
        lxd.patch("", {"config": {key: f"{LOCAL}/{volume}"}})
        lxd.patch(f"{path}/{volume}", {"config": {MARK: "in use"}}, target=cloud.name)
