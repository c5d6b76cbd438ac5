"""Key pairs, certificates and fingerprints, made with the openssl command."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
from pathlib import Path

DAYS = "3650"


def openssl(*args: str, cwd: Path | None = None) -> None:
    """Run openssl quietly; raises subprocess.CalledProcessError or TimeoutExpired (30 seconds)."""
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30, cwd=cwd)


def self_signed(cert: Path, key: Path, name: str) -> None:
    """Make a self-signed key pair for `name`, which is its own trust anchor too."""
    cert.parent.mkdir(parents=True, exist_ok=True)
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(key), "-out", str(cert), "-days", DAYS, "-subj", f"/O=lab/CN={name}",
        "-addext", f"subjectAltName=DNS:{name}",
    )  # fmt: skip
    os.chmod(key, 0o600)


def fingerprint_of(der: bytes) -> str:
    """The SHA-256 of a DER certificate, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def fingerprint(pem: str) -> str:
    """The SHA-256 of a PEM certificate, in hexadecimal."""
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(pem))
