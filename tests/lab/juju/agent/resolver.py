"""Which operation comes next: Juju's order of things, as a pure function.

The order: reboot, failed hook, relation-created, leadership, secrets, actions, storage, the
queued hook, and only when all that is quiet: teardown, install, charm upgrade, config-changed,
relations (peers last), update-status.
"""

from __future__ import annotations

from typing import Any

from lab.juju.agent.state import Hook, LocalState, Operation, RelationState, Signals

Doc = dict[str, Any]


def next_operation(
    unit: str, remote: Doc, local: LocalState, signals: Signals
) -> Operation | None:
    """The next operation of a unit; None when it is idle (or waits for something)."""
    if local.removed:
        return Operation("dead")
    if local.step == "pending":
        return _after_failure(remote, local, signals)
    if local.step == "queued":
        first = None if local.installed else _storage(remote, local)
        return first or Operation("hook", local.hook)
    if signals.rebooted and local.started and not local.stopped:
        return Operation("hook", Hook("start"))
    return (
        _created(remote, local)
        or _leadership(unit, remote, local)
        or _secrets(remote, local)
        or _actions(remote, local)
        or _storage(remote, local)
        or _idle(unit, remote, local, signals)
    )


def _after_failure(remote: Doc, local: LocalState, signals: Signals) -> Operation | None:
    """In error: only `resolved`, actions, a forced upgrade or the retry go on."""
    if remote["resolved"] == "retry-hooks":
        return Operation("hook", local.hook)
    if remote["resolved"] == "no-hooks":
        return Operation("skip", local.hook)
    action = _actions(remote, local)
    if action:
        return action
    if remote["charm"]["forced"] and remote["charm"]["url"] != local.charm:
        return Operation("deploy", ident="forced")
    if signals.retry_due and remote["auto_retry"]:
        return Operation("hook", local.hook)
    return None


def _created(remote: Doc, local: LocalState) -> Operation | None:
    if not local.installed or remote["life"] != "alive":
        return None
    for rid, rel in sorted(remote["relations"].items(), key=lambda item: int(item[0])):
        if rid not in local.relations and rel["life"] == "alive":
            return Operation(
                "hook",
                Hook(
                    "relation-created",
                    endpoint=rel["endpoint"],
                    relation=int(rid),
                    remote_app=rel["app"],
                ),
            )
    return None


def _leadership(unit: str, remote: Doc, local: LocalState) -> Operation | None:
    if not local.installed:
        return None
    leads = remote["leader"] == unit and remote["life"] == "alive"
    if leads and not local.leader:
        return Operation("lead")
    if local.leader and not leads:
        return Operation("resign")
    if (
        remote["leader_settings"]
        and not leads
        and remote["leader"]
        and not local.settings_seen
        and remote["life"] == "alive"
    ):
        return Operation("hook", Hook("leader-settings-changed"))
    return None


def _secrets(remote: Doc, local: LocalState) -> Operation | None:
    if not local.installed or remote["life"] != "alive":
        return None
    events: dict[str, list[Any]] = remote["secrets"]
    for kind in ("expired", "rotate"):
        for uri, label, revision, due in events[kind]:
            if local.secrets_due.get(f"{kind} {uri}") != due:
                return Operation(
                    "hook",
                    Hook(f"secret-{kind}", secret=uri, label=label, revision=revision, due=due),
                )
    for uri, label, latest in events["changed"]:
        if local.secrets_changed.get(uri, 0) < latest:
            return Operation(
                "hook", Hook("secret-changed", secret=uri, label=label, version=latest)
            )
    for uri, label, revision in events["remove"]:
        if f"{uri} {revision}" not in local.secrets_removed:
            return Operation(
                "hook", Hook("secret-remove", secret=uri, label=label, revision=revision)
            )
    return None


def _actions(remote: Doc, local: LocalState) -> Operation | None:
    if remote["actions"] and local.installed:
        return Operation("action", ident=remote["actions"][0][0])
    return None


def _storage(remote: Doc, local: LocalState) -> Operation | None:
    attached: dict[str, Doc] = remote["storage"]
    for ident in sorted(attached):
        item = attached[ident]
        name = ident.partition("/")[0]
        known = ident in local.storage
        wanted = item["life"] == "alive" and remote["life"] == "alive"
        if wanted and not known and local.charm:  # the charm's files come before any hook
            kind = "storage-attached"
        elif item["life"] == "dying" and known:
            kind = "storage-detaching"
        elif item["life"] == "dying":
            return Operation("detached", ident=ident)
        else:
            continue
        return Operation(
            "hook",
            Hook(
                kind,
                endpoint=name,
                storage=ident,
                storage_kind=item["kind"],
                location=item["location"],
            ),
        )
    return None


