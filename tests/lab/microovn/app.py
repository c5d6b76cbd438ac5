"""MicroOVN as an application of the shared framework; run as a module it is the daemon."""

from __future__ import annotations

import sys

from lab.microcluster import daemon
from lab.microcluster.app import App, Hooks
from lab.microcluster.cluster import Cluster, in_parallel
from lab.microcluster.rest import ApiError, Request, Route
from lab.microcluster.store import Row
from lab.microovn import environment, ovs, paths, pki, services

VERSION = "24.03.2"
SCHEMAS = {
    "OVN_Northbound": ("/usr/share/ovn/ovn-nb.ovsschema", environment.NB_PORT),
    "OVN_Southbound": ("/usr/share/ovn/ovn-sb.ovsschema", environment.SB_PORT),
}
ALIASES = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}


def _enable(cluster: Cluster, request: Request) -> Row:
    service = request.params["service"]
    services.enable(cluster, service)
    return {"message": f"{service} enabled", "warnings": services.warnings(cluster)}


def _disable(cluster: Cluster, request: Request) -> Row:
    service = request.params["service"]
    body = request.body or {}
    services.disable(cluster, service, bool(body.get("allowDisableLastCentral")))
    return {"message": f"{service} disabled", "warnings": services.warnings(cluster)}


def _env_all(cluster: Cluster, _: Request) -> None:
    services.refresh_all(cluster)


def _env(cluster: Cluster, _: Request) -> None:
    services.refresh(cluster)


# Certificates


def _reissue(cluster: Cluster, names: list[str]) -> Row:
    success: list[str] = []
    failed: list[str] = []
    for name in names:
        worked = services.attempt(f"reissue {name}", lambda n=name: pki.issue(cluster, n))
        (success if worked else failed).append(name)
    return {"success": success, "failed": failed}


def _reissue_all(cluster: Cluster, _: Request) -> Row:
    pki.write_ca(cluster)
    return _reissue(cluster, pki.present())


def _reissue_one(cluster: Cluster, request: Request) -> Row:
    name = request.params["service"]
    if name not in pki.SERVICES:
        raise ApiError(f"'{name}' is not a valid service name")
    if name not in pki.present():
        raise ApiError(f"service '{name}' is not enabled on this member")
    return _reissue(cluster, [name])


def _certificates(cluster: Cluster, _: Request) -> Row:
    found: Row = {name: pki.describe(name) for name in pki.SERVICES}
    authority: Row = {"cert": str(paths.CA), "auto_renew": pki.ca(cluster)["auto_renew"]}
    return {"ca": authority | {"expiration_date": pki.expiry(paths.CA)}, **found}


def _new_ca(cluster: Cluster, _: Request) -> Row:
    pki.make_ca(cluster)
    return _spread_ca(cluster)


def _set_ca(cluster: Cluster, request: Request) -> Row:
    body = request.mapping()
    if not body.get("certificate") or not body.get("private_key"):
        raise ApiError("certificate and private_key must both be given", 400)
    pki.store_ca(cluster, str(body["certificate"]), str(body["private_key"]), auto_renew=False)
    return _spread_ca(cluster)


def _spread_ca(cluster: Cluster) -> Row:
    def reissue(name: str) -> tuple[str, Row]:
        try:
            return name, cluster.call(name, "PUT", "/1.0/certificates")
        except ApiError as error:
            return name, {"success": [], "failed": ["all"], "error": str(error)}

    done = in_parallel(reissue, [member.name for member in cluster.members()])
    return {"ca": str(paths.CA), "reissued_certificates": dict(done), "error": None}


def _get_ca(cluster: Cluster, _: Request) -> Row:
    return {"auto_renew": pki.ca(cluster)["auto_renew"], "error": None}


# Schemas


def _database(request: Request) -> str:
    name = ALIASES.get(request.params["db"], request.params["db"])
    if name not in SCHEMAS:
        raise ApiError(f"unknown database {request.params['db']!r}: it must be nb or sb", 404)
    return name


