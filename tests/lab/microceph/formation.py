"""The hooks: what happens to Ceph when a member bootstraps, joins, leaves or starts."""

from __future__ import annotations

import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from lab.microceph import crush, network, paths, rados, services, settings
from lab.microcluster.app import Config
from lab.microcluster.cluster import Cluster
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row

MON_DEADLINE = 30
ADMIN_CAPS = "".join(f'\tcaps {what} = "allow *"\n' for what in ("mds", "mgr", "mon", "osd"))


@dataclass(frozen=True)
class Networks:
    """Where clients talk to Ceph, where OSDs talk to each other, the first monitor's address."""

    public: str
    cluster: str
    monitor: str


def choose_networks(cluster: Cluster, config: Config) -> Networks:
    """From the bootstrap's configuration and this machine's addresses; ApiError if they clash."""
    public, monitor = config.get("PublicNet", ""), config.get("MonIp", "")
    if not monitor:
        monitor = cluster.ip
        if public and not network.contains(public, monitor):
            monitor = network.address_in(public)
    if not public:
        public = network.network_of(monitor)
    if not network.contains(public, monitor):
        raise ApiError(
            f"provided mon-ip {monitor} is not available on provided public network {public}"
        )
    internal = config.get("ClusterNet", "") or public
    try:
        network.address_in(internal)
    except ApiError as error:
        raise ApiError(f"failed to locate cluster network {internal} on host: {error}") from error
    return Networks(public, internal, monitor)


def _refuse(config: Config) -> None:
    for key in ("Adopt", "DeferCeph"):
        if config.get(key, "").lower() in ("true", "1"):
            raise ApiError(f"{key} is not supported by this stand-in")
    for key in config:
        if key.startswith("Adopt") and config[key] and key != "Adopt":
            raise ApiError(f"{key} is not supported by this stand-in")


def _note_zone(cluster: Cluster, config: Config) -> None:
    zone = config.get("AvailabilityZone", "")
    if zone and not all(c.isascii() and (c.isalnum() or c in "_.-") for c in zone):
        raise ApiError(
            f"invalid availability zone {zone!r}: it must be made of letters, digits and _.-"
        )
    if zone:
        settings.put(cluster, f"{crush.ZONE}{cluster.name}", zone)


def _check_zone(cluster: Cluster, config: Config) -> None:
    """All members have a zone, or none has."""
    known, zone = crush.zones(cluster), config.get("AvailabilityZone", "")
    if zone and not known:
        raise ApiError(f"zone {zone} is not taken, as the members that are there have none")
    if known and not zone:
        raise ApiError(f"a zone is needed, as members have one: {', '.join(sorted(known))}")


def on_bootstrap(cluster: Cluster, config: Config) -> None:
    """A cluster of one: the first monitor, the settings, a manager and a metadata server."""
    _refuse(config)
    chosen = choose_networks(cluster, config)
    paths.create()
    rados.CLUSTER.close()
    admin_key = services.new_key()
    for key, value in (
        ("fsid", str(uuid.uuid4())),
        (settings.ADMIN_KEY, admin_key),
        ("public_network", chosen.public),
        (f"{settings.MON_HOST}{cluster.name}", chosen.monitor),
        ("v2only", config.get("V2Only", "").lower() or "false"),
    ):
        settings.put(cluster, key, value)
    _note_zone(cluster, config)
    settings.write(cluster)
    _first_monitor(cluster, chosen, admin_key)
    _configure(chosen)
    for service in ("mgr", "mds"):
        services.place(cluster, service)
        services.record(cluster, service)


def _first_monitor(cluster: Cluster, chosen: Networks, admin_key: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        monmap, keyring = Path(name, "mon.map"), Path(name, "mon.keyring")
        keyring.touch(0o600)
        keyring.write_text(
            f'[mon.]\n\tkey = {services.new_key()}\n\tcaps mon = "allow *"\n'
            f"[client.admin]\n\tkey = {admin_key}\n{ADMIN_CAPS}"
        )
        services.run(
            "monmaptool", "--create", "--fsid", settings.get(cluster, "fsid"), "--addv",
            cluster.name, services.addresses(cluster, chosen.monitor), str(monmap),
        )  # fmt: skip
        services.make_monitor(cluster.name, monmap, keyring)
    services.activate("mon")
    services.record(cluster, "mon")
    wait_for_monitors()


def wait_for_monitors() -> None:
    """Wait until the monitors answer; ApiError after 30 seconds."""
    deadline = time.monotonic() + MON_DEADLINE
    while True:
        try:
            rados.CLUSTER.connect()
            return
        except rados.CephError as error:
            if time.monotonic() > deadline:
                raise ApiError(
                    f"the monitor does not answer after {MON_DEADLINE} seconds: {error}; see "
                    f"{paths.LOGS}"
                ) from error
            time.sleep(0.1)


def _configure(chosen: Networks) -> None:
    crush.ensure_rules()
    number = crush.rules()[crush.rule_name("osd")]
    text = (
        f"[global]\ncluster_network = {chosen.cluster}\npublic_network = {chosen.public}\n"
        "rbd_default_features = 63\nmon_allow_pool_size_one = true\n"
        f"osd_pool_default_crush_rule = {number}\n"
    )
    rados.mon("config assimilate-conf", data=text.encode())


def on_join(cluster: Cluster, config: Config) -> None:
    """A further member: mon, mgr and mds too, while fewer than three are."""
    _refuse(config)
    paths.create()
    rados.CLUSTER.close()
    network.address_in(settings.get(cluster, "public_network"))
    _check_zone(cluster, config)
    _note_zone(cluster, config)
    settings.write(cluster)
    wait_for_monitors()
    monitor = services.count(cluster, "mon") < services.PLACED_BY_COUNT
    services.place_missing(cluster)
    if monitor:
        services.wait_for_quorum(cluster.name)


def on_new_member(cluster: Cluster, _name: str) -> None:
    """Another member may have a monitor now."""
    settings.write(cluster)


def post_remove(cluster: Cluster, name: str, _force: bool) -> None:
    """A monitor may have gone, and the member's zone is not known any more."""
    cluster.store.delete(settings.KIND, f"{crush.ZONE}{name}")
    settings.write(cluster)


def pre_remove(cluster: Cluster, force: bool) -> None:
    """Leave: refused with disks or too few services elsewhere, unless by force."""
    if not force:
        check_removal(cluster)
    mine = [row["service"] for row in services.rows(cluster) if row["location"] == cluster.name]
    # The monitor last: the others are taken out with its help.
    for service in sorted(mine, key=lambda name: name == "mon"):
        services.attempt(
            f"delete service {service}", lambda s=service: services.remove(cluster, s)
        )
    services.stop_all()
    rados.CLUSTER.close()


def check_removal(cluster: Cluster) -> None:
    """ApiError when this member still has disks, or the others too few services."""
    disks: list[Row] = list(cluster.store.all("disks").values())
    if any(row["member"] == cluster.name for row in disks):
        raise ApiError(f"Node {cluster.name} still has disks configured, remove before proceeding")
    least = {"mon": 3, "mgr": 1, "mds": 1}
    services.check_enough(services.rows(cluster), cluster.name, least)
