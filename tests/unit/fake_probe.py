"""A machine's disks made of dictionaries, in the place of machine.diskprobe.HostProbe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GIB = 1024**3


@dataclass
class FakeProbe:
    """What a probe is asked, by the kernel's names of devices."""

    link_map: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    extra: dict[str, dict[str, object]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    use_map: dict[str, list[str]] = field(default_factory=dict)
    data: dict[str, list[str]] = field(default_factory=dict)

    def links(self) -> Mapping[str, str]:
        return self.link_map

    def resolve(self, path: str) -> str | None:
        return self.link_map.get(path) or self.nodes.get(path)

    def facts(self, name: str) -> Mapping[str, object] | None:
        return self.extra.get(name)

    def partitions(self, name: str) -> Sequence[str]:
        return self.parts.get(name, [])

    def uses(self, name: str) -> Sequence[str]:
        return self.use_map.get(name, [])

    def signatures(self, name: str) -> Sequence[str]:
        return self.data.get(name, [])

    def disk(self, name: str, size: int = 10, **more: Any) -> dict[str, Any]:
        """One more disk, of `size` GiB; as LXD lists it, with `more` about it."""
        by_id = f"/dev/disk/by-id/scsi-{name}"
        self.link_map[by_id] = name
        self.nodes[f"/dev/{name}"] = name
        found = {"id": name, "size": size * GIB, "type": "scsi", "device_id": f"scsi-{name}"}
        return found | more
