"""What the stand-ins of MicroCeph and MicroOVN share: a clustered daemon, its REST API, its CLI.

A stand-in is one `App` value (`app.py`): a name, a port, hooks, REST routes. The rest is here:

    app.py       App, Hooks, Config: what a stand-in declares
    cluster.py   Cluster: what a hook or a route is given (members, store, calls to members)
    store.py     Store: the replicated database, rows of (kind, key) -> JSON object
    rest.py      Route, Request, ApiError, LXD-style envelope, servers, clients (unix socket, TLS)
    database.py  a voter's ovsdb-server: a raft member that can lose its quorum
    voters.py    the database as a member uses it that does not vote
    roles.py     who votes: dqlite's rules
    certs.py     key pairs and fingerprints
    members.py   bootstrap, join, tokens, removal, heartbeat
    core.py      the routes below /core
    daemon.py    `main(app)`: the daemon, run as the snap's service `daemon`
    cli.py       `main(app, extra)`: the CLI; common commands, tables, errors
    sql.py       `cluster sql`

Directories: `/var/snap/NAME/common/state` (`Cluster.state_dir`: control.socket, certificates,
database) and `/var/snap/NAME/common/data` (`Cluster.data_dir`, the application's).

How to build a stand-in::

    def on_bootstrap(cluster: Cluster, config: Config) -> None: ...   # ApiError: all is reset

    APP = App(name="microceph", default_port=7443, version="...",
              hooks=Hooks(on_bootstrap=on_bootstrap, ...),
              routes=(Route("GET", "/1.0/services", list_services), ...),
              cascade=("services",))

    daemon.main(APP)                                      # in the service
    cli.main(APP, {("disk", "add"): Command(...)})        # in the CLI

A route's handler is `(Cluster, Request) -> object`; what it returns is the envelope's metadata,
what it raises as `ApiError(text, code)` is the error. `?target=MEMBER` is forwarded to that member
before the handler is called. `cluster.store` has get, all, put, insert, delete and swap; a store
without quorum raises ApiError after a deadline. `cluster.call(member, "GET", "/1.0/x")` asks
another member over TLS. Rows of a kind named in `App.cascade` whose value has `"member": NAME`
vanish when that member is removed.

What differs from microcluster: the database is OVSDB's and a stand-by holds no copy of it; the
leader's heartbeat is every 5 seconds (LAB_HEARTBEAT); recovery from a lost quorum is not there.
"""
