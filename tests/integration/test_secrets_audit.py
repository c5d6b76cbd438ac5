"""No join token and no private key can be read anywhere, at any moment of a formation."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from pathlib import Path

import jubilant
import pytest

from integration import ceph, cloud, ovn
from integration.cloud import APP

pytestmark = pytest.mark.timeout(600)

# A token of LXD, MicroCeph or MicroOVN is the base64 of a JSON document whose first key is one of
# these.
FIRST_KEYS = ("server_name", "secret", "name", "fingerprint", "join_addresses")
TOKEN = re.compile(
    "|".join(base64.b64encode(f'{{"{key}'.encode())[:11].decode() for key in FIRST_KEYS)
)
SECRET = re.compile(r'"secret": ?"[0-9a-f]{64}"')
PRIVATE_KEY = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY")


class Watcher(threading.Thread):
    """Reads databags, status and process lists over and over while the cloud forms."""

    def __init__(self, juju: jubilant.Juju) -> None:
        super().__init__(daemon=True)
        self._juju = juju
        self._over = threading.Event()
        self.seen: dict[str, set[str]] = {}
        self.grants = 0

    def run(self) -> None:
        while not self._over.is_set():
            for name, text in self._read():
                self.seen.setdefault(name, set()).add(text)
                self.grants += '\\"tokens\\": {\\"' in text
            time.sleep(0.05)

    def _read(self) -> list[tuple[str, str]]:
        try:
            found = [("status", self._juju.cli("status", "--format", "json"))]
            for unit in cloud.units(self._juju):
                shown = self._juju.cli("show-unit", unit, "--format", "json")
                found.append(("databag", json.dumps(json.loads(shown))))
            found.append(("processes", _processes()))
        except (jubilant.CLIError, KeyError):
            return []  # a unit that is not there yet
        return found

    def stop(self) -> None:
        self._over.set()
        self.join(30)


def _processes() -> str:
    """All command lines and, of the hooks, the environments, as root of the host sees them."""
    parts: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            if "charm" in parts[-1]:
                environment = path.with_name("environ").read_bytes()
                parts.append(environment.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended
    return "\n".join(parts)


@pytest.fixture(scope="module")
def watched(juju: jubilant.Juju, charm: Path, config) -> Watcher:
    juju.model_config({"logging-config": "<root>=TRACE"})
    juju.deploy(charm, APP, num_units=3, config={**config, **ceph.WITH_CEPH, **ovn.UPLINK})
    watcher = Watcher(juju)
    watcher.start()
    cloud.wait_active(juju, 3)
    watcher.stop()
    return watcher


def clean(text: str) -> bool:
    return not (TOKEN.search(text) or SECRET.search(text) or PRIVATE_KEY.search(text))


def test_the_audit_would_have_seen_a_grant(watched: Watcher):
    assert watched.grants, "no grant was seen in any databag: the audit looks at nothing"
    assert len(watched.seen["databag"]) > 10


@pytest.mark.parametrize("place", ["databag", "status", "processes"])
def test_nothing_readable_while_it_formed(watched: Watcher, place: str):
    assert all(clean(text) for text in watched.seen[place])


def test_nothing_readable_in_the_log(juju: jubilant.Juju, watched: Watcher):
    log = juju.debug_log()
    assert "joining" in log or "joined" in log
    assert clean(log)


def test_nothing_readable_in_an_action_result(juju: jubilant.Juju, watched: Watcher):
    task = juju.run(cloud.units(juju)[0], "status")
    assert clean(json.dumps(task.results) + task.stdout + task.stderr)


def test_nothing_readable_in_files_but_root_s(juju: jubilant.Juju, watched: Watcher):
    for unit in cloud.units(juju):
        open_to_others = cloud.sh(
            juju, unit, "find /var/lib/microcloud-charm -mindepth 1 -type d -perm /077"
        )
        assert open_to_others.strip() == "", "others can look into the charm's state"
        key = cloud.sh(juju, unit, "stat -c %a /var/lib/microcloud-charm/*/key")
        assert key.strip() == "600"
        found = cloud.sh(
            juju,
            unit,
            f"grep -rlE '{TOKEN.pattern}' /var/lib/microcloud-charm /var/log/juju /tmp "
            "/var/lib/juju/agents 2>/dev/null || true",
        )
        assert found.strip() == ""
