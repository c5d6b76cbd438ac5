"""What a formation has led to, so that two can be compared: daemons, machines and databags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jubilant

from integration import cloud
from integration.cloud import APP
from integration.faults import Faults

PROBE = (Path(__file__).parent / "faults_probe.py").read_text()
# What differs between two formations that nothing disturbed: certificates, Juju's model, what LXD
# and OVN choose at random, and what a unit said of its interface while the network waited for it.
_RANDOM = re.compile(
    r"(networks\.default\b.*ipv[46]\.address|user\.microcloud\.model"
    r"|bag\.report\.(uplink|clusters\..*))$"
)


def look(juju: jubilant.Juju, faults: Faults) -> dict[str, Any]:
    """Everything, as one dictionary of paths and values, without what is random."""
    status = juju.status()
    units = cloud.units(juju)
    found: dict[str, Any] = {}
    for unit in units:
        machine = status.apps[APP].units[unit].machine
        found[unit] = json.loads(faults.run("exec", machine, "--", "python3", "-c", PROBE))
        found[unit]["bag"] = _bag(juju, unit)
    # What only the issuer says another unit says where the leader has changed.
    told = (status.apps[APP].units[unit].workload_status for unit in units)
    found["said"] = [f"{one.current}: {one.message}" for one in told]
    return {path: value for path, value in _flat(found, "") if not _RANDOM.search(path)}


def _bag(juju: jubilant.Juju, unit: str) -> dict[str, Any]:
    shown = json.loads(juju.cli("show-unit", unit, "--format", "json"))[unit]
    bag = shown["relation-info"][0]["local-unit"]["data"]
    return {
        "report": json.loads(bag.get("report", "{}")),
        # A grant that is a mere record of a failure has no tokens; the others must be gone.
        "grants": sorted(json.loads(bag.get("grants", "{}"))),
    }


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if all(isinstance(item, str | int) for item in value):
            yield path, sorted(value, key=str)
        else:
            for number, inner in enumerate(value):
                yield from _flat(inner, f"{path}[{number}]")
    else:
        yield path, value


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Where two formations differ, one line each."""
    lines: list[str] = []
    for path in sorted({*expected, *found}):
        before, after = expected.get(path), found.get(path)
        if before != after:
            lines.append(f"{path}: {before!r} became {after!r}")
    return lines
