"""The stand-in of MicroOVN: its daemon and CLI over real Open vSwitch and OVN daemons.

    app.py          the application: hooks and routes; `python -m lab.microovn.app` is the daemon
    paths.py        where everything lies below /var/snap/microovn/common
    pki.py          the OVN CA in the shared database, certificates on disk
    environment.py  ovn.env: who is central
    services.py     central, chassis, switch: enabling, disabling, leaving
    launch.py       `python -m lab.microovn.launch SERVICE`: what a snap service runs
    ovs.py          ovs-vsctl, ovs-appctl and friends with the snap's directories
    underlay.py     userspace Geneve on a NIC that keeps its address
    cli.py, tools.py  `microovn` and `microovn.ovn-nbctl` ...
    snap.py         the entry for the snap catalog

What MicroOVN does and this does not, refused by name: init, set-ca from the CLI, bgp.

What differs: OVN is Debian's 23.03 whatever the channel says; certificates are not refreshed by
themselves; a machine with chassis has the interfaces lab-encap, lab-encap-k and lab-encap-o (see
underlay.py), and with an IPv6 encapsulation address that address is on lab-encap too. What is the
same although it surprises: a dead member that is removed by force stays in OVN's own databases, as
chassis and as raft server, until somebody deletes it there.
"""
