"""Clusters made by hand on machines without a unit, with the commands that a person has."""

from __future__ import annotations

import json
import shlex
from typing import Any

import jubilant

from integration import cloud, ovn

CHANNELS = {"lxd": "5.21/stable", "microceph": "squid/stable", "microovn": "24.03/stable"}
_ADDRESS = "$(hostname -I | cut -d' ' -f1):8443"
_RBD = "layering,striping,exclusive-lock,object-map,fast-diff,deep-flatten"


def machines(juju: jubilant.Juju, count: int) -> None:
    """Add machines to an empty model, and wait until they have started."""
    for _ in range(count):
        juju.add_machine()
    juju.wait(
        lambda s: [m.juju_status.current for m in s.machines.values()] == ["started"] * count,
        delay=0.1,
    )


def sh(juju: jubilant.Juju, machine: int, command: str) -> str:
    """The output of a shell command on a machine without a unit."""
    script = shlex.quote(f"PATH=/snap/bin:$PATH; {command}")
    return juju.ssh(str(machine), f"sudo sh -ec {script}").strip()


def install(juju: jubilant.Juju, machine: int, *snaps: str) -> str:
    """Install snaps that are missing; gives the machine's name."""
    for snap in snaps:
        channel = f"--channel={CHANNELS[snap]}"
        have = f"snap list {snap} >/dev/null 2>&1"
        sh(juju, machine, f"{have} || snap install {snap} {channel} >/dev/null")
    return sh(juju, machine, "lxd waitready; hostname")


def start(juju: jubilant.Juju, machine: int) -> str:
    """Make the machine a LXD cluster of one; gives the machine's name."""
    name = install(juju, machine, "lxd")
    sh(juju, machine, f"lxc config set core.https_address {_ADDRESS}; lxc cluster enable {name}")
    return name


def join(juju: jubilant.Juju, machine: int, first: int = 0) -> str:
    """Join the machine to the LXD cluster of the first; gives the machine's name."""
    name = install(juju, machine, "lxd")
    preseed = {
        "enabled": True,
        "server_name": name,
        "server_address": _ADDRESS,
        "cluster_token": sh(juju, first, f"lxc cluster add -q {name}"),
    }
    sh(juju, machine, f"lxd init --preseed <<END\ncluster: {json.dumps(preseed)}\nEND")
    return name


def microcloud(juju: jubilant.Juju, count: int) -> tuple[str, ...]:
    """Make what `microcloud init` makes of the first machines of the model; gives their names.

    LXD, MicroCeph with a disk of each machine, and MicroOVN; the pools `local` and `remote`; the
    networks `UPLINK` and `default`; and the default profile that goes with them.
    """
    names = tuple(install(juju, machine, *CHANNELS) for machine in range(count))
    for service, plugs in (
        ("microceph", ("ceph-conf",)),
        ("microovn", ("ovn-certificates", "ovn-chassis")),
    ):
        sh(juju, 0, f"{service} cluster bootstrap")
        for machine, name in enumerate(names):
            if machine:
                token = sh(juju, 0, f"{service} cluster add {name}")
                sh(juju, machine, f"{service} cluster join {token}")
            for plug in plugs:
                sh(juju, machine, f"snap connect lxd:{plug} {service}:{plug}")
    for machine in range(count):
        listed = json.loads(sh(juju, machine, "microceph disk list --json"))
        sh(juju, machine, f"microceph disk add {listed['AvailableDisks'][-1]['Path']}")
    start(juju, 0)
    for machine in range(1, count):
        join(juju, machine)
    _inside(juju, names)
    return names


def _inside(juju: jubilant.Juju, names: tuple[str, ...]) -> None:
    northbound = sh(juju, 0, ". /var/snap/microovn/common/data/env/ovn.env; echo $OVN_NB_CONNECT")
    lines = [f"lxc config set network.ovn.northbound_connection {northbound}"]
    parts = (
        "storage create local btrfs",
        "storage create remote ceph source=lxd_remote",
        f"network create UPLINK --type=physical parent={ovn.INTERFACE}",
    )
    lines += [f"lxc {part} --target {name}" for part in parts for name in names]
    lines += [
        "lxc storage create local btrfs",
        f"lxc storage create remote ceph ceph.rbd.du=false ceph.rbd.features={_RBD} "
        "ceph.osd.pool_name=lxd_remote",
        f"lxc network create UPLINK --type=physical ipv4.gateway={ovn.GATEWAY} "
        f"ipv4.ovn.ranges={ovn.RANGE}",
        "lxc network create default --type=ovn network=UPLINK",
        "lxc profile device add default root disk path=/ pool=remote",
        "lxc profile device add default eth0 nic name=eth0 network=default",
    ]
    for volume in ("images", "backups"):
        for name in names:
            lines.append(f"lxc storage volume create local {volume} --target {name}")
    sh(juju, 0, "; ".join(lines))
    for machine in range(len(names)):
        sh(
            juju,
            machine,
            "lxc config set storage.images_volume local/images;"
            "lxc config set storage.backups_volume local/backups",
        )


def told(juju: jubilant.Juju, machine: int, *paths: str) -> list[Any]:
    """What LXD on a machine answers."""
    return [json.loads(sh(juju, machine, f"lxc query '{path}'")) for path in paths]


def unit_on(juju: jubilant.Juju, machine: int) -> str:
    """The application's unit on a machine."""
    units = juju.status().apps[cloud.APP].units.items()
    return next(name for name, unit in units if unit.machine == str(machine))
