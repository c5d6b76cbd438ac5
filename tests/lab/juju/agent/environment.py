"""The environment of hooks, built from scratch as Juju builds it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.juju.agent.context import HookContext
from lab.juju.agent.state import Hook

if TYPE_CHECKING:
    from lab.juju.agent.loop import Agent


def hook_environment(agent: Agent, context: HookContext, ident: str, name: str) -> dict[str, str]:
    """Everything a hook, an action or a command sees."""
    env = _always(agent, ident)
    task = context.task
    if context.hook:
        env["JUJU_HOOK_NAME"] = name
        env["JUJU_DISPATCH_PATH"] = f"hooks/{name}"
        env.update(_of_hook(context.hook))
    elif task and task.ident:
        env["JUJU_HOOK_NAME"] = ""
        env["JUJU_DISPATCH_PATH"] = f"actions/{name}"
        env["JUJU_ACTION_NAME"] = task.name
        env["JUJU_ACTION_UUID"] = task.ident
        env["JUJU_ACTION_TAG"] = f"action-{task.ident}"
    if agent.facts["v4"]:
        env.update(
            {
                "JUJU_CHARM_TRACE_CONFIG_HTTP_ENDPOINT": "",
                "JUJU_CHARM_TRACE_CONFIG_GRPC_ENDPOINT": "",
                "JUJU_CHARM_TRACE_CONFIG_CA_CERT": "",
            }
        )
    return env


def _always(agent: Agent, ident: str) -> dict[str, str]:
    facts, proxies = agent.facts, agent.remote["proxies"]
    tools, path = str(agent.tools_dir), os.environ.get("PATH", os.defpath)
    return {
        "APT_LISTCHANGES_FRONTEND": "none",
        "CHARM_DIR": str(agent.charm_dir),
        "CLOUD_API_VERSION": "",
        "DEBIAN_FRONTEND": "noninteractive",
        "JUJU_AGENT_SOCKET_ADDRESS": str(agent.dir / "agent.socket"),
        "JUJU_AGENT_SOCKET_NETWORK": "unix",
        "JUJU_API_ADDRESSES": facts["api"],
        "JUJU_AVAILABILITY_ZONE": f"zone{int(facts['machine']) % 3 + 1}",
        "JUJU_CHARM_DIR": str(agent.charm_dir),
        "JUJU_CHARM_FTP_PROXY": proxies["ftp"],
        "JUJU_CHARM_HTTPS_PROXY": proxies["https"],
        "JUJU_CHARM_HTTP_PROXY": proxies["http"],
        "JUJU_CHARM_NO_PROXY": proxies["no"],
        "JUJU_CONTEXT_ID": ident,
        "JUJU_MACHINE_ID": facts["machine"],
        "JUJU_MODEL_NAME": facts["model_name"],
        "JUJU_MODEL_UUID": facts["model"],
        "JUJU_PRINCIPAL_UNIT": "",
        "JUJU_UNIT_NAME": agent.unit,
        "JUJU_VERSION": facts["version"],
        "LANG": "C.UTF-8",
        "PATH": f"{tools}:{path}",
        "TERM": "tmux-256color",
    }


def _of_hook(hook: Hook) -> dict[str, str]:
    env: dict[str, str] = {}
    if hook.is_relation:
        env["JUJU_RELATION"] = hook.endpoint
        env["JUJU_RELATION_ID"] = f"{hook.endpoint}:{hook.relation}"
        env["JUJU_REMOTE_APP"] = hook.remote_app
        env["JUJU_REMOTE_UNIT"] = hook.remote_unit
        if hook.kind == "relation-departed":
            env["JUJU_DEPARTING_UNIT"] = hook.departing
    if hook.secret:
        env["JUJU_SECRET_ID"] = hook.secret
        env["JUJU_SECRET_LABEL"] = hook.label
        if hook.kind in ("secret-remove", "secret-expired"):
            env["JUJU_SECRET_REVISION"] = str(hook.revision)
    if hook.storage:
        env["JUJU_STORAGE_ID"] = hook.storage
        env["JUJU_STORAGE_LOCATION"] = hook.location
        env["JUJU_STORAGE_KIND"] = hook.storage_kind
    return env
