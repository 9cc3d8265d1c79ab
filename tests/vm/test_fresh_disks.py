# SPDX-License-Identifier: GPL-2.0
"""Disks that are new on both sides need no first sync, if the admin says that they are equal."""

from scenario import life, node_pair, same_data

ROUNDS = 5
# As soon as it is connected: the peer's state of before may still be on its way.
AT_ONCE = """
until grep -q cs:Connected /proc/drbd; do :; done
drbdsetup new-current-uuid 0 --clear-bitmap
"""


def test_fresh_disks_are_declared_equal_as_soon_as_they_are_connected(lab, flavour):
    nodes = node_pair(lab, flavour, life.conf(), disks=["16M"])
    t, shentar = nodes
    for number in range(ROUNDS):
        for node in nodes:
            node.create()
        shentar.up()
        t.run(f"drbdadm up r0; {AT_ONCE}")
        # First the node that tells the other both states, the old one and the new one.
        for node in (shentar, t):
            node.wait_synced()
        t.primary()
        word = f"fresh{number}"
        t.write(word, 0, 1024)
        assert t.state().oos_kib == 0
        t.secondary()
        shentar.wait_state("cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate")
        shentar.primary()
        assert shentar.holds(word, 0, 1024)
        shentar.secondary()
        for node in nodes:
            node.down()
    size_bytes = 15 << 20
    same_data(t, shentar, size_bytes)
