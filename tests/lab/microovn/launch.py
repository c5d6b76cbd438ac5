"""What the snap's services run: `python -m lab.microovn.launch SERVICE`, in the foreground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from lab.microcluster.cluster import log
from lab.microcluster.rest import ApiError
from lab.microovn import environment, ovs, paths, underlay

QUIET = ["-vconsole:off", "-vsyslog:off", "--no-chdir"]
ELECTION_MS = "2000"
SCHEMAS = Path("/usr/share/ovn")


def _exec(*argv: str) -> NoReturn:
    os.execvpe(argv[0], list(argv), ovs.variables())


def _database(
    name: str, database: str, table: str, raft: int, file: Path, schema: str
) -> NoReturn:
    """Serve a central database; a missing one is made, or joined to the first central's."""
    values = environment.load()
    local = values["OVN_LOCAL_IP"]
    initial = values["OVN_INITIAL_NB" if name == "ovnnb" else "OVN_INITIAL_SB"]
    if not file.exists():
        here, there = f"ssl:{local}:{raft}", f"ssl:{initial}:{raft}"
        if local == initial:
            ovs.run("ovsdb-tool", f"--election-timer={ELECTION_MS}", "create-cluster", str(file),
                    str(SCHEMAS / schema), here)  # fmt: skip
        else:
            ovs.run("ovsdb-tool", "join-cluster", str(file), database, here, there)
    _exec(
        "ovsdb-server", *QUIET, f"--remote=punix:{paths.RUN_OVN}/{name}_db.sock",
        f"--remote=db:{database},{table},connections", f"--unixctl={paths.RUN_OVN}/{name}_db.ctl",
        f"--pidfile={paths.RUN_OVN}/{name}_db.pid", f"--log-file={paths.LOGS}/{name}.log",
        *paths.ssl_options(name), str(file),
    )  # fmt: skip


def _nb() -> NoReturn:
    _database(
        "ovnnb",
        "OVN_Northbound",
        "NB_Global",
        environment.NB_RAFT,
        paths.NB_FILE,
        "ovn-nb.ovsschema",
    )


def _sb() -> NoReturn:
    _database(
        "ovnsb",
        "OVN_Southbound",
        "SB_Global",
        environment.SB_RAFT,
        paths.SB_FILE,
        "ovn-sb.ovsschema",
    )


def _northd() -> NoReturn:
    values = environment.load()
    _exec(
        "ovn-northd", *QUIET, f"--ovnnb-db={values['OVN_NB_CONNECT']}",
        f"--ovnsb-db={values['OVN_SB_CONNECT']}", f"--pidfile={paths.RUN_OVN}/ovn-northd.pid",
        f"--unixctl={paths.RUN_OVN}/ovn-northd.ctl", f"--log-file={paths.LOGS}/ovn-northd.log",
        *paths.ssl_options("ovn-northd"),
    )  # fmt: skip


def _chassis() -> NoReturn:
    _exec(
        "ovn-controller", *QUIET, f"unix:{paths.OVS_SOCKET}",
        f"--pidfile={paths.RUN_OVN}/ovn-controller.pid",
        f"--log-file={paths.LOGS}/ovn-controller.log",
        *paths.ssl_options("ovn-controller"),
    )  # fmt: skip


def _switch() -> int:
    """ovsdb-server and ovs-vswitchd; ends when one of them does."""
    if not paths.CONF_DB.exists():
        ovs.run(
            "ovsdb-tool", "create", str(paths.CONF_DB), "/usr/share/openvswitch/vswitch.ovsschema"
        )
    paths.OVS_SOCKET.unlink(missing_ok=True)
    children = [
        _child(
            "ovsdb-server", str(paths.CONF_DB), f"--remote=punix:{paths.OVS_SOCKET}",
            "--remote=db:Open_vSwitch,Open_vSwitch,manager_options", "--pidfile",
            f"--log-file={paths.LOGS}/ovsdb-server.log",
        )
    ]  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _wait_for(paths.OVS_SOCKET)
        ovs.vsctl("--no-wait", "init")
        nic = _encap_nic()
        if nic:
            underlay.links(nic)
        children.append(
            _child("ovs-vswitchd", f"unix:{paths.OVS_SOCKET}", "--pidfile",
                   f"--log-file={paths.LOGS}/ovs-vswitchd.log")
        )  # fmt: skip
        _wait_for(paths.RUN_SWITCH / "ovs-vswitchd.pid")
        if nic:
            _restore(nic)
        while all(child.poll() is None for child in children):
            time.sleep(1)
        log("ovsdb-server or ovs-vswitchd has ended: the switch ends, to be started again")
        return 1
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            _end(child)


def _encap_nic() -> underlay.Nic | None:
    get = ("--if-exists", "get", "Open_vSwitch", ".", "external_ids:ovn-encap-ip")
    address = ovs.vsctl(*get).strip().strip('"')
    nic = underlay.find(address) if address else None
    if address and nic is None:
        log(f"No interface has the encapsulation address {address}: no tunnel will work")
    return nic


def _restore(nic: underlay.Nic) -> None:
    """Make the path of the tunnels as it was before the machine went off."""
    try:
        underlay.setup(str(nic.address.ip))
    except ApiError as error:
        log(f"Tunnels will not work: {error}")


def _child(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *argv, *QUIET],
        env=ovs.variables(),
        stdin=subprocess.DEVNULL,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(5)


def _wait_for(path: Path, timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > deadline:
            raise ApiError(f"{path} did not appear within {timeout:g} seconds; see {paths.LOGS}")
        time.sleep(0.02)


SERVICES = {
    "ovn-ovsdb-server-nb": _nb,
    "ovn-ovsdb-server-sb": _sb,
    "ovn-northd": _northd,
    "chassis": _chassis,
    "switch": _switch,
}


def main() -> int:
    """Run the service that the command line names; its exit status."""
    paths.create()
    try:
        return SERVICES[sys.argv[1]]()
    except ApiError as error:
        log(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
