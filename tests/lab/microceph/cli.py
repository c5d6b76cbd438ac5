"""The `microceph` command."""

from __future__ import annotations

import json
import socket
import sys
from argparse import Namespace
from typing import Any

from lab.microceph import disk_cli
from lab.microceph.app import APP
from lab.microcluster import cli
from lab.microcluster.cli import Client, Command, Parser, UsageError, void

BOOTSTRAP_FLAGS = {
    "mon_ip": "MonIp",
    "public_network": "PublicNet",
    "cluster_network": "ClusterNet",
    "availability_zone": "AvailabilityZone",
}


# cluster bootstrap, join


def _control(client: Client, args: Namespace, body: dict[str, Any]) -> None:
    address = f"{args.microceph_ip}:{APP.default_port}" if args.microceph_ip else ""
    body |= {"name": socket.gethostname(), "address": address or cli.default_address(APP)}
    client.core("POST", "/control", body)


def _bootstrap_arguments(parser: Parser) -> None:
    for flag in ("microceph-ip", *BOOTSTRAP_FLAGS):
        parser.add_argument("--" + flag.replace("_", "-"), default="")
    parser.add_argument("--v2-only", action="store_true")


def _bootstrap(client: Client, args: Namespace) -> None:
    config = {key: getattr(args, flag) for flag, key in BOOTSTRAP_FLAGS.items()}
    config = {key: value for key, value in config.items() if value}
    if args.v2_only:
        config["V2Only"] = "true"
    _control(client, args, {"bootstrap": True, "config": config})


def _join_arguments(parser: Parser) -> None:
    parser.add_argument("token")
    parser.add_argument("--microceph-ip", default="")
    parser.add_argument("--availability-zone", default="")


def _join(client: Client, args: Namespace) -> None:
    config = {"AvailabilityZone": args.availability_zone} if args.availability_zone else {}
    _control(client, args, {"join_token": args.token, "config": config})


# status


def _status(client: Client, _: Namespace) -> None:
    services = client.call("GET", "/1.0/services")
    disks = client.call("GET", "/1.0/disks")
    print("MicroCeph deployment summary:")
    for member in client.core("GET", "/1.0/cluster"):
        name = member["name"]
        mine = sorted(s["service"] for s in services if s["location"] == name)
        count = sum(disk["location"] == name for disk in disks)
        print(f"- {name} ({member['address'].rpartition(':')[0]})")
        print(f"  Services: {', '.join(mine + ['osd'] * bool(count))}")
        print(f"  Disks: {count}")


# enable, disable


def _target(url: str, member: str) -> str:
    return f"{url}?target={member}" if member else url


