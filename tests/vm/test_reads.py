# SPDX-License-Identifier: GPL-2.0
"""Reads come from this node's disk as long as it is good, else from the peer, and wait while I/O is
suspended; the application notices nothing of it."""

import pytest

from config import resource
from scenario import life, node_pair

BACKING = "/dev/mapper/backing"
READER = "while dd if=/dev/drbd0 of=/dev/null bs=4k count=256 iflag=direct status=none; do :; done"


def table(node, what: str) -> str:
    """The device-mapper's table of a disk; its metadata are good whatever its data are."""
    whole = node.guest.machine.disks[0].stat().st_size // 512
    data = whole - (-(-whole // 32768) + 7) // 8 * 8 - 72
    kind = {"good": f"linear /dev/vda 0", "bad": "error", "slow": "delay /dev/vda 0 400"}[what]
    return f"0 {data} {kind}\n{data} {whole - data} linear /dev/vda {data}"


def disk(node, what: str) -> None:
    """What the backing disk is from now on."""
    node.run(f"dmsetup load --noudevsync backing <<< '{table(node, what)}' && "
             "dmsetup resume --noudevsync backing")


@pytest.fixture
def nodes(lab, flavour):
    conf = resource(protocol="C", net=life.PATIENCE, disk_options=life.FAST, disk=BACKING)
    nodes = node_pair(lab, flavour, conf, disks=["32M"])
    for node in nodes:
        node.run("modprobe dm_mod; modprobe dm_delay || true; "
                 "dmsetup create --noudevsync --noudevrules backing "
                 f"<<< '{table(node, 'good')}' && dmsetup mknodes")
    life.bring_up(nodes)
    life.first_sync(*nodes)
    return nodes


def test_an_application_reads_on_whatever_its_disk_does(nodes):
    t, _ = nodes
    t.write("before", 0, 1024)
    reader = t.guest.spawn(READER)
    # What the disk has served meanwhile waits for I/O to go on.
    disk(t, "slow")
    t.guest.wait_until("cat /proc/drbd", r"lo:1 .*ap:1")
    t.run("drbdsetup suspend-io 0; sleep 1")
    t.guest.wait_until("cat /proc/drbd", r"lo:0 .*ap:1")
    t.run("drbdsetup resume-io 0")
    t.guest.wait_until("cat /proc/drbd", r"lo:1 .*ap:1")
    disk(t, "good")
    # A disk is let go once nobody reads from it.
    t.run("drbdadm detach r0")
    t.wait_state("ds:Diskless/UpToDate")
    assert t.holds("before", 0, 1024)
    t.run("drbdadm attach r0")
    t.wait_synced()
    # What it does not read the peer does.
    disk(t, "bad")
    t.wait_state("ds:Diskless/UpToDate")
    assert t.holds("before", 0, 1024)
    disk(t, "good")
    t.run("drbdadm attach r0")
    t.wait_synced()
    assert t.holds("before", 0, 1024)
    assert reader.running(), reader.out
    reader.kill()
    t.guest.wait_until("cat /proc/drbd", r"lo:0 pe:0 ua:0 ap:0")


def test_a_flush_that_the_own_disk_cannot_make_the_peer_does(nodes):
    t, s = nodes
    t.run("drbdadm detach r0")
    t.wait_state("ds:Diskless/UpToDate")
    # Back when the writes are flushed, and at once where there is nothing to flush.
    for word in "without", "again":
        t.write(word, 0, 1024)
        t.run(f"sync {t.device}; sync {t.device}")
    t.run("drbdadm attach r0")
    t.wait_synced()
    disk(t, "bad")
    t.write("failed", 2048, 1024)
    t.wait_state("ds:Diskless/UpToDate")
    assert t.holds("again", 0, 1024)
    assert t.holds("failed", 2048, 1024)
    # Alone it can be made by nobody.
    s.run("drbdadm disconnect --force r0")
    t.guest.run(f"dd if=/dev/zero of={t.device} bs=4k count=1 oflag=direct conv=notrunc,fsync",
                check=False)
    t.guest.wait_until("cat /proc/drbd", r"lo:0 pe:0 ua:0 ap:0")


def test_a_suspended_disk_may_refuse_read_ahead(nodes):
    """The device-mapper fails read-ahead of what is suspended, and keeps all else until it is not."""
    t, _ = nodes
    t.write("before", 0, 1024)
    mark = t.mark()
    t.run("dmsetup suspend --noudevsync backing")
    reader = t.guest.spawn("dd if=/dev/drbd0 of=/dev/null bs=4k count=256")
    t.guest.wait_until("cat /proc/drbd", r"lo:[1-9]")
    t.run("dmsetup resume --noudevsync backing")
    assert reader.wait().code == 0
    assert t.state().disk == "UpToDate"
    assert "Local IO failed" not in t.log_since(mark)
    assert t.holds("before", 0, 1024)


def test_reads_left_to_a_peer_that_is_lost_go_to_the_own_disk(nodes):
    t, s = nodes
    t.write("before", 0, 1024)
    t.run("drbdsetup disk-options 0 --read-balancing=prefer-remote")
    s.guest.stop()
    # More than the socket takes; what is read after it is never sent.
    writers = t.guest.spawn("for i in {8..27}; do dd if=/dev/zero of=/dev/drbd0 bs=1M count=1 "
                            "seek=$i oflag=direct conv=notrunc status=none & done; wait")
    t.guest.wait_until("cat /proc/drbd", r"ap:[1-9]\d")
    reader = t.guest.spawn("set -e; for i in {0..15}; do dd if=/dev/drbd0 of=/dev/null bs=4k "
                           "count=1 skip=$i iflag=direct status=none & pids+=($!); done; "
                           "for pid in ${pids[@]}; do wait $pid; done")
    t.wait_state(r"cs:(WFConnection|Unconnected|NetworkFailure|Timeout) ro:\w+/Unknown", 120)
    assert reader.wait().code == 0
    assert writers.wait().code == 0
    s.guest.cont()
    for node in nodes:
        node.wait_synced()
    assert t.holds("before", 0, 1024)
