# SPDX-License-Identifier: GPL-2.0
"""An application whose every acknowledged write is written down, and looked for afterwards."""

import time

from drbdvm.image import Ground
from guestimage import guest_program

from . import life

BLOCK_KIB = 4
PROGRAM = "usr/sbin/ledger"


def files(lab) -> dict:
    """What the guests of a pair have for it."""
    return {PROGRAM: guest_program(Ground.get(lab.lane).root, "ledger")}


class Pair:
    """Two nodes, and what the application was told so far."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.acknowledged: dict[int, int] = {}
        self.rounds = 0
        self.blocks = nodes[0].size_bytes() // 1024 // BLOCK_KIB // 8 * 8

    def size_bytes(self) -> int:
        """As much of the device as the application uses."""
        return self.blocks * BLOCK_KIB * 1024

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
        assert writer.running(), f"the writer has ended: {writer.out[-500:]}"
        assert time.monotonic() < deadline, "no write was acknowledged"
        time.sleep(0.05)
    time.sleep(for_s)
