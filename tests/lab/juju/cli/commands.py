"""Commands that change something."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lab.juju.cli import output
from lab.juju.cli.args import Args, Unsupported, UsageError, pairs
from lab.juju.cli.main import Failed, Session, command

Doc = dict[str, Any]


def _yaml(path: str) -> Doc:
    import yaml

    text = sys.stdin.read() if path == "-" else Path(path).read_text()
    doc: Any = yaml.safe_load(text)
    if doc is None:
        return {}
    if not isinstance(doc, dict):
        raise UsageError(f"{path}: expected a YAML map")
    return doc


def _config(args: Args, app: str) -> Doc:
    """`--config k=v` and `--config file.yaml` (a map of options, or of applications)."""
    values: Doc = {}
    for item in args.many("config"):
        if "=" in item:
            values.update(pairs([item]))
            continue
        doc = _yaml(item)
        values.update(doc.get(app, doc) if isinstance(doc.get(app), dict) else doc)
    return {k: _text(v) for k, v in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _constraints(args: Args) -> Doc:
    """Recorded and shown; the lab's machines do not differ, so only arch can be promised."""
    values = pairs([word for text in args.many("constraints") for word in text.split()])
    _warn_constraints(values)
    return values


def _warn_constraints(values: Doc) -> None:
    if values.get("arch", "amd64") != "amd64":
        raise Failed(f"the lab's machines are amd64; there is no arch={values['arch']}")
    unmet = sorted(set(values) - {"arch"})
    if unmet:
        output.note(f"WARNING constraints noted but not met by the lab: {', '.join(unmet)}")


def _charm_path(ref: str) -> str:
    if ref.startswith("ch:") or not Path(ref).exists():
        raise Failed(
            f'the lab\'s juju does not support charms from Charmhub: "{ref}" is not a local '
            "path (use ./dir or ./file.charm)"
        )
    path = Path(ref)
    if path.suffix in (".yaml", ".yml"):
        raise Unsupported("deploy of a bundle")
    return str(path.resolve())


def _resources(args: Args) -> dict[str, str]:
    return {k: str(Path(v).resolve()) for k, v in pairs(args.many("resource")).items()}


# -- models -----------------------------------------------------------------------------


@command("add-model", no_switch="bool", config="list", credential="no")
def add_model(s: Session, a: Args) -> None:
    name = a.word(0, "model name")
    if len(a.words) > 1 and a.words[1].partition("/")[0] not in ("lab", "localhost"):
        raise Failed(f'cloud "{a.words[1]}" not found (the lab\'s only cloud is "lab")')
    booleans = {"true": True, "false": False}
    config = {k: booleans.get(v, v) for k, v in _config(a, "").items()}
    s.call("add_model", name=name, config=config, switch=not a.on("no-switch"))
    output.note(f"Added '{name}' model on lab/default with credential 'lab' for user 'admin'")


