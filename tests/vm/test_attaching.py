# SPDX-License-Identifier: GPL-2.0
"""What comes with a disk that is attached: its bitmap, a log that was not kept, a size that is too
small. In the first test the sectors of the bitmap take seconds to be read."""

from config import resource
from scenario import life, node_pair

BACKING = "/dev/mapper/backing"
# Nobody gives the peer up.
NET = "timeout 60; ko-count 20; ping-int 60; ping-timeout 150; connect-int 1;"
WRITES_TAKE_MS = 1500
BITMAP_TAKES_MS = 6000
WRITTEN_KIB = 8192


def table(node, kib: int | None = None, bitmap_takes_ms: int = 0) -> str:
    """A device-mapper's table for the disk, or for so much of it."""
    whole = kib * 2 if kib else node.guest.machine.disks[0].stat().st_size // 512
    bitmap = whole - 8 - 72
    return (f"0 {bitmap} linear /dev/vda 0\n"
            f"{bitmap} 8 delay /dev/vda {bitmap} {bitmap_takes_ms} /dev/vda {bitmap} 0\n"
            f"{bitmap + 8} 72 linear /dev/vda {bitmap + 8}")


def pair(lab, flavour, **options):
    """Two nodes over device-mapper's disks, in sync."""
    conf = resource(protocol="A", net=NET, disk_options=life.FAST, disk=BACKING)
    nodes = node_pair(lab, flavour, conf, disks=["32M"])
    for node in nodes:
        node.run("modprobe dm_mod; modprobe dm_delay || true; dmsetup create --noudevsync "
                 f"--noudevrules backing <<< '{table(node, **options)}' && dmsetup mknodes")
    life.bring_up(nodes)
    life.first_sync(*nodes)
    return nodes


def test_a_connection_ends_while_the_bitmap_is_read(lab, flavour):
    """Writes of the peer come, are refused and mark the bitmap; the end of a connection writes it.
    """
    primary, secondary = pair(lab, flavour, bitmap_takes_ms=BITMAP_TAKES_MS)
    # From here on the bitmap on the secondary's disk says that all is out of sync.
    secondary.run("drbdadm pause-sync r0 && drbdadm invalidate r0")
    secondary.wait_state("cs:PausedSyncT .*ds:Inconsistent/UpToDate")
    all_kib = secondary.state().oos_kib
    assert all_kib == secondary.size_bytes() // 1024
    primary.run(f"modprobe sch_netem; tc qdisc add dev {life.NIC} root netem "
                f"delay {WRITES_TAKE_MS}ms limit 100000")
    writer = primary.guest.spawn(f"dd if=/dev/zero of={primary.device} bs=4k oflag=direct "
                                 f"count={WRITTEN_KIB // 4} status=none")
    primary.guest.wait_until("cat /proc/drbd", r" pe:[1-9]\d* ")
    attach = secondary.guest.spawn(
        "drbdsetup detach 0 --force; until grep -q ds:Diskless /proc/drbd; do :; done; "
        "drbdadm attach r0")
    secondary.wait_state("ds:Attaching")
    secondary.run(f"sleep {WRITES_TAKE_MS / 1000}")
    primary.run("drbdadm disconnect r0 --force")
    assert attach.wait().code == 0
    writer.kill()
    for _ in range(2):
        secondary.wait_state("ro:Secondary/Unknown ds:Inconsistent/DUnknown")
        assert secondary.state().oos_kib >= all_kib - WRITTEN_KIB
        secondary.run("drbdadm detach r0 && drbdadm attach r0")


def test_a_disk_that_is_too_small_for_a_device_in_use(lab, flavour):
    primary, _ = pair(lab, flavour)
    size = primary.size_bytes()
    primary.run("drbdadm detach r0")
    small = table(primary, 16 * 1024)
    primary.run(f"dmsetup load --noudevsync backing <<< '{small}' && "
                "dmsetup resume --noudevsync backing && drbdadm create-md --force r0")
    refused = primary.run("drbdadm attach r0 2>&1", check=False)
    assert refused.code != 0 and "(111)" in refused.out
    assert primary.size_bytes() == size
    primary.wait_state("cs:Connected ro:Primary/Secondary ds:Diskless/UpToDate")


def test_after_a_crash_a_log_that_was_not_kept_counts_for_nothing(lab, flavour):
    conf = life.conf(disk=f"{life.FAST} al-updates no;")
    nodes = primary, secondary = node_pair(lab, flavour, conf, disks=["16M"])
    life.bring_up(nodes)
    life.first_sync(*nodes)
    primary.write("word", 1024, 64)
    primary.guest.kill()
    secondary.wait_state(r"cs:(WFConnection|Unconnected) ro:Secondary/Unknown", 60)
    primary.boot()
    primary.run("modprobe drbd")
    marks = {node: node.mark() for node in nodes}
    primary.up()
    for node in nodes:
        node.wait_synced()
    size_kib = primary.size_bytes() // 1024
    assert primary.resyncs_since(marks[primary]) == [("SyncSource", size_kib)]
    secondary.primary()
    assert secondary.holds("word", 1024, 64)
