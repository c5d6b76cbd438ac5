"""A lab of a few machines on one Linux host, with stand-ins for Juju and snapd."""
