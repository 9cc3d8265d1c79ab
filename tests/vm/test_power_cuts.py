# SPDX-License-Identifier: GPL-2.0
"""Power cuts in the middle of writes: what was acknowledged is there afterwards, on both disks.

Each round writes until the power of the primary, of the secondary or of both is cut at some moment,
lets the pair come back, compares the disks, and checks every acknowledged block on the node that
was secondary. `--cuts N` says how many, `--cut-seed` when.
"""

import random
import time

from config import resource
from drbdvm.image import Ground
from scenario import life, node_pair, same_data

from guestimage import guest_program

VICTIMS = ("primary", "secondary", "both")
SHORTEST_S, LONGEST_S = 0.5, 4.0
BLOCK_KIB = 4
LEDGER = "usr/sbin/ledger"


class Pair:
    """Two nodes, and what the application was told so far."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.acknowledged: dict[int, int] = {}
        self.rounds = 0
        self.blocks = nodes[0].size_bytes() // 1024 // BLOCK_KIB // 8 * 8

    def start_writing(self, primary):
        self.rounds += 1
        return primary.guest.spawn(f"ledger write {primary.device} {self.blocks} {self.rounds}")

    def take_down(self, writer) -> int:
        """Note what a writer was told; returns how many writes that were."""
        # The last line may be half there.
        lines = writer.out.rpartition("\n")[0].splitlines()
        for line in lines:
            block, version = map(int, line.split())
            self.acknowledged[block] = max(version, self.acknowledged.get(block, 0))
        return len(lines)

    def check(self, node):
        """Everything acknowledged is readable on this node, which becomes primary for it."""
        node.primary()
        ledger = "".join(f"{block} {version}\n" for block, version in self.acknowledged.items())
        result = node.run(f"ledger check {node.device} {self.blocks}", stdin=ledger, check=False)
        assert result.code == 0, f"{node.name}: {result.out[:4000]}{result.err}"
        node.secondary()

    def come_back(self, nodes):
        for node in nodes:
            node.boot()
            node.run("modprobe drbd")
            node.up()
        for node in self.nodes:
            node.wait_synced()


def let_it_write(writer, for_s):
    """Wait until a writer has begun, and then some time more."""
    deadline = time.monotonic() + life.OUTAGE_TIMEOUT_S
    while not writer.out:
        assert writer.running(), "the writer has ended"
        assert time.monotonic() < deadline, "no write was acknowledged"
        time.sleep(0.05)
    time.sleep(for_s)


def cut_while_writing(pair, primary, secondary, victim, after_s):
    """Cut the power of `victim` some time into the writes; returns how many were acknowledged."""
    writer = pair.start_writing(primary)
    let_it_write(writer, after_s)
    if victim == "secondary":
        secondary.guest.kill()
        # The application goes on alone; these blocks are what the resync has to bring.
        primary.wait_state(r"cs:(WFConnection|Unconnected) ro:Primary/Unknown",
                           life.OUTAGE_TIMEOUT_S)
        let_it_write(writer, SHORTEST_S)
        writer.close_input()
        assert writer.wait().code == 0, writer.out[-500:]
        count = pair.take_down(writer)
        primary.secondary()
        pair.come_back([secondary])
        return count
    primary.guest.kill()
    if victim == "both":
        secondary.guest.kill()
    count = pair.take_down(writer)
    if victim == "both":
        pair.come_back([primary, secondary])
    else:
        # The survivor takes over before the other one is back: it must have everything by itself.
        secondary.wait_state(r"cs:(WFConnection|Unconnected) ro:Secondary/Unknown",
                             life.OUTAGE_TIMEOUT_S)
        pair.check(secondary)
        pair.come_back([primary])
    return count


def test_nothing_acknowledged_is_lost_when_the_power_is_cut(request, lab, flavour):
    cuts = request.config.getoption("cuts")
    chance = random.Random(request.config.getoption("cut_seed"))
    conf = resource(net=life.PATIENCE, disk_options=f"{life.FAST} al-extents 7;")
    nodes = node_pair(lab, flavour, conf, disks=[life.DISK],
                      files={LEDGER: guest_program(Ground.get(lab.lane).root, "ledger")})
    life.bring_up(nodes)
    life.first_sync(*nodes)
    nodes[0].secondary()
    pair = Pair(nodes)
    total = 0
    for number in range(cuts):
        primary, secondary = nodes if number % 2 == 0 else nodes[::-1]
        primary.primary()
        victim = VICTIMS[number % 3]
        after_s = chance.uniform(SHORTEST_S, LONGEST_S)
        print(f"cut {number + 1} of {cuts}: {victim} ({primary.name} is primary), "
              f"{after_s:.2f} s into the writes", flush=True)
        total += cut_while_writing(pair, primary, secondary, victim, after_s)
        same_data(*nodes, pair.blocks * BLOCK_KIB * 1024)
        pair.check(secondary)
        for node in nodes:
            node.wait_state("cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate")
    print(f"{cuts} cuts, {total} acknowledged writes", flush=True)
