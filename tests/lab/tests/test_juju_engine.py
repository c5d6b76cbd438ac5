"""Controller and agents together, on machines that are only directories: quick, no namespaces.

What charms see is tested by the exerciser; here are crashes, faults and Juju 4's order.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jubilant
import pytest

from lab.juju import controller, faults
from lab.juju.agent.loop import Agent
from lab.juju.wire import Client
from lab.layout import PACKAGE_PARENT, Lab

Doc = dict[str, Any]
METADATA = """\
name: small
summary: a charm in shell
description: It notes its hooks and does what files next to it say.
peers: {cluster: {interface: small}}
requires: {up: {interface: line}}
provides: {down: {interface: line}}
"""
DISPATCH = """\
#!/bin/sh
echo "${JUJU_DISPATCH_PATH#hooks/} $JUJU_REMOTE_UNIT $JUJU_DEPARTING_UNIT" \
    >>"$JUJU_CHARM_DIR/events"
if [ -e "$JUJU_CHARM_DIR/fail" ]; then exit 1; fi
case $JUJU_DISPATCH_PATH in
*/config-changed)
    relation-set -r "$(relation-ids cluster)" "word=$(config-get word)"
    status-set active "$(config-get word)"
    is-leader >/dev/null ;;
*/leader-elected) relation-set --app -r "$(relation-ids cluster)" "boss=$JUJU_UNIT_NAME" ;;
*/echo) action-set "said.$(action-get what)=yes"; echo loud ;;
esac
"""
ACTIONS = "echo: {params: {what: {type: string, default: nothing}}}\n"
CONFIG = "options: {word: {type: string, default: first}}\n"


class Engine:
    """A lab without machines, its controller and a `juju` command for it."""

    def __init__(self, root: Path, version: str) -> None:
        self.lab = Lab("engine")
        self.root = root
        self.version = version
        self.charm = root / "charm"
        self.charm.mkdir()
        files = {
            "metadata.yaml": METADATA,
            "actions.yaml": ACTIONS,
            "config.yaml": CONFIG,
            "dispatch": DISPATCH,
        }
        for name, text in files.items():
            (self.charm / name).write_text(text)
        (self.charm / "dispatch").chmod(0o755)
        controller.start(self.lab, version)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lab.juju", *argv], capture_output=True, text=True, timeout=60
        )

    def juju(self, *argv: str) -> str:
        done = self.run(*argv)
        assert done.returncode == 0, f"juju {' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> Doc:
        return json.loads(self.juju("status", "--format", "json"))

    def units(self, app: str = "small") -> Doc:
        return self.status()["applications"].get(app, {}).get("units", {})

    def wait(self, ready: Callable[[], object], seconds: float = 90.0) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, f"{json.dumps(self.status()['applications'])}"
            time.sleep(0.05)

    def settled(self, count: int, app: str = "small") -> bool:
        units = self.units(app)
        return len(units) == count and all(
            u["juju-status"]["current"] == "idle" and u["workload-status"]["current"] == "active"
            for u in units.values()
        )

    def leader(self) -> str:
        return next((n for n, u in self.units().items() if u.get("leader")), "")

    def charm_dir(self, unit: str) -> Path:
        tag = f"unit-{unit.replace('/', '-')}"
        return next((self.lab.root / "local").glob(f"*/juju/agents/{tag}/charm"))

    def events(self, unit: str) -> list[str]:
        text = (self.charm_dir(unit) / "events").read_text()
        return [line.strip() for line in text.splitlines()]

    def bags(self, unit: str) -> Doc:
        doc = json.loads(self.juju("show-unit", unit, "--format", "json", "--endpoint", "cluster"))
        return doc[unit]["relation-info"][0]

    def unsaved(self) -> list[str]:
        client = controller.connect(self.lab)
        try:
            return client.call("unsaved")
        finally:
            client.close()

    def end(self) -> None:
        for app in self.status()["applications"]:
            self.juju(
                "remove-application",
                "--no-prompt",
                "--force",
                "--no-wait",
                "--destroy-storage",
                app,
            )
        self.wait(lambda: not self.status()["machines"])
        controller.stop(self.lab)


def _engine(monkeypatch: pytest.MonkeyPatch, version: str) -> Iterator[Engine]:
    root = Path(tempfile.mkdtemp(prefix="jl", dir="/tmp"))  # short: it holds unix sockets
    monkeypatch.setenv("LAB_ROOT", str(root))
    monkeypatch.setenv("LAB", "engine")
    monkeypatch.setenv("LAB_PROVIDER", "local")
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE_PARENT))
    made = Engine(root, version)
    try:
        yield made
    finally:
        try:
            made.end()
        finally:
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    yield from _engine(monkeypatch, "3.6.28")


@pytest.fixture
def engine4(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    yield from _engine(monkeypatch, "4.0.15")


def deploy(engine: Engine, count: int) -> None:
    engine.juju("deploy", str(engine.charm), "-n", str(count))
    engine.wait(lambda: engine.settled(count))


def test_a_killed_controller_finds_everything_again(engine: Engine) -> None:
    deploy(engine, 3)
    engine.juju("config", "small", "word=second")
    engine.wait(lambda: engine.bags("small/1")["local-unit"]["data"].get("word") == "second")
    before = engine.bags("small/0")
    assert engine.unsaved() == []
    controller.stop(engine.lab, kill=True)
    controller.start(engine.lab)
    assert engine.bags("small/0") == before
    engine.juju("config", "small", "word=third")
    engine.wait(
        lambda: (
            engine.settled(3)
            and all(
                engine.bags(u)["local-unit"]["data"].get("word") == "third" for u in engine.units()
            )
        )
    )
    assert engine.unsaved() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_killed_at_a_tool_call_comes_again_and_its_writes_are_lost(
    engine: Engine, when: str
) -> None:
    deploy(engine, 1)
    faults.kill_hook(engine.lab, "small/0", 3, hook="config-changed", when=when)
    engine.juju("config", "small", "word=second")
    engine.wait(lambda: engine.bags("small/0")["local-unit"]["data"].get("word") == "second")
    engine.wait(lambda: engine.settled(1))
    runs = [h for h in faults.hooks(engine.lab, unit="small/0") if h["hook"] == "config-changed"]
    assert [h["rc"] for h in runs[-2:]] == [-9, 0]
    assert runs[-2]["calls"] == 3
    assert not any(faults.pending(engine.lab).values())


def test_a_killed_agent_repeats_its_hook(engine: Engine) -> None:
    faults.set_knob(engine.lab, "retry-delay", "0.2")
    deploy(engine, 1)
    dispatch = engine.charm_dir("small/0") / "dispatch"
    text = dispatch.read_text()
    dispatch.write_text(text.replace("case ", "sleep 60\ncase ", 1))
    engine.juju("config", "small", "word=second")
    engine.wait(
        lambda: (
            engine.events("small/0")[-1] == "config-changed"
            and engine.units()["small/0"]["juju-status"]["current"] == "executing"
        )
    )
    dispatch.write_text(text)
    faults.kill_agent(engine.lab, "small/0")
    engine.wait(lambda: engine.bags("small/0")["local-unit"]["data"].get("word") == "second")
    engine.wait(lambda: engine.settled(1))
    assert engine.events("small/0")[-2:] == ["config-changed", "config-changed"]


def test_a_frozen_leader_loses_the_lease_when_it_expires(engine: Engine) -> None:
    faults.set_knob(engine.lab, "lease", "1")
    deploy(engine, 2)
    old = engine.leader()
    faults.freeze(engine.lab, old)
    engine.wait(lambda: engine.leader() not in ("", old))
    new = engine.leader()
    engine.wait(lambda: engine.bags(new)["application-data"].get("boss") == new)
    faults.thaw(engine.lab, old)
    engine.wait(lambda: engine.settled(2))
    assert engine.leader() == new


def test_a_lease_given_away(engine: Engine) -> None:
    deploy(engine, 2)
    old = engine.leader()
    new = next(u for u in engine.units() if u != old)
    faults.give_lease(engine.lab, "small", new)
    engine.wait(lambda: engine.bags(new)["application-data"].get("boss") == new)
    faults.expire_lease(engine.lab, "small")
    engine.wait(lambda: engine.leader() == old)


def test_changes_delivered_twice(engine: Engine) -> None:
    deploy(engine, 2)
    count = len(engine.events("small/0"))
    faults.redeliver(engine.lab, "small/0")
    engine.wait(
        lambda: (
            sorted(engine.events("small/0")[count:])
            == ["cluster-relation-changed", "cluster-relation-changed small/1"]
        )
    )


def test_juju_3_survivors_hear_of_a_removal_at_once(engine: Engine) -> None:
    deploy(engine, 2)
    faults.delay(engine.lab, "small/1", 20.0)
    engine.juju("remove-unit", "--no-prompt", "small/1")
    engine.wait(lambda: engine.events("small/0")[-1].startswith("cluster-relation-departed"))
    assert engine.events("small/0")[-1] == "cluster-relation-departed small/1 small/1"
    assert "stop" not in engine.events("small/1")
    faults.clear(engine.lab)
    engine.wait(lambda: len(engine.units()) == 1)


def test_juju_4_survivors_hear_of_a_removal_when_it_is_done(engine4: Engine) -> None:
    deploy(engine4, 2)
    leaver = next(u for u in engine4.units() if u != engine4.leader())
    stayer = engine4.leader()
    engine4.juju("remove-unit", "--no-prompt", leaver)
    engine4.wait(lambda: engine4.settled(1))
    engine4.wait(lambda: engine4.events(stayer)[-1].startswith("cluster-relation-departed"))
    record = faults.hooks(engine4.lab)
    removed = next(h for h in record if h["unit"] == leaver and h["hook"] == "remove")
    departed = next(
        h for h in record if h["unit"] == stayer and h["hook"] == "cluster-relation-departed"
    )
    assert departed["start"] >= removed["end"]
    assert "private-address" not in engine4.bags(stayer)["local-unit"]["data"]
    assert "leader-settings-changed" not in engine4.events(stayer)


def test_a_forced_unit_in_error_goes_without_stop_and_remove(engine: Engine) -> None:
    deploy(engine, 2)
    (engine.charm_dir("small/1") / "fail").touch()
    engine.juju("config", "small", "word=second")
    engine.wait(lambda: engine.units()["small/1"]["workload-status"]["current"] == "error")
    engine.juju("remove-unit", "--no-prompt", "--force", "small/1")
    engine.wait(lambda: list(engine.units()) == ["small/0"])
    hooks = {h["hook"] for h in faults.hooks(engine.lab, unit="small/1")}
    assert not hooks & {"stop", "remove"}


def test_machines_are_kept_on_request(engine: Engine) -> None:
    deploy(engine, 1)
    faults.keep_machines(engine.lab, True)
    place = engine.charm_dir("small/0")
    engine.juju("remove-application", "--no-prompt", "small")
    engine.wait(lambda: not engine.status()["machines"])
    assert (place / "events").exists()
    engine.juju("deploy", str(engine.charm))
    engine.wait(lambda: engine.settled(1))
    assert engine.status()["machines"]["1"]["instance-id"] == "lab-m1"


def test_what_is_not_there_is_refused_by_name(engine: Engine) -> None:
    refused = {
        ("offer", "a:b"): 'ERROR the lab\'s juju does not support "offer"',
        ("deploy", "postgresql"): "Charmhub",
        ("add-unit", "x"): 'ERROR application "x" not found',
        ("deploy", str(engine.charm), "--to", "lxd:0"): '"--to lxd:0"',
        ("deploy", str(engine.charm), "--overlay", "f"): '"deploy --overlay"',
        ("deploy", str(engine.charm), "--config", "none=1"): 'unknown option "none"',
        ("deploy", str(engine.charm), "--bind", "x=alpha"): '"x"',
        ("deploy", str(engine.charm), "--bind", "cluster=mars"): 'space "mars" not found',
        ("model-config", "fan-config=x"): '"fan-config"',
    }
    for argv, words in refused.items():
        done = engine.run(*argv)
        assert done.returncode == 1, argv
        assert words in done.stderr, (argv, done.stderr)
    assert engine.run("deploi").returncode == 2
    assert engine.status()["applications"] == {}


def test_an_action_by_hand_and_its_record(engine: Engine) -> None:
    deploy(engine, 1)
    assert engine.juju("run", "small/0", "echo", "what=this") == "said:\n  this: 'yes'\nloud\n"
    record = faults.hooks(engine.lab, unit="small/0")[-1]
    assert (record["kind"], record["hook"], record["rc"]) == ("action", "echo", 0)
    assert record["tools"] == ["action-get", "action-set"]


@pytest.fixture
def juju(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> jubilant.Juju:
    """jubilant on the lab's command, found on PATH as tests of charms find it."""
    monkeypatch.setenv("PATH", f"{PACKAGE_PARENT / 'lab' / 'bin'}:{os.environ['PATH']}")
    return jubilant.Juju(wait_timeout=90)