def _truth(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise UsageError(f'invalid argument "{text}" for "--wait" flag')


def _enable_arguments(parser: Parser) -> None:
    parser.add_argument("service")
    parser.add_argument("--target", default="")
    parser.add_argument("--wait", nargs="?", const="true", default="true")
    parser.add_argument("--port", type=int, default=0)
    for flag in ("--ssl-port", "--ssl-certificate", "--ssl-private-key"):
        parser.add_argument(flag, default="")


def _enable(client: Client, args: Namespace) -> None:
    if args.ssl_certificate or args.ssl_private_key or args.ssl_port:
        raise UsageError("RGW with TLS is not supported by this stand-in")
    payload = json.dumps({"Port": args.port}) if args.service == "rgw" else ""
    body = {"name": args.service, "bool": _truth(args.wait), "payload": payload}
    client.call("PUT", _target(f"/1.0/services/{args.service}", args.target), body)


def _disable_arguments(parser: Parser) -> None:
    parser.add_argument("service")
    parser.add_argument("--target", default="")


def _disable(client: Client, args: Namespace) -> None:
    if args.service != "rgw":
        raise UsageError(f'unknown command "{args.service}" for "microceph disable"')
    client.call("DELETE", _target(f"/1.0/services/{args.service}", args.target))


# pool


def _pool_list(client: Client, _: Namespace) -> None:
    found = client.call("GET", "/1.0/pools")
    rows = [[pool["pool"], pool["size"], pool["crush_rule"]] for pool in found]
    print(cli.table(["NAME", "SIZE", "CRUSH RULE"], rows))


def _pool_size_arguments(parser: Parser) -> None:
    parser.add_argument("--size", type=int, default=3)
    parser.add_argument("pools", nargs="+")


def _pool_size(client: Client, args: Namespace) -> None:
    client.call("PUT", "/1.0/pools-op", {"pools": args.pools, "size": args.size})


# cluster config


def _show_configs(rows: list[dict[str, Any]]) -> None:
    numbered = [[index, row["key"], row["value"]] for index, row in enumerate(rows)]
    print(cli.table(["#", "Key", "Value"], numbered))


def _config_get(client: Client, args: Namespace) -> None:
    _show_configs(client.call("GET", "/1.0/configs", {"key": args.key}))


def _config_list(client: Client, _: Namespace) -> None:
    _show_configs(client.call("GET", "/1.0/configs", {"key": ""}))


def _change_arguments(parser: Parser) -> None:
    parser.add_argument("key")
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--skip-restart", action="store_true")


def _set_arguments(parser: Parser) -> None:
    _change_arguments(parser)
    parser.add_argument("value")


def _config_set(client: Client, args: Namespace) -> None:
    body = {
        "key": args.key,
        "value": args.value,
        "wait": args.wait,
        "skip_restart": args.skip_restart,
    }
    client.call("PUT", "/1.0/configs", body)


def _config_reset(client: Client, args: Namespace) -> None:
    body = {"key": args.key, "wait": args.wait, "skip_restart": args.skip_restart}
    client.call("DELETE", "/1.0/configs", body)


# cluster maintenance


def _maintenance_arguments(parser: Parser) -> None:
    parser.add_argument("node")
    for flag in ("--force", "--dry-run", "--stop-osds", "--check-only", "--ignore-check"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--set-noout", nargs="?", const="true", default="true")


def _maintenance(client: Client, args: Namespace, status: str) -> None:
    body: dict[str, Any] = {
        "status": status, "force": args.force, "dry_run": args.dry_run,
        "stop_osds": args.stop_osds, "check_only": args.check_only,
        "ignore_check": args.ignore_check, "set_noout": _truth(args.set_noout),
    }  # fmt: skip
    results = client.call("PUT", f"/1.0/ops/maintenance/{args.node}", body)
    for result in results:
        if args.dry_run:
            print(result["action"])
        else:
            outcome = f"failed: {result['error']}" if result["error"] else "passed"
            print(f"{result['action']} ({outcome})")
    failed = [result["error"] for result in results if result["error"]]
    if failed:
        raise UsageError(failed[0])


EXTRA: dict[tuple[str, ...], Command] = {
    ("cluster", "bootstrap"): Command(_bootstrap, _bootstrap_arguments, "make a cluster of one"),
    ("cluster", "join"): Command(_join, _join_arguments, "join with TOKEN"),
    ("cluster", "config", "get"): Command(
        _config_get, lambda p: void(p.add_argument("key")), "show a setting of Ceph"
    ),
    ("cluster", "config", "list"): Command(_config_list, help="show the settings that are set"),
    ("cluster", "config", "set"): Command(_config_set, _set_arguments, "change a setting"),
    ("cluster", "config", "reset"): Command(_config_reset, _change_arguments, "unset a setting"),
    ("cluster", "maintenance", "enter"): Command(
        lambda c, a: _maintenance(c, a, "maintenance"), _maintenance_arguments, "enter maintenance"
    ),
    ("cluster", "maintenance", "exit"): Command(
        lambda c, a: _maintenance(c, a, "non-maintenance"), _maintenance_arguments, "leave it"
    ),
    ("status",): Command(_status, help="services and disks of each member"),
    ("enable",): Command(_enable, _enable_arguments, "enable mon, mgr, mds or rgw"),
    ("disable",): Command(_disable, _disable_arguments, "disable rgw"),
    ("pool", "list"): Command(_pool_list, help="list pools"),
    ("pool", "set-rf"): Command(_pool_size, _pool_size_arguments, "set the replication of pools"),
    **disk_cli.COMMANDS,
}

if __name__ == "__main__":
    sys.exit(cli.main(APP, EXTRA))
