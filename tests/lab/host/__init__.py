"""Networks, machines, disks and the supervisor that is PID 1 of every machine."""
