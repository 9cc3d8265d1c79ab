# SPDX-License-Identifier: GPL-2.0
"""A disk whose bitmap is being read is not in use yet: whatever happens meanwhile, nothing is
forgotten of what the bitmap on disk says. The sectors of the bitmap take seconds to be read here.
"""

from config import resource
from scenario import life, node_pair

BACKING = "/dev/mapper/backing"
# Nobody gives the peer up.
NET = "timeout 60; ko-count 20; ping-int 60; ping-timeout 150; connect-int 1;"
WRITES_TAKE_MS = 1500
BITMAP_TAKES_MS = 6000
WRITTEN_KIB = 8192


def backing(node) -> None:
    """The disk, of which the bitmap takes long to be read, and no time to be written."""
    whole = node.guest.machine.disks[0].stat().st_size // 512
    bitmap = whole - 8 - 72
    table = (f"0 {bitmap} linear /dev/vda 0\n"
             f"{bitmap} 8 delay /dev/vda {bitmap} {BITMAP_TAKES_MS} /dev/vda {bitmap} 0\n"
             f"{bitmap + 8} 72 linear /dev/vda {bitmap + 8}")
    node.run("modprobe dm_mod; modprobe dm_delay || true; "
             f"dmsetup create --noudevsync --noudevrules backing <<< '{table}' && dmsetup mknodes")


def test_a_connection_ends(lab, flavour):
    """Writes of the peer come, are refused and mark the bitmap; the end of a connection writes it.
    """
    conf = resource(protocol="A", net=NET, disk_options=life.FAST, disk=BACKING)
    nodes = primary, secondary = node_pair(lab, flavour, conf, disks=["32M"])
    for node in nodes:
        backing(node)
    life.bring_up(nodes)
    life.first_sync(primary, secondary)
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
