"""The hook tools for secrets. Importing this module registers them in `tools.TOOLS`."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path
from typing import Any

from lab.juju.agent import flags
from lab.juju.agent.context import HookContext
from lab.juju.agent.flags import FORMAT, Parsed, ToolError, render
from lab.juju.agent.tools import expiry, file_text, one_of, tool
from lab.juju.wire import RemoteError

Doc = dict[str, Any]
_ALPHABET = "0123456789abcdefghijklmnopqrstuv"
_ROTATIONS = ("never", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly")
_SPEC = {
    "label": "str",
    "description": "str",
    "expire": "str",
    "rotate": "str",
    "file": "str",
    "owner": "str",
}


def bare(uri: str) -> str:
    return uri.removeprefix("secret:").rpartition("/")[2]


def _content(p: Parsed, args: list[str], stdin: str) -> dict[str, str]:
    """Values in base64 from `key=value`, `key#base64=`, `key#file=` and `--file`."""
    found = flags.load_map(file_text(p, stdin))
    found.update(flags.pairs(args))
    content: dict[str, str] = {}
    for key, value in found.items():
        name, _, kind = key.partition("#")
        if not re.fullmatch(r"[a-z](?:[a-z0-9.-]*[a-z0-9])?", name) or len(name) < 3:
            raise ToolError(f'key "{name}" not valid: at least 3 of a-z, 0-9, "." and "-"', 2)
        if kind == "base64":
            content[name] = value
        elif kind == "file":
            try:
                data = Path(p.text(" folder"), value).read_bytes()
            except OSError as err:
                raise ToolError(f"reading content for secret key {name}: {err}") from err
            content[name] = base64.b64encode(data).decode()
        else:
            content[name] = base64.b64encode(value.encode()).decode()
    return content


def _metadata(p: Parsed) -> Doc:
    spec: Doc = {k: p.text(k) for k in ("label", "description") if k in p.flags}
    if p.text("rotate"):
        if p.text("rotate") not in _ROTATIONS:
            raise ToolError(f'rotate policy "{p.text("rotate")}" not valid', 2)
        spec["rotate"] = p.text("rotate")
    if p.text("expire"):
        spec["expire"] = expiry(p.text("expire"))
    return spec


def _find(ctx: HookContext, uri: str, label: str = "") -> Doc:
    """A secret's owner and state; one made in this very hook counts as well."""
    for step in ctx.secrets:
        if step["op"] == "add" and (
            (uri and step["spec"]["id"] == bare(uri))
            or (not uri and label and step["spec"].get("label") == label)
        ):
            return {
                "id": step["spec"]["id"],
                "owner": step["owner"],
                "latest": 1,
                "manages": True,
                "owned": True,
                "pending": step["spec"],
                "info": None,
            }
    return ctx.link.call("secret_find", uri=uri, label=label)


def _managed(ctx: HookContext, uri: str, label: str = "") -> Doc:
    """A secret this unit may change, or the error that Juju gives."""
    found = _find(ctx, uri, label)
    if found["owner"] == f"app:{ctx.app}" and not ctx.is_leader():
        raise ToolError("this unit is not the leader")
    if not found["manages"] and found["owner"] not in (f"unit:{ctx.unit}", f"app:{ctx.app}"):
        raise ToolError(f'secret "{found["id"]}" not found')
    if not found["manages"] and found["owner"] != f"app:{ctx.app}":
        raise ToolError("permission denied")
    return found


@tool("secret-add", **_SPEC)
def secret_add(ctx: HookContext, p: Parsed, stdin: str) -> str:
    content = _content(p, p.args, stdin)
    if not content:
        raise ToolError("missing secret value or filename", 2)
    owner = p.text("owner") or "application"
    if owner not in ("application", "unit"):
        raise ToolError(f'secret owner "{owner}" not valid', 2)
    spec = {
        **_metadata(p),
        "content": content,
        "id": "".join(secrets.choice(_ALPHABET) for _ in range(20)),
    }
    if owner == "application" and not ctx.is_leader():
        raise ToolError("this unit is not the leader")
    label = spec.get("label")
    if label and any(s["op"] == "add" and s["spec"].get("label") == label for s in ctx.secrets):
        raise ToolError(f'secret with label "{label}" already exists')
    full_owner = f"app:{ctx.app}" if owner == "application" else f"unit:{ctx.unit}"
    if label:
        _refuse_known_label(ctx, label, full_owner)
    ctx.secrets.append({"op": "add", "owner": full_owner, "spec": spec})
    return f"secret:{spec['id']}\n"


def _refuse_known_label(ctx: HookContext, label: str, owner: str) -> None:
    try:
        found = ctx.link.call("secret_find", uri="", label=label)
    except RemoteError:
        return
    if found["owner"] == owner:
        raise ToolError(f'secret with label "{label}" already exists')