@command(
    "destroy-model",
    no_prompt="bool",
    y="no-prompt",
    yes="no-prompt",
    destroy_storage="bool",
    release_storage="no",
    force="bool",
    no_wait="bool",
    timeout="str",
    t="timeout",
)
def destroy_model(s: Session, a: Args) -> None:
    name = a.word(0, "model")
    if not a.on("no-prompt"):
        output.note(
            f'This command will destroy the "{name}" model and all its resources. Continue [y/N]? '
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Failed("model destruction: aborted")
    limit = a.seconds("timeout", 600.0)
    output.note(f"Destroying model {name}")
    s.call(
        "destroy_model",
        limit + 10,
        model=name,
        force=a.on("force"),
        no_wait=a.on("no-wait"),
        destroy_storage=a.on("destroy-storage"),
        timeout=limit,
    )
    output.note("Model destroyed.")


@command("switch")
def switch(s: Session, a: Args) -> None:
    if not a.words:
        info = s.call("controller_info")
        print(f"lab:admin/{info['current']}" if info["current"] else "lab")
        return
    name = a.words[0]
    if name in ("lab", "lab:"):
        return
    output.note(f"-> lab:admin/{s.call('switch', model=name)}")


@command("model-config", format="str", reset="list", file="no", ignore_read_only_fields="no")
def model_config(s: Session, a: Args) -> None:
    settings = [w for w in a.words if "=" in w]
    reset = a.commas("reset")
    if settings or reset:
        s.ask("set_model_config", values=pairs(settings), reset=reset)
        return
    values: Doc = s.ask("model_config")
    if a.words:
        key = a.words[0]
        if key not in values:
            raise Failed(f'key "{key}" not found in "{s.model or "the current model"}" model.')
        print(_text(values[key]["Value"]))
        return
    if a.text("format"):
        output.document(values, a.text("format"))
        return
    output.table(
        [["Attribute", "From", "Value"]]
        + [[k, v["Source"], _text(v["Value"])] for k, v in values.items()]
    )


@command("model-constraints", format="str")
def model_constraints(s: Session, a: Args) -> None:
    values: Doc = s.ask("model_constraints")
    if a.text("format"):
        output.document(values, a.text("format"))
    elif values:
        print(" ".join(f"{k}={v}" for k, v in values.items()))


@command("set-model-constraints")
def set_model_constraints(s: Session, a: Args) -> None:
    values = pairs(a.words)
    _warn_constraints(values)
    s.ask("set_model_constraints", values=values)


# -- applications and units -------------------------------------------------------------


@command(
    "deploy",
    attach_storage="list",
    base="str",
    bind="str",
    channel="str",
    config="list",
    constraints="list",
    force="bool",
    num_units="str",
    n="num-units",
    overlay="no",
    overlays="no",
    resource="list",
    revision="no",
    storage="list",
    to="list",
    trust="bool",
    series="no",
    device="no",
    dry_run="no",
    map_machines="no",
    increase_budget="no",
)
def deploy(s: Session, a: Args) -> None:
    name = a.words[1] if len(a.words) > 1 else ""
    made = s.ask(
        "deploy",
        180.0,
        charm=_charm_path(a.word(0, "charm")),
        name=name,
        units=a.number("num-units", 1),
        config=_config(a, name),
        storage=pairs(a.many("storage")),
        bind=a.text("bind"),
        to=a.commas("to"),
        trust=a.on("trust"),
        constraints=_constraints(a),
        channel=a.text("channel"),
        base=a.text("base"),
        resources=_resources(a),
        attach_storage=a.commas("attach-storage"),
    )
    output.note(f'Located local charm "{made["charm"]}", revision {made["revision"]}')
    output.note(
        f'Deploying "{made["name"]}" from local charm "{made["charm"]}", revision '
        f"{made['revision']}"
    )


@command(
    "refresh",
    base="no",
    channel="no",
    config="list",
    force="bool",
    force_base="bool",
    force_units="bool",
    path="str",
    resource="list",
    revision="no",
    storage="list",
    trust="bool",
    bind="str",
    switch="no",
)
def refresh(s: Session, a: Args) -> None:
    name = a.word(0, "application")
    if not a.text("path"):
        raise Failed(
            f'the lab\'s juju does not support charms from Charmhub: refresh "{name}" needs --path'
        )
    made = s.ask(
        "refresh",
        180.0,
        app=name,
        path=_charm_path(a.text("path")),
        config=_config(a, name),
        resources=_resources(a),
        storage=pairs(a.many("storage")),
        bind=a.text("bind"),
        force_units=a.on("force-units"),
        trust=a.on("trust"),
    )
    output.note(f'Added local charm "{made["charm"]}", revision {made["revision"]}, to the model')


@command("add-unit", attach_storage="list", num_units="str", n="num-units", to="list")
def add_unit(s: Session, a: Args) -> None:
    s.ask(
        "add_unit",
        app=a.word(0, "application"),
        units=a.number("num-units", 1),
        to=a.commas("to"),
        attach_storage=a.commas("attach-storage"),
    )


@command(
    "remove-unit",
    no_prompt="bool",
    destroy_storage="bool",
    force="bool",
    no_wait="bool",
    num_units="str",
    dry_run="no",
)
def remove_unit(s: Session, a: Args) -> None:
    count = a.number("num-units", 0)
    names = a.words or [a.word(0, "unit")]
    if not count and any("/" not in n for n in names):
        raise Failed(
            f'invalid unit name "{names[0]}"; to remove a number of units of an '
            "application of machines name the units"
        )
    for name in s.ask(
        "remove_unit",
        names=names,
        count=count,
        force=a.on("force"),
        no_wait=a.on("no-wait"),
        destroy_storage=a.on("destroy-storage"),
    ):
        output.note(f"will remove unit {name}")


@command(
    "remove-application",
    no_prompt="bool",
    destroy_storage="bool",
    force="bool",
    no_wait="bool",
    dry_run="no",
)
def remove_application(s: Session, a: Args) -> None:
    names = a.words or [a.word(0, "application")]
    s.ask(
        "remove_application",
        names=names,
        force=a.on("force"),
        no_wait=a.on("no-wait"),
        destroy_storage=a.on("destroy-storage"),
    )
    for name in names:
        output.note(f"will remove application {name}")


@command("config", format="str", reset="list", file="str")
def config(s: Session, a: Args) -> None:
    app = a.word(0, "application name")
    settings = [w for w in a.words[1:] if "=" in w]
    reset = a.commas("reset")
    values: Doc = pairs(settings)
    if a.text("file"):
        doc = _yaml(a.text("file"))
        values = {**(doc.get(app) or doc), **values}
    if values or reset:
        s.ask("set_config", app=app, values={k: _text(v) for k, v in values.items()}, reset=reset)
        return
    doc = s.ask("config", app=app)
    if len(a.words) > 1:
        key = a.words[1]
        found = doc["settings"].get(key) or doc["application-config"].get(key)
        if found is None:
            raise Failed(f'key "{key}" not found in "{app}" application config or charm settings.')
        print(_text(found.get("value", "")))
        return
    output.document(doc, a.text("format") or "yaml")


@command("trust", remove="bool", scope="str")
def trust(s: Session, a: Args) -> None:
    s.ask("trust", app=a.word(0, "application name"), on=not a.on("remove"))


@command("expose", endpoints="no", to_spaces="no", to_cidrs="no")
def expose(s: Session, a: Args) -> None:
    s.ask("expose", app=a.word(0, "application name"), on=True)


@command("unexpose", endpoints="no")
def unexpose(s: Session, a: Args) -> None:
    s.ask("expose", app=a.word(0, "application name"), on=False)


@command("bind", force="bool")
def bind(s: Session, a: Args) -> None:
    s.ask("bind", app=a.word(0, "application name"), text=" ".join(a.words[1:]))


@command("constraints", format="str")
def constraints(s: Session, a: Args) -> None:
    values: Doc = s.ask("constraints", app=a.word(0, "application name"))
    if a.text("format"):
        output.document(values, a.text("format"))
    elif values:
        print(" ".join(f"{k}={v}" for k, v in values.items()))


@command("set-constraints")
def set_constraints(s: Session, a: Args) -> None:
    values = pairs(a.words[1:])
    _warn_constraints(values)
    s.ask("set_constraints", app=a.word(0, "application name"), values=values)


@command("integrate", "relate", "add-relation", via="no")
def integrate(s: Session, a: Args) -> None:
    if len(a.words) != 2:
        raise UsageError("an integration must involve two applications")
    s.ask("integrate", left=a.words[0], right=a.words[1])


@command("remove-relation", force="bool")
def remove_relation(s: Session, a: Args) -> None:
    if len(a.words) not in (1, 2):
        raise UsageError("a relation must involve two applications")
    s.ask("remove_relation", ends=a.words, force=a.on("force"))


@command("resolved", "resolve", all="bool", no_retry="bool")
def resolved(s: Session, a: Args) -> None:
    if not a.words and not a.on("all"):
        raise UsageError("no unit specified")
    s.ask("resolved", names=a.words, retry=not a.on("no-retry"), every=a.on("all"))


# -- machines ---------------------------------------------------------------------------


@command(
    "add-machine",
    base="str",
    constraints="list",
    disks="no",
    n="str",
    private_key="no",
    public_key="no",
    series="no",
)
def add_machine(s: Session, a: Args) -> None:
    if a.words:
        raise Unsupported(f"add-machine {a.words[0]}")
    for ident in s.ask("add_machine", count=a.number("n", 1), constraints=_constraints(a)):
        output.note(f"created machine {ident}")


@command(
    "remove-machine",
    no_prompt="bool",
    force="bool",
    keep_instance="bool",
    no_wait="bool",
    dry_run="no",
)
def remove_machine(s: Session, a: Args) -> None:
    ids = a.words or [a.word(0, "machine")]
    s.ask(
        "remove_machine",
        ids=ids,
        force=a.on("force"),
        keep=a.on("keep-instance"),
        no_wait=a.on("no-wait"),
    )
    for ident in ids:
        output.note(f"will remove machine {ident}")


def _enter(argv: list[str]) -> int:
    sys.stdout.flush()
    os.execvp(argv[0], argv)


@command(
    "ssh",
    stop=True,
    container="no",
    no_host_key_checks="bool",
    pty="bool",
    proxy="bool",
    remote="no",
)
def ssh(s: Session, a: Args) -> int:
    """Runs in the machine's namespaces as root (there is no sshd in between)."""
    target, words = a.word(0, "target").rpartition("@")[2], a.words[1:]
    if words[:1] == ["--"]:
        words = words[1:]
    elif a.rest is not None:
        words = words + a.rest
    while words and words[0].startswith("-"):
        raise Unsupported(f"ssh option {words[0]}")
    script = ["/bin/bash", "-c", " ".join(words)] if words else ["/bin/bash", "-l"]
    return _enter(s.ask("machine_argv", target=target, command=script))


@command("scp", container="no", no_host_key_checks="bool", r="bool", proxy="bool")
def scp(s: Session, a: Args) -> None:
    """Copies with tar between the host and a machine."""
    import subprocess

    words = [w for w in a.words + (a.rest or []) if w != "--"]
    options = [w for w in words if w.startswith("-")]
    if set(options) - {"-r", "-p", "-rp", "-q"}:
        raise Unsupported(f"scp option {options[0]}")
    paths = [w for w in words if not w.startswith("-")]
    if len(paths) < 2:
        raise UsageError("at least two arguments required")
    recurse = a.on("r") or any("r" in o for o in options)
    *sources, target = paths
    for source in sources:
        _copy(s, source, target, recurse, subprocess)


def _copy(s: Session, source: str, target: str, recurse: bool, subprocess: Any) -> None:
    def place(text: str) -> tuple[str, str]:
        host, colon, path = text.partition(":")
        if (colon and "/" in path) or (colon and not Path(text).exists()):
            return host.rpartition("@")[2], path
        return "", text

    def argv(host: str, script: str, path: str) -> list[str]:
        words = ["/bin/sh", "-c", script, "sh", path]
        return s.ask("machine_argv", target=host, command=words) if host else words

    (from_host, from_path), (to_host, to_path) = place(source), place(target)
    name = os.path.basename(from_path.rstrip("/"))
    check = (
        "" if recurse else ('if [ -d "$1" ]; then echo "$1: not a regular file" >&2; exit 1; fi; ')
    )
    read = check + 'tar -C "$(dirname "$1")" -cf - "$(basename "$1")"'
    write = (
        f'set -e; t="${{1:-.}}"; case "$t" in */) mkdir -p "$t";; esac; '
        f'if [ -d "$t" ]; then tar -C "$t" -xf -; else d=$(mktemp -d); tar -C "$d" -xf -; '
        f'mv "$d"/"{name}" "$t"; rmdir "$d"; fi'
    )
    sender = subprocess.Popen(argv(from_host, read, from_path), stdout=subprocess.PIPE)
    receiver = subprocess.run(argv(to_host, write, to_path), stdin=sender.stdout, timeout=300)
    if sender.wait(300) or receiver.returncode:
        raise Failed(f"scp: cannot copy {source} to {target}")


@command("add-ssh-key")
def add_ssh_key(s: Session, a: Args) -> None:
    raise Unsupported("add-ssh-key")


@command("remove-ssh-key")
def remove_ssh_key(s: Session, a: Args) -> None:
    raise Unsupported("remove-ssh-key")


# -- storage ----------------------------------------------------------------------------


@command("add-storage")
def add_storage(s: Session, a: Args) -> None:
    unit = a.word(0, "unit")
    if len(a.words) < 2:
        raise UsageError("storage add requires a unit and a storage directive")
    for ident in s.ask("add_storage", unit=unit, directives=a.words[1:]):
        output.note(f"added storage {ident} to {unit}")


@command("detach-storage", force="bool", no_wait="bool")
def detach_storage(s: Session, a: Args) -> None:
    s.ask("detach_storage", names=a.words or [a.word(0, "storage")])
    for name in a.words:
        output.note(f"detaching {name}")


@command("attach-storage")
def attach_storage(s: Session, a: Args) -> None:
    s.ask("attach_storage", unit=a.word(0, "unit"), names=a.words[1:])
    for name in a.words[1:]:
        output.note(f"attaching {name} to {a.words[0]}")


@command("remove-storage", force="bool", no_destroy="no")
def remove_storage(s: Session, a: Args) -> None:
    s.ask("remove_storage", names=a.words or [a.word(0, "storage")], force=a.on("force"))
    for name in a.words:
        output.note(f"removing {name}")


# -- secrets ----------------------------------------------------------------------------


def _content(a: Args, words: list[str]) -> dict[str, str]:
    """Values in base64, from `key=value` words (or `key#file=`, `key#base64=`) and --file."""
    import base64

    values: Doc = _yaml(a.text("file")) if a.text("file") else {}
    for word in words:
        key, _, value = word.partition("=")
        values[key] = value
    found: dict[str, str] = {}
    for key, value in values.items():
        name, _, kind = str(key).partition("#")
        if kind == "base64":
            found[name] = str(value)
        elif kind == "file":
            found[name] = base64.b64encode(Path(str(value)).read_bytes()).decode()
        else:
            found[name] = base64.b64encode(_text(value).encode()).decode()
    return found


@command("add-secret", info="str", file="str")
def add_secret(s: Session, a: Args) -> None:
    content = _content(a, a.words[1:])
    if not content:
        raise UsageError("missing secret value or filename")
    print(s.ask("add_secret", name=a.word(0, "secret name"), content=content, info=a.text("info")))


@command("update-secret", info="str", file="str", name="str", auto_prune="bool")
def update_secret(s: Session, a: Args) -> None:
    s.ask(
        "update_secret",
        secret=a.word(0, "secret URI"),
        content=_content(a, a.words[1:]),
        info=a.text("info"),
        name=a.text("name"),
        auto_prune=a.flags.get("auto-prune"),
    )


@command("remove-secret", revision="str")
def remove_secret(s: Session, a: Args) -> None:
    revision = a.number("revision", 0) or None
    s.ask("remove_secret", secret=a.word(0, "secret URI"), revision=revision)


@command("grant-secret")
def grant_secret(s: Session, a: Args) -> None:
    apps = a.word(1, "application").split(",")
    s.ask("grant_secret", secret=a.words[0], apps=apps, on=True)


@command("revoke-secret")
def revoke_secret(s: Session, a: Args) -> None:
    apps = a.word(1, "application").split(",")
    s.ask("grant_secret", secret=a.words[0], apps=apps, on=False)


# -- actions ----------------------------------------------------------------------------


def _action_params(a: Args, words: list[str]) -> Doc:
    """--params FILE, then `key.sub=value` words, whose values are YAML unless --string-args."""
    import yaml

    params: Doc = _yaml(a.text("params")) if a.text("params") else {}
    for word in words:
        path, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f'argument "{word}" must be of the form key.key.key...=value')
        place = params
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value if a.on("string-args") else yaml.safe_load(value)
    return params


