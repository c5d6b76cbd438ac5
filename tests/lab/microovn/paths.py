"""Where MicroOVN keeps its things, below `/var/snap/microovn/common` (or SNAP_COMMON)."""

from __future__ import annotations

import os
from pathlib import Path

COMMON = Path(os.environ.get("SNAP_COMMON") or "/var/snap/microovn/common")
DATA = COMMON / "data"
ENV_FILE = DATA / "env" / "ovn.env"
PKI = DATA / "pki"
CENTRAL = DATA / "central" / "db"
SWITCH = DATA / "switch" / "db"
RUN_OVN = COMMON / "run" / "ovn"
RUN_SWITCH = COMMON / "run" / "switch"
LOGS = COMMON / "logs"
NB_FILE = CENTRAL / "ovnnb_db.db"
SB_FILE = CENTRAL / "ovnsb_db.db"
CONF_DB = SWITCH / "conf.db"
NB_SOCKET = RUN_OVN / "ovnnb_db.sock"
SB_SOCKET = RUN_OVN / "ovnsb_db.sock"
NB_CONTROL = RUN_OVN / "ovnnb_db.ctl"
SB_CONTROL = RUN_OVN / "ovnsb_db.ctl"
OVS_SOCKET = RUN_SWITCH / "db.sock"
CA = PKI / "cacert.pem"


def certificate(service: str) -> Path:
    """The certificate of `client`, `ovnnb`, `ovnsb`, `ovn-northd` or `ovn-controller`."""
    return PKI / f"{service}-cert.pem"


def private_key(service: str) -> Path:
    """The key that belongs to it."""
    return PKI / f"{service}-privkey.pem"


def ssl_options(service: str) -> list[str]:
    """How an OVS program is told to use a service's key pair."""
    return ["-p", str(private_key(service)), "-c", str(certificate(service)), "-C", str(CA)]


def create() -> None:
    """Make the directories."""
    for path in (ENV_FILE.parent, PKI, CENTRAL, SWITCH, RUN_OVN, RUN_SWITCH, LOGS):
        path.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
