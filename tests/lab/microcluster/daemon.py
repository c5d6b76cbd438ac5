"""The daemon of a stand-in: `main(app)`, run in the foreground as the snap's service."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path

from lab.microcluster import core, members, rest
from lab.microcluster.app import App
from lab.microcluster.cluster import Cluster, log
from lab.microcluster.database import Spawner
from lab.microcluster.rest import ApiError

HEARTBEAT = float(os.environ.get("LAB_HEARTBEAT", "5"))


def common_dir(app: App) -> Path:
    """`/var/snap/NAME/common`, or what SNAP_COMMON says."""
    return Path(os.environ.get("SNAP_COMMON") or f"/var/snap/{app.name}/common")


def main(app: App) -> int:
    """Serve until SIGTERM; the exit status."""
    spawner = Spawner()
    cluster = Cluster(app, common_dir(app), spawner)
    cluster.prepare(socket.gethostname())
    cluster.dispatch = partial(core.dispatch, cluster)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: spawner.finish())
    member = cluster.load()
    rest.serve_unix(cluster.socket, cluster.dispatch)
    if member:
        threading.Thread(target=_resume, args=(cluster,), daemon=True).start()
    threading.Thread(target=_beat, args=(cluster,), daemon=True).start()
    spawner.run()
    cluster.database.stop()
    return 0


def _resume(cluster: Cluster) -> None:
    """A member's start: database, listener, then the application, when there is a quorum."""
    if not cluster.database.exists and not cluster.voters_file.exists():
        log("This machine lost power before it became a member: it can be initialized again")
        cluster.reset()
        cluster.prepare(socket.gethostname())
    while cluster.initialized:
        try:
            if cluster.database.exists and cluster.database.process is None:
                cluster.database.start()
            if cluster.listener is None:
                cluster.listen()
            cluster.store.wait_connected(5)
            cluster.app.hooks.on_start(cluster)
            cluster.started = True
            return
        except ApiError as error:
            log(f"Not started yet, trying again: {error}")
            time.sleep(1)


def _beat(cluster: Cluster) -> None:
    while True:
        time.sleep(HEARTBEAT)
        try:
            _watch_database(cluster)
            if cluster.is_leader():
                members.heartbeat(cluster)
        except (ApiError, OSError) as error:
            log(f"Heartbeat failed: {error}")


def _watch_database(cluster: Cluster) -> None:
    process = cluster.database.process
    if cluster.database.exists and process and process.poll() is not None:
        log(f"The database's server ended with status {process.returncode}, starting it again")
        cluster.database.start()


def fail(text: str) -> int:
    """Say why a command failed, as the real commands do."""
    print(f"Error: {text}", file=sys.stderr)
    return 1
