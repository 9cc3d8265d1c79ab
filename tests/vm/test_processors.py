# SPDX-License-Identifier: GPL-2.0
"""Nodes of two processors under load, while what ends requests early comes again and again.

Several jobs of fio write, each with many requests in flight, and read back what they wrote. The
wire is cut meanwhile, for a moment or until both nodes have noticed; nodes take leave, let their
disks go and take them back, hold I/O back, and compare their disks. Each of these ends requests
from another processor than the one that works on them. Not a block may differ afterwards.

A few seconds run every day; `--long` for minutes and for each protocol.
"""

import random
import time

import pytest

from config import resource
from scenario import life, node_pair, same_data

PROCESSORS = 2
ROUNDS, LONG_ROUNDS = 8, 40
JOBS, DEPTH = 4, 32
# A pass over it, and a resync of all, take seconds. The activity log holds less than that.
JOB_MIB = 7
AL_EXTENTS = 7
PASS_TIMEOUT_S, RUN_TIMEOUT_S = 300, 3600
GO_ON = "/tmp/go-on"

# Each pass has other data, so that what is left of an earlier one is found. Some passes flush.
LOAD = f"""
touch {GO_ON}
for pass in $(seq 1000); do
    [ -e {GO_ON} ] || exit 0
    fio --name=job --filename=/dev/drbd0 --direct=1 --ioengine=libaio --iodepth={DEPTH} \\
        --numjobs={JOBS} --size={JOB_MIB}M --offset_increment={JOB_MIB}M --rw=randwrite \\
        --bsrange=4k-64k --blockalign=4k --randseed=$pass --verify=crc32c --verify_interval=4k \\
        --do_verify=1 --verify_fatal=1 --fdatasync=$((pass % 2 * 64)) --group_reporting \\
        --output-format=terse --terse-version=3 > /tmp/fio 2>&1 || {{ cat /tmp/fio; exit 1; }}
    echo "pass $pass"
done
"""


class Trouble:
    """What comes over a pair under load. Each leaves it connected, with the data on both disks."""

    def __init__(self, lab, nodes, chance: random.Random) -> None:
        self.lab = lab
        self.primary, self.secondary = nodes
        self.chance = chance

    def nap(self, longest_s: float) -> None:
        time.sleep(self.chance.uniform(0, longest_s))

    def cut_for_a_moment(self) -> None:
        self.lab.cut_wire()
        self.nap(0.5)
        self.lab.plug_wire()

    def outage(self) -> None:
        life.lose_sight(self.lab, (self.primary, self.secondary))
        self.nap(1)
        self.lab.plug_wire()

    def take_leave(self) -> None:
        node = self.chance.choice((self.primary, self.secondary))
        node.run("drbdadm disconnect r0")
        self.nap(0.5)
        for each in (self.primary, self.secondary):
            each.run("drbdadm connect r0 2>/dev/null", check=False)

    def detach(self) -> None:
        node = self.chance.choice((self.primary, self.secondary))
        node.run("drbdadm detach r0")
        self.nap(1)
        node.run("drbdadm attach r0")

    def give_up_disk(self) -> None:
        """Without waiting for what the disk is at."""
        self.primary.run("drbdadm detach --force r0")
        self.nap(0.5)
        self.primary.wait_state("ds:Diskless/")
        self.primary.run("drbdadm attach r0")

    def hold_back(self) -> None:
        self.primary.run("drbdadm suspend-io r0")
        self.nap(0.5)
        self.primary.run("drbdadm resume-io r0")

    def hold_back_without_peer(self) -> None:
        """What the peer did not answer ends when I/O goes on."""
        self.primary.run("drbdadm suspend-io r0")
        life.lose_sight(self.lab, (self.primary, self.secondary))
        self.primary.run("drbdadm resume-io r0")
        self.lab.plug_wire()

    def compare(self) -> None:
        self.secondary.run("drbdadm verify r0")

    def come(self, kind) -> None:
        kind(self)
        for node in (self.primary, self.secondary):
            node.wait_synced()


KINDS = (Trouble.cut_for_a_moment, Trouble.outage, Trouble.take_leave, Trouble.detach,
         Trouble.give_up_disk, Trouble.hold_back, Trouble.hold_back_without_peer, Trouble.compare)


@pytest.mark.parametrize("protocol", ["A", "B", "C"])
def test_requests_that_end_on_two_processors_at_once(request, lab, flavour, protocol):
    is_long = request.config.getoption("long")
    if protocol != "C" and not is_long:
        pytest.skip("runs with --long")
    if lab.lane == "umdebug":
        pytest.skip("guests have one processor there")
    net = f"{life.PATIENCE} verify-alg crc32c; max-buffers 2048;"
    conf = resource(protocol=protocol, net=net,
                    disk_options=f"{life.FAST} al-extents {AL_EXTENTS};")
    nodes = node_pair(lab, flavour, conf, disks=[life.DISK], bench=True, processors=PROCESSORS)
    for node in nodes:
        assert node.run("nproc").out == f"{PROCESSORS}\n"
    life.bring_up(nodes)
    life.first_sync(*nodes)
    primary = nodes[0]
    load = primary.guest.spawn(LOAD, timeout_s=RUN_TIMEOUT_S)
    trouble = Trouble(lab, nodes, random.Random(protocol))
    for number in range(LONG_ROUNDS if is_long else ROUNDS):
        # All of them in turn, in an order that chance makes anew each time.
        if number % len(KINDS) == 0:
            kinds = trouble.chance.sample(KINDS, len(KINDS))
        kind = kinds[number % len(KINDS)]
        print(f"round {number + 1}: {kind.__name__}", flush=True)
        trouble.come(kind)
        assert load.running(), load.wait()
        trouble.nap(1)
    primary.run(f"rm {GO_ON}")
    deadline = time.monotonic() + PASS_TIMEOUT_S
    while load.running():
        lab.check()
        assert time.monotonic() < deadline, "the last pass does not end"
        time.sleep(0.5)
    result = load.wait()
    assert result.code == 0, result.out[-4000:] + result.err
    assert result.out, "not one pass was made"
    print(result.out.splitlines()[-1], flush=True)
    for node in nodes:
        assert "Online verify found" not in node.guest.dmesg(), f"{node.name}: see its log"
    primary.secondary()
    same_data(*nodes, primary.size_bytes())
