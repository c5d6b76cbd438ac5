"""The OVN certificate authority, kept in the shared database, and the certificates it signs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from lab.microcluster import certs
from lab.microcluster.cluster import Cluster
from lab.microcluster.rest import ApiError
from lab.microcluster.store import Row
from lab.microovn import paths

CA_KEY = ("config", "ovn-ca")
SERVICES = ("client", "ovnnb", "ovnsb", "ovn-northd", "ovn-controller")
CENTRAL_SERVICES = ("ovnnb", "ovnsb", "ovn-northd")


def make_ca(cluster: Cluster) -> None:
    """A new CA, for everybody."""
    with tempfile.TemporaryDirectory() as name:
        cert, key = Path(name) / "ca.pem", Path(name) / "ca.key"
        certs.self_signed(cert, key, "MicroOVN CA")
        store_ca(cluster, cert.read_text(), key.read_text(), auto_renew=True)


def store_ca(cluster: Cluster, cert: str, key: str, auto_renew: bool) -> None:
    """Let the cluster use this CA, and write it to this member's disk."""
    cluster.store.put(*CA_KEY, {"cert": cert, "key": key, "auto_renew": auto_renew})
    write_ca(cluster)


def ca(cluster: Cluster) -> Row:
    """The CA's row; ApiError when there is none."""
    row = cluster.store.get(*CA_KEY)
    if row is None:
        raise ApiError("failed to get CA certificate: the cluster's database has none")
    return row


def write_ca(cluster: Cluster) -> None:
    """Copy the CA's certificate from the database to disk."""
    paths.CA.write_text(ca(cluster)["cert"])


def issue(cluster: Cluster, service: str) -> None:
    """A new key pair for one service of this member."""
    authority = ca(cluster)
    with tempfile.TemporaryDirectory() as name:
        cert, key = Path(name) / "ca.pem", Path(name) / "ca.key"
        cert.write_text(authority["cert"])
        key.write_text(authority["key"])
        made = Path(name) / "cert.pem"
        made_key = Path(name) / "key.pem"
        try:
            certs.openssl(
                "req", "-x509", "-CA", str(cert), "-CAkey", str(key), "-newkey", "ec",
                "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made_key),
                "-out", str(made), "-days", "730", "-subj", f"/O=MicroOVN/CN={cluster.name}",
                "-addext", f"subjectAltName=DNS:{cluster.name}",
                "-addext", "basicConstraints=CA:FALSE",
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            text = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise ApiError(
                f"failed to generate TLS certificate for {service} service: {text}"
            ) from error
        _install(made_key, paths.private_key(service), 0o600)
        _install(made, paths.certificate(service), 0o644)


def _install(made: Path, target: Path, mode: int) -> None:
    fresh = target.with_suffix(".new")
    fresh.write_bytes(made.read_bytes())
    fresh.chmod(mode)
    os.replace(fresh, target)


def present() -> list[str]:
    """The services of this member that have a certificate."""
    return [service for service in SERVICES if paths.certificate(service).exists()]


def describe(service: str) -> Row | None:
    """Paths and expiry of one certificate, or None."""
    cert = paths.certificate(service)
    if not cert.exists():
        return None
    row = {"cert": str(cert), "key": str(paths.private_key(service))}
    return row | {"expiration_date": expiry(cert)}


def expiry(cert: Path) -> str:
    """When a certificate ends, as openssl says it."""
    done = subprocess.run(
        ["openssl", "x509", "-in", str(cert), "-noout", "-enddate", "-dateopt", "iso_8601"],
        capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    return done.stdout.strip().removeprefix("notAfter=").replace(" ", "T", 1)
