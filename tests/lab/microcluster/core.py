"""The routes below /core, and how a request finds its route."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

from lab.microcluster import members, sql
from lab.microcluster.cluster import NOT_INITIALIZED, Cluster
from lab.microcluster.rest import Answer, ApiError, Request, Route, with_query

NANOSECOND = 1e-9


def _control(cluster: Cluster, request: Request) -> None:
    members.initialize(cluster, request.mapping())


def _tokens_post(cluster: Cluster, request: Request) -> str:
    body = request.mapping()
    after = float(body.get("expire_after") or 0) * NANOSECOND
    return members.issue_token(cluster, str(body.get("name") or ""), after)


def _ready(cluster: Cluster, _: Request) -> None:
    # A daemon that has not been told to be a member is as ready as it will be.
    if cluster.initialized and not (cluster.started and cluster.store.connected()):
        raise ApiError("Daemon is not ready yet", 503)


def _remove(cluster: Cluster, request: Request) -> None:
    members.remove(cluster, request.params["name"], request.query.get("force") == "1")


def _shutdown(_: Cluster, __: Request) -> Answer:
    stop = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    return Answer(None, stop.start)


def _sql(cluster: Cluster, request: Request) -> object:
    return sql.run(cluster, str(request.mapping().get("query") or ""))


def _pre_remove(cluster: Cluster, request: Request) -> None:
    cluster.app.hooks.pre_remove(cluster, bool(request.mapping().get("force")))


def _reset(cluster: Cluster, _: Request) -> None:
    cluster.reset()


def _database(cluster: Cluster, _: Request) -> bool:
    return cluster.database.exists and cluster.database.backend.connected()


def _transact(cluster: Cluster, request: Request) -> object:
    if not cluster.database.exists:
        raise ApiError(f"{cluster.name} is not a voter", 503)
    store = cluster.store
    store.wait_connected()
    try:
        return store.backend.send(request.mapping()["ops"], store.timeout)
    except OSError as error:
        raise ApiError(f"The database on {cluster.name} does not answer: {error}", 503) from error


def _heartbeat(cluster: Cluster, request: Request) -> None:
    members.heed(cluster, request.mapping())


def _promote(cluster: Cluster, request: Request) -> None:
    members.become_voter(cluster, request.mapping()["voters"])


def _new_member(cluster: Cluster, request: Request) -> None:
    cluster.app.hooks.on_new_member(cluster, str(request.mapping()["name"]))


def _post_remove(cluster: Cluster, request: Request) -> None:
    body = request.mapping()
    cluster.app.hooks.post_remove(cluster, str(body["name"]), bool(body.get("force")))


ROUTES: tuple[Route[Cluster], ...] = (
    Route("POST", "/core/control", _control, before_init=True),
    Route("POST", "/core/control/tokens", _tokens_post),
    Route("GET", "/core/control/tokens", lambda c, _: members.list_tokens(c)),
    Route(
        "DELETE",
        "/core/control/tokens/{name}",
        lambda c, r: members.withdraw_token(c, r.params["name"]),
    ),
    Route(
        "DELETE",
        "/core/1.0/tokens/{name}",
        lambda c, r: members.withdraw_token(c, r.params["name"]),
    ),
    Route("POST", "/core/control/shutdown", _shutdown, before_init=True),
    Route("POST", "/core/control/sql", _sql),
    Route("POST", "/core/internal/sql", _sql),
    Route(
        "GET", "/core/1.0", lambda c, _: members.server_info(c), before_init=True, untrusted=True
    ),
    Route("GET", "/core/1.0/ready", _ready, before_init=True, untrusted=True),
    Route("GET", "/core/1.0/cluster", lambda c, _: members.listing(c)),
    Route("DELETE", "/core/1.0/cluster/{name}", _remove),
    Route(
        "POST",
        "/core/internal/cluster",
        lambda c, r: members.admit(c, r.mapping()),
        untrusted=True,
    ),
    Route("POST", "/core/internal/pre-remove", _pre_remove),
    Route("POST", "/core/internal/reset", _reset),
    Route("GET", "/core/internal/database", _database),
    Route("POST", "/core/internal/database", _transact),
    Route("POST", "/core/internal/heartbeat", _heartbeat),
    Route("POST", "/core/internal/promote", _promote),
    Route("POST", "/core/internal/new-member", _new_member),
    Route("POST", "/core/internal/post-remove", _post_remove),
)
# What only a member may ask over the network, and nobody on the socket; and the reverse.
SOCKET_ONLY = "/core/control"


def dispatch(cluster: Cluster, request: Request) -> Answer:
    """Find and run the route of a request; ApiError 403, 404, 501, 503 when there is none."""
    route, params = _find(cluster, request)
    if request.over_network and request.path.startswith(SOCKET_ONLY):
        raise ApiError("Forbidden", 403)
    if not request.trusted and not route.untrusted:
        raise ApiError("Forbidden", 403)
    if not route.before_init and not cluster.initialized:
        raise ApiError(NOT_INITIALIZED, 503)
    target = request.query.get("target", "")
    if target and target != cluster.name and not request.path.startswith("/core/"):
        url = with_query(request.path, request.query)
        return Answer(cluster.call(target, request.method, url, request.body, timeout=180))
    result = route.handler(cluster, replace(request, params=params))
    return result if isinstance(result, Answer) else Answer(result)


def _find(cluster: Cluster, request: Request) -> tuple[Route[Cluster], dict[str, str]]:
    path_known = False
    for route in (*ROUTES, *cluster.app.routes):
        params = route.match(request.method, request.path)
        if params is not None:
            return route, params
        path_known = path_known or route.match(route.method, request.path) is not None
    if path_known:
        raise ApiError("not implemented", 501)
    raise ApiError("not found", 404)
