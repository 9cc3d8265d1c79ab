# SPDX-License-Identifier: GPL-2.0
"""Discards and zeroes on disks that cannot do them by themselves: both nodes read zeroes.

The disks keep their data in memory; one discards and one does not, and neither writes zeroes.
`--module c` shows that what the disks are to hold is what the C driver makes them hold.
"""

import time

import pytest

from config import resource
from scenario import life, node_pair

BACKING = "/dev/mapper/backing"
SIZE_MIB = 64
# What is erased, in KiB: a megabyte, a block, and what begins and ends in the middle of a block.
RANGES = ((1024, 1024), (4096, 4), (8194, 61), (12289, 2))


@pytest.fixture(scope="module")
def nodes(module_lab, flavour):
    conf = resource(net=f"{life.PATIENCE} verify-alg crc32c;", disk_options=life.FAST, disk=BACKING)
    nodes = node_pair(module_lab, flavour, conf, disks=[])
    for node, discard in zip(nodes, (0, 1)):
        node.run(f"modprobe null_blk nr_devices=0; d=/sys/kernel/config/nullb/nullb0; "
                 "mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config; "
                 f"mkdir $d && echo {SIZE_MIB} > $d/size && echo 1 > $d/memory_backed && "
                 f"echo {discard} > $d/discard && echo 1 > $d/power")
        node.run("modprobe dm_mod; dmsetup create --noudevsync --noudevrules backing "
                 f"<<< '0 {SIZE_MIB * 2048} linear /dev/nullb0 0' && dmsetup mknodes")
        for what, able in (("write_zeroes", False), ("discard", discard)):
            most = node.run(f"cat /sys/block/nullb0/queue/{what}_max_bytes").out
            assert (int(most) != 0) == bool(able), f"{node.name}: {what} {most}"
    life.bring_up(nodes)
    life.first_sync(*nodes)
    return nodes


def reads_zeroes(node, at_kib, size_kib):
    result = node.run(f"cmp -n {size_kib}K <(dd if={node.device} bs=1k skip={at_kib} "
                      f"count={size_kib} status=none) /dev/zero", check=False)
    return result.code == 0


def begin(nodes, writer):
    for node in nodes:
        node.secondary()
    writer.primary()
    writer.write("before", 0, 16 * 1024)


@pytest.mark.parametrize("primary", [0, 1])
@pytest.mark.parametrize("option", ["-z", ""], ids=["zeroes", "discards"])
def test_what_is_erased_reads_as_zeroes_on_both_nodes(nodes, primary, option):
    writer, other = nodes[primary], nodes[1 - primary]
    begin(nodes, writer)
    if not option and int(writer.run("cat /sys/block/drbd0/queue/discard_max_bytes").out) == 0:
        # Where the own disk cannot discard, nothing is offered that could.
        assert writer.run(f"blkdiscard -o 0 -l 4K {writer.device}", check=False).code != 0
        assert writer.holds("before", 0, 4)
        return
    for at_kib, size_kib in RANGES:
        writer.run(f"blkdiscard {option} -o {at_kib}K -l {size_kib}K {writer.device}")
        assert reads_zeroes(writer, at_kib, size_kib)
    assert not reads_zeroes(writer, 0, 4)
    for node in nodes:
        assert node.state().oos_kib == 0
    mark = writer.mark()
    writer.run("drbdadm verify r0")
    writer.guest.wait_until("dmesg", f"(?s){mark}\n.*Online verify done")
    assert "ut of sync" not in writer.log_since(mark)
    writer.secondary()
    other.primary()
    for at_kib, size_kib in RANGES:
        assert reads_zeroes(other, at_kib, size_kib)
    other.secondary()


def test_a_disk_that_finds_out_that_it_cannot_discard_is_written(nodes):
    writer = nodes[1]
    begin(nodes, writer)
    limit = "/sys/block/nullb0/queue/discard_max_bytes"
    most = writer.run(f"cat {limit}").out
    # What lies on top still says that it can.
    writer.run(f"echo 0 > {limit}")
    try:
        for at_kib, size_kib in RANGES:
            writer.run(f"blkdiscard -o {at_kib}K -l {size_kib}K {writer.device}")
            assert reads_zeroes(writer, at_kib, size_kib)
    finally:
        writer.run(f"echo {most} > {limit}")
    assert not reads_zeroes(writer, 0, 4)
    for node in nodes:
        assert node.state().oos_kib == 0
    assert "UpToDate/UpToDate" in writer.guest.read("/proc/drbd")


