"""The `microovn` command."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from lab.microcluster import cli
from lab.microcluster.cli import Client, Command, Parser, UsageError, void
from lab.microcluster.rest import ApiError
from lab.microovn.app import APP

DATABASES = (("nb", "OVN Northbound"), ("sb", "OVN Southbound"))
WARNINGS = {
    "EvenCentral": "OVN Central cluster has an even number of members",
    "FewCentral": "OVN Central cluster has fewer than 3 members",
}


def _status(client: Client, _: Namespace) -> None:
    services = client.call("GET", "/1.0/services")
    print("MicroOVN deployment summary:")
    for member in client.core("GET", "/1.0/cluster"):
        mine = sorted(s["service"] for s in services if s["location"] == member["name"])
        print(f"- {member['name']} ({member['address'].rpartition(':')[0]})")
        print(f"  Services: {', '.join(mine) or '-'}")
    print("OVN Database summary:")
    for short, title in DATABASES:
        print(_schema(client, short, title))


def _schema(client: Client, short: str, title: str) -> str:
    url = f"/1.0/ovsdb/schema/{short}"
    try:
        active = client.call("GET", f"{url}/active")
    except ApiError as error:
        return f"{title}: Error creating client: {error}"
    expected = client.call("GET", f"{url}/expected/all")
    if all(row["schema_version"] == active for row in expected):
        return f"{title}: OK ({active})"
    lines = [f"{title}: Upgrade or attention required!", f"Currently active schema: {active}"]
    lines += ["Cluster report (expected schema versions):"]
    lines += [f"\t{row['host']}: {row['error'] or row['schema_version']}" for row in expected]
    return "\n".join(lines)


def _service_arguments(parser: Parser) -> None:
    parser.add_argument("service")
    parser.add_argument("--node", default="")


def _disable_arguments(parser: Parser) -> None:
    _service_arguments(parser)
    parser.add_argument("--allow-disable-last-central", action="store_true")


def _control(client: Client, args: Namespace, method: str, body: Any) -> None:
    url = f"/1.0/service/{args.service}" + (f"?target={args.node}" if args.node else "")
    answer = client.call(method, url, body)
    client.call("POST", "/1.0/env")
    print(f"Service {answer['message']}")
    for key, text in WARNINGS.items():
        if args.service == "central" and answer["warnings"][key]:
            print(f"[central] Warning: {text}")


def _enable(client: Client, args: Namespace) -> None:
    _control(client, args, "PUT", {})


def _disable(client: Client, args: Namespace) -> None:
    body = {"allowDisableLastCentral": args.allow_disable_last_central}
    _control(client, args, "DELETE", body)


def _list(client: Client, args: Namespace) -> None:
    found = client.call("GET", "/1.0/certificates")
    if args.format == "json":
        print(json.dumps(found))
        return
    if args.format != "text":
        raise UsageError(f'invalid format "{args.format}": it must be text or json')
    for name, row in found.items():
        print(f"[{name}]")
        if row is None:
            print("Error: certificate is not present\n")
            continue
        lines = [f"{key}: {value}" for key, value in row.items()]
        print("\n".join(lines) + "\n")


def _list_arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--format", default="text")


def _reissue(client: Client, args: Namespace) -> None:
    url = "/1.0/certificates" + ("" if args.service == "all" else f"/{args.service}")
    answer = client.call("PUT", url)
    print(f"Service certificate report for local node: {json.dumps(answer)}")


def _regenerate(client: Client, _: Namespace) -> None:
    answer = client.call("PUT", "/1.0/ca")
    print("New CA certificate: Issued")
    for member, report in answer["reissued_certificates"].items():
        print(f"{member}: reissued {', '.join(report['success'])}")
        if report["failed"]:
            print(f"{member}: FAILED {', '.join(report['failed'])}")


def _no_set_ca(_: Client, __: Namespace) -> None:
    raise UsageError("certificates set-ca is not supported by this stand-in: use POST /1.0/ca")


def _config(method: str) -> Command:
    def run(client: Client, args: Namespace) -> None:
        body = {"key": args.key, "value": getattr(args, "value", "")}
        answer = client.call(method, "/1.0/config", body)
        if method == "GET":
            print(
                answer["value"]
                if answer["is_set"]
                else f"Configuration option '{args.key}' is not set"
            )

    def arguments(parser: Parser) -> None:
        parser.add_argument("key")
        if method == "POST":
            parser.add_argument("value")

    return Command(
        run, arguments, {"GET": "show", "POST": "set", "DELETE": "unset"}[method] + " a key"
    )


COMMANDS = {
    ("status",): Command(_status, help="members, services and databases"),
    ("enable",): Command(_enable, _service_arguments, "enable central, chassis or switch"),
    ("disable",): Command(_disable, _disable_arguments, "disable central, chassis or switch"),
    ("certificates", "list"): Command(_list, _list_arguments, "certificates of this member"),
    ("certificates", "reissue"): Command(
        _reissue, lambda p: void(p.add_argument("service")), "reissue one, or all"
    ),
    ("certificates", "regenerate-ca"): Command(_regenerate, help="a new CA and new certificates"),
    ("certificates", "set-ca"): Command(_no_set_ca, help="not supported"),
    ("config", "get"): _config("GET"),
    ("config", "set"): _config("POST"),
    ("config", "delete"): _config("DELETE"),
}


if __name__ == "__main__":
    sys.exit(cli.main(APP, COMMANDS))
