"""The framework of the Micro* stand-ins: three daemons of a small application on 127.0.0.x."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.layout import PACKAGE_PARENT
from lab.microcluster import rest
from lab.microcluster.rest import ApiError
from lab.microcluster.roles import Seat, plan

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ovsdb-server"), reason="needs root and ovsdb-server"
)
PORT = 27443
APPLICATION = '''
"""A small application: one service on every member."""
import sys
from lab.microcluster import cli, daemon
from lab.microcluster.app import App, Hooks
from lab.microcluster.rest import ApiError, Route

def start(cluster, config):
    if "fail" in config:
        raise ApiError("told to fail")
    row = {"member": cluster.name, "service": "web"}
    cluster.store.insert("services", cluster.name + "/web", row)

def leave(cluster, force):
    if not force and (cluster.data_dir / "stay").exists():
        raise ApiError("still in use")

APP = App("small", 7443, "1.2", ("one",),
          hooks=Hooks(on_bootstrap=start, on_join=start, pre_remove=leave),
          routes=(Route("GET", "/1.0/name", lambda cluster, request: cluster.name),),
          cascade=("services",), tables={"services": ("member", "service")})
sys.exit(daemon.main(APP) if sys.argv[1] == "daemon" else cli.main(APP, {}, sys.argv[1:]))
'''


@dataclass
class Node:
    """One daemon of the application."""

    number: int
    home: Path
    program: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"m{self.number}"

    @property
    def address(self) -> str:
        return f"127.0.0.{self.number}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        ours = {"SNAP_COMMON": str(self.home), "LAB_HEARTBEAT": "0.5"}
        return {**os.environ, **ours, "PYTHONPATH": str(PACKAGE_PARENT)}

    def start(self) -> None:
        argv = [sys.executable, str(self.program), "daemon"]
        self.process = subprocess.Popen(argv, env=self.environment)
        wait(lambda: self.call("GET", "/core/1.0") is not None)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def call(self, method: str, url: str, body: object = None) -> Any:
        socket = self.home / "state" / "control.socket"
        return rest.call_unix(socket, method, url, body, timeout=90)

    def init(self, **body: object) -> None:
        self.call("POST", "/core/control", {"name": self.name, "address": self.address, **body})

    def token(self, name: str, seconds: float = 60) -> str:
        body = {"name": name, "expire_after": int(seconds * 1e9)}
        return self.call("POST", "/core/control/tokens", body)

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(self.program), *args]
        return subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def statuses(self) -> dict[str, str]:
        return {m["name"]: m["status"] for m in self.call("GET", "/core/1.0/cluster")}


def wait(condition: Any, seconds: float = 60) -> None:
    """Wait until a condition holds; OSError and ApiError count as not yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, ApiError):
            pass
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


def trouble(node: Node) -> str:
    """What a member says when its leader has found itself alone."""
    end = time.monotonic() + 40
    text = ""
    while "leader" not in text and time.monotonic() < end:
        try:
            node.call("GET", "/core/1.0/cluster")
        except ApiError as error:
            text = str(error)
        time.sleep(0.5)
    return text


