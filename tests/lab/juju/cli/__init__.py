"""The `juju` command: it parses, asks the controller, and prints."""
