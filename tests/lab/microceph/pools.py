"""Pools: listing them and setting how often they keep what they hold."""

from __future__ import annotations

from lab.microceph import crush, rados
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row

MANAGER_POOL = ".mgr"


def listing() -> list[Row]:
    """`GET /1.0/pools`."""
    names = {number: name for name, number in crush.rules().items()}
    return [
        {
            "pool": pool["pool_name"],
            "pool_id": pool["pool_id"],
            "size": pool["size"],
            "min_size": pool["min_size"],
            "crush_rule": names.get(pool["crush_rule"], str(pool["crush_rule"])),
        }
        for pool in rados.mon_json("osd pool ls", detail="detail")
    ]


def set_replication(wanted: list[str], size: int) -> None:
    """`PUT /1.0/pools-op`: the default, and the pools named; `*` is all of them, '' none."""
    if size < 1:
        raise ApiError(f"invalid replication size {size}: it must be 1 or more", 400)
    rados.mon("config set", who="global", name="osd_pool_default_size", value=str(size))
    allow = "true" if size == 1 else "false"
    rados.mon("config set", who="global", name="mon_allow_pool_size_one", value=allow)
    names = rados.mon_json("osd pool ls") if wanted == ["*"] else [n.strip() for n in wanted]
    for name in names:
        if name:
            rados.mon(
                "osd pool set", pool=name, var="size", val=str(size), yes_i_really_mean_it=True
            )


def ensure_manager_pool() -> None:
    """Make the manager's pool, as managers since Ceph 17 do by themselves when there is an OSD."""
    if MANAGER_POOL in rados.mon_json("osd pool ls"):
        return
    rados.mon("osd pool create", pool=MANAGER_POOL, pg_num=1, yes_i_really_mean_it=True)
    rados.mon(
        "osd pool application enable", pool=MANAGER_POOL, app="mgr", yes_i_really_mean_it=True
    )