def test_jubilant_reads_what_it_gets(engine: Engine, juju: jubilant.Juju) -> None:
    assert str(juju.version()).startswith("3.6.28")
    juju.deploy(engine.charm, "small", num_units=2, config={"word": "given"}, trust=True)
    status = juju.wait(jubilant.all_active, successes=1, delay=0.1)
    assert status.apps["small"].units["small/0"].workload_status.message == "given"
    assert juju.config("small") == {"word": "given"}
    assert juju.config("small", app_config=True)["trust"] is True
    juju.config("small", {"word": "other"}, reset=[])
    juju.wait(
        lambda s: s.apps["small"].units["small/1"].workload_status.message == "other",
        successes=1,
        delay=0.1,
    )
    task = juju.run("small/leader", "echo", {"what": "that"})
    assert (task.results, task.stdout) == ({"said": {"that": "yes"}}, "loud\n")
    assert juju.exec("echo", "a b", "$JUJU_UNIT_NAME", unit="small/1").stdout == "a b small/1\n"
    with pytest.raises(jubilant.TaskError) as failed:
        juju.exec("exit 7", unit="small/0")
    assert failed.value.task.return_code == 7
    with pytest.raises(ValueError, match="not found"):
        juju.run("small/0", "nothing")
    info = juju.show_unit("small/1")
    assert info.relation_info[0].local_unit is not None
    assert "DEBUG unit.small/0.echo loud" not in juju.debug_log()
    juju.model_config({"logging-config": "<root>=INFO;unit=DEBUG"})
    assert "DEBUG unit.small" in juju.debug_log()
    assert juju.debug_log(limit=1).count("\n") == 1