def start(count: int, tmp_path: Path) -> Iterator[list[Node]]:
    """Daemons that are no members of anything."""
    program = tmp_path / "small.py"
    program.write_text(APPLICATION)
    made = [Node(number, tmp_path / f"n{number}", program) for number in range(1, count + 1)]
    for node in made:
        node.home.mkdir()
        node.start()
    yield made
    for node in made:
        node.kill()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Three of them."""
    yield from start(3, tmp_path)


@pytest.fixture
def four(tmp_path: Path) -> Iterator[list[Node]]:
    """Four of them."""
    yield from start(4, tmp_path)


def seats(text: str) -> list[Seat]:
    """`V` votes, `v` votes and is dead, `S` does not vote, `s` does not and is dead."""
    return [Seat(str(i), c in "Vv", c.isupper()) for i, c in enumerate(text)]


@pytest.mark.parametrize(
    ("now", "promote", "demote", "shown"),
    [
        ("V", "", "", "v"),
        ("VS", "", "", "vp"),
        ("vS", "", "", "vp"),
        ("VSS", "12", "", "vvv"),
        ("VVSS", "2", "", "vvvs"),
        ("VVVSSS", "", "", "vvvssp"),
        ("VvVS", "3", "1", "vsvv"),
        ("VvVs", "", "", "vvvs"),
        ("VVvSS", "3", "2", "vvsvs"),
    ],
)
def test_roles(now: str, promote: str, demote: str, shown: str) -> None:
    made = plan(seats(now))
    assert ("".join(made.promote), "".join(made.demote)) == (promote, demote)
    letters = {"voter": "v", "stand-by": "s", "spare": "p"}
    assert "".join(letters[made.roles[str(i)]] for i in range(len(now))) == shown


def form(nodes: list[Node]) -> None:
    """Make one cluster of all nodes."""
    nodes[0].init(bootstrap=True)
    for node in nodes[1:]:
        node.init(join_token=nodes[0].token(node.name))


def test_before_initialization(nodes: list[Node]) -> None:
    node = nodes[0]
    assert node.call("GET", "/core/1.0")["version"] == "1.2"
    assert node.call("GET", "/core/1.0/ready") is None
    with pytest.raises(ApiError, match="Database is not yet initialized") as caught:
        node.call("GET", "/core/1.0/cluster")
    assert caught.value.code == 503
    listed = node.cli("cluster", "list")
    assert (listed.returncode, listed.stderr) == (1, "Error: Database is not yet initialized\n")
    assert "not supported" in node.cli("init").stderr


def test_failed_bootstrap_can_be_retried(nodes: list[Node]) -> None:
    node = nodes[0]
    with pytest.raises(ApiError, match="told to fail"):
        node.init(bootstrap=True, config={"fail": "1"})
    with pytest.raises(ApiError, match="not yet initialized"):
        node.call("GET", "/core/1.0/cluster")
    with pytest.raises(ApiError, match="not a valid FQDN"):
        node.call("POST", "/core/control", {"bootstrap": True, "name": "a_b", "address": "x:1"})
    node.init(bootstrap=True)
    assert [m["role"] for m in node.call("GET", "/core/1.0/cluster")] == ["PENDING"]
    wait(lambda: node.call("GET", "/core/1.0/cluster")[0]["role"] == "voter")
    with pytest.raises(ApiError, match="Unable to initialize cluster: Database is online"):
        node.init(bootstrap=True)


def test_tokens(nodes: list[Node]) -> None:
    first, second, third = nodes
    first.init(bootstrap=True)
    token = first.token("m2")
    with pytest.raises(ApiError, match='"core_token_records" entry already exists'):
        first.token("m2")
    assert [t["name"] for t in first.call("GET", "/core/control/tokens")] == ["m2"]
    with pytest.raises(ApiError, match="SAN does not contain join token name"):
        third.init(join_token=token)
    second.init(join_token=token)
    with pytest.raises(ApiError, match="Failed to join cluster with the given join token"):
        third.init(join_token=token)
    with pytest.raises(ApiError, match=f'Remote with address "{second.address}" exists'):
        third.init(join_token=first.token("m3"), address=second.address)
    first.call("DELETE", "/core/control/tokens/m3")
    late = first.token("m3", seconds=0.1)
    time.sleep(0.2)
    with pytest.raises(ApiError, match="Token expired"):
        third.init(join_token=late)
    with pytest.raises(ApiError, match="Failed to decode join token"):
        third.init(join_token="nonsense")


def test_failed_join_leaves_nothing(nodes: list[Node]) -> None:
    first, second, _ = nodes
    first.init(bootstrap=True)
    with pytest.raises(ApiError, match="told to fail"):
        second.init(join_token=first.token("m2"), config={"fail": "1"})
    assert list(first.statuses()) == ["m1"]
    second.init(join_token=first.token("m2"))
    assert first.statuses() == second.statuses() == {"m1": "ONLINE", "m2": "ONLINE"}


def test_members_and_forwarding(nodes: list[Node]) -> None:
    form(nodes)
    assert nodes[2].statuses() == dict.fromkeys(("m1", "m2", "m3"), "ONLINE")
    assert nodes[0].call("GET", "/1.0/name?target=m3") == "m3"
    query = "select service from services where member_id=2"
    assert "| web     |" in nodes[1].cli("cluster", "sql", query).stdout
    deleted = nodes[1].cli("cluster", "sql", "delete from services where member_id=2")
    assert deleted.stdout == "Rows affected: 1\n"
    assert "m2/web" not in nodes[0].cli("cluster", "sql", "select * from services").stdout
    lines = nodes[0].cli("cluster", "list", "-f", "csv").stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["m1", "m2", "m3"]


def test_strangers_are_refused(nodes: list[Node]) -> None:
    form(nodes[:2])
    stranger = rest.TlsPeer(nodes[0].address)
    for method, url in (("GET", "/1.0/name"), ("POST", "/core/internal/reset")):
        with pytest.raises(ApiError, match="Forbidden"):
            stranger.call(method, url, {})
    cert, key = (nodes[1].home / "state" / f"cluster.{end}" for end in ("crt", "key"))
    member = rest.TlsPeer(nodes[0].address, cert=cert, key=key)
    assert member.call("GET", "/1.0/name") == "m1"
    with pytest.raises(ApiError, match="Forbidden"):
        member.call("POST", "/core/control/tokens", {"name": "m9"})


def test_removal(nodes: list[Node]) -> None:
    first, second, third = nodes
    form(nodes)
    wait(lambda: set(roles(first).values()) == {"voter"})
    (second.home / "data" / "stay").touch()
    with pytest.raises(ApiError, match="still in use"):
        first.call("DELETE", "/core/1.0/cluster/m2")
    (second.home / "data" / "stay").unlink()
    assert second.cli("cluster", "remove", "m2").returncode == 0
    assert sorted(first.statuses()) == ["m1", "m3"]
    with pytest.raises(ApiError, match="not yet initialized"):
        second.call("GET", "/core/1.0/cluster")
    with pytest.raises(ApiError, match='No remote exists with the given name "m2"'):
        first.call("DELETE", "/core/1.0/cluster/m2")
    second.init(join_token=third.token("m2"))
    assert sorted(first.statuses()) == ["m1", "m2", "m3"]


def roles(node: Node) -> dict[str, str]:
    """Who has which role."""
    return {m["name"]: m["role"] for m in node.call("GET", "/core/1.0/cluster")}


def test_two_members_have_one_voter(nodes: list[Node]) -> None:
    first, second, _ = nodes
    form(nodes[:2])
    wait(lambda: roles(second) == {"m1": "voter", "m2": "spare"})
    second.kill()
    with pytest.raises(ApiError, match="refused"):
        first.call("DELETE", "/core/1.0/cluster/m2")
    first.call("DELETE", "/core/1.0/cluster/m2?force=1")
    assert first.statuses() == {"m1": "ONLINE"}


def test_only_voter_can_leave(nodes: list[Node]) -> None:
    first, second, _ = nodes
    form(nodes[:2])
    wait(lambda: roles(second) == {"m1": "voter", "m2": "spare"})
    first.call("DELETE", "/core/1.0/cluster/m1")
    wait(lambda: roles(second) == {"m2": "voter"})
    first.init(join_token=second.token("m1"))
    assert first.statuses() == {"m1": "ONLINE", "m2": "ONLINE"}


def test_loss_of_the_only_voter(nodes: list[Node]) -> None:
    first, second, _ = nodes
    form(nodes[:2])
    first.kill()
    assert "available dqlite leader" in trouble(second)
    first.start()
    wait(lambda: second.statuses() == {"m1": "ONLINE", "m2": "ONLINE"})


def test_quorum_and_restart(nodes: list[Node]) -> None:
    first, second, third = nodes
    form(nodes)
    wait(lambda: set(roles(first).values()) == {"voter"})
    third.kill()
    wait(lambda: first.statuses()["m3"] == "UNREACHABLE")
    with pytest.raises(ApiError, match="refused"):
        first.call("DELETE", "/core/1.0/cluster/m3")
    second.kill()
    assert "available dqlite leader" in trouble(first)
    second.start()
    wait(lambda: first.statuses()["m2"] == "ONLINE")
    first.call("DELETE", "/core/1.0/cluster/m3?force=1")
    assert sorted(second.statuses()) == ["m1", "m2"]


def test_dead_voter_is_replaced(four: list[Node]) -> None:
    form(four)
    wait(lambda: sorted(roles(four[0]).values()) == ["stand-by", "voter", "voter", "voter"])
    # A member that was slow to answer once may have lost its vote to the fourth.
    voting = [node for node in four if roles(four[0])[node.name] == "voter"]
    first, second, third = voting
    spare = next(node for node in four if node not in voting)
    second.kill()
    wait(lambda: roles(third)[spare.name] == "voter")
    first.kill()  # two of four are gone now, and two of the three voters live
    wait(lambda: third.statuses()[first.name] == "UNREACHABLE")
    second.start()
    wait(lambda: second.statuses()[second.name] == "ONLINE")
    wait(lambda: roles(second)[second.name] == "voter")


def test_power_cut_while_joining(nodes: list[Node]) -> None:
    node = nodes[0]
    node.kill()
    (node.home / "state" / "daemon.yaml").write_text('{"name": "m1", "address": "127.0.0.1:1"}')
    node.start()
    wait(lambda: node.call("GET", "/core/1.0")["address"] == "")
    node.init(bootstrap=True)
    assert node.statuses() == {"m1": "ONLINE"}
