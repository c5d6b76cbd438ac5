"""This unit's key pair, and tokens sealed to one unit's key.

A join token travels through the peer relation, which every unit of the application can read.
It is sealed with HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305) to the public key of
the one unit that may use it, and bound to what it is for: opened as anything else it fails.
The private key never leaves its machine.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from errors import CharmError
from record import Record


class CannotOpen(CharmError):
    """A sealed token is not for this unit, not for this purpose, or damaged."""


class Purpose(Record):
    """What a token is for; both sides must name it alike."""

    model: str
    unit: str
    service: str
    revision: int

    def info(self) -> bytes:
        """The HPKE `info`: unambiguous, as no part can hold a line end."""
        parts = ("microcloud join token", self.model, self.unit, self.service, str(self.revision))
        return "\n".join(parts).encode()


class KeyFile:
    """The private key in a file that root alone can read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether there is a key."""
        return self.path.exists()

    def make(self) -> None:
        """Make a key if there is none. The file is complete or absent, whenever this dies."""
        from cryptography.hazmat.primitives.asymmetric import x25519

        if self.exists():
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as file:
            file.write(x25519.X25519PrivateKey.generate().private_bytes_raw())
        draft.rename(self.path)

    def public(self) -> str:
        """The public key, base64."""
        return base64.b64encode(self._load().public_key().public_bytes_raw()).decode()

    def open(self, sealed: str, purpose: Purpose) -> str:
        """The token that was sealed to this key for `purpose`.

        Raises:
            CannotOpen: it was not.
        """
        from cryptography.exceptions import InvalidTag

        try:
            data = base64.b64decode(sealed, validate=True)
            return _suite().decrypt(data, self._load(), info=purpose.info()).decode()
        except (InvalidTag, ValueError, binascii.Error) as fault:
            raise CannotOpen(
                f"the {purpose.service} token (revision {purpose.revision}) for {purpose.unit} "
                "cannot be opened with this unit's key"
            ) from fault

    def _load(self):  # noqa: ANN202 - cryptography is imported only where it is needed
        from cryptography.hazmat.primitives.asymmetric import x25519

        return x25519.X25519PrivateKey.from_private_bytes(self.path.read_bytes())


def seal(token: str, public_key: str, purpose: Purpose) -> str:
    """Seal `token` to `public_key` (base64, as `KeyFile.public` gives it) for `purpose`."""
    from cryptography.hazmat.primitives.asymmetric import x25519

    key = x25519.X25519PublicKey.from_public_bytes(base64.b64decode(public_key))
    sealed = _suite().encrypt(token.encode(), key, info=purpose.info())
    return base64.b64encode(sealed).decode()


def _suite():  # noqa: ANN202
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