@command(
    "run",
    format="str",
    wait="str",
    params="str",
    background="bool",
    string_args="bool",
    utc="bool",
)
def run(s: Session, a: Args) -> int:
    receivers = [w for w in a.words if "/" in w and "=" not in w]
    if not receivers:
        raise UsageError("no unit specified")
    rest = a.words[len(receivers) :]
    if not rest:
        raise UsageError("no action specified")
    queued = s.ask(
        "enqueue", receivers=receivers, action=rest[0], params=_action_params(a, rest[1:])
    )
    return _finish(s, a, queued)


@command(
    "exec",
    format="str",
    wait="str",
    unit="list",
    u="unit",
    machine="list",
    application="list",
    a="application",
    all="bool",
    background="bool",
    parallel="bool",
    execution_group="no",
    operator="no",
    utc="bool",
    timeout="str",
)
def execute(s: Session, a: Args) -> int:
    import shlex

    words = a.words + (a.rest or [])
    if not words:
        raise UsageError("no commands specified")
    text = words[0] if len(words) == 1 else " ".join(_quoted(w, shlex.quote) for w in words)
    queued = s.ask(
        "enqueue_exec",
        units=a.commas("unit"),
        apps=a.commas("application"),
        machines=a.commas("machine"),
        every=a.on("all"),
        command=text,
        timeout=a.seconds("wait", 0.0),
        parallel=a.on("parallel"),
    )
    return _finish(s, a, queued)