@pytest.mark.parametrize("option", ["-z", ""], ids=["zeroes", "discards"])
def test_a_disk_that_hangs_while_it_erases_is_given_up(nodes, flavour, option):
    if flavour.module == "c":
        pytest.skip("only of ours is it said what the application waits for")
    writer = nodes[1]
    begin(nodes, writer)
    slowness = writer.guest.slowness
    writer.run("dmsetup suspend --noflush --nolockfs --noudevsync backing")
    try:
        # More than one, of which only one is at the disk. Without -f it would read first.
        erasing = [writer.guest.spawn(f"blkdiscard -f {option} -o {at_kib}K -l {size_kib}K "
                                      f"{writer.device}") for at_kib, size_kib in RANGES]
        time.sleep(slowness)
        begun = time.monotonic()
        writer.run("drbdsetup detach 0 --force")
        codes = [process.wait().code for process in erasing]
        took = time.monotonic() - begun
        # The peer has done it, and serves the reads.
        assert codes == [0] * len(RANGES)
        assert took < 10 * slowness
        for at_kib, size_kib in RANGES:
            assert reads_zeroes(writer, at_kib, size_kib)
    finally:
        writer.run("dmsetup resume --noudevsync backing")
    writer.wait_state("ds:Diskless/UpToDate")
    writer.run("drbdadm attach r0")
    writer.wait_synced()
    for at_kib, size_kib in RANGES:
        assert reads_zeroes(writer, at_kib, size_kib)
    assert not reads_zeroes(writer, 0, 4)


def test_a_peer_that_erases_one_range_after_another_is_waited_for(nodes):
    other, writer = nodes
    begin(nodes, writer)
    change = "drbdsetup net-options 192.0.2.2:7788 192.0.2.1:7788 --timeout={} --ko-count={}"
    # All of them take longer than is waited for an answer, each of them less.
    each_s, count = writer.guest.slowness, 12
    writer.run(change.format(10 * each_s, 4))
    other.run("modprobe dm_delay || true; dmsetup load --noudevsync backing "
              f"<<< '0 {SIZE_MIB * 2048} delay /dev/nullb0 0 0 /dev/nullb0 0 {1000 * each_s}' && "
              "dmsetup resume --noudevsync backing")
    mark = writer.mark()
    limit = "/sys/block/drbd0/queue/discard_max_bytes"
    most = writer.run(f"cat {limit}").out
    try:
        # One call, whose parts are sent at once; several would wait for each other.
        writer.run(f"echo 1048576 > {limit} && blkdiscard -f -o 1M -l {count}M {writer.device}",
                   timeout_s=120)
        assert "Remote failed to finish" not in writer.log_since(mark)
    finally:
        other.run(f"dmsetup load --noudevsync backing <<< '0 {SIZE_MIB * 2048} linear /dev/nullb0 0'"
                  " && dmsetup resume --noudevsync backing")
        writer.run(f"{change.format(40, 7)}; echo {most} > {limit}")
    for node in nodes:
        node.wait_synced()
    assert all(reads_zeroes(writer, 1024 * at_mib, 1024) for at_mib in range(1, 1 + count))


def test_who_waits_for_one_of_max_buffers_sleeps(nodes):
    writer = nodes[1]
    begin(nodes, writer)
    change = "drbdsetup net-options 192.0.2.2:7788 192.0.2.1:7788 --max-buffers={}"

    def spent():
        """Processor time of those who write, in ticks of a hundredth of a second."""
        stats = writer.run("grep -h '(dd)' /proc/[0-9]*/stat").out.splitlines()
        assert len(stats) == len(writing)
        return sum(int(stat.split()[14]) for stat in stats)

    writer.run(change.format(32))
    writer.run("dmsetup suspend --noflush --nolockfs --noudevsync backing")
    try:
        writing = [writer.guest.spawn(f"exec dd if=/dev/zero of={writer.device} bs=4k count=1 "
                                      f"seek={at} oflag=direct conv=notrunc") for at in range(48)]
        time.sleep(3 * writer.guest.slowness)
        before = spent()
        time.sleep(2)
        assert spent() - before < 50
    finally:
        writer.run("dmsetup resume --noudevsync backing")
        writer.run(change.format(2048))
    assert [process.wait().code for process in writing] == [0] * len(writing)
    assert reads_zeroes(writer, 0, len(writing) * 4)