def test_jubilant_and_models(engine: Engine, juju: jubilant.Juju) -> None:
    with jubilant.temp_model() as other:
        other.model_config({"update-status-hook-interval": "1h"})
        assert other.model_config()["update-status-hook-interval"] == "1h"
        other.deploy(engine.charm, "small")
        juju.deploy(engine.charm, "small")
        juju.wait(jubilant.all_active, successes=1, delay=0.1)
        other.wait(jubilant.all_active, successes=1, delay=0.1)
        machines = [j.status().machines["0"].instance_id for j in (juju, other)]
        assert sorted(machines) == ["lab-m0", "lab-m1"]
        assert other.show_model().model_uuid != juju.show_model().model_uuid
    assert [
        m["short-name"] for m in json.loads(engine.juju("models", "--format", "json"))["models"]
    ] == ["controller", "default"]


def test_jubilant_and_user_secrets(engine: Engine, juju: jubilant.Juju) -> None:
    uri = juju.add_secret("mine", {"token": "one"}, info="for tests")
    juju.update_secret(uri, {"token": "two"})
    shown = juju.show_secret("mine", reveal=True)
    assert (shown.revision, shown.content, shown.description) == (2, {"token": "two"}, "for tests")
    assert juju.show_secret(uri, reveal=True, revision=1).content == {"token": "one"}
    deploy(engine, 1)
    denied = juju.cli("exec", "--unit", "small/0", "--", f"secret-get {uri} || true")
    assert "two" not in denied
    juju.grant_secret(uri, "small")
    assert juju.exec("secret-get", str(uri), "token", unit="small/0").stdout == "two\n"
    juju.remove_secret(uri)
    assert juju.secrets() == []


def test_an_answer_that_was_read_already_is_not_waited_for() -> None:
    here, there = socket.socketpair()
    here.settimeout(0.2)
    agent = Agent.__new__(Agent)
    agent._client = client = Client(here)
    agent._selector = selectors.DefaultSelector()
    agent._readable()
    assert agent._client is client
    there.close()
    agent._readable()
    assert agent._client is None
