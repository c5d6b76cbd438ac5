"""What one unit sees in its hooks: environment, tools, commit, retry, actions, network, ports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jubilant
import pytest

from lab.exerciser.story import Record, Story

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PORTS = ["443/tcp", "8080/tcp"]


@pytest.fixture(scope="module")
def pair(story: Story, deploy: Callable[..., None]) -> tuple[str, str]:
    """Deploy two units; return the leader and the follower."""
    deploy("exerciser", units=2, bind={"data-plane": "data"})
    story.sent("exerciser/0", "cluster-relation-changed exerciser/1")
    story.sent("exerciser/1", "cluster-relation-changed exerciser/0")
    story.settle()
    return story.leader(), story.others()[0]


# --- first deploy -------------------------------------------------------------------------------


def test_only_the_leader_is_elected(story: Story, pair: tuple[str, str]) -> None:
    start = ["config-changed", "start"]
    created = ["install", "cluster-relation-created exerciser"]
    leader, follower = pair
    assert story.events(leader)[:5] == [*created, "leader-elected", *start]
    assert story.events(follower)[:4] == [*created, *start]
    assert "leader-elected" not in story.events(follower)


def test_joined_is_followed_by_changed(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    events = story.events(leader)
    place = events.index(f"cluster-relation-joined {follower}")
    assert events[place + 1] == f"cluster-relation-changed {follower}"


# --- environment --------------------------------------------------------------------------------


def test_environment_of_a_plain_hook(story: Story, pair: tuple[str, str]) -> None:
    leader, _ = pair
    env = story.last(leader, "start").env
    tag = leader.replace("/", "-")
    assert env["JUJU_UNIT_NAME"] == leader
    assert env["JUJU_HOOK_NAME"] == "start"
    assert env["JUJU_DISPATCH_PATH"] == "hooks/start"
    assert env["JUJU_CHARM_DIR"] == f"/var/lib/juju/agents/unit-{tag}/charm"
    assert env["CHARM_DIR"] == env["JUJU_CHARM_DIR"]
    assert re.fullmatch(rf"{leader}-start-[0-9a-f]{{32}}", env["JUJU_CONTEXT_ID"])
    assert UUID.fullmatch(env["JUJU_MODEL_UUID"])
    assert env["JUJU_MODEL_NAME"] == "hooks"
    assert env["JUJU_PRINCIPAL_UNIT"] == ""
    assert re.fullmatch(r"\d+\.\d+(\.\d+|-[a-z]+\d+)(\.\d+)?", env["JUJU_VERSION"])
    assert env["PATH"].startswith(f"/var/lib/juju/tools/unit-{tag}:")
    assert env["JUJU_AGENT_SOCKET_NETWORK"] == "unix"
    assert (env["LANG"], env["TERM"]) == ("C.UTF-8", "tmux-256color")
    assert env["DEBIAN_FRONTEND"] == "noninteractive"
    assert env["APT_LISTCHANGES_FRONTEND"] == "none"
    machine = story.juju.status().apps["exerciser"].units[leader].machine
    assert env["JUJU_MACHINE_ID"] == machine
    for present in ("JUJU_API_ADDRESSES", "JUJU_AVAILABILITY_ZONE", "CLOUD_API_VERSION"):
        assert present in env
    for proxy in ("HTTP", "HTTPS", "FTP", "NO"):
        assert f"JUJU_CHARM_{proxy}_PROXY" in env


def test_environment_is_clean(story: Story, pair: tuple[str, str]) -> None:
    """Neither ops' switches nor the lab shall be seen by a charm."""
    env = story.last(pair[0], "start").env
    assert "JUJU_DEBUG" not in env
    assert not [key for key in env if key.startswith("LAB") or key == "VIRTUAL_ENV"]
    assert not [key for key in env if key.startswith(("JUJU_RELATION", "JUJU_REMOTE"))]
    assert not [key for key in env if key.startswith(("JUJU_ACTION", "JUJU_SECRET"))]


