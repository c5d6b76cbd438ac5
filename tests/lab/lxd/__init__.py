"""The LXD snap of the lab: the real LXD of the host's distribution, laid out as the snap is."""
