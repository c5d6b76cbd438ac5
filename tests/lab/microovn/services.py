"""Enabling, disabling and leaving: what MicroOVN does with central, chassis and switch."""

from __future__ import annotations

import ipaddress
import shutil
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from lab.errors import LabError
from lab.host import service as supervisor
from lab.microcluster.app import Config
from lab.microcluster.cluster import Cluster, log
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row
from lab.microovn import environment, ovs, paths, pki, underlay

SERVICES = ("central", "chassis", "switch")
DAEMONS = {
    "central": ("ovn-ovsdb-server-nb", "ovn-ovsdb-server-sb", "ovn-northd"),
    "chassis": ("chassis",),
    "switch": ("switch",),
}
CENTRALS = 3
ENCAP = "ovn-encap-ip"
DATABASES = (
    (
        "OVN_Northbound",
        paths.NB_CONTROL,
        paths.NB_SOCKET,
        paths.NB_FILE,
        "ovn-nbctl",
        environment.NB_PORT,
    ),
    (
        "OVN_Southbound",
        paths.SB_CONTROL,
        paths.SB_SOCKET,
        paths.SB_FILE,
        "ovn-sbctl",
        environment.SB_PORT,
    ),
)
_hooks = threading.RLock()


# The snap's services


def snap_service(action: str, name: str) -> None:
    """`snap start|stop|... microovn.NAME`; ApiError with the supervisor's words."""
    try:
        supervisor.act(action, f"snap.microovn.{name}")
    except LabError as error:
        raise ApiError(f"failed to {action} {name}: {error}") from error


def activate(service: str) -> None:
    """Start the daemons of a service, now and at each boot."""
    for daemon in DAEMONS[service]:
        snap_service("enable", daemon)
        snap_service("start", daemon)


def deactivate(service: str) -> None:
    """Stop the daemons of a service for good; trouble goes to the log."""
    for daemon in reversed(DAEMONS[service]):
        for action in ("disable", "stop"):
            attempt(f"{action} {daemon}", lambda a=action, d=daemon: snap_service(a, d))


def attempt(what: str, function: object) -> bool:
    """Call a function; an ApiError of it is only worth a line in the log. Whether it worked."""
    try:
        function()  # pyright: ignore[reportCallIssue]
    except (ApiError, OSError) as error:
        log(f"Failed to {what}: {error}")
        return False
    return True


# The services table


def rows(cluster: Cluster) -> list[Row]:
    """`GET /1.0/services`: what is meant to run where."""
    found = cluster.store.all("services").values()
    return [{"service": row["service"], "location": row["member"]} for row in found]


def record(cluster: Cluster, service: str) -> None:
    """Note that this member runs a service."""
    row = {"member": cluster.name, "service": service, "since": time.time()}
    cluster.store.insert("services", f"{cluster.name}/{service}", row)


def has(cluster: Cluster, service: str) -> bool:
    """Whether this member is meant to run a service."""
    return cluster.store.get("services", f"{cluster.name}/{service}") is not None


def warnings(cluster: Cluster) -> dict[str, bool]:
    """What is wrong with the number of centrals."""
    count = len(environment.centrals(cluster))
    return {"EvenCentral": count > 0 and count % 2 == 0, "FewCentral": 0 < count < CENTRALS}


def check(service: str) -> None:
    """ApiError for a service that MicroOVN or this stand-in does not have."""
    if service == "bgp":
        raise ApiError("bgp is not supported by this stand-in")
    if service not in SERVICES:
        raise ApiError("service does not exist")


# Hooks


def on_bootstrap(cluster: Cluster, config: Config) -> None:
    """A cluster of one: CA, all three services, listeners."""
    with _hooks:
        paths.create()
        _take_ca(cluster, config)
        _form(cluster, config, central=True)


def _take_ca(cluster: Cluster, config: Config) -> None:
    given = {key: config[key] for key in ("ovn-ca-cert", "ovn-ca-key") if config.get(key)}
    if not given:
        pki.make_ca(cluster)
        return
    if len(given) == 1:
        raise ApiError("ovn-ca-cert and ovn-ca-key must be given together")
    try:
        texts = [Path(given[key]).read_text() for key in ("ovn-ca-cert", "ovn-ca-key")]
    except OSError as error:
        raise ApiError(f"failed to read the custom CA: {error}") from error
    pki.store_ca(cluster, texts[0], texts[1], auto_renew=False)


def on_join(cluster: Cluster, config: Config) -> None:
    """A further member: central too, while fewer than three are."""
    with _hooks:
        paths.create()
        pki.write_ca(cluster)
        _form(cluster, config, central=len(environment.centrals(cluster)) < CENTRALS)


