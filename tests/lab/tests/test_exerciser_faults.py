"""What Juju does when a hook, an agent, a machine, a link or the controller dies."""

from __future__ import annotations

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


def hold(story: Story, unit: str, event: str, name: str) -> dict[str, int]:
    """Have a unit write its bag and hold in its next event; return a mark from before."""
    mark = story.mark(*story.units())
    story.plan(
        unit,
        event,
        {"set": {"endpoint": "cluster", "of": "unit", "data": {"half": name}}},
        {"touch": str(story.log_dir / f"{name}-held")},
        {"await": str(story.log_dir / f"{name}-go")},
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
    """The hook ends while nobody listens; what it wrote arrives once, when somebody does."""
    mark = hold(story, trio[0], "config-changed", "deaf")
    lab = Lab(lab_up)
    controller.stop(lab, kill=True)
    controller.start(lab)
    (story.log_dir / "deaf-go").touch()
    for unit in trio[1:]:
        story.sent(unit, f"cluster-relation-changed {trio[0]}", mark)
    story.settle()
    assert half(story, trio[0]) == "deaf"


def test_cut_link_is_caught_up_in_one_event(
    story: Story, trio: list[str], lab_command: LabCommand
) -> None:
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
    assert story.since(mark)[cut] == [f"cluster-relation-changed {trio[0]}"]
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


def test_unit_is_killed_at_its_nth_tool_call(
    story: Story, trio: list[str], lab_command: LabCommand
) -> None:
    unit = trio[1]
    mark = story.mark(*trio)
    model = story.juju.model or ""
    lab_command("fault", "kill-hook", unit, "2", "--hook", "config-changed", "--model", model)
    story.juju.config("exerciser", {"greeting": "nth"})
    story.until("the hook is run", lambda: "config-changed" in story.since(mark)[unit], 20)
    status = story.settle()
    assert status.apps["exerciser"].units[unit].workload_status.current != "error"


def test_lost_leader_is_replaced_when_its_lease_ends(
    story: Story, trio: list[str], lab_command: LabCommand
) -> None:
    leader = trio[0]
    mark = story.mark(*trio)
    lab_command("power", "off", hostname(story, leader))
    lab_command("fault", "expire-lease", "exerciser", "--model", story.juju.model or "")
    story.until(
        "somebody else is elected",
        lambda: any("leader-elected" in events for events in story.since(mark).values()),
    )
    (elected,) = [unit for unit, events in story.since(mark).items() if "leader-elected" in events]
    assert elected in trio[1:]
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