def _active_schema(_: Cluster, request: Request) -> str:
    name = _database(request)
    key = "OVN_NB_CONNECT" if name == "OVN_Northbound" else "OVN_SB_CONNECT"
    argv = ["ovsdb-client", "--timeout=10", *paths.ssl_options("client"), "get-schema-version"]
    return ovs.run(*argv, environment.load()[key], name).strip()


def _expected(name: str) -> str:
    return ovs.run("ovsdb-tool", "schema-version", SCHEMAS[name][0]).strip()


def _expected_schema(_: Cluster, request: Request) -> str:
    return _expected(_database(request))


def _expected_everywhere(cluster: Cluster, request: Request) -> list[Row]:
    name = request.params["db"]
    _database(request)

    def one(member: str) -> Row:
        try:
            found = cluster.call(member, "GET", f"/1.0/ovsdb/schema/{name}/expected", timeout=10)
        except ApiError as error:
            return {"host": member, "schema_version": "", "error": str(error)}
        return {"host": member, "schema_version": found, "error": None}

    return in_parallel(one, [member.name for member in cluster.members()])


# Configuration


def _config_key(request: Request) -> str:
    key = str((request.body or {}).get("key") or request.query.get("key") or "")
    if key != environment.CENTRAL_IPS:
        raise ApiError(
            f"Configuration option '{key}' is not allowed: "
            f"the only one is {environment.CENTRAL_IPS}"
        )
    return key


def _config_get(cluster: Cluster, request: Request) -> Row:
    row = cluster.store.get("config", _config_key(request))
    return {"value": row["value"] if row else "", "is_set": row is not None, "error": None}


def _config_set(cluster: Cluster, request: Request) -> Row:
    key = _config_key(request)
    cluster.store.put("config", key, {"value": str(request.mapping().get("value") or "")})
    services.refresh_all(cluster)
    return {"error": None}


def _config_delete(cluster: Cluster, request: Request) -> Row:
    cluster.store.delete("config", _config_key(request))
    services.refresh_all(cluster)
    return {"error": None}


ROUTES: tuple[Route[Cluster], ...] = (
    Route("GET", "/1.0/services", lambda c, _: services.rows(c)),
    Route("PUT", "/1.0/service/{service}", _enable),
    Route("DELETE", "/1.0/service/{service}", _disable),
    Route("POST", "/1.0/env", _env_all),
    Route("PUT", "/1.0/env", _env),
    Route("GET", "/1.0/certificates", _certificates),
    Route("PUT", "/1.0/certificates", _reissue_all),
    Route("PUT", "/1.0/certificates/{service}", _reissue_one),
    Route("PUT", "/1.0/ca", _new_ca),
    Route("POST", "/1.0/ca", _set_ca),
    Route("GET", "/1.0/ca", _get_ca),
    Route("GET", "/1.0/ovsdb/schema/{db}/active", _active_schema),
    Route("GET", "/1.0/ovsdb/schema/{db}/expected", _expected_schema),
    Route("GET", "/1.0/ovsdb/schema/{db}/expected/all", _expected_everywhere),
    Route("GET", "/1.0/config", _config_get),
    Route("POST", "/1.0/config", _config_set),
    Route("DELETE", "/1.0/config", _config_delete),
)

APP = App(
    name="microovn",
    default_port=6686,
    version=VERSION,
    extensions=("custom_encapsulation_ip",),
    hooks=Hooks(
        on_bootstrap=services.on_bootstrap,
        on_join=services.on_join,
        on_new_member=services.on_new_member,
        pre_remove=services.pre_remove,
        post_remove=services.post_remove,
        on_start=services.on_start,
    ),
    routes=ROUTES,
    cascade=("services",),
    tables={"services": ("member", "service"), "config": ("value",)},
)


if __name__ == "__main__":
    sys.exit(daemon.main(APP))
