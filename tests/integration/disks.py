"""Ceph's disks as tests of them need it."""

from __future__ import annotations

import json
from typing import Any

import jubilant
import pytest

from integration import cloud
from integration.cloud import APP

CEPH = {"microceph-channel": "squid/stable", "instance-network": "none", "local-storage": "none"}
Config = dict[str, bool | int | float | str]


def osds(juju: jubilant.Juju, unit: str = f"{APP}/0") -> dict[int, tuple[str, str]]:
    """Member and path of each OSD, by number."""
    told = json.loads(cloud.sh(juju, unit, "microceph disk list --json"))["ConfiguredDisks"] or []
    return {disk["osd"]: (disk["location"], disk["path"]) for disk in told}


def run(juju: jubilant.Juju, unit: str, action: str, **params: Any) -> Any:
    """The JSON result of an action."""
    (result,) = juju.run(unit, action, params, wait=600).results.values()
    return json.loads(result)


def refused(juju: jubilant.Juju, unit: str, action: str, **params: Any) -> str:
    """Why an action failed."""
    with pytest.raises(jubilant.TaskError) as caught:
        juju.run(unit, action, params, wait=600)
    return caught.value.task.message
