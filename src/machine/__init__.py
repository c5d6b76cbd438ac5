"""This machine: its disks and its network interfaces."""
