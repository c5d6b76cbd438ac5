"""The version of this charm, as LXD is told it in `user.microcloud`."""

VERSION = "1.0"
