"""MicroCeph as an application of the shared framework; run as a module it is the daemon."""

from __future__ import annotations

import sys
import threading

from lab.microceph import blockdevs, formation, maintenance, osds, pools, rados, services, settings
from lab.microcluster import daemon
from lab.microcluster.app import App, Hooks
from lab.microcluster.cluster import Cluster, log
from lab.microcluster.rest import ApiError, Request, Route
from lab.microcluster.store import Row

# What the stand-in is modelled on; the Ceph behind it is the host's.
VERSION = "19.2.3+snap"


def _disk_remove(cluster: Cluster, request: Request) -> None:
    number = request.params["osdid"]
    if not number.isdigit():
        raise ApiError(f'strconv.ParseInt: parsing "{number}": invalid syntax', 400)
    osds.remove(cluster, int(number), request.body or {})


def _enable(cluster: Cluster, request: Request) -> None:
    body = {**request.mapping(), "name": request.params["service"]}
    if body.get("bool"):
        services.enable(cluster, body)
        return

    def later() -> None:
        try:
            services.enable(cluster, body)
        except ApiError as error:
            log(f"failed {body['name']} service enablement request: {error}")

    threading.Thread(target=later, daemon=True).start()


def _disable(cluster: Cluster, request: Request) -> None:
    service = request.params["service"]
    if service not in (*services.CORE, "rgw", *services.UNSUPPORTED):
        raise ApiError(f"{service} is not a valid ceph service")
    services.remove(cluster, service)
    if service == "mon":
        settings.refresh_all(cluster)


def _restart(_: Cluster, request: Request) -> None:
    wanted = request.body if isinstance(request.body, list) else []
    services.restart([str(item.get("service")) for item in wanted])


def _monitors(cluster: Cluster, _: Request) -> Row:
    return {"addresses": settings.mon_hosts(settings.everything(cluster))}


def _configs_get(_: Cluster, request: Request) -> list[Row]:
    return settings.cluster_configs(str((request.body or {}).get("key") or ""))


def _configs_put(cluster: Cluster, request: Request) -> None:
    body = request.mapping()
    key = str(body.get("key") or "")
    try:
        settings.check_key(key, write=True)
    except ApiError as error:
        raise ApiError(f"config set({key}) failed: {error}") from error
    rados.mon("config set", who="global", name=key, value=str(body.get("value") or ""))
    _after_change(cluster, key, body)


def _configs_delete(cluster: Cluster, request: Request) -> None:
    body = request.mapping()
    key = str(body.get("key") or "")
    settings.check_key(key, write=True)
    rados.mon("config rm", who="global", name=key)
    _after_change(cluster, key, body)


def _after_change(cluster: Cluster, key: str, body: Row) -> None:
    if body.get("skip_restart"):
        return
    names = settings.KEYS[key]
    if body.get("wait"):
        services.restart_everywhere(cluster, names)
        return
    threading.Thread(
        target=services.attempt,
        args=(f"restart {names}", lambda: services.restart_everywhere(cluster, names)),
        daemon=True,
    ).start()


def _pools_op(_: Cluster, request: Request) -> None:
    body = request.mapping()
    pools.set_replication([str(p) for p in body.get("pools") or []], int(body.get("size") or 0))


def _maintenance(cluster: Cluster, request: Request) -> list[Row]:
    return maintenance.change(cluster, request.params["node"], request.mapping())


ROUTES: tuple[Route[Cluster], ...] = (
    Route("GET", "/1.0/disks", lambda c, _: osds.rows(c)),
    Route("POST", "/1.0/disks", lambda c, r: osds.add(c, r.mapping())),
    Route("DELETE", "/1.0/disks/{osdid}", _disk_remove),
    Route("PUT", "/1.0/osds", lambda _, r: osds.set_state(str(r.mapping().get("state")))),
    Route("GET", "/1.0/resources", lambda _c, _r: blockdevs.resources()),
    Route("GET", "/1.0/services", lambda c, _: services.rows(c)),
    Route("GET", "/1.0/services/mon", _monitors),
    Route("POST", "/1.0/services/restart", _restart),
    Route("PUT", "/1.0/services/{service}", _enable),
    Route("DELETE", "/1.0/services/{service}", _disable),
    Route("GET", "/1.0/configs", _configs_get),
    Route("PUT", "/1.0/configs", _configs_put),
    Route("DELETE", "/1.0/configs", _configs_delete),
    Route("GET", "/1.0/pools", lambda _c, _r: pools.listing()),
    Route("PUT", "/1.0/pools-op", _pools_op),
    Route("PUT", "/1.0/ops/maintenance/{node}", _maintenance),
    # Between members of this stand-in: a monitor has come or gone.
    Route("PUT", "/1.0/ceph-conf", lambda c, _: settings.write(c)),
)

APP = App(
    name="microceph",
    default_port=7443,
    version=VERSION,
    hooks=Hooks(
        on_bootstrap=formation.on_bootstrap,
        on_join=formation.on_join,
        on_new_member=formation.on_new_member,
        pre_remove=formation.pre_remove,
        post_remove=formation.post_remove,
        on_start=settings.write,
    ),
    routes=ROUTES,
    cascade=("services", "disks"),
    tables={
        "services": ("member", "service"),
        "disks": ("member", "osd", "path"),
        "config": ("key", "value"),
    },
)


if __name__ == "__main__":
    sys.exit(daemon.main(APP))
