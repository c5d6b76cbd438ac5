"""The default profile: where instances get their root disk and their network from.

What the charm wrote last is kept in the profile itself. A device that is still as written is
the charm's and follows the configuration; one that somebody changed, removed or made is the
user's, stays as it is, and is spoken of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from cloud import CREATED, MARK, Cloud, Task
from cloud.pools import LOCAL, REMOTE

if TYPE_CHECKING:
    from services.lxd import Lxd

Device = Mapping[str, str]


def wanted(cloud: Cloud) -> dict[str, Device]:
    """The devices the default profile should have, of pools and networks that are ready."""
    devices: dict[str, Device] = {}
    pool = _root_pool(cloud)
    if pool:
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    network = cloud.settings.managed_network
    if network:
        entity = cloud.facts.networks.get(network)
        if entity is not None and entity.status == CREATED:
            devices["eth0"] = {"type": "nic", "name": "eth0", "network": network}
    elif cloud.settings.instance_network != "none":
        parent = cloud.settings.instance_network
        devices["eth0"] = {"type": "nic", "name": "eth0", "nictype": "bridged", "parent": parent}
    return devices


def tasks(cloud: Cloud) -> Iterator[Task]:
    """What is due for the default profile."""
    if not cloud.issuer:
        return
    devices = cloud.facts.profile["devices"]
    for name, device in wanted(cloud).items():
        if _is_ours(cloud, name) and devices.get(name) != device:
            yield Task(f"{name} of the default profile", partial(_write, name, device))
    unwanted = cloud.settings.instance_network == "none" and "eth0" in devices
    if unwanted and _is_ours(cloud, "eth0"):
        yield Task("default profile without a network", partial(_remove, "eth0"))


def advice(cloud: Cloud) -> Iterator[str]:
    """A device that is the user's and differs from what the configuration asks for."""
    devices = cloud.facts.profile["devices"]
    for name, device in wanted(cloud).items():
        differs = any(devices.get(name, {}).get(key) != value for key, value in device.items())
        if differs and not _is_ours(cloud, name):
            yield f"{name} of the default profile was changed by somebody and stays so"


def _root_pool(cloud: Cloud) -> str:
    """Where instances outlive their member, if that is possible."""
    for name, kind in ((REMOTE, "ceph"), (LOCAL, "")):
        pool = cloud.facts.pools.get(name)
        if pool is not None and pool.status == CREATED and pool.kind.startswith(kind):
            return name
    return ""


def _is_ours(cloud: Cloud, name: str) -> bool:
    written = cloud.facts.profile["config"].get(f"{MARK}.{name}")
    device = cloud.facts.profile["devices"].get(name)
    return device == (json.loads(written) if written else None)


def _write(name: str, device: Device, lxd: Lxd) -> None:
    # One PATCH, so that the device and the note of it cannot come apart.
    config = {f"{MARK}.{name}": json.dumps(device, sort_keys=True)}
    lxd.patch("profiles/default", {"devices": {name: device}, "config": config})


def _remove(name: str, lxd: Lxd) -> None:
    # What is left out of a PUT goes; a PATCH only adds.
    profile = lxd.get("/1.0/profiles/default")
    devices = {key: device for key, device in profile["devices"].items() if key != name}
    config = {key: text for key, text in profile["config"].items() if key != f"{MARK}.{name}"}
    body = {"description": profile["description"], "devices": devices, "config": config}
    lxd.put("profiles/default", body)
