"""What Juju does when a hook, an agent, a machine, a link or the controller dies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from lab.exerciser.story import Story
from lab.juju import controller
from lab.layout import Lab

LabCommand = Callable[..., str]


@pytest.fixture(scope="module")
def trio(story: Story, deploy: Callable[..., None]) -> list[str]:
    """Deploy three units; return them, the leader first."""
    deploy("exerciser", units=3)
    names = [f"exerciser/{i}" for i in range(3)]
    for unit in names:
        for other in names:
            if other != unit:
                story.sent(unit, f"cluster-relation-changed {other}")
    story.settle()
    return [story.leader(), *story.others()]


def hostname(story: Story, unit: str) -> str:
    status = story.juju.status()
    return str(status.machines[status.apps["exerciser"].units[unit].machine].hostname)


def hold(story: Story, unit: str, event: str, name: str, keep: bool = False) -> dict[str, int]:
    """Have a unit write its bag and hold in its next event; return a mark from before.

    If the event is sent again the unit does nothing in it, or, with `keep`, the same again.
    """
    mark = story.mark(*story.units())
    story.plan(
        unit,
        event,
        {"set": {"endpoint": "cluster", "of": "unit", "data": {"half": name}}},
        {"touch": str(story.log_dir / f"{name}-held")},
        {"await": str(story.log_dir / f"{name}-go")},
        keep=keep,
    )
    story.juju.config("exerciser", {"greeting": name})
    story.until("the hook is held", (story.log_dir / f"{name}-held").exists)
    return mark


def half(story: Story, unit: str) -> str | None:
    return story.one(unit, get={"endpoint": "cluster", "of": "unit"}).get("half")


def test_killed_hook_is_queued_again_and_is_no_error(story: Story, trio: list[str]) -> None:
    unit = trio[1]
    mark = hold(story, unit, "config-changed", "killed")
    pid = story.last(unit, "config-changed").line["pid"]
    story.juju.ssh(unit, f"kill -9 {pid}")

    def again() -> bool:
        current = story.juju.status().apps["exerciser"].units[unit].workload_status.current
        assert current != "error"
        return story.since(mark)[unit].count("config-changed") == 2

    story.until("the hook is run again", again, 10)
    story.settle()
    assert half(story, unit) is None
    assert story.since(mark)[trio[0]] == ["config-changed"]


def test_killed_agent_repeats_its_hook(
    story: Story, trio: list[str], lab_command: LabCommand
) -> None:
    unit = trio[1]
    mark = hold(story, unit, "config-changed", "agent")
    lab_command("fault", "kill-agent", unit, "--model", story.juju.model or "")
    (story.log_dir / "agent-go").touch()
    story.until(
        "the hook is run again", lambda: story.since(mark)[unit].count("config-changed") == 2, 20
    )
    status = story.settle()
    assert status.apps["exerciser"].units[unit].workload_status.current != "error"
    assert half(story, unit) is None
    assert story.since(mark)[unit] == ["config-changed", "config-changed"]


def test_killed_controller_forgets_nothing(story: Story, trio: list[str], lab_up: str) -> None:
    before = story.juju.status()
    config = story.juju.config("exerciser")
    mark = story.mark(*trio)
    lab = Lab(lab_up)
    controller.stop(lab, kill=True)
    controller.start(lab)
    story.settle()
    after = story.juju.status()
    assert story.juju.config("exerciser") == config
    assert set(after.apps["exerciser"].units) == set(before.apps["exerciser"].units)
    assert story.leader() == trio[0]
    assert story.since(mark) == {unit: [] for unit in trio}
    story.one(trio[0], set={"endpoint": "cluster", "of": "app", "data": {"after": "restart"}})
    for unit in trio:
        story.sent(unit, "cluster-relation-changed exerciser", mark)


def test_killed_controller_during_a_hook(story: Story, trio: list[str], lab_up: str) -> None:
    """What the hook wrote arrives once, whether or not it had to be run again for that."""
    leader = trio[0]
    mark = hold(story, leader, "config-changed", "deaf", keep=True)
    lab = Lab(lab_up)
    controller.stop(lab, kill=True)
    controller.start(lab)
    (story.log_dir / "deaf-go").touch()
    for unit in trio[1:]:
        story.sent(unit, f"cluster-relation-changed {leader}", mark)
    status = story.settle()
    (story.log_dir / leader.replace("/", "-") / "plan" / "config-changed.json").unlink()
    assert status.apps["exerciser"].units[leader].workload_status.current != "error"
    assert half(story, leader) == "deaf"
    assert set(story.since(mark)[leader]) == {"config-changed"}
    for unit in trio[1:]:
        assert story.since(mark)[unit].count(f"cluster-relation-changed {leader}") == 1


def test_cut_link_is_caught_up(story: Story, trio: list[str], lab_command: LabCommand) -> None:
    cut = trio[2]
    machine = hostname(story, cut)
    lab_command("link", "cut", machine)
    mark = story.mark(*trio)
    try:
        for text in ("a", "b", "c"):
            bag = {"endpoint": "cluster", "of": "unit", "data": {"while": text}}
            story.one(trio[0], set=bag)
        story.sent(trio[1], f"cluster-relation-changed {trio[0]}", mark)
        assert story.since(mark)[cut] == []
    finally:
        lab_command("link", "heal", machine)
    story.sent(cut, f"cluster-relation-changed {trio[0]}", mark)
    story.settle()
    caught_up = story.since(mark)[cut]  # once for what was on its way when the link was cut
    assert 1 <= len(caught_up) <= 2
    assert set(caught_up) == {f"cluster-relation-changed {trio[0]}"}
    assert story.one(cut, get={"endpoint": "cluster", "of": trio[0]})["while"] == "c"


def test_start_runs_again_after_a_reboot(
    story: Story, trio: list[str], lab_command: LabCommand
) -> None:
    mark = story.mark(*trio)
    lab_command("power", "cycle", hostname(story, trio[2]))
    story.sent(trio[2], "start", mark)
    story.settle()
    assert story.since(mark) == {trio[0]: [], trio[1]: [], trio[2]: ["start"]}


def test_power_loss_in_a_hook(story: Story, trio: list[str], lab_command: LabCommand) -> None:
    unit = trio[2]
    mark = hold(story, unit, "config-changed", "power")
    lab_command("power", "off", hostname(story, unit))
    (story.log_dir / "power-go").touch()
    lab_command("power", "on", hostname(story, unit))
    story.until(
        "the hook is run again", lambda: story.since(mark)[unit].count("config-changed") == 2, 20
    )
    story.settle()
    assert sorted(story.since(mark)[unit]) == ["config-changed", "config-changed", "start"]
    assert half(story, unit) is None


def trace(lab_name: str, unit: str, hook: str) -> list[dict]:
    """Return the lab's own record of a unit's runs of a hook, which no charm can forget."""
    path = controller.root_of(Lab(lab_name)) / "hooks.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if (line["unit"], line["hook"]) == (unit, hook)]


@pytest.mark.parametrize("call", [1, 2])
def test_hook_killed_at_its_nth_tool_call(
    story: Story, trio: list[str], lab_command: LabCommand, lab_up: str, call: int
) -> None:
    unit = trio[1]
    before = len(trace(lab_up, unit, "config-changed"))
    fault = ["fault", "kill-hook", unit, str(call), "--hook", "config-changed"]
    lab_command(*fault, "--model", story.juju.model or "")
    story.juju.config("exerciser", {"greeting": f"killed at {call}"})

    def runs() -> list[dict]:
        return trace(lab_up, unit, "config-changed")[before:]

    story.until("the hook is run again", lambda: len(runs()) == 2, 20)
    status = story.settle()
    killed, whole = runs()
    assert killed["rc"] != 0
    assert killed["calls"] == call
    assert whole["rc"] == 0
    assert whole["calls"] > call
    assert status.apps["exerciser"].units[unit].workload_status.current != "error"


def test_lost_leader_is_replaced_when_its_lease_ends(
    story: Story, trio: list[str], lab_command: LabCommand
) -> None:
    leader = trio[0]
    mark = story.mark(*trio)
    lab_command("fault", "set-knob", "lease", "6")  # seconds; it is 60 in real Juju
    lab_command("fault", "give-lease", "exerciser", leader, "--model", story.juju.model or "")
    begun = time.time()
    lab_command("power", "off", hostname(story, leader))
    story.until(
        "somebody else is elected",
        lambda: any("leader-elected" in events for events in story.since(mark).values()),
        100,
    )
    lab_command("fault", "set-knob", "lease", "60")
    (elected,) = [unit for unit, events in story.since(mark).items() if "leader-elected" in events]
    assert elected in trio[1:]
    assert story.last(elected, "leader-elected").time - begun > 1
    assert story.leader() == elected
    assert story.one(elected, leader=True) is True
    assert story.since(mark)[leader] == []


def test_forced_removal_of_a_dead_unit(story: Story, trio: list[str]) -> None:
    """Its machine is off: it runs nothing, and the others see it depart."""
    dead = trio[0]
    mark = story.mark(*trio)
    story.juju.remove_unit(dead, force=True)
    for unit in trio[1:]:
        story.sent(unit, f"cluster-relation-departed {dead} ({dead} departs)", mark)
    story.until("the unit is gone", lambda: dead not in story.units())
    story.settle()
    assert story.since(mark) == {
        dead: [],
        trio[1]: [f"cluster-relation-departed {dead} ({dead} departs)"],
        trio[2]: [f"cluster-relation-departed {dead} ({dead} departs)"],
    }
    assert story.one(trio[1], planned=True) == 2
