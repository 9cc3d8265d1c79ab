# SPDX-License-Identifier: GPL-2.0
"""What is changed while a node waits for its peer holds for the connection that comes of it.

`--module c` plays it on the C driver, as the proof of the tests.
"""

import pytest

from scenario import life, node_pair

WRITE_S = 3
# What timeout says of a program that ended when it was asked to, and of one that was killed.
TIMED_OUT = (124, 137)


@pytest.fixture(scope="module")
def nodes(module_lab, flavour):
    nodes = node_pair(module_lab, flavour, life.conf(protocol="A"), disks=[life.DISK])
    life.bring_up(nodes)
    life.first_sync(*nodes)
    return nodes


def test_the_protocol_is_that_of_when_the_peer_comes(nodes):
    t, shentar = nodes
    shentar.run("drbdadm disconnect r0")
    t.wait_state("cs:WFConnection")
    for node in nodes:
        node.configure(life.conf(protocol="C"))
    t.run("drbdadm adjust r0")
    shentar.run("drbdadm adjust r0")
    t.wait_synced()
    shentar.guest.stop()
    try:
        # With protocol A it would be done.
        result = t.run(f"timeout -k 1 {WRITE_S} dd if=/dev/zero of=/dev/drbd0 bs=4k count=1 "
                       "oflag=direct conv=notrunc", check=False)
    finally:
        shentar.guest.cont()
    assert result.code in TIMED_OUT, f"{result.code}: told done before the peer had it, or failed"
    for node in nodes:
        node.wait_synced()


def test_who_is_promoted_wants_its_data_again(nodes):
    t, shentar = nodes
    for node in nodes:
        node.run("drbdadm disconnect r0")
    t.write("given-up", 0, 64)
    t.secondary()
    shentar.primary()
    shentar.write("other", 0, 64)
    shentar.secondary()
    t.run("drbdadm connect --discard-my-data r0")
    t.wait_state("cs:WFConnection")
    t.primary()
    t.write("wanted", 0, 64)
    t.secondary()
    mark = t.mark()
    shentar.run("drbdadm connect r0")
    t.guest.wait_until("dmesg", rf"(?s){mark}\n.*Split-Brain detected but unresolved")
    t.wait_state("cs:StandAlone")
    t.primary()
    assert t.holds("wanted", 0, 64)