def _quoted(word: str, quote: Any) -> str:
    """Words with blanks keep together; the others stay shell text, as in real Juju."""
    return quote(word) if " " in word else word


def _finish(s: Session, a: Args, queued: Doc) -> int:
    """Wait for tasks and print them as Juju does."""
    ids, receivers = queued["tasks"], queued["receivers"]
    count = f"{len(ids)} task" + ("s" if len(ids) > 1 else "")
    output.note(f"Running operation {queued['operation']} with {count}")
    for ident, receiver in zip(ids, receivers, strict=True):
        output.note(f"  - task {ident} on unit-{receiver.replace('/', '-')}")
    if a.on("background"):
        output.note(f"Check operation status with 'juju show-operation {queued['operation']}'")
        return 0
    output.note("")
    limit = a.seconds("wait", 60.0)
    output.note("\n".join(f"Waiting for task {i}..." for i in ids))
    done: Doc = s.ask("wait_tasks", limit + 10.0, ids=ids, timeout=limit)
    shown = {_name(done[i]): done[i] for i in ids if i in done}
    _print_tasks(a, shown)
    missing = [r for i, r in zip(ids, receivers, strict=True) if i not in done]
    if missing:
        raise Failed("timed out waiting for results from: unit " + ", unit ".join(missing))
    bad = {
        t["id"]: t["results"].get("return-code", 0)
        for t in shown.values()
        if t["results"].get("return-code", 0) >= 1
    }
    if bad:
        lines = "\n".join(f' - id "{i}" with return code {code}' for i, code in bad.items())
        what = "task" if len(bad) == 1 else "tasks"
        raise Failed(
            f"the following {what} failed:\n{lines}\n\nuse 'juju show-task' to inspect "
            f"the failure{'s' if len(bad) > 1 else ''}\n"
        )
    return 0


def _name(task: Doc) -> str:
    return str(task.get("unit") or task.get("machine"))


def _print_tasks(a: Args, shown: Doc) -> None:
    if a.text("format"):
        output.document(shown, a.text("format"))
        return
    for task in shown.values():
        if len(shown) > 1:
            print(f"{_name(task)}:")
        for line in task.get("log", ()):
            print(line)
        results = dict(task["results"])
        out, err = results.pop("stdout", ""), results.pop("stderr", "")
        code = results.pop("return-code", 0)
        if task.get("message"):
            print(f"Action id {task['id']} {task['status']}: {task['message']}")
        if results:
            output.document(results, "yaml")
        sys.stdout.write(out)
        sys.stderr.write(err)
        if code and len(shown) > 1:
            print(f"return-code: {code}")