def _form(cluster: Cluster, config: Config, central: bool) -> None:
    encap = _encap_ip(cluster, config)
    for service in ("switch", "central", "chassis") if central else ("switch", "chassis"):
        record(cluster, service)
    environment.generate(cluster)
    pki.issue(cluster, "client")
    activate("switch")
    wait_for_switch()
    if central:
        start_central(cluster)
    pki.issue(cluster, "ovn-controller")
    configure_switch(cluster, encap)
    activate("chassis")


def _encap_ip(cluster: Cluster, config: Config) -> str:
    encap = config.get(ENCAP) or config.get(f"{cluster.name}.{ENCAP}") or cluster.ip
    try:
        ipaddress.ip_address(encap)
    except ValueError as error:
        raise ApiError(f"invalid encapsulation IP address {encap!r}") from error
    return encap


def wait_for_switch(timeout: float = 20) -> None:
    """Wait until ovs-vswitchd runs; ApiError when it does not."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            ovs.appctl(str(_vswitchd_control()), "version")
            return
        except (ApiError, OSError) as error:
            if time.monotonic() > deadline:
                raise ApiError(f"Failed to start OVS switch: {error}; see {paths.LOGS}") from error
            time.sleep(0.05)


def _vswitchd_control() -> Path:
    pid = (paths.RUN_SWITCH / "ovs-vswitchd.pid").read_text().strip()
    return paths.RUN_SWITCH / f"ovs-vswitchd.{pid}.ctl"


def configure_switch(cluster: Cluster, encap: str) -> None:
    """Tell OVS who this chassis is, where the southbound database is and where tunnels end."""
    ovs.vsctl(
        "set", "Open_vSwitch", ".", f"external_ids:system-id={cluster.name}",
        f"external_ids:hostname={cluster.name}", "external_ids:ovn-encap-type=geneve",
        f"external_ids:ovn-encap-ip={encap}", f'external_ids:ovn-remote="{southbound()}"',
        # The host's kernel has no openvswitch module: the lab's own setting.
        "external_ids:ovn-bridge-datapath-type=netdev",
    )  # fmt: skip
    if not underlay.setup(encap):
        log(f"No interface has the encapsulation address {encap}: no tunnel will work")


def southbound() -> str:
    """How this member reaches the southbound database."""
    return environment.load()["OVN_SB_CONNECT"]


def start_central(cluster: Cluster) -> None:
    """Certificates, the databases (made or joined), northd, listeners."""
    for service in pki.CENTRAL_SERVICES:
        pki.issue(cluster, service)
    activate("central")
    for database, control, sock, _, tool, port in DATABASES:
        _wait_for_database(database, control)
        listen = f"pssl:{port}:[::]" if ":" in cluster.ip else f"pssl:{port}:[0.0.0.0]"
        # The listener is a row of the replicated database: only the first central has to write it.
        if listen not in ovs.run(
            tool, "--timeout=15", "--no-leader-only", f"--db=unix:{sock}", "get-connection"
        ):
            ovs.run(
                tool,
                "--timeout=15",
                "--no-leader-only",
                f"--db=unix:{sock}",
                "set-connection",
                listen,
            )


def _wait_for_database(database: str, control: Path, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            text = ovs.appctl(str(control), "cluster/status", database)
            if "Status: cluster member" in text and "Leader: unknown" not in text:
                return
            reason = "it has not joined its cluster"
        except ApiError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise ApiError(
                f"{database} is not ready after {timeout:g} seconds: {reason}; see {paths.LOGS}"
            )
        time.sleep(0.05)


def refresh(cluster: Cluster) -> None:
    """Bring this member up to date with who is central."""
    with _hooks:
        if not cluster.initialized:
            return
        environment.generate(cluster)
        if has(cluster, "central"):
            snap_service("restart", "ovn-northd")
        if has(cluster, "switch"):
            ovs.vsctl("set", "Open_vSwitch", ".", f'external_ids:ovn-remote="{southbound()}"')


def refresh_later(cluster: Cluster) -> None:
    """`refresh` in the background: the real daemon does not let others wait for it either."""
    work = partial(attempt, "refresh configuration", lambda: refresh(cluster))
    threading.Thread(target=work, daemon=True).start()


def refresh_all(cluster: Cluster) -> None:
    """`POST /1.0/env`: bring every member up to date."""
    refresh(cluster)
    cluster.call_others("PUT", "/1.0/env")


def on_start(cluster: Cluster) -> None:
    """After a power cut: others may be central now, and a start may not have been finished."""
    if not paths.ENV_FILE.exists():
        return
    environment.generate(cluster)
    for service in SERVICES:
        if has(cluster, service):
            attempt(f"start {service}", partial(activate, service))


def on_new_member(cluster: Cluster, _name: str) -> None:
    """Another member may have become central."""
    refresh_later(cluster)


def post_remove(cluster: Cluster, _name: str, _force: bool) -> None:
    """A central may have gone."""
    refresh_later(cluster)


# Enabling and disabling


def enable(cluster: Cluster, service: str) -> None:
    """`PUT /1.0/service/{service}`."""
    check(service)
    with _hooks:
        if has(cluster, service):
            raise ApiError("this service is already enabled")
        record(cluster, service)
        try:
            environment.generate(cluster)
            if service == "central":
                start_central(cluster)
            else:
                if service == "chassis":
                    pki.issue(cluster, "ovn-controller")
                activate(service)
        except ApiError:
            cluster.store.delete("services", f"{cluster.name}/{service}")
            raise


def disable(cluster: Cluster, service: str, allow_last: bool) -> None:
    """`DELETE /1.0/service/{service}`."""
    check(service)
    with _hooks:
        if not has(cluster, service):
            raise ApiError("this service is not enabled")
        last = service == "central" and len(environment.centrals(cluster)) == 1
        if last and not allow_last:
            raise ApiError("cannot disable last central node without explicit confirmation")
        cluster.store.delete("services", f"{cluster.name}/{service}")
        stop(service, last)


def stop(service: str, last: bool) -> None:
    """Stop a service in an orderly way."""
    if service == "central":
        leave_central(last)
    elif service == "chassis":
        attempt("stop OVN controller", lambda: ovs.controller("exit"))
    deactivate(service)


def leave_central(last: bool) -> None:
    """Leave both raft clusters and keep the databases as backups."""
    for database, control, _, file, _, _ in DATABASES:
        if not control.exists():
            continue
        attempt(
            f"leave {database}",
            lambda c=control, d=database: ovs.appctl(str(c), "cluster/leave", d),
        )
        if not last:
            _wait_for_departure(database, control)
        if file.exists():
            file.replace(file.with_suffix(".backup"))


def _wait_for_departure(database: str, control: Path, timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            text = ovs.appctl(str(control), "cluster/status", database)
        except ApiError:
            return
        if "Status: left cluster" in text:
            return
        time.sleep(0.05)
    log(f"Failed to wait for {database} cluster departure: {timeout:g} seconds have passed")


def pre_remove(cluster: Cluster, _force: bool) -> None:
    """Leave: chassis, central, switch; then no trace of MicroOVN but a backup."""
    with _hooks:
        last = attempt("count centrals", lambda: environment.centrals(cluster)) and (
            [m.name for m in environment.centrals(cluster)] == [cluster.name]
        )
        running = _running()
        # The chassis leaves while the southbound database is still reachable.
        for service in ("chassis", "central"):
            if service in running:
                stop(service, last)
        if "switch" in running:
            _clear_switch()
            stop("switch", last)
        underlay.remove()
        for service in SERVICES:
            attempt(
                f"forget {service}",
                lambda s=service: cluster.store.delete("services", f"{cluster.name}/{s}"),
            )
        clean_up()


def _running() -> set[str]:
    states = supervisor.states()
    return {
        service
        for service, daemons in DAEMONS.items()
        if any(states.get(f"snap.microovn.{d}", {}).get("enabled") for d in daemons)
    }


def _clear_switch() -> None:
    # Userspace datapaths are made of persistent taps: they would stay as interfaces.
    for bridge in _lines(lambda: ovs.vsctl("--timeout=10", "list-br")):
        attempt(f"delete bridge {bridge}", lambda b=bridge: ovs.vsctl("--if-exists", "del-br", b))


def _lines(function: object) -> Iterable[str]:
    try:
        return str(function()).split()  # pyright: ignore[reportCallIssue]
    except ApiError as error:
        log(f"Failed to list bridges: {error}")
        return []


def clean_up() -> None:
    """Move the data to a backup directory and empty the runtime directories."""
    if paths.DATA.exists() and any(paths.DATA.iterdir()):
        shutil.move(paths.DATA, paths.COMMON / f"backup_{int(time.time())}")
    for directory in (paths.RUN_OVN, paths.RUN_SWITCH):
        shutil.rmtree(directory, ignore_errors=True)
    paths.create()
