"""What the charm offers to other charms and uses of them, one module a relation."""
