"""The network for instances where there is no OVN: a managed bridge or the Ubuntu fan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cloud import CREATED, Cloud, Task

if TYPE_CHECKING:
    from services.lxd import Lxd

_CONFIG: dict[str, dict[str, str]] = {"bridge": {}, "fan": {"bridge.mode": "fan"}}
_DESCRIPTION = {
    "bridge": "Default bridge, one on every member",
    "fan": "Default Ubuntu fan powered bridge",
}


def tasks(cloud: Cloud) -> Iterator[Task]:
    """What is due for the managed network of instances."""
    name = _bridge(cloud)
    if name is None or not cloud.issuer:
        return
    network = cloud.facts.networks.get(name)
    if network is not None and network.status == CREATED:
        return
    if network is None or network.managed:
        yield Task(f"network {name}", partial(_make, cloud, name))


def advice(cloud: Cloud) -> Iterator[str]:
    """An interface of the machine that has the network's name is in the way."""
    name = _bridge(cloud)
    network = cloud.facts.networks.get(name) if name else None
    if network is not None and not network.managed:
        yield (
            f"network {name} cannot be made: {cloud.name} has an interface of that name that "
            "is not LXD's; remove it, or choose another instance-network"
        )
    elif network is not None and network.status == "Errored":
        yield f"network {name} is in error; see `lxc network show {name}`"


def _bridge(cloud: Cloud) -> str | None:
    """The network's name, None if another module or nobody makes it."""
    wanted = cloud.settings
    return wanted.managed_network if wanted.instance_network in _CONFIG else None


def _make(cloud: Cloud, name: str, lxd: Lxd) -> None:
    kind = cloud.settings.instance_network
    network = cloud.facts.networks.get(name)
    for member in cloud.facts.members:
        if network is None or member not in network.locations:
            lxd.post("networks", {"name": name, "type": "bridge"}, target=member)
    body = {
        "name": name,
        "type": "bridge",
        "description": _DESCRIPTION[kind],
        "config": _CONFIG[kind],
    }
    lxd.post("networks", body)