def test_environment_of_relation_hooks(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    joined = story.last(leader, "cluster-relation-joined").env
    assert joined["JUJU_RELATION"] == "cluster"
    assert re.fullmatch(r"cluster:\d+", joined["JUJU_RELATION_ID"])
    assert joined["JUJU_REMOTE_UNIT"] == follower
    assert joined["JUJU_REMOTE_APP"] == "exerciser"
    assert "JUJU_DEPARTING_UNIT" not in joined
    created = story.last(leader, "cluster-relation-created").env
    assert created.get("JUJU_REMOTE_UNIT", "") == ""
    assert created["JUJU_REMOTE_APP"] == "exerciser"


def test_environment_of_an_action(story: Story, pair: tuple[str, str]) -> None:
    task = story.juju.run(pair[0], "echo")
    env = story.last(pair[0], "echo-action").env
    assert env["JUJU_ACTION_NAME"] == "echo"
    assert env["JUJU_ACTION_UUID"] == task.id
    assert env["JUJU_ACTION_TAG"] == f"action-{task.id}"
    assert env["JUJU_HOOK_NAME"] == ""
    assert env["JUJU_DISPATCH_PATH"] == "actions/echo"


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "error"),
    [
        (["relation-get", "--format=json", "-r", "cluster:999", "-", "x/0"], 2, "not found"),
        (["relation-ids", "--no-such-flag"], 2, "no-such-flag"),
        (["network-get", "--format=json", "nowhere"], 1, "no network config found for binding"),
        (["juju-reboot"], 1, "juju-reboot is not supported when running an action."),
        (["secret-get", "--format=json", "secret:aaaaaaaaaaaaaaaaaaaa"], 1, "not found"),
        (["relation-list", "--format=json"], 2, "no relation id specified"),
    ],
)
def test_errors_of_tools(
    story: Story, pair: tuple[str, str], argv: list[str], code: int, error: str
) -> None:
    done = story.tool(pair[0], *argv)
    assert (done["rc"], done["out"]) == (code, "")
    assert done["err"].startswith("ERROR ")
    assert error in done["err"]


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["status-set", "--application=True", "active", "--", "x"], "this unit is not the leader"),
        (
            ["status-get", "--include-data", "--format=json", "--application=true"],
            "finding application status: this unit is not the leader",
        ),
        (["secret-add", "--owner", "application", "word=x"], "this unit is not the leader"),
    ],
)
def test_followers_are_refused(
    story: Story, pair: tuple[str, str], argv: list[str], error: str
) -> None:
    done = story.tool(pair[1], *argv)
    assert (done["rc"], done["err"].strip()) == (1, f"ERROR {error}")


def test_followers_cannot_write_the_applications_bag(story: Story, pair: tuple[str, str]) -> None:
    relation = story.last(pair[1], "cluster-relation-created").env["JUJU_RELATION_ID"]
    done = story.tool(
        pair[1], "relation-set", "-r", relation, "--app", "--file", "-", {"stdin": "k: v"}
    )
    assert done["rc"] == 1
    assert "cannot write relation settings" in done["err"]


def test_followers_read_the_peers_application_bag(story: Story, pair: tuple[str, str]) -> None:
    mark = story.mark(*pair)
    story.one(pair[0], set={"endpoint": "cluster", "of": "app", "data": {"seen": "yes"}})
    story.sent(pair[1], "cluster-relation-changed exerciser", mark)
    bag = story.tool(
        pair[1], "relation-get", "--format=json", "-r", _peers(story), "--app", "-", "exerciser"
    )
    assert json.loads(bag["out"])["seen"] == "yes"


def _peers(story: Story) -> str:
    return story.last("exerciser/0", "cluster-relation-created").env["JUJU_RELATION_ID"]


