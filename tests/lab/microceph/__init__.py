"""The stand-in of MicroCeph: daemon and CLI over real Ceph daemons, and Ceph's clients for LXD.

    app.py          the application: hooks and routes; `python -m lab.microceph.app` is the daemon
    paths.py        where everything lies below /var/snap/microceph
    rados.py        commands to the monitors through librados
    settings.py     the replicated settings, ceph.conf and keyrings; the keys of `cluster config`
    network.py      which of this machine's addresses lie in Ceph's networks
    formation.py    bootstrap, join, leaving
    services.py     mon, mgr, mds, rgw: placing and removing them
    launch.py       `python -m lab.microceph.launch SERVICE`: what a snap service runs
    blockdevs.py    this machine's disks, what is on them, wiping
    osds.py         adding and removing OSDs
    crush.py        CRUSH rules and the failure domain
    pools.py        pools and their replication
    maintenance.py  entering and leaving maintenance
    cli.py, disk_cli.py   `microceph`
    snap.py         the entry for the snap catalog
    shims.py, rbd_map.py, cephmount.c   what LXD needs on a kernel without rbd and ceph

What MicroCeph does and this does not, refused by name: init, adopting a cluster, DeferCeph,
encryption (there is no device-mapper), --osd-match and its relatives, nfs, rbd-mirror,
cephfs-mirror, remotes and replication, client configs, RGW with TLS.
"""