@tool("secret-set", **_SPEC)
def secret_set(ctx: HookContext, p: Parsed, stdin: str) -> str:
    found = _managed(ctx, one_of(p, 0, "secret URI"))
    spec = _metadata(p)
    content = _content(p, p.args[1:], stdin)
    if content:
        spec["content"] = content
    if found.get("pending") is not None:
        found["pending"].update(spec)
    else:
        ctx.secrets.append({"op": "set", "id": found["id"], "spec": spec})
    return ""


@tool("secret-get", label="str", peek="bool", refresh="bool", **FORMAT)
def secret_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    uri, label = (p.args[0] if p.args else ""), p.text("label")
    if not uri and not label:
        raise ToolError("require either a secret URI or label", 2)
    if p.on("peek") and p.on("refresh"):
        raise ToolError("specify one of --peek or --refresh but not both", 2)
    content = _pending(ctx, uri, label, p.on("peek") or p.on("refresh"))
    if content is None:
        content = ctx.link.call(
            "secret_read", uri=bare(uri), label=label, refresh=p.on("refresh"), peek=p.on("peek")
        )
    values = {k: base64.b64decode(v).decode(errors="replace") for k, v in content.items()}
    if len(p.args) > 1:
        key, _, kind = p.args[1].partition("#")
        if key not in values:
            raise ToolError(f'secret key value "{key}" not found')
        return render(content[key] if kind == "base64" else values[key], p.text("format"))
    return render(values, p.text("format") or "yaml")


def _pending(ctx: HookContext, uri: str, label: str, latest: bool) -> dict[str, str] | None:
    """The value this hook itself has set and not yet flushed, where it may be seen."""
    ident = bare(uri)
    for step in reversed(ctx.secrets):
        if step["op"] == "add" and (
            step["spec"]["id"] == ident or (not uri and step["spec"].get("label") == label)
        ):
            return step["spec"]["content"]
        if latest and step["op"] == "set" and step["spec"].get("content"):
            if not uri:
                ident = bare(str(_find(ctx, "", label)["id"]))
            if step["id"] == ident:
                return step["spec"]["content"]
    return None


@tool("secret-info-get", label="str", **FORMAT)
def secret_info_get(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    uri = p.args[0] if p.args else ""
    if not uri and not p.text("label"):
        raise ToolError("require either a secret URI or label", 2)
    try:
        found = _managed(ctx, uri, p.text("label"))
    except RemoteError as err:
        raise ToolError(f'secret "{bare(uri) or p.text("label")}" not found') from err
    info = found["info"]
    if info is None:
        spec = found["pending"]
        info = {
            "revision": 1,
            "label": spec.get("label", ""),
            "rotation": spec.get("rotate", "never"),
            "owner": "unit" if found["owner"].startswith("unit:") else "application",
        }
        if spec.get("description"):
            info["description"] = spec["description"]
    return render({found["id"]: info}, p.text("format") or "yaml")


@tool("secret-ids", **FORMAT)
def secret_ids(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    found = list(ctx.link.call("secret_ids"))
    found += [s["spec"]["id"] for s in ctx.secrets if s["op"] == "add"]
    return render(found or None, p.text("format") or "yaml")


@tool("secret-remove", revision="str")
def secret_remove(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    found = _managed(ctx, one_of(p, 0, "secret URI"))
    revision = int(p.text("revision")) if p.text("revision") else None
    ctx.secrets.append({"op": "remove", "id": found["id"], "revision": revision})
    return ""


def _target(ctx: HookContext, p: Parsed) -> tuple[str, int | None]:
    """Whom a grant or revoke concerns: a unit, or the relation's application."""
    relation = ctx.relation_id(p.text("relation")) if p.text("relation") else None
    if p.text("unit"):
        return p.text("unit"), relation
    if p.text("app"):
        return p.text("app"), relation
    if relation is None:
        raise ToolError("missing relation or application or unit", 2)
    return ctx.local.relations[str(relation)].app, relation


@tool("secret-grant", relation="str", r="relation", unit="str", app="str")
def secret_grant(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    found = _managed(ctx, one_of(p, 0, "secret URI"))
    if not p.text("relation"):
        raise ToolError("missing relation id", 2)
    target, relation = _target(ctx, p)
    ctx.secrets.append({"op": "grant", "id": found["id"], "target": target, "relation": relation})
    return ""


@tool("secret-revoke", relation="str", r="relation", unit="str", app="str")
def secret_revoke(ctx: HookContext, p: Parsed, _stdin: str) -> str:
    found = _managed(ctx, one_of(p, 0, "secret URI"))
    target, _ = _target(ctx, p)
    ctx.secrets.append({"op": "revoke", "id": found["id"], "target": target})
    return ""
