"""The unit agent's decisions: which operation comes next, as a pure function."""

from __future__ import annotations

from typing import Any

from lab.juju.agent.resolver import commit_hook, next_operation
from lab.juju.agent.state import Hook, LocalState, Operation, RelationState, Signals

Doc = dict[str, Any]
UNIT = "app/0"
QUIET = Signals()


def remote(**changes: Any) -> Doc:
    """What a unit with one peer relation and nothing to do is shown."""
    doc: Doc = {
        "life": "alive",
        "app_life": "alive",
        "leader": "",
        "leader_settings": False,
        "resolved": "",
        "charm": {"url": "c-1", "path": "/c", "forced": False},
        "config_hash": "h1",
        "relations": peers(),
        "storage": {},
        "storage_pending": False,
        "actions": [],
        "secrets": {"expired": [], "rotate": [], "changed": [], "remove": []},
        "auto_retry": True,
    }
    return {**doc, **changes}


def peers(life: str = "alive", app: int = 0, **members: int) -> Doc:
    """Relation 0 with other units (`u1=3` is app/1 at version 3)."""
    return {
        "0": {
            "life": life,
            "endpoint": "cluster",
            "peer": True,
            "app": "app",
            "in_scope": True,
            "members": {f"app/{name[1:]}": v for name, v in members.items()},
            "apps": {"app": app},
        }
    }


def other(life: str = "alive", app: int = 0, **members: int) -> Doc:
    """Relation 1 with another application."""
    return {
        "1": {
            "life": life,
            "endpoint": "db",
            "peer": False,
            "app": "pg",
            "in_scope": True,
            "members": {f"pg/{name[1:]}": v for name, v in members.items()},
            "apps": {"pg": app},
        }
    }


def running() -> LocalState:
    """A unit that has started and knows its peer relation."""
    return LocalState(
        installed=True,
        started=True,
        config_hash="h1",
        charm="c-1",
        settings_seen=True,
        relations={"0": RelationState("cluster", "app", True)},
    )


def story(shown: Doc, local: LocalState, limit: int = 40) -> list[str]:
    """Run operations that all succeed until nothing is left; names of hooks and operations."""
    told: list[str] = []
    for _ in range(limit):
        operation = next_operation(UNIT, shown, local, QUIET)
        if operation is None:
            return told
        told.append(_apply(operation, shown, local))
        if operation.kind == "dead":
            return told
    raise AssertionError(f"does not come to rest: {told}")


def _apply(operation: Operation, shown: Doc, local: LocalState) -> str:
    hook = operation.hook
    if operation.kind == "deploy":
        if local.charm:
            local.step, local.hook = "queued", Hook("upgrade-charm")
        local.charm = shown["charm"]["url"]
    elif operation.kind == "lead":
        local.leader = local.settings_seen = True
        local.step, local.hook = "queued", Hook("leader-elected")
    elif operation.kind == "resign":
        local.leader = False
    elif operation.kind == "forget":
        local.relations.pop(operation.ident)
    elif operation.kind == "action":
        shown["actions"] = shown["actions"][1:]
    return _finish(hook, shown, local) if hook else operation.kind


def _finish(hook: Hook, shown: Doc, local: LocalState) -> str:
    if hook.kind == "relation-created":
        local.relations[str(hook.relation)] = RelationState(
            hook.endpoint, hook.remote_app, hook.endpoint == "cluster"
        )
    if hook.kind == "config-changed":
        local.config_hash = shown["config_hash"]
    commit_hook(local, hook, shown, UNIT)
    if hook.kind == "storage-detaching":
        del shown["storage"][hook.storage]
    return f"{hook.name} {hook.remote_unit}".strip()


def test_first_deploy_of_the_leader() -> None:
    shown = remote(
        leader=UNIT,
        relations=peers(app=1, u1=1),
        storage={"disk/0": {"kind": "block", "location": "/dev/sdb", "life": "alive"}},
    )
    assert story(shown, LocalState()) == [
        "deploy",
        "disk-storage-attached",
        "install",
        "cluster-relation-created",
        "lead",
        "leader-elected",
        "config-changed",
        "start",
        "cluster-relation-changed",
        "cluster-relation-joined app/1",
        "cluster-relation-changed app/1",
    ]


