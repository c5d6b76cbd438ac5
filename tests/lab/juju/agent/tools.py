"""The hook tools: what each command reads, prints and refuses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.juju.agent import flags
from lab.juju.agent.context import HookContext
from lab.juju.agent.flags import FORMAT, Parsed, ToolError, parse, render

Doc = dict[str, Any]
Tool = Callable[[HookContext, Parsed, str], str]
TOOLS: dict[str, tuple[dict[str, str], Tool]] = {}
_STATUSES = ("maintenance", "blocked", "waiting", "active")


def tool(name: str, **spec: str) -> Callable[[Tool], Tool]:
    """Register a hook tool with its flags ("_" stands for "-")."""

    def register(function: Tool) -> Tool:
        TOOLS[name] = ({k.replace("_", "-"): v for k, v in spec.items()}, function)
        return function

    return register


def run(ctx: HookContext, name: str, argv: list[str], stdin: str, folder: str) -> str:
    """Run a tool; returns its standard output or raises ToolError."""
    if name not in TOOLS:
        raise ToolError(f'the lab\'s juju does not support the hook tool "{name}"')
    spec, function = TOOLS[name]
    parsed = parse(argv, spec)
    parsed.flags[" folder"] = folder
    output = function(ctx, parsed, stdin)
    target = parsed.text("o")
    if target and target != "-":
        Path(folder, target).write_text(output)
        return ""
    return output


def one_of(parsed: Parsed, number: int, what: str) -> str:
    """A required argument."""
    if len(parsed.args) <= number:
        raise ToolError(f"no {what} specified", 2)
    return parsed.args[number]


def file_text(parsed: Parsed, stdin: str) -> str:
    """The content of --file."""
    name = parsed.text("file")
    if not name:
        return ""
    if name == "-":
        return stdin
    try:
        return Path(parsed.text(" folder"), name).read_text()
    except OSError as err:
        raise ToolError(str(err)) from err


# -- relations --------------------------------------------------------------------------


@tool("relation-ids", **FORMAT)
def relation_ids(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    endpoint = p.args[0] if p.args else (ctx.hook.endpoint if ctx.hook else "")
    if not endpoint:
        raise ToolError("no endpoint name specified", 2)
    return render([f"{endpoint}:{rid}" for rid in ctx.relations(endpoint)], p.text("format"))


@tool("relation-list", r="str", relation="r", app="bool", **FORMAT)
def relation_list(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    rid = ctx.relation_id(p.text("r"))
    if p.on("app"):
        return render(ctx.local.relations[str(rid)].app, p.text("format"))
    return render(ctx.members(rid), p.text("format"))


@tool("relation-get", r="str", relation="r", app="bool", **FORMAT)
def relation_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    rid = ctx.relation_id(p.text("r"))
    key = p.args[0] if p.args else "-"
    who = _bag_owner(ctx, p, rid)
    own_app = p.on("app") and who == ctx.app and not ctx.local.relations[str(rid)].peer
    if own_app and not ctx.is_leader():
        raise ToolError("permission denied")
    values = ctx.bag(rid, who)
    if key == "-":
        return render(values, p.text("format"))
    return render(values.get(key), p.text("format"))


def _bag_owner(ctx: HookContext, p: Parsed, rid: int) -> str:
    hook = ctx.hook
    if len(p.args) > 1:
        who = p.args[1]
        return who.rpartition("/")[0] if p.on("app") and "/" in who else who
    if p.on("app"):
        return ctx.local.relations[str(rid)].app
    if hook and hook.relation == rid and hook.remote_unit:
        return hook.remote_unit
    raise ToolError("no unit id specified", 2)


@tool("relation-set", r="str", relation="r", app="bool", file="str")
def relation_set(ctx: HookContext, p: Parsed, stdin: str) -> str:
    rid = ctx.relation_id(p.text("r"))
    values = {**flags.load_map(file_text(p, stdin)), **flags.pairs(p.args)}
    if p.on("app") and not ctx.is_leader():
        raise ToolError("cannot write relation settings")
    ctx.write(rid, ctx.app if p.on("app") else ctx.unit, values)
    return ""


@tool("relation-model-get", r="str", relation="r", **FORMAT)
def relation_model_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    ctx.relation_id(p.text("r"))
    return render({"uuid": ctx.facts["model"]}, p.text("format"))


# -- model, unit, application -----------------------------------------------------------


@tool("is-leader", **FORMAT)
def is_leader(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    return render(ctx.is_leader(), p.text("format"))


@tool("config-get", a="bool", all="a", **FORMAT)
def config_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    values = ctx.config()
    if p.args:
        return render(values.get(p.args[0]), p.text("format"))
    return render(values, p.text("format"))


@tool(
    "network-get",
    r="str",
    relation="r",
    bind_address="bool",
    ingress_address="bool",
    egress_subnets="bool",
    primary_address="bool",
    **FORMAT,
)
def network_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    binding = one_of(p, 0, "arguments")
    place = ctx.link.call("network", binding=binding)
    found = network_info(ctx.interfaces, place["subnets"])
    if not found["bind-addresses"]:
        raise ToolError(
            f'no network config found for binding "{binding}": machine '
            f'{ctx.facts["machine"]} has no address in space "{place["space"]}"'
        )
    wanted = [
        k
        for k in ("bind-address", "ingress-address", "egress-subnets", "primary-address")
        if p.on(k)
    ]
    if not wanted:
        return render(found, p.text("format"))
    values = {
        "bind-address": found["bind-addresses"][0]["addresses"][0]["value"],
        "primary-address": found["bind-addresses"][0]["addresses"][0]["value"],
        "ingress-address": found["ingress-addresses"][0],
        "egress-subnets": found["egress-subnets"],
    }
    if len(wanted) == 1:
        return render(values[wanted[0]], p.text("format"))
    return render({k: values[k] for k in wanted}, p.text("format"))


def network_info(interfaces: list[Doc], subnets: list[str]) -> Doc:
    """Bind, ingress and egress addresses of a machine inside some subnets."""
    import ipaddress

    nets = [ipaddress.ip_network(s) for s in subnets]
    bound: list[Doc] = []
    flat: list[str] = []
    for nic in interfaces:
        inside = [
            (ip, cidr)
            for ip, cidr in nic["addresses"]
            if any(ipaddress.ip_address(ip) in net for net in nets)
        ]
        if inside:
            bound.append(
                {
                    "mac-address": nic["mac"],
                    "interface-name": nic["name"],
                    "addresses": [
                        {"hostname": "", "value": ip, "cidr": cidr} for ip, cidr in inside
                    ],
                }
            )
            flat += [ip for ip, _ in inside]
    egress = [f"{ip}/{ipaddress.ip_address(ip).max_prefixlen}" for ip in flat[:1]]
    return {"bind-addresses": bound, "egress-subnets": egress, "ingress-addresses": flat}


@tool("unit-get", **FORMAT)
def unit_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    what = one_of(p, 0, "setting")
    if what not in ("private-address", "public-address"):
        raise ToolError(f'unknown setting "{what}"', 2)
    found = network_info(ctx.interfaces, [ctx.facts["networks"]["alpha"]])
    if not found["ingress-addresses"]:
        raise ToolError(f"no {what.replace('-', ' ')} set")
    return render(found["ingress-addresses"][0], p.text("format"))


@tool("status-get", include_data="bool", application="bool", **FORMAT)
def status_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    found = ctx.link.call("get_status", application=p.on("application"))
    if not p.on("application"):
        return render(
            _status_doc(found) if p.on("include-data") else found["current"], p.text("format")
        )
    if not p.on("include-data"):
        return render(found["application"]["current"], p.text("format"))
    units = {name: _status_doc(s) for name, s in found["units"].items()}
    doc = {"application-status": {**_status_doc(found["application"]), "units": units}}
    return render(doc, p.text("format"))


def _status_doc(status: Doc) -> Doc:
    return {
        "status": status["current"],
        "message": status["message"],
        "status-data": status.get("data") or {},
    }


@tool("status-set", application="bool")
def status_set(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    current = one_of(p, 0, "status")
    if current not in _STATUSES:
        raise ToolError(
            f'invalid status "{current}", expected one of {list(_STATUSES)}'.replace("'", ""), 2
        )
    message = p.args[1] if len(p.args) > 1 else ""
    which = "application" if p.on("application") else "workload"
    if which == "application" and not ctx.is_leader():
        raise ToolError("this unit is not the leader")
    ctx.link.call("set_status", which=which, current=current, message=message)
    ctx.status_set = ctx.status_set or which == "workload"
    return ""


@tool("goal-state", **FORMAT)
def goal_state(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    return render(ctx.link.call("goal_state"), p.text("format") or "yaml")


@tool("application-version-set")
def application_version_set(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    ctx.link.call("set_version", version=one_of(p, 0, "version"))
    return ""


@tool("juju-log", debug="bool", l="str", log_level="l", format="str")
def juju_log(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    if not p.args:
        raise ToolError("no message specified", 2)
    level = "DEBUG" if p.on("debug") else p.text("l").upper() or "INFO"
    ctx.log(level, "juju-log", " ".join(p.args))
    return ""


@tool("credential-get", **FORMAT)
def credential_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    return render(ctx.link.call("credential"), p.text("format") or "yaml")


@tool("juju-reboot", now="bool")
def juju_reboot(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    if ctx.task:
        raise ToolError("juju-reboot is not supported when running an action.")
    ctx.reboot = "now" if p.on("now") else "after"
    if p.on("now"):
        ctx.kill()
    return ""


# -- ports ------------------------------------------------------------------------------


def _port_range(text: str) -> str:
    """`80`, `80/tcp`, `8000-8999/udp` or `icmp` in the normal form."""
    if text == "icmp":
        return text
    match = re.fullmatch(r"(\d+)(?:-(\d+))?(?:/(tcp|udp))?", text.lower())
    if not match:
        raise ToolError(
            f'expected <port>[/<protocol>] or <from>-<to>[/<protocol>] or icmp; got "{text}"', 2
        )
    low, high = int(match[1]), int(match[2] or match[1])
    if not 0 < low <= high < 65536:
        raise ToolError(f'invalid port range "{text}": expected from 1 to 65535', 2)
    span = f"{low}" if low == high else f"{low}-{high}"
    return f"{span}/{match[3] or 'tcp'}"


def _endpoints(p: Parsed) -> list[str]:
    return [e for e in p.text("endpoints").split(",") if e] or [""]


@tool("open-port", endpoints="str", **FORMAT)
def open_port(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    wanted = _port_range(one_of(p, 0, "port or range"))
    for endpoint in _endpoints(p):
        opened = ctx.ports.setdefault(endpoint, [])
        if wanted not in opened:
            opened.append(wanted)
    return ""


@tool("close-port", endpoints="str", **FORMAT)
def close_port(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    unwanted = _port_range(one_of(p, 0, "port or range"))
    chosen = _endpoints(p) if p.text("endpoints") else list(ctx.ports)
    for endpoint in chosen:
        ctx.ports[endpoint] = [r for r in ctx.ports.get(endpoint, []) if r != unwanted]
    return ""


@tool("opened-ports", endpoints="bool", **FORMAT)
def opened_ports(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    """What was open when the hook began: its own pending changes are not shown."""
    ports: dict[str, list[str]] = ctx.link.call("ports")
    if p.on("endpoints"):
        ranges = sorted({r for found in ports.values() for r in found})
        shown = [
            f"{r} ({', '.join(sorted(e or '*' for e in ports if r in ports[e]))})" for r in ranges
        ]
        return render(shown, p.text("format"))
    return render(sorted({r for found in ports.values() for r in found}), p.text("format"))


# -- resources, storage, state ----------------------------------------------------------


@tool("resource-get")
def resource_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    """Copies the resource next to the charm and prints where, without a newline."""
    import shutil

    name = one_of(p, 0, "resource")
    found = ctx.link.call("resource", name=name)
    target = Path(ctx.facts["agent_dir"], "resources", name, found["filename"])
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(found["path"], target)
    return str(target)


def _attached(ctx: HookContext) -> dict[str, Doc]:
    known = set(ctx.local.storage) | ({ctx.hook.storage} if ctx.hook else set())
    return {k: v for k, v in ctx.remote["storage"].items() if k in known}


@tool("storage-list", **FORMAT)
def storage_list(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    name = p.args[0] if p.args else ""
    ids = sorted(i for i in _attached(ctx) if not name or i.partition("/")[0] == name)
    return render(ids, p.text("format"))


@tool("storage-get", s="str", **FORMAT)
def storage_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    ident = p.text("s") or (ctx.hook.storage if ctx.hook else "")
    if not ident:
        raise ToolError("no storage instance specified", 2)
    item = _attached(ctx).get(ident)
    if item is None:
        raise ToolError(f'invalid value "{ident}" for option -s: storage not found', 2)
    values = {"kind": item["kind"], "location": item["location"]}
    if p.args:
        if p.args[0] not in values:
            raise ToolError(f'invalid storage attribute "{p.args[0]}"')
        return render(values[p.args[0]], p.text("format"))
    return render(values, p.text("format"))


@tool("storage-add")
def storage_add(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    if not p.args:
        raise ToolError("storage add requires a storage directive", 2)
    for arg in p.args:
        name, _, directive = arg.partition("=")
        ctx.link.call("storage_spec", name=name)
        ctx.add_storage(name, directive or "1")
    return ""


@tool("state-get", **FORMAT)
def state_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    if p.args and p.args[0] != "-":
        return render(ctx.state.get(p.args[0]), p.text("format"))
    empty = None if ctx.facts["v4"] else {}
    return render(ctx.state or empty, p.text("format"))


@tool("state-set", file="str")
def state_set(ctx: HookContext, p: Parsed, stdin: str) -> str:
    ctx.state.update({**flags.load_map(file_text(p, stdin)), **flags.pairs(p.args)})
    return ""


@tool("state-delete")
def state_delete(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    ctx.state.pop(one_of(p, 0, "key"), None)
    return ""


# -- actions ----------------------------------------------------------------------------


def _task(ctx: HookContext) -> Any:
    if ctx.task is None or not ctx.task.ident:
        raise ToolError("not running an action")
    return ctx.task


@tool("action-get", **FORMAT)
def action_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    value: Any = _task(ctx).params
    for part in p.args[0].split(".") if p.args else ():
        value = value.get(part) if isinstance(value, dict) else None
    return render(value, p.text("format"))


@tool("action-set")
def action_set(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    task = _task(ctx)
    for key, value in flags.pairs(p.args).items():
        if key.split(".")[0] in ("stdout", "stdout-encoding", "stderr", "stderr-encoding"):
            raise ToolError(f'cannot set reserved action key "{key}"')
        parts = key.split(".")
        for part in parts:
            if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", part):
                raise ToolError(
                    f'key "{key}" must start and end with lowercase alphanumeric, '
                    "and contain only lowercase alphanumeric and hyphens",
                    2,
                )
        place = task.results
        for part in parts[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[parts[-1]] = value
    return ""


@tool("action-log")
def action_log(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    ctx.link.call("task_log", ident=_task(ctx).ident, message=" ".join(p.args))
    return ""


@tool("action-fail")
def action_fail(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    task = _task(ctx)
    task.failed = True
    default = "action failed without reason given, check action for errors"
    task.message = " ".join(p.args) or default
    return ""


def expiry(text: str) -> float:
    """A secret's expiry in seconds since the epoch: a date, or a duration from now."""
    from lab.juju import clock

    if re.match(r"\d{4}-", text):
        try:
            return clock.seconds(text)
        except ValueError as err:
            raise ToolError(f'expire time or duration "{text}" not valid', 2) from err
    match = re.fullmatch(r"(\d+)([hms])", text)
    if not match:
        raise ToolError(f'expire time or duration "{text}" not valid', 2)
    return time.time() + int(match[1]) * {"h": 3600, "m": 60, "s": 1}[match[2]]
