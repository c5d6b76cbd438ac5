"""The `juju` command: parse, ask the controller, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from lab.juju.cli.args import Args, Unsupported, UsageError, parse
from lab.juju.controller import socket_of
from lab.juju.wire import Client, ConnectionLost, RemoteError
from lab.layout import Lab

Doc = dict[str, Any]


class Failed(Exception):
    """The command ends with exit code 1 and this sentence."""


class Session:
    """A connection to the controller and the model in question."""

    def __init__(self, lab: Lab, args: Args):
        self._lab = lab
        self._args = args
        self._client: Client | None = None
        wanted = args.text("controller")
        if wanted and wanted != "lab":
            raise Failed(f"controller {wanted} not found")

    @property
    def model(self) -> str:
        return self._args.text("model") or os.environ.get("JUJU_MODEL", "")

    def call(self, method: str, patience: float = 60.0, /, **params: Any) -> Any:
        """A request that does not concern a model."""
        if self._client is None:
            self._client = Client.unix(str(socket_of(self._lab)))
        return self._client.call(method, patience, **params)

    def ask(self, method: str, patience: float = 60.0, /, **params: Any) -> Any:
        """A request about the model."""
        return self.call(method, patience, model=self.model, **params)


Command = Callable[[Session, Args], int | None]
COMMANDS: dict[str, tuple[dict[str, str], Command, bool]] = {}
UNSUPPORTED = (
    "add-cloud",
    "add-credential",
    "add-secret-backend",
    "add-space",
    "add-subnet",
    "add-user",
    "attach-resource",
    "autoload-credentials",
    "bootstrap",
    "cancel-task",
    "change-user-password",
    "charm-resources",
    "clouds",
    "consume",
    "create-backup",
    "create-storage-pool",
    "credentials",
    "dashboard",
    "debug-code",
    "debug-hook",
    "debug-hooks",
    "default-region",
    "destroy-controller",
    "diff-bundle",
    "disable-command",
    "disabled-commands",
    "download",
    "download-backup",
    "enable-command",
    "enable-destroy-controller",
    "enable-ha",
    "export-bundle",
    "find",
    "find-offers",
    "firewall-rules",
    "grant",
    "import-filesystem",
    "import-ssh-key",
    "info",
    "kill-controller",
    "list-clouds",
    "login",
    "logout",
    "migrate",
    "model-defaults",
    "model-secret-backend",
    "move-to-space",
    "offer",
    "offers",
    "regions",
    "register",
    "reload-spaces",
    "remove-cloud",
    "remove-credential",
    "remove-offer",
    "remove-saas",
    "remove-space",
    "remove-storage-pool",
    "remove-user",
    "rename-space",
    "resources",
    "resume-relation",
    "retry-provisioning",
    "revoke",
    "scale-application",
    "secret-backends",
    "set-application-base",
    "set-credential",
    "set-firewall-rule",
    "set-meter-status",
    "show-cloud",
    "show-credential",
    "show-offer",
    "show-space",
    "show-user",
    "storage-pools",
    "subnets",
    "suspend-relation",
    "sync-agent-binary",
    "unregister",
    "update-cloud",
    "update-public-clouds",
    "update-storage-pool",
    "upgrade-controller",
    "upgrade-machine",
    "upgrade-model",
    "users",
    "wait-for",
)


def command(*names: str, stop: bool = False, **spec: str) -> Callable[[Command], Command]:
    """Register a command with its flags ("_" stands for "-")."""

    def register(function: Command) -> Command:
        flags = {k.replace("_", "-"): v for k, v in spec.items()}
        for name in names:
            COMMANDS[name] = (flags, function, stop)
        return function

    return register


def refuse(what: str) -> str:
    return f'the lab\'s juju does not support "{what}"'


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code."""
    from lab.juju.cli import commands, queries

    assert commands  # imported for the commands they register
    assert queries
    if not argv or argv[0] in ("help", "-h", "--help"):
        print("Usage: juju <command> [options]\n\nCommands:\n  " + "\n  ".join(sorted(COMMANDS)))
        return 0
    name = argv[0]
    if name == "--version":
        name = "version"
    try:
        if name not in COMMANDS:
            raise (
                Unsupported(name)
                if name in UNSUPPORTED
                else UsageError(f'"{name}" is not a juju command. See "juju help".')
            )
        spec, function, stop = COMMANDS[name]
        args = parse(name, argv[1:], spec, stop)
        if args.on("help"):
            flags = " ".join(f"[--{f}]" for f in sorted(spec) if len(f) > 1)
            print(f"Usage: juju {name} {flags}")
            return 0
        return function(Session(Lab.from_environment(), args), args) or 0
    except Unsupported as err:
        return fail(
            f"{refuse(str(err))}: it is a stand-in for tests, which refuses what it "
            "cannot do as Juju does"
        )
    except UsageError as err:
        return fail(str(err), 2)
    except (Failed, RemoteError) as err:
        return fail(str(err))
    except ConnectionLost as err:
        lab = os.environ.get("LAB", "lab")
        return fail(f'no controller in lab "{lab}": {err}; start it with "lab up"')
    except BrokenPipeError:
        return 0


def fail(message: str, code: int = 1) -> int:
    print(f"ERROR {message}", file=sys.stderr)
    return code
