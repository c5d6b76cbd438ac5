"""Commands that only look."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lab.juju.cli import output
from lab.juju.cli.args import Args, UsageError
from lab.juju.cli.main import Failed, Session, command

Doc = dict[str, Any]


@command("version", format="str", all="bool")
def version(s: Session, a: Args) -> None:
    text = f"{s.call('version')}-ubuntu-amd64"
    if a.text("format"):
        output.document({"version": text} if a.on("all") else text, a.text("format"))
    else:
        print(text)


@command("controllers", "list-controllers", format="str", refresh="bool", managed="bool")
def controllers(s: Session, a: Args) -> None:
    info = s.call("controller_info")
    doc = {
        "controllers": {
            "lab": {
                "current-model": f"admin/{info['current']}",
                "user": "admin",
                "access": "superuser",
                "recent-server": info["endpoint"],
                "controller-uuid": info["uuid"],
                "uuid": info["uuid"],
                "api-endpoints": [info["endpoint"]],
                "cloud": "lab",
                "region": "default",
                "type": "lab",
                "agent-version": info["version"],
                "model-count": info["models"],
                "machine-count": info["machines"],
            }
        },
        "current-controller": "lab",
    }
    if a.text("format"):
        output.document(doc, a.text("format"))
        return
    output.table(
        [
            ["Controller", "Model", "User", "Access", "Cloud/Region", "Models", "Version"],
            [
                "lab*",
                info["current"] or "-",
                "admin",
                "superuser",
                "lab/default",
                info["models"],
                info["version"],
            ],
        ]
    )


@command("whoami", format="str")
def whoami(s: Session, a: Args) -> None:
    info = s.call("controller_info")
    doc = {"controller": "lab", "model": info["current"], "user": "admin"}
    if a.text("format"):
        output.document(doc, a.text("format"))
    else:
        output.table(
            [
                ["Controller:", "lab"],
                ["Model:", info["current"] or "<no-current-model>"],
                ["User:", "admin"],
            ]
        )


@command(
    "models", "list-models", format="str", all="bool", user="str", uuid="bool", exact_time="bool"
)
def models(s: Session, a: Args) -> None:
    found: list[Doc] = s.call("models")
    current = next((m["short-name"] for m in found if m.pop("is-current")), "")
    if a.text("format"):
        output.document({"models": found, "current-model": current}, a.text("format"))
        return
    print("Controller: lab\n")
    rows: list[list[Any]] = [["Model", "Cloud/Region", "Type", "Status", "Machines", "Units"]]
    for m in found:
        star = "*" if m["short-name"] == current else ""
        rows.append(
            [
                m["short-name"] + star,
                "lab/default",
                "lab",
                m["status"]["current"],
                len(m["machines"]),
                m["unit-count"],
            ]
        )
    output.table(rows)


@command("show-model", format="str")
def show_model(s: Session, a: Args) -> None:
    doc: Doc = s.call("show_model", model=a.words[0] if a.words else s.model)
    for model in doc.values():
        model.pop("is-current")
    output.document(doc, a.text("format") or "yaml")


@command("spaces", "list-spaces", format="str", short="bool")
def spaces(s: Session, a: Args) -> None:
    found: list[Doc] = s.call("spaces")
    if a.text("format"):
        doc = {
            "spaces": [
                {
                    "id": x["id"],
                    "name": x["name"],
                    "subnets": {
                        net: {
                            "type": "ipv6" if ":" in net else "ipv4",
                            "provider-id": f"subnet-{x['name']}",
                            "status": "in-use",
                            "zones": ["zone1"],
                        }
                        for net in x["subnets"]
                    },
                }
                for x in found
            ]
        }
        output.document(doc, a.text("format"))
        return
    output.table(
        [["Name", "Space ID", "Subnets"]]
        + [[x["name"], x["id"], ", ".join(x["subnets"])] for x in found]
    )


@command("show-unit", format="str", endpoint="str", app="bool", related_unit="no")
def show_unit(s: Session, a: Args) -> None:
    doc: Doc = {}
    for unit in a.words or [a.word(0, "unit")]:
        doc.update(s.ask("show_unit", unit=unit, endpoint=a.text("endpoint")))
    output.document(doc, a.text("format") or "yaml")


@command("show-application", format="str")
def show_application(s: Session, a: Args) -> None:
    doc: Doc = {}
    for app in a.words or [a.word(0, "application")]:
        doc.update(s.ask("show_application", app=app))
    output.document(doc, a.text("format") or "yaml")


@command("show-machine", "machines", "list-machines", format="str", utc="bool")
def machines(s: Session, a: Args) -> None:
    found: Doc = s.ask("status_of", patterns=[])["machines"]
    if a.words:
        missing = [w for w in a.words if w not in found]
        if missing:
            raise Failed(f"machine {missing[0]} not found")
        found = {w: found[w] for w in a.words}
    if a.text("format"):
        output.document({"machines": found}, a.text("format"))
    else:
        _machine_table(found)


@command("actions", "list-actions", format="str", schema="bool")
def actions(s: Session, a: Args) -> None:
    found: Doc = s.ask("list_actions", app=a.word(0, "application name"))
    short = {name: (spec or {}).get("description", "") for name, spec in found.items()}
    if a.on("schema"):
        output.document(found, a.text("format") or "yaml")
    elif a.text("format"):
        output.document(short, a.text("format"))
    elif not short:
        print(f"No actions defined for {a.words[0]}.")
    else:
        output.table(
            [["Action", "Description"]]
            + [[n, str(d).strip().splitlines()[0] if d else ""] for n, d in sorted(short.items())]
        )


@command("show-action", format="str")
def show_action(s: Session, a: Args) -> None:
    found: Doc = s.ask("list_actions", app=a.word(0, "application name"))
    name = a.word(1, "action name")
    if name not in found:
        raise Failed(f'unknown action "{name}"')
    output.document(found[name], a.text("format") or "yaml")


@command("show-task", format="str", wait="str", watch="no", utc="bool")
def show_task(s: Session, a: Args) -> None:
    ident = a.word(0, "task ID")
    if a.text("wait"):
        limit = a.seconds("wait", 60.0)
        s.ask("wait_tasks", limit + 10.0, ids=[ident], timeout=limit)
    output.document(s.ask("show_task", ident=ident), a.text("format") or "yaml")


@command(
    "operations",
    "list-operations",
    format="str",
    actions="str",
    units="str",
    machines="str",
    apps="str",
    status="str",
    limit="str",
    utc="bool",
)
def operations(s: Session, a: Args) -> None:
    found: Doc = s.ask("operations")
    for flag in ("actions", "units", "machines", "apps", "status"):
        if a.text(flag):
            wanted = a.text(flag).split(",")
            found = {i: o for i, o in found.items() if _matches(o, flag, wanted)}
    if a.text("format"):
        output.document(found, a.text("format"))
        return
    output.table(
        [["ID", "Status", "Tasks", "Summary"]]
        + [[i, o["status"], ",".join(o["tasks"]), o["summary"]] for i, o in found.items()]
    )


def _matches(operation: Doc, flag: str, wanted: list[str]) -> bool:
    if flag == "status":
        return operation["status"] in wanted
    if flag == "actions":
        return operation["summary"].split(" ")[0] in wanted
    hosts = [t["host"] for t in operation["tasks"].values()]
    if flag == "apps":
        hosts = [h.partition("/")[0] for h in hosts]
    return any(h in wanted for h in hosts)


@command("show-operation", format="str", wait="str", watch="no", utc="bool")
def show_operation(s: Session, a: Args) -> None:
    ident = a.word(0, "operation ID")
    if a.text("wait"):
        ids = list(s.ask("show_operation", ident=ident)[ident]["tasks"])
        limit = a.seconds("wait", 60.0)
        s.ask("wait_tasks", limit + 10.0, ids=ids, timeout=limit)
    output.document(s.ask("show_operation", ident=ident), a.text("format") or "yaml")


@command("secrets", "list-secrets", format="str", owner="str")
def secrets(s: Session, a: Args) -> None:
    found: Doc = s.ask("secrets", owner=a.text("owner"))
    if a.text("format"):
        output.document(found, a.text("format"))
        return
    output.table(
        [["ID", "Name", "Owner", "Rotation", "Revision", "Last updated"]]
        + [
            [
                i,
                x.get("name") or x.get("label") or "-",
                x["owner"],
                x.get("rotation", "never"),
                x["revision"],
                x["updated"],
            ]
            for i, x in found.items()
        ]
    )


@command(
    "show-secret", format="str", reveal="bool", revisions="bool", revision="str", r="revision"
)
def show_secret(s: Session, a: Args) -> None:
    if a.on("revisions") and a.text("revision"):
        raise UsageError("specify either --revisions or --revision but not both")
    doc: Doc = s.ask(
        "show_secret",
        secret=a.word(0, "secret"),
        reveal=a.on("reveal"),
        revision=a.number("revision", 0) or None,
        revisions=a.on("revisions"),
    )
    if a.text("format") != "json":
        for item in doc.values():
            if "content" in item:
                item["content"] = item["content"]["Data"]
    output.document(doc, a.text("format") or "yaml")


@command("storage", "list-storage", format="str", filesystem="bool", volume="bool")
def storage(s: Session, a: Args) -> None:
    doc: Doc = s.ask("status_of", patterns=[]).get("storage", {})
    if a.on("filesystem"):
        doc = {"filesystems": doc.get("filesystems", {})}
    elif a.on("volume"):
        doc = {"volumes": doc.get("volumes", {})}
    if a.text("format"):
        output.document(doc, a.text("format"))
        return
    rows = [["Unit", "Storage ID", "Type", "Status", "Location"]]
    for ident, item in doc.get("storage", {}).items():
        units = item.get("attachments", {}).get("units", {"": {}})
        for unit, at in units.items():
            rows.append(
                [unit, ident, item["kind"], item["status"]["current"], at.get("location", "")]
            )
    output.table(rows)


@command("show-storage", format="str")
def show_storage(s: Session, a: Args) -> None:
    found: Doc = s.ask("status_of", patterns=[]).get("storage", {}).get("storage", {})
    for ident in a.words or [a.word(0, "storage")]:
        if ident not in found:
            raise Failed(f'storage "{ident}" not found')
    output.document({i: found[i] for i in a.words}, a.text("format") or "yaml")


@command("ssh-keys", "list-ssh-keys", format="str", full="bool")
def ssh_keys(s: Session, a: Args) -> None:
    output.note('No keys to display in model: "juju ssh" enters the lab\'s machines directly.')


# -- log --------------------------------------------------------------------------------

_LEVELS = ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


@command(
    "debug-log",
    limit="str",
    replay="bool",
    tail="bool",
    no_tail="bool",
    include="list",
    i="include",
    exclude="list",
    x="exclude",
    include_module="list",
    exclude_module="list",
    level="str",
    l="level",
    lines="str",
    n="lines",
    date="bool",
    ms="bool",
    location="bool",
    utc="bool",
    format="str",
    include_labels="no",
    exclude_labels="no",
    retry="no",
    firehose="no",
    log_file="no",
    retry_delay="no",
)
def debug_log(s: Session, a: Args) -> None:
    """Prints what is there; --tail goes on until interrupted (default only on a terminal)."""
    wanted = _filter(s, a)
    watched = sys.stdout.isatty() and not a.on("no-tail") and "limit" not in a.flags
    follow = a.on("tail") or watched
    path = s.ask("log_file")
    lines, position = _read_log(path, 0, wanted)
    limit = a.number("limit", 0)
    if limit:
        lines = lines[:limit] if a.on("replay") else lines[-limit:]
    elif follow and not a.on("replay"):
        lines = lines[-a.number("lines", 10) :]
    for line in lines:
        print(line)
    while follow:
        sys.stdout.flush()
        time.sleep(0.2)
        lines, position = _read_log(path, position, wanted)
        for line in lines:
            print(line)


def _filter(s: Session, a: Args) -> Any:
    least = (a.text("level") or _configured_level(s)).upper()
    if least not in _LEVELS:
        raise UsageError(f'level value "{least}" is not one of {", ".join(_LEVELS)}')
    include = {e.replace("/", "-") for e in a.commas("include")}
    exclude = {e.replace("/", "-") for e in a.commas("exclude")}
    modules, without = a.commas("include-module"), a.commas("exclude-module")

    def entity_in(entity: str, names: set[str]) -> bool:
        plain = entity.replace("/", "-")
        return any(
            plain == n.removeprefix("unit-")
            or f"unit-{plain}" == n
            or n == plain
            or (
                n.endswith("*")
                and (plain.startswith(n[:-1]) or f"unit-{plain}".startswith(n[:-1]))
            )
            for n in names
        )

    def wanted(entity: str, level: str, module: str) -> bool:
        if _LEVELS.index(level if level in _LEVELS else "INFO") < _LEVELS.index(least):
            return False
        if (include and not entity_in(entity, include)) or entity_in(entity, exclude):
            return False
        if modules and not any(module.startswith(m) for m in modules):
            return False
        return not any(module.startswith(m) for m in without)

    return wanted


def _configured_level(s: Session) -> str:
    """The level of units in logging-config, as `<root>=INFO;unit=DEBUG` states it."""
    text = str(s.ask("model_config")["logging-config"]["Value"])
    levels: dict[str, str] = {}
    for part in text.replace(",", ";").split(";"):
        name, _, level = part.partition("=")
        levels[name.strip()] = level.strip()
    return levels.get("unit") or levels.get("<root>") or "INFO"


def _read_log(path: str, position: int, wanted: Any) -> tuple[list[str], int]:
    try:
        with open(path) as stream:
            stream.seek(position)
            text = stream.read()
    except OSError:
        return [], position
    end = text.rfind("\n") + 1
    found: list[str] = []
    for line in text[:end].splitlines():
        stamp, entity, level, module, message = json.loads(line)
        if wanted(entity, level, module):
            who = f"unit-{entity.replace('/', '-')}" if "/" in entity else entity
            clock = time.strftime("%H:%M:%S", time.gmtime(stamp))
            found.append(f"{who}: {clock} {level} {module} {message}")
    return found, position + len(text[:end].encode())


# -- status -----------------------------------------------------------------------------


@command(
    "status",
    "show-status",
    format="str",
    relations="bool",
    integrations="relations",
    storage="bool",
    watch="str",
    utc="bool",
    no_color="bool",
    retry_count="str",
    retry_delay="str",
)
def status(s: Session, a: Args) -> None:
    style = a.text("format") or "tabular"
    if style not in ("json", "yaml", "tabular"):
        raise Failed(f'the lab\'s juju does not support "status --format {style}"')
    pause = a.seconds("watch", 0.0)
    while True:
        doc: Doc = s.ask("status_of", patterns=a.words)
        if pause:
            print("\033[H\033[J", end="")
        if style == "tabular":
            _human(doc, a)
        else:
            output.document(doc, style)
        if not pause:
            return
        sys.stdout.flush()
        time.sleep(pause)


def _human(doc: Doc, a: Args) -> None:
    m = doc["model"]
    output.table(
        [
            ["Model", "Controller", "Cloud/Region", "Version", "SLA", "Timestamp"],
            [
                m["name"],
                m["controller"],
                f"{m['cloud']}/{m['region']}",
                m["version"],
                m["sla"],
                doc["controller"]["timestamp"],
            ],
        ]
    )
    if not doc["applications"] and not doc["machines"]:
        output.note(f'\nModel "admin/{m["name"]}" is empty.')
        return
    rows: list[list[Any]] = [
        ["App", "Version", "Status", "Scale", "Charm", "Channel", "Rev", "Exposed", "Message"]
    ]
    units: list[list[Any]] = [
        ["Unit", "Workload", "Agent", "Machine", "Public address", "Ports", "Message"]
    ]
    for name, app in doc["applications"].items():
        state = app.get("application-status", {})
        rows.append(
            [
                name,
                app.get("version", ""),
                state.get("current", ""),
                len(app.get("units", {})) or "0",
                app["charm-name"],
                app.get("charm-channel", ""),
                app["charm-rev"],
                "yes" if app["exposed"] else "no",
                state.get("message", ""),
            ]
        )
        for unit, u in app.get("units", {}).items():
            work, agent = u["workload-status"], u["juju-status"]
            message = work.get("message") or (
                "" if agent["current"] == "idle" else agent.get("message", "")
            )
            if agent["current"] == "executing" and agent.get("message"):
                message = (
                    f"({agent['message'].removeprefix('running ').removesuffix(' hook')}) "
                    + work.get("message", "")
                )
            units.append(
                [
                    unit + ("*" if u.get("leader") else ""),
                    work["current"],
                    agent["current"],
                    u.get("machine", ""),
                    u.get("public-address", ""),
                    ",".join(u.get("open-ports", [])),
                    message.strip(),
                ]
            )
    for part in (rows, units):
        if len(part) > 1:
            print()
            output.table(part)
    print()
    _machine_table(doc["machines"])
    if a.on("relations"):
        _relation_table(doc)
    if a.on("storage") and doc.get("storage"):
        _storage_table(doc["storage"])


def _machine_table(machines: Doc) -> None:
    output.table(
        [["Machine", "State", "Address", "Inst id", "Base", "AZ", "Message"]]
        + [
            [
                i,
                m["juju-status"]["current"],
                m.get("dns-name", ""),
                m.get("instance-id", ""),
                f"{m['base']['name']}@{m['base']['channel']}",
                "",
                m.get("machine-status", {}).get("message", ""),
            ]
            for i, m in machines.items()
        ]
    )


def _relation_table(doc: Doc) -> None:
    seen: set[tuple[str, ...]] = set()
    rows: list[list[Any]] = [["Integration endpoints", "Interface", "Type"]]
    for name, app in doc["applications"].items():
        for endpoint, related in app.get("relations", {}).items():
            for item in related:
                other = item["related-application"]
                key = (*sorted((name, other)), item["interface"])
                if key in seen:
                    continue
                seen.add(key)
                rows.append(
                    [
                        f"{name}:{endpoint} - {other}",
                        item["interface"],
                        "peer" if other == name else "regular",
                    ]
                )
    if len(rows) > 1:
        print()
        output.table(rows)


def _storage_table(found: Doc) -> None:
    rows: list[list[Any]] = [["Storage Unit", "Storage ID", "Type", "Mountpoint", "Status"]]
    for ident, item in found.get("storage", {}).items():
        for unit, at in (item.get("attachments") or {"units": {"": {}}})["units"].items():
            rows.append(
                [unit, ident, item["kind"], at.get("location", ""), item["status"]["current"]]
            )
    print()
    output.table(rows)
