"""CRUSH rules, availability zones, and the failure domain that follows the hosts with OSDs."""

from __future__ import annotations

from typing import Any

from lab.microceph import rados, settings
from lab.microcluster.cluster import Cluster, log
from lab.microcluster.rest import ApiError

HOSTS_FOR_HOST_DOMAIN = 3
ZONE = "availability-zone."


def rule_name(domain: str) -> str:
    """The rule that MicroCeph keeps for a failure domain (osd, host, rack)."""
    return f"microceph_auto_{domain}"


def rules() -> dict[str, int]:
    """All rules by name."""
    return {rule["rule_name"]: rule["rule_id"] for rule in rados.mon_json("osd crush rule dump")}


def ensure_rules() -> None:
    """Make the rules for osd, host and rack that are missing."""
    present = rules()
    for domain in ("osd", "host", "rack"):
        if rule_name(domain) not in present:
            rados.mon(
                "osd crush rule create-replicated",
                name=rule_name(domain),
                root="default",
                type=domain,
            )


def set_default(domain: str) -> None:
    """New pools get the rule of this failure domain."""
    number = rules()[rule_name(domain)]
    rados.mon("config set", who="global", name="osd_pool_default_crush_rule", value=str(number))


def default_domain() -> str:
    """The failure domain of new pools, '' when the rule is not one of MicroCeph's."""
    current = (
        rados.mon("config get", who="mon", key="osd_pool_default_crush_rule").decode().strip()
    )
    known = {str(number): name for name, number in rules().items()}
    return known.get(current, "").removeprefix("microceph_auto_") if current in known else ""


def switch(old: str, new: str) -> None:
    """Move the default and every pool of one failure domain to another."""
    log(f"Switching failure domain from {old} to {new}")
    set_default(new)
    number = rules()[rule_name(old)]
    for pool in rados.mon_json("osd pool ls", detail="detail"):
        if pool["crush_rule"] == number:
            rados.mon("osd pool set", pool=pool["pool_name"], var="crush_rule", val=rule_name(new))


def hosts_with_osds(cluster: Cluster, without: int | None = None) -> set[str]:
    """The members that have an OSD, one OSD left out."""
    rows = cluster.store.all("disks").values()
    return {str(row["member"]) for row in rows if row["osd"] != without}


def zones(cluster: Cluster) -> dict[str, str]:
    """Member to availability zone."""
    values = settings.everything(cluster)
    return {k.removeprefix(ZONE): v for k, v in values.items() if k.startswith(ZONE)}


def scale_up(cluster: Cluster) -> None:
    """After an OSD came: zones become racks; data is spread over three hosts (or zones)."""
    known = zones(cluster)
    if cluster.name in known:
        _place_host(cluster.name, known[cluster.name])
    hosts = hosts_with_osds(cluster)
    current = default_domain()
    if known:
        if len({known[host] for host in hosts if host in known}) >= HOSTS_FOR_HOST_DOMAIN:
            for old in ("osd", "host"):
                switch(old, "rack")
    elif len(hosts) >= HOSTS_FOR_HOST_DOMAIN and current == "osd":
        switch("osd", "host")


def _place_host(host: str, zone: str) -> None:
    rack = f"az.{zone}"
    rados.mon("osd crush add-bucket", name=rack, type="rack")
    rados.mon("osd crush move", name=rack, args=["root=default"])
    rados.mon("osd crush add-bucket", name=host, type="host")
    rados.mon("osd crush move", name=host, args=[f"rack={rack}"])


def downgrade_needed(cluster: Cluster, osd: int) -> bool:
    """Whether too few hosts have OSDs for the failure domain `host` when this one has gone."""
    if default_domain() != "host":
        return False
    return len(hosts_with_osds(cluster, osd)) < HOSTS_FOR_HOST_DOMAIN


def check_zones(cluster: Cluster, osd: int) -> None:
    """ApiError when the OSD's removal would leave fewer than three zones with data."""
    known = zones(cluster)
    if default_domain() != "rack":
        return
    left = {known.get(host, "") for host in hosts_with_osds(cluster, osd)} - {""}
    if len(left) < HOSTS_FOR_HOST_DOMAIN:
        raise ApiError(
            f"cannot remove osd.{osd}: it is the last one of its availability zone and at least 3 "
            "availability zones with OSDs are required"
        )


def osd_numbers() -> dict[int, Any]:
    """The OSDs that Ceph knows, by number."""
    return {entry["osd"]: entry for entry in rados.mon_json("osd dump")["osds"]}