def _idle(unit: str, remote: Doc, local: LocalState, signals: Signals) -> Operation | None:
    if remote["life"] != "alive":
        return _teardown(unit, remote, local)
    if not local.charm:
        return Operation("deploy")
    if not local.installed:
        return None if remote["storage_pending"] else Operation("hook", Hook("install"))
    if remote["charm"]["url"] != local.charm:
        return Operation("deploy")
    if remote["config_hash"] != local.config_hash:
        return Operation("hook", Hook("config-changed"))
    hook = next_relation_hook(unit, remote, local)
    if hook:
        return hook
    if signals.update_status_due and local.started:
        return Operation("hook", Hook("update-status"))
    return None


def _teardown(unit: str, remote: Doc, local: LocalState) -> Operation | None:
    """Relations first (peers last), then stop, then remove, then the end."""
    if not local.installed:
        return Operation("dead")
    operation = next_relation_hook(unit, remote, local)
    if operation:
        return operation
    if remote["storage"]:
        return None  # the controller has not yet taken note of the detached ones
    return Operation("hook", Hook("remove" if local.stopped else "stop"))


def next_relation_hook(unit: str, remote: Doc, local: LocalState) -> Operation | None:
    """The next hook of any relation: by number, peers after all others."""
    order = sorted(local.relations, key=lambda rid: (local.relations[rid].peer, int(rid)))
    for rid in order:
        operation = _one_relation(unit, rid, remote, local.relations[rid])
        if operation:
            return operation
    return None


def _one_relation(unit: str, rid: str, remote: Doc, known: RelationState) -> Operation | None:
    shown: Doc | None = remote["relations"].get(rid)
    ending = remote["life"] != "alive" or shown is None or shown["life"] != "alive"
    members: dict[str, int] = {} if ending or shown is None else shown["members"]
    latest: dict[str, int] = shown["members"] if shown else {}

    def hook(kind: str, who: str = "", version: int = 0, departing: str = "") -> Operation:
        return Operation(
            "hook",
            Hook(
                kind,
                endpoint=known.endpoint,
                relation=int(rid),
                remote_app=known.app,
                remote_unit=who,
                version=version,
                departing=departing,
            ),
        )

    if known.changed_pending:
        who = known.changed_pending
        return hook("relation-changed", who, latest.get(who, known.members.get(who, 0)))
    gone = sorted(known.members.keys() - members.keys())
    if gone:
        own_end = remote["life"] != "alive" or remote["app_life"] != "alive"
        return hook("relation-departed", gone[0], departing=unit if own_end else gone[0])
    if ending:
        return Operation("forget", ident=rid) if known.peer else hook("relation-broken")
    apps: dict[str, int] = shown["apps"] if shown else {}
    written = [v for app, v in sorted(apps.items()) if v and known.apps.get(app, 0) != v]
    if written:
        return hook("relation-changed", version=written[0])
    new = sorted(members.keys() - known.members.keys())
    if new:
        return hook("relation-joined", new[0], members[new[0]])
    changed = sorted(who for who in members if known.members[who] != members[who])
    return hook("relation-changed", changed[0], members[changed[0]]) if changed else None


# -- what a finished hook leaves behind -------------------------------------------------


_MARKS = {
    "install": "installed",
    "start": "started",
    "stop": "stopped",
    "remove": "removed",
    "leader-settings-changed": "settings_seen",
}


def commit_hook(local: LocalState, hook: Hook, remote: Doc, unit: str) -> None:
    """Note that a hook succeeded (or was skipped), and queue what must directly follow it."""
    local.step, local.hook, local.attempts = "", None, 0
    kind = hook.kind
    if kind in _MARKS:
        setattr(local, _MARKS[kind], True)
    elif kind == "upgrade-charm":
        local.step, local.hook = "queued", Hook("config-changed")
    elif kind == "config-changed" and not local.started:
        local.step, local.hook = "queued", Hook("start")
    elif hook.is_relation:
        _commit_relation(local, hook)
    elif kind == "storage-attached":
        local.storage.append(hook.storage)
    elif kind == "storage-detaching":
        local.storage.remove(hook.storage)
    elif kind.startswith("secret-"):
        _commit_secret(local, hook)


def _commit_relation(local: LocalState, hook: Hook) -> None:
    rid = str(hook.relation)
    if hook.kind == "relation-created":
        return
    if hook.kind == "relation-broken":
        local.relations.pop(rid, None)
        return
    state = local.relations[rid]
    if hook.kind == "relation-joined":
        state.members[hook.remote_unit] = hook.version
        state.changed_pending = hook.remote_unit
    elif hook.kind == "relation-departed":
        state.members.pop(hook.remote_unit, None)
    elif hook.remote_unit:
        state.members[hook.remote_unit] = hook.version
        if state.changed_pending == hook.remote_unit:
            state.changed_pending = ""
    else:
        state.apps[hook.remote_app] = hook.version


def _commit_secret(local: LocalState, hook: Hook) -> None:
    if hook.kind == "secret-changed":
        local.secrets_changed[hook.secret] = hook.version
    elif hook.kind == "secret-remove":
        local.secrets_removed.append(f"{hook.secret} {hook.revision}")
    else:
        local.secrets_due[f"{hook.kind.removeprefix('secret-')} {hook.secret}"] = hook.due
