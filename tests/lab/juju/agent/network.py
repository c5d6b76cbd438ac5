"""The machine's own addresses, and notice of their changes."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from typing import Any

Doc = dict[str, Any]
_RTMGRP = 0x1 | 0x10 | 0x100  # links, IPv4 addresses, IPv6 addresses


def watch_socket() -> socket.socket:
    """A netlink socket that becomes readable when a link or an address changes."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    sock.bind((0, _RTMGRP))
    sock.setblocking(False)
    return sock


def interfaces(networks: dict[str, str]) -> list[Doc]:
    """The interfaces with addresses on the model's networks; others are a charm's own affair."""
    done = subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, timeout=10)
    nets = [ipaddress.ip_network(cidr) for cidr in networks.values()]
    found: list[Doc] = []
    for link in json.loads(done.stdout or "[]"):
        inside = [
            [
                info["local"],
                str(ipaddress.ip_network(f"{info['local']}/{info['prefixlen']}", strict=False)),
            ]
            for info in link.get("addr_info", [])
            if info.get("scope") == "global"
            and any(ipaddress.ip_address(info["local"]) in net for net in nets)
        ]
        if inside:
            found.append(
                {
                    "name": link["ifname"],
                    "mac": link.get("address", ""),
                    "addresses": inside,
                    "up": "UP" in link.get("flags", []),
                }
            )
    return found


def given(text: str) -> list[Doc]:
    """Interfaces stated on the command line: `name,mac,address/prefix`."""
    name, mac, address = text.split(",")
    subnet = str(ipaddress.ip_network(address, strict=False))
    return [{"name": name, "mac": mac, "addresses": [[address.split("/")[0], subnet]], "up": True}]
