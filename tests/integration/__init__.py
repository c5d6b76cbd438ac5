"""What a user lives through, on the lab or on a real Juju controller."""
