"""Commands to Ceph's monitors, through librados: a thousandth of what the `ceph` command costs."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from typing import Any

from lab.microceph import paths
from lab.microcluster.rest import ApiError

CONNECT_TIMEOUT = 10
COMMAND_TIMEOUT = 30


class CephError(ApiError):
    """A command that Ceph refused, or did not answer in time; `number` is the errno."""

    def __init__(self, what: str, number: int, text: str) -> None:
        # As a failed `ceph` command is shown: its name, then Error E...: and the reason.
        name = os.strerror(number)
        super().__init__(f"Failed to run: {what}: {text or name} (errno {number})")
        self.number = number


class Connection:
    """One librados handle, connected at the first command and shared by all threads."""

    def __init__(self) -> None:
        self._lib: ctypes.CDLL | None = None
        self._handle: ctypes.c_void_p | None = None
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Connect, if there is no connection; CephError if no monitor answers within 10 s."""
        with self._lock:
            if self._handle is not None:
                return
            lib = self._library()
            handle = ctypes.c_void_p()
            self._check(lib.rados_create(ctypes.byref(handle), b"admin"), "rados_create")
            try:
                conf = str(paths.CEPH_CONF).encode()
                self._check(lib.rados_conf_read_file(handle, conf), f"reading {paths.CEPH_CONF}")
                for key, value in (
                    ("keyring", str(paths.ADMIN_KEYRING)),
                    ("client_mount_timeout", str(CONNECT_TIMEOUT)),
                    ("rados_mon_op_timeout", str(COMMAND_TIMEOUT)),
                    ("log_file", ""),
                    ("admin_socket", ""),
                ):
                    lib.rados_conf_set(handle, key.encode(), value.encode())
                self._check(lib.rados_connect(handle), "connecting to the monitors")
            except CephError:
                lib.rados_shutdown(handle)
                raise
            self._handle = handle

    def close(self) -> None:
        """Let go of the cluster; the next command reads ceph.conf again."""
        with self._lock:
            if self._handle is not None and self._lib is not None:
                self._lib.rados_shutdown(self._handle)
                self._handle = None

    def _library(self) -> ctypes.CDLL:
        if self._lib is None:
            try:
                self._lib = ctypes.CDLL("librados.so.2")
            except OSError as error:
                raise ApiError(
                    f"librados is missing on this host: {error}; install ceph-common"
                ) from error
        return self._lib

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result < 0:
            raise CephError(what, -result, "")

    def run(self, prefix: str, arguments: dict[str, Any], data: bytes = b"") -> bytes:
        """Run one command; what it printed. CephError when it fails."""
        self.connect()
        assert self._lib is not None
        words = json.dumps({"prefix": prefix, **arguments}).encode()
        commands = (ctypes.c_char_p * 1)(words)
        out, status = ctypes.c_void_p(), ctypes.c_void_p()
        out_size, status_size = ctypes.c_size_t(), ctypes.c_size_t()
        result = self._lib.rados_mon_command(
            self._handle, commands, ctypes.c_size_t(1), data, ctypes.c_size_t(len(data)),
            ctypes.byref(out), ctypes.byref(out_size),
            ctypes.byref(status), ctypes.byref(status_size),
        )  # fmt: skip
        printed, said = self._take(out, out_size), self._take(status, status_size)
        if result < 0:
            raise CephError(f"ceph {prefix}", -result, said.decode(errors="replace"))
        return printed

    def _take(self, buffer: ctypes.c_void_p, size: ctypes.c_size_t) -> bytes:
        """Copy what librados allocated, and free it."""
        if not buffer.value:
            return b""
        assert self._lib is not None
        content = ctypes.string_at(buffer.value, size.value)
        self._lib.rados_buffer_free(buffer)
        return content


CLUSTER = Connection()


def mon(prefix: str, *, data: bytes = b"", **arguments: Any) -> bytes:
    """Run a monitor command (`mon("osd pool ls")`), arguments by the names Ceph gives them."""
    return CLUSTER.run(prefix, arguments, data)


def mon_json(prefix: str, **arguments: Any) -> Any:
    """`mon` with JSON output, decoded."""
    return json.loads(CLUSTER.run(prefix, {**arguments, "format": "json"}))


def describe() -> list[Any]:
    """All commands that the monitors know, with the names of their arguments."""
    return list(json.loads(CLUSTER.run("get_command_descriptions", {})).values())