def test_first_deploy_of_a_follower_in_juju_3() -> None:
    shown = remote(leader="app/1", leader_settings=True, relations=peers())
    assert story(shown, LocalState()) == [
        "deploy",
        "install",
        "cluster-relation-created",
        "leader-settings-changed",
        "config-changed",
        "start",
    ]


def test_install_waits_for_storage() -> None:
    local = LocalState()
    assert story(remote(storage_pending=True), local) == ["deploy"]
    assert story(remote(), local)[0] == "install"


def test_start_directly_follows_the_first_config_changed() -> None:
    local = LocalState(installed=True, charm="c-1", config_hash="old", settings_seen=True)
    shown = remote(relations={})
    assert _apply(next_operation(UNIT, shown, local, QUIET) or Operation(""), shown, local) == (
        "config-changed"
    )
    busy = remote(actions=[["1", False]], leader=UNIT, relations={})
    following = next_operation(UNIT, busy, local, QUIET)
    assert following is not None
    assert following.hook == Hook("start")


def test_departed_before_app_change_before_joined_before_changed() -> None:
    local = running()
    local.relations["0"].members = {"app/1": 1, "app/2": 1}
    shown = remote(relations=peers(app=2, u2=5, u3=1))
    assert story(shown, local) == [
        "cluster-relation-departed app/1",
        "cluster-relation-changed",
        "cluster-relation-joined app/3",
        "cluster-relation-changed app/3",
        "cluster-relation-changed app/2",
    ]


def test_several_writes_are_one_change() -> None:
    local = running()
    local.relations["0"].members = {"app/1": 1}
    assert story(remote(relations=peers(u1=9)), local) == ["cluster-relation-changed app/1"]
    assert story(remote(relations=peers(u1=9)), local) == []


def test_an_application_bag_never_written_is_no_change() -> None:
    assert story(remote(relations=peers(app=0)), running()) == []


def test_other_relations_before_peers() -> None:
    local = running()
    local.relations["1"] = RelationState("db", "pg", False)
    shown = remote(relations={**peers(u1=1), **other(u0=1)})
    assert story(shown, local) == [
        "db-relation-joined pg/0",
        "db-relation-changed pg/0",
        "cluster-relation-joined app/1",
        "cluster-relation-changed app/1",
    ]


def test_a_removed_relation_departs_then_breaks() -> None:
    local = running()
    local.relations["1"] = RelationState("db", "pg", False, {"pg/1": 1, "pg/0": 1})
    shown = remote(relations={**peers(), **other(life="dying", u0=1, u1=1)})
    first = next_operation(UNIT, shown, local, QUIET)
    assert first is not None
    assert first.hook is not None
    assert first.hook.departing == "pg/0"
    assert story(shown, local) == [
        "db-relation-departed pg/0",
        "db-relation-departed pg/1",
        "db-relation-broken",
    ]


def test_removal_of_a_unit() -> None:
    local = running()
    local.leader, local.storage = True, ["disk/0"]
    local.relations["0"].members = {"app/1": 1, "app/2": 1}
    local.relations["1"] = RelationState("db", "pg", False, {"pg/0": 1})
    shown = remote(
        life="dying",
        leader=UNIT,
        relations={**peers(u1=1, u2=1), **other(u0=1)},
        storage={"disk/0": {"kind": "block", "location": "/dev/sdb", "life": "dying"}},
    )
    assert story(shown, local) == [
        "resign",
        "disk-storage-detaching",
        "db-relation-departed pg/0",
        "db-relation-broken",
        "cluster-relation-departed app/1",
        "cluster-relation-departed app/2",
        "forget",
        "stop",
        "remove",
        "dead",
    ]


