"""What `juju run` does, one module an action."""