def test_outputs_of_tools(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    ids = story.tool(leader, "relation-ids", "cluster", "--format=json")["out"]
    assert json.loads(ids) == [_peers(story)]
    units = story.tool(leader, "relation-list", "--format=json", "-r", _peers(story))["out"]
    assert json.loads(units) == [follower]
    app = story.tool(leader, "relation-list", "--format=json", "--app", "-r", _peers(story))
    assert json.loads(app["out"]) == "exerciser"
    bare = _peers(story).partition(":")[2]
    own = story.tool(
        leader, "relation-get", "--format=json", "-r", bare, "ingress-address", leader
    )
    address = story.juju.status().apps["exerciser"].units[leader].public_address
    assert json.loads(own["out"]) == address
    assert json.loads(story.tool(leader, "is-leader", "--format=json")["out"]) is True
    assert json.loads(story.tool(follower, "is-leader", "--format=json")["out"]) is False


def test_config_has_only_what_is_set_or_defaulted(story: Story, pair: tuple[str, str]) -> None:
    config = story.one(pair[0], config=True)
    assert "note" not in config
    assert "token" not in config
    assert config["count"] == 3
    assert config["ratio"] == 0.5
    assert config["flag"] is False


def test_status_is_set_at_once_and_survives_a_failure(story: Story, pair: tuple[str, str]) -> None:
    story.tool(pair[0], "status-set", "--application=False", "active", "--", "fine")
    status = story.tool(
        pair[0], "status-get", "--include-data", "--format=json", "--application=false"
    )
    assert json.loads(status["out"]) == {"status": "active", "message": "fine", "status-data": {}}
    with pytest.raises(jubilant.TaskError):
        story.perform(pair[0], {"status": ["active", "before the end"]}, {"exit": 3})
    unit = story.juju.status().apps["exerciser"].units[pair[0]]
    assert unit.workload_status.message == "before the end"


def test_application_status_is_the_worst_of_its_units(story: Story, pair: tuple[str, str]) -> None:
    story.one(pair[0], status=["active", "good"])
    story.one(pair[1], status=["blocked", "bad"])
    app = story.juju.status().apps["exerciser"].app_status
    assert (app.current, app.message) == ("blocked", "bad")
    story.one(pair[0], app_status=["waiting", "said by the leader"])
    app = story.juju.status().apps["exerciser"].app_status
    assert (app.current, app.message) == ("waiting", "said by the leader")


def test_workload_version(story: Story, pair: tuple[str, str]) -> None:
    story.one(pair[0], version="7.1-x")
    assert story.juju.status().apps["exerciser"].version == "7.1-x"


def test_goal_state_and_planned_units(story: Story, pair: tuple[str, str]) -> None:
    assert story.one(pair[0], planned=True) == 2
    goal = json.loads(story.tool(pair[0], "goal-state", "--format=json")["out"])
    assert set(goal["units"]) == set(pair)
    for unit in goal["units"].values():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", unit["since"])


# --- network ------------------------------------------------------------------------------------


def test_network_of_the_peer_relation(story: Story, pair: tuple[str, str]) -> None:
    network = story.one(pair[0], network="cluster")
    address = story.juju.status().apps["exerciser"].units[pair[0]].public_address
    assert network["bind"] == address
    assert network["ingress"] == [address]
    assert network["egress"] == [f"{address}/32"]
    assert ["enp5s0", address, "10.71.0.0/24"] in network["interfaces"]


def test_bound_endpoint_has_its_spaces_network(story: Story, pair: tuple[str, str]) -> None:
    network = story.one(pair[0], network="data-plane")
    assert network["bind"].startswith("10.74.0.")
    assert [(name, subnet) for name, _, subnet in network["interfaces"]] == [
        ("enp7s0", "10.74.0.0/24")
    ]
    status = story.juju.status().apps["exerciser"]
    assert status.endpoint_bindings["data-plane"] == "data"
    assert status.endpoint_bindings["cluster"] == "alpha"


# --- ports --------------------------------------------------------------------------------------


def test_ports(story: Story, pair: tuple[str, str]) -> None:
    story.one(pair[0], ports=[443, 8080])
    assert story.one(pair[0], opened=True) == PORTS
    assert sorted(story.juju.status().apps["exerciser"].units[pair[0]].open_ports) == PORTS
    story.one(pair[0], ports=[])
    assert story.one(pair[0], opened=True) == []


def test_pending_ports_are_not_listed_and_are_dropped(story: Story, pair: tuple[str, str]) -> None:
    out = story.perform(
        pair[0], {"tool": ["open-port", "81/tcp"]}, {"tool": ["opened-ports", "--format=json"]}
    )
    assert json.loads(out[1]["out"] or "[]") in ([], None)
    story.tool(pair[0], "close-port", "81/tcp")
    with pytest.raises(jubilant.TaskError):
        story.perform(pair[0], {"ports": [82]}, {"exit": 1})
    assert story.one(pair[0], opened=True) == []


# --- commit and discard -------------------------------------------------------------------------


def test_own_writes_are_read_in_the_hook_and_seen_by_others_after_it(
    story: Story, pair: tuple[str, str]
) -> None:
    leader, follower = pair
    here, go = story.log_dir / "written", story.log_dir / "go"
    story.plan(
        leader,
        "config-changed",
        {"tool": ["relation-set", "-r", _peers(story), "--file", "-", {"stdin": "half: done"}]},
        {"tool": ["relation-get", "--format=json", "-r", _peers(story), "half", leader]},
        {"touch": str(here)},
        {"await": str(go)},
    )
    mark = story.mark(leader, follower)
    story.juju.config("exerciser", {"greeting": "one"})
    story.until("the hook wrote", here.exists)
    seen = story.one(follower, get={"endpoint": "cluster", "of": leader})
    assert "half" not in seen
    assert f"cluster-relation-changed {leader}" not in story.since(mark)[follower]
    go.touch()
    story.sent(follower, f"cluster-relation-changed {leader}", mark)
    assert story.last(leader, "config-changed", "end").out[1]["out"].strip() == '"done"'
    assert story.one(follower, get={"endpoint": "cluster", "of": leader})["half"] == "done"


def test_a_failed_action_drops_its_writes(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    mark = story.mark(follower)
    with pytest.raises(jubilant.TaskError) as caught:
        story.perform(
            leader,
            {"set": {"endpoint": "cluster", "of": "unit", "data": {"lost": "yes"}}},
            {"raise": "on purpose"},
        )
    assert caught.value.task.status == "failed"
    assert caught.value.task.return_code == 1
    story.settle()
    assert "lost" not in story.one(leader, get={"endpoint": "cluster", "of": "unit"})
    assert story.since(mark)[follower] == []


def test_several_writes_before_a_look_are_one_event(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    held, go = story.log_dir / "held", story.log_dir / "release"
    story.plan(follower, "config-changed", {"touch": str(held)}, {"await": str(go)})
    story.juju.config("exerciser", {"greeting": "two"})
    story.until("the follower is held", held.exists)
    mark = story.mark(follower)
    for text in ("a", "b", "c"):
        story.one(leader, set={"endpoint": "cluster", "of": "unit", "data": {"many": text}})
    go.touch()
    story.sent(follower, f"cluster-relation-changed {leader}", mark)
    story.settle()
    assert story.since(mark)[follower] == [f"cluster-relation-changed {leader}"]
    assert story.one(follower, get={"endpoint": "cluster", "of": leader})["many"] == "c"


def test_an_empty_value_deletes_the_key(story: Story, pair: tuple[str, str]) -> None:
    bag = {"endpoint": "cluster", "of": "unit"}
    story.one(pair[0], set={**bag, "data": {"gone": "soon"}})
    assert story.one(pair[0], get=bag)["gone"] == "soon"
    story.one(pair[0], set={**bag, "data": {"gone": ""}})
    assert "gone" not in story.one(pair[0], get=bag)


def test_peer_bags_are_read_stale_outside_their_own_hook(
    story: Story, pair: tuple[str, str]
) -> None:
    """A unit's bag is refreshed by a joined or changed hook for that unit, and not before."""
    leader, follower = pair
    held, go = story.log_dir / "stale-held", story.log_dir / "stale-go"
    bag = {"endpoint": "cluster", "of": leader}
    story.one(leader, set={"endpoint": "cluster", "of": "unit", "data": {"age": "old"}})
    story.settle()
    assert story.one(follower, get=bag)["age"] == "old"  # what is read once is kept
    story.plan(follower, "config-changed", {"touch": str(held)}, {"await": str(go)})
    mark = story.mark(follower)
    story.juju.config("exerciser", {"greeting": "stale"})
    story.until("the follower is held", held.exists)
    story.one(leader, set={"endpoint": "cluster", "of": "unit", "data": {"age": "new"}})
    with ThreadPoolExecutor() as pool:  # an action comes before the waiting relation-changed
        read = pool.submit(story.one, follower, get=bag)
        story.until("the action is queued", lambda: _pending(story, follower))
        go.touch()
        assert read.result()["age"] == "old"
    story.sent(follower, f"cluster-relation-changed {leader}", mark)
    story.settle()
    assert story.one(follower, get=bag)["age"] == "new"


def _pending(story: Story, unit: str) -> bool:
    operations = story.juju.cli("operations", "--format", "json", "--units", unit)
    return any(o["status"] == "pending" for o in json.loads(operations).values())


# --- failure, retry, deferral -------------------------------------------------------------------


def test_a_failed_hook_is_an_error_and_is_retried(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    plan = story.plan(
        leader,
        "config-changed",
        {"set": {"endpoint": "cluster", "of": "unit", "data": {"try": "1"}}},
        {"raise": "x"},
        keep=True,
    )
    mark = story.mark(leader, follower)
    story.juju.config("exerciser", {"greeting": "three"})
    story.juju.wait(lambda s: jubilant.any_error(s, "exerciser"), delay=0.1, successes=1)
    workload = story.juju.status().apps["exerciser"].units[leader].workload_status
    assert workload.message == 'hook failed: "config-changed"'
    assert story.juju.run(leader, "echo").status == "completed"  # actions run meanwhile
    first = story.sent(leader, "config-changed", mark)
    plan.unlink()
    story.until("it is retried", lambda: len(_runs(story, leader, mark)) == 2, 20)
    runs = _runs(story, leader, mark)
    assert 3.5 < runs[1].time - first.time < 9  # 5 s and some jitter
    story.settle()
    assert _current(story, leader) != "error"
    assert story.since(mark)[follower] == ["config-changed"]  # nothing of "try" came through


def _runs(story: Story, unit: str, mark: dict[str, int]) -> list[Record]:
    return [r for r in story.lines(unit)[mark[unit] :] if r.event == "config-changed"]


def _current(story: Story, unit: str) -> str:
    return story.juju.status().apps["exerciser"].units[unit].workload_status.current


def test_no_other_hook_runs_while_in_error(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    plan = story.plan(leader, "config-changed", {"raise": "x"}, keep=True)
    mark = story.mark(leader)
    story.juju.config("exerciser", {"greeting": "four"})
    story.until("the unit is in error", lambda: _current(story, leader) == "error")
    story.one(follower, set={"endpoint": "cluster", "of": "unit", "data": {"while": "error"}})
    plan.unlink()
    story.juju.cli("resolved", leader)
    story.sent(leader, f"cluster-relation-changed {follower}", mark)
    runs = story.since(mark)[leader]
    assert runs[-1] == f"cluster-relation-changed {follower}"
    assert set(runs[:-1]) == {"config-changed"}
    assert len(runs) >= 3


def test_resolved_without_retry_skips_the_hook(story: Story, pair: tuple[str, str]) -> None:
    leader, _ = pair
    plan = story.plan(leader, "config-changed", {"raise": "x"}, keep=True)
    story.juju.config("exerciser", {"greeting": "five"})
    story.until("the unit is in error", lambda: _current(story, leader) == "error")
    mark = story.mark(leader)
    story.juju.cli("resolved", "--no-retry", leader)
    story.until("the unit is well", lambda: _current(story, leader) != "error", 4)
    plan.unlink()
    story.settle()
    assert story.since(mark)[leader].count("config-changed") <= 1


def test_resolved_is_refused_for_a_healthy_unit(story: Story, pair: tuple[str, str]) -> None:
    with pytest.raises(jubilant.CLIError) as caught:
        story.juju.cli("resolved", pair[0])
    assert "not in an error state" in caught.value.stderr


def test_deferred_events_come_before_the_next(story: Story, pair: tuple[str, str]) -> None:
    leader, _ = pair
    story.plan(leader, "config-changed", {"defer": True})
    mark = story.mark(leader)
    story.juju.config("exerciser", {"greeting": "six"})
    story.sent(leader, "config-changed", mark)
    story.settle()
    story.juju.run(leader, "echo")
    new = story.lines(leader)[mark[leader] :]
    assert [(r.event, r.hook) for r in new] == [
        ("config-changed", "config-changed"),
        ("config-changed", "echo"),
        ("echo-action", "echo"),
    ]


def test_stored_state_is_kept_by_success_only(story: Story, pair: tuple[str, str]) -> None:
    story.one(pair[0], remember="first")
    with pytest.raises(jubilant.TaskError):
        story.perform(pair[0], {"remember": "second"}, {"raise": "x"})
    assert story.one(pair[0], remember="third") == "first"


# --- config -------------------------------------------------------------------------------------


def test_config_values_and_reset(story: Story, pair: tuple[str, str]) -> None:
    mark = story.mark(*pair)
    story.juju.config("exerciser", {"note": "set", "count": 9, "flag": True})
    for unit in pair:
        story.sent(unit, "config-changed", mark)
    config = story.one(pair[0], config=True)
    assert (config["note"], config["count"], config["flag"]) == ("set", 9, True)
    story.settle()
    mark = story.mark(*pair)
    story.juju.config("exerciser", reset=["note", "count", "flag"])
    for unit in pair:
        story.sent(unit, "config-changed", mark)
    config = story.one(pair[0], config=True)
    assert "note" not in config
    assert (config["count"], config["flag"]) == (3, False)


@pytest.mark.parametrize("values", [{"no-such-option": "x"}, {"count": "many"}])
def test_bad_config_is_refused(
    story: Story, pair: tuple[str, str], values: dict[str, str]
) -> None:
    with pytest.raises(jubilant.CLIError) as caught:
        story.juju.config("exerciser", values)
    assert next(iter(values)) in caught.value.stderr


# --- actions ------------------------------------------------------------------------------------


def test_defaults_of_parameters_are_filled_in(story: Story, pair: tuple[str, str]) -> None:
    task = story.juju.run(pair[0], "echo", {"deep": {"inner": "x"}})
    assert json.loads(task.results["params"]) == {"text": "hi", "count": 2, "deep": {"inner": "x"}}
    assert (task.status, task.return_code) == ("completed", 0)


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("echo", {"count": 6}),
        ("echo", {"count": "two"}),
        ("echo", {"mode": "shrill"}),
        ("echo", {"surplus": 1}),
        ("needs-name", {}),
    ],
)
def test_bad_parameters_never_reach_the_charm(
    story: Story, pair: tuple[str, str], action: str, params: dict
) -> None:
    mark = story.mark(pair[0])
    with pytest.raises((jubilant.CLIError, ValueError)):
        story.juju.run(pair[0], action, params)
    assert story.lines(pair[0])[mark[pair[0]] :] == []


def test_unknown_action(story: Story, pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"not found|not defined"):
        story.juju.run(pair[0], "no-such-action")


def test_action_that_fails_by_its_own_word(story: Story, pair: tuple[str, str]) -> None:
    """Then the command still succeeds: only the task says that it failed."""
    steps = [{"tool": ["action-log", "--", "a word"]}, {"tool": ["action-fail", "--", "no luck"]}]
    text = story.juju.cli(
        "run", "--format=json", "--string-args", pair[0], "perform", f"steps={json.dumps(steps)}"
    )
    (task,) = json.loads(text).values()
    assert (task["status"], task["message"]) == ("failed", "no luck")
    assert task["results"]["return-code"] == 0
    assert any("a word" in line for line in task["log"])


def test_action_that_raises(story: Story, pair: tuple[str, str]) -> None:
    with pytest.raises(jubilant.TaskError) as caught:
        story.perform(pair[0], {"print": ["to out", "to err"]}, {"raise": "on purpose"})
    task = caught.value.task
    assert (task.status, task.return_code) == ("failed", 1)
    assert task.message == "exit status 1"
    assert "to out" in task.stdout
    assert "to err" in task.stderr
    assert _current(story, pair[0]) != "error"


def test_exit_code_of_the_command_for_a_raising_action(
    story: Story, pair: tuple[str, str]
) -> None:
    with pytest.raises(jubilant.CLIError) as caught:
        story.juju.cli(
            "run", "--format=json", "--string-args", pair[0], "perform", 'steps=[{"exit": 3}]'
        )
    assert caught.value.returncode == 1
    assert "task failed" in caught.value.stderr
    (task,) = json.loads(caught.value.stdout).values()
    assert task["results"]["return-code"] == 3


def test_results_nest_by_dots(story: Story, pair: tuple[str, str]) -> None:
    tool = ["action-set", "disk.a.size=1", "disk.b=two", "plain=x"]
    task = story.juju.run(pair[0], "perform", {"steps": json.dumps([{"tool": tool}])})
    assert task.results["disk"] == {"a": {"size": "1"}, "b": "two"}
    assert task.results["plain"] == "x"


def test_reserved_keys_of_results(story: Story, pair: tuple[str, str]) -> None:
    for key in ("stdout", "stderr", "stdout-encoding", "stderr-encoding"):
        assert story.tool(pair[0], "action-set", f"{key}=x")["rc"] != 0


def test_action_on_the_leader_by_role(story: Story, pair: tuple[str, str]) -> None:
    assert story.one("exerciser/leader", leader=True) is True


def test_action_waits_no_longer_than_told(story: Story, pair: tuple[str, str]) -> None:
    with pytest.raises(TimeoutError):
        story.juju.run(pair[0], "perform", {"steps": '[{"sleep": 3}]'}, wait=0.5)
    story.settle()


def test_exec(story: Story, pair: tuple[str, str]) -> None:
    task = story.juju.exec("echo $JUJU_UNIT_NAME:$JUJU_DISPATCH_PATH; is-leader", unit=pair[0])
    assert task.stdout.split() == [f"{pair[0]}:", "True"]
    with pytest.raises(jubilant.TaskError) as caught:
        story.juju.exec("echo bad >&2; exit 4", unit=pair[0])
    assert caught.value.task.return_code == 4
    assert caught.value.task.stderr.strip() == "bad"


def test_exec_commits_like_a_hook(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    mark = story.mark(follower)
    story.juju.exec(f"relation-set -r {_peers(story)} by=exec", unit=leader)
    story.sent(follower, f"cluster-relation-changed {leader}", mark)
    assert story.one(follower, get={"endpoint": "cluster", "of": leader})["by"] == "exec"


def test_exec_on_a_machine(story: Story, pair: tuple[str, str]) -> None:
    machine = story.juju.status().apps["exerciser"].units[pair[0]].machine
    hostname = story.juju.status().machines[machine].hostname
    assert story.juju.exec("hostname", machine=machine).stdout.strip() == hostname


def test_ssh_runs_on_the_unit(story: Story, pair: tuple[str, str]) -> None:
    hostnames = {story.juju.ssh(unit, "hostname").strip() for unit in pair}
    assert len(hostnames) == 2


# --- log, documents, waiting --------------------------------------------------------------------


def test_debug_log(story: Story, pair: tuple[str, str]) -> None:
    story.perform(
        pair[0],
        {"tool": ["juju-log", "--log-level", "WARNING", "--", "a line to find"]},
        {"print": ["from stdout", "from stderr"]},
    )
    log = story.juju.debug_log()
    (line,) = [line for line in log.splitlines() if "a line to find" in line]
    assert f"unit-{pair[0].replace('/', '-')}" in line
    assert "WARNING" in line
    assert f"unit.{pair[0]}.juju-log" in line
    assert len(story.juju.debug_log(limit=3).splitlines()) == 3


def test_show_unit_of_a_peer_relation(story: Story, pair: tuple[str, str]) -> None:
    leader, follower = pair
    story.one(leader, set={"endpoint": "cluster", "of": "app", "data": {"shown": "app"}})
    story.one(leader, set={"endpoint": "cluster", "of": "unit", "data": {"shown": "own"}})
    story.one(follower, set={"endpoint": "cluster", "of": "unit", "data": {"shown": "peer"}})
    unit = story.juju.show_unit(leader)
    assert unit.leader is True
    (info,) = unit.relation_info
    assert (info.endpoint, info.related_endpoint) == ("cluster", "cluster")
    assert info.app_data["shown"] == "app"
    assert info.local_unit is not None
    assert info.local_unit.data["shown"] == "own"
    assert info.related_units[follower].data["shown"] == "peer"
    assert set(info.related_units) == {follower}


def test_status_document(story: Story, pair: tuple[str, str]) -> None:
    status = story.juju.status()
    app = status.apps["exerciser"]
    assert status.model.name == "hooks"
    assert app.charm_name == "exerciser"
    assert app.scale in (0, 2)
    assert set(app.units) == set(pair)
    assert [name for name, unit in app.units.items() if unit.leader] == [pair[0]]
    assert [r.interface for r in app.relations["cluster"]] == ["exerciser-peers"]
    for unit in app.units.values():
        assert unit.machine in status.machines
        assert unit.public_address in status.machines[unit.machine].ip_addresses
    json.loads(story.juju.cli("status", "--format", "json"))
    assert "exerciser/0" in story.juju.cli("status")


def test_jubilants_waiting(story: Story, pair: tuple[str, str]) -> None:
    story.one(pair[0], app_status=["active", ""])
    for unit in pair:
        story.one(unit, status=["active", ""])
    status = story.juju.wait(jubilant.all_active, delay=0.1)
    assert jubilant.all_agents_idle(status, "exerciser")
    story.one(pair[1], status=["blocked", "x"])
    with pytest.raises(jubilant.WaitError):
        story.juju.wait(jubilant.all_active, error=jubilant.any_blocked, delay=0.1)


def test_agents_are_executing_while_a_hook_runs(story: Story, pair: tuple[str, str]) -> None:
    held, go = story.log_dir / "busy", story.log_dir / "busy-go"
    story.plan(pair[0], "config-changed", {"touch": str(held)}, {"await": str(go)})
    story.juju.config("exerciser", {"greeting": "busy"})
    story.until("the hook is held", held.exists)
    agent = story.juju.status().apps["exerciser"].units[pair[0]].juju_status
    go.touch()
    assert (agent.current, agent.message) == ("executing", "running config-changed hook")


def test_units_on_different_machines_run_at_the_same_time(
    story: Story, pair: tuple[str, str]
) -> None:
    go = story.log_dir / "both-go"
    held = [story.log_dir / f"both-{unit.replace('/', '-')}" for unit in pair]
    for unit, path in zip(pair, held, strict=True):
        story.plan(unit, "config-changed", {"touch": str(path)}, {"await": str(go)})
    story.juju.config("exerciser", {"greeting": "both"})
    story.until("both hooks are held", lambda: all(path.exists() for path in held))
    go.touch()
    story.settle()


def test_unsupported_commands_are_refused_by_name(story: Story, pair: tuple[str, str]) -> None:
    with pytest.raises(jubilant.CLIError) as caught:
        story.juju.cli("make-tea", include_model=False)
    assert "make-tea" in caught.value.stderr


# --- two units on one machine -------------------------------------------------------------------


def test_units_on_one_machine_take_turns(
    story: Story, pair: tuple[str, str], deploy: Callable[..., None]
) -> None:
    """Hooks and actions need the machine's lock."""
    machine = story.juju.status().apps["exerciser"].units[pair[0]].machine
    deploy("visitor", to=machine)
    story.sent("visitor/0", "start")
    story.settle()
    assert story.juju.status().apps["visitor"].units["visitor/0"].machine == machine
    held, go = story.log_dir / "lock-held", story.log_dir / "lock-go"
    story.plan(pair[0], "config-changed", {"touch": str(held)}, {"await": str(go)})
    story.juju.config("exerciser", {"greeting": "lock"})
    story.until("the hook is held", held.exists)
    mark = story.mark("visitor/0")
    with pytest.raises(TimeoutError):
        story.juju.run("visitor/0", "perform", {"steps": "[]"}, wait=1.0)
    assert story.lines("visitor/0")[mark["visitor/0"] :] == []
    go.touch()
    story.sent("visitor/0", "perform-action", mark)


def test_a_machine_is_kept_while_a_unit_is_on_it(story: Story, pair: tuple[str, str]) -> None:
    machine = story.juju.status().apps["exerciser"].units[pair[0]].machine
    story.juju.remove_application("visitor")
    story.until("the application is gone", lambda: "visitor" not in story.juju.status().apps)
    assert machine in story.juju.status().machines
    assert story.one(pair[0], leader=True) is True