def test_a_leaving_unit_is_told_that_it_is_the_one_that_departs() -> None:
    local = running()
    local.relations["0"].members = {"app/1": 1}
    operation = next_operation(UNIT, remote(life="dying", relations=peers(u1=1)), local, QUIET)
    assert operation is not None
    assert operation.hook is not None
    assert (operation.hook.remote_unit, operation.hook.departing) == ("app/1", UNIT)


def test_upgrade() -> None:
    shown = remote(charm={"url": "c-2", "path": "/c", "forced": False}, relations=peers())
    assert story(shown, running()) == ["deploy", "upgrade-charm", "config-changed"]


def failed(hook: Hook) -> LocalState:
    local = running()
    local.step, local.hook = "pending", hook
    return local


def test_after_a_failure_only_actions_go_on() -> None:
    shown = remote(relations=peers(u1=1), leader=UNIT, config_hash="h2")
    local = failed(Hook("update-status"))
    assert next_operation(UNIT, shown, local, QUIET) is None
    action = next_operation(UNIT, {**shown, "actions": [["7", False]]}, local, QUIET)
    assert action == Operation("action", ident="7")


def test_retry_comes_with_time_unless_switched_off() -> None:
    hook = Hook("start")
    due = Signals(retry_due=True)
    assert next_operation(UNIT, remote(), failed(hook), due) == Operation("hook", hook)
    assert next_operation(UNIT, remote(auto_retry=False), failed(hook), due) is None


def test_resolved() -> None:
    hook = Hook("start")
    retry = next_operation(UNIT, remote(resolved="retry-hooks"), failed(hook), QUIET)
    skip = next_operation(UNIT, remote(resolved="no-hooks"), failed(hook), QUIET)
    assert (retry, skip) == (Operation("hook", hook), Operation("skip", hook))


def test_a_forced_upgrade_proceeds_in_error() -> None:
    shown = remote(charm={"url": "c-2", "path": "/c", "forced": True})
    operation = next_operation(UNIT, shown, failed(Hook("start")), QUIET)
    assert operation is not None
    assert operation.kind == "deploy"


def test_secret_hooks_in_their_order() -> None:
    shown = remote(
        secrets={
            "expired": [["secret:a", "a", 2, 100.0]],
            "rotate": [["secret:a", "a", 0, 50.0]],
            "changed": [["secret:b", "", 3]],
            "remove": [["secret:a", "a", 1]],
        }
    )
    local = running()
    assert story(shown, local) == [
        "secret-expired",
        "secret-rotate",
        "secret-changed",
        "secret-remove",
    ]
    shown["secrets"]["changed"] = [["secret:b", "", 4]]
    shown["secrets"]["expired"] = [["secret:a", "a", 2, 400.0]]
    assert story(shown, local) == ["secret-expired", "secret-changed"]


def test_leadership_is_accepted_between_hooks_and_given_up() -> None:
    local = running()
    assert story(remote(leader=UNIT, relations=peers()), local) == ["lead", "leader-elected"]
    assert story(remote(leader="app/1", relations=peers()), local) == ["resign"]


def test_start_again_after_a_reboot() -> None:
    signals = Signals(rebooted=True)
    assert next_operation(UNIT, remote(), running(), signals) == Operation("hook", Hook("start"))


def test_update_status_only_when_idle() -> None:
    signals = Signals(update_status_due=True)
    local = running()
    busy = next_operation(UNIT, remote(config_hash="h2"), local, signals)
    quiet = next_operation(UNIT, remote(), local, signals)
    assert busy is not None
    assert busy.hook == Hook("config-changed")
    assert quiet == Operation("hook", Hook("update-status"))


def test_local_state_survives_a_file(tmp_path: Any) -> None:
    local = failed(Hook("relation-changed", endpoint="cluster", relation=0, remote_unit="app/1"))
    local.relations["0"].members = {"app/1": 4}
    local.save(tmp_path / "state.json")
    assert LocalState.load(tmp_path / "state.json") == local
