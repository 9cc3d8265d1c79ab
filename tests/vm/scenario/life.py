# SPDX-License-Identifier: GPL-2.0
"""What pairs go through: first sync, an outage and its repair, a crash, a change of roles."""

import os

from config import resource
from drbdvm import Lab
from drbdvm.lab import SLOWNESS

from .node import MIB, Node

# Short enough for a test, long enough for a guest that is emulated on a busy host.
PING_TIMEOUT = 30 * SLOWNESS.get(os.environ.get("DRBD_LANE"), 1)
PATIENCE = f"timeout 40; ping-int 5; ping-timeout {PING_TIMEOUT}; connect-int 5;"
FAST = "resync-rate 200M; c-plan-ahead 0;"
# The network card, in a script for a guest of any lane.
NIC = "$(cd /sys/class/net && echo [ev]*)"
DISK = "32M"
AL_EXTENT_KIB = 4096
OUTAGE_TIMEOUT_S = 60


def conf(*, protocol: str = "C", net: str = "", disk: str = FAST, **other) -> str:
    """drbd.conf of the pairs that these scenarios use."""
    return resource(protocol=protocol, net=f"{PATIENCE} {net}", disk_options=disk, **other)


def bring_up(nodes: tuple[Node, Node]) -> None:
    """Fresh metadata, both connected, nobody's data counts yet."""
    for node in nodes:
        node.create()
        node.up()
    for node in nodes:
        node.wait_state("cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent")


def first_sync(source: Node, target: Node) -> None:
    """`source` becomes primary and overwrites `target`."""
    marks = {node: node.mark() for node in (source, target)}
    source.overwrite_peer()
    for node in (source, target):
        node.wait_synced()
    size_kib = source.size_bytes() // 1024
    assert source.resyncs_since(marks[source]) == [("SyncSource", size_kib)]
    assert target.resyncs_since(marks[target]) == [("SyncTarget", size_kib)]


def lose_sight(lab: Lab, nodes: tuple[Node, Node]) -> None:
    """Pull the wire; back when both have noticed."""
    lab.cut_wire()
    for node in nodes:
        node.wait_state(r"cs:(WFConnection|Unconnected) ro:\w+/Unknown", OUTAGE_TIMEOUT_S)


def outage(lab: Lab, primary: Node, secondary: Node, word: str) -> int:
    """Write while the wire is cut; only that is resynced. Returns how many KiB."""
    before = primary.state().oos_kib
    assert before == 0, f"{before} KiB differ before the outage"
    lose_sight(lab, (primary, secondary))
    ranges = ((0, 64), (1024, 4), (9 * 1024, 256), (primary.size_bytes() // 1024 - 64, 64))
    for at_kib, size_kib in ranges:
        primary.write(word, at_kib & ~3, size_kib)
    # What was written twice is out of sync once.
    primary.write(word, 32, 32)
    size_kib = sum(size for _, size in ranges)
    assert primary.state().oos_kib == size_kib
    marks = {node: node.mark() for node in (primary, secondary)}
    lab.plug_wire()
    for node in (primary, secondary):
        node.wait_synced()
    assert primary.resyncs_since(marks[primary]) == [("SyncSource", size_kib)]
    assert secondary.resyncs_since(marks[secondary]) == [("SyncTarget", size_kib)]
    assert primary.state().oos_kib == 0
    return size_kib


def crash_of_primary(primary: Node, secondary: Node, word: str) -> None:
    """Cut the primary's power; what its activity log names is resynced, nothing acked is lost."""
    touched = (1, 3, 6)
    # Attaching anew empties the activity log, so that it names these extents and no others.
    for node in (primary, secondary):
        node.down()
    for node in (primary, secondary):
        node.up()
    for node in (primary, secondary):
        node.wait_synced()
    primary.primary()
    for extent in touched:
        primary.write(word, extent * AL_EXTENT_KIB + 512, 64)
    primary.guest.kill()
    secondary.wait_state(r"cs:(WFConnection|Unconnected) ro:Secondary/Unknown", OUTAGE_TIMEOUT_S)
    primary.boot()
    marks = {node: node.mark() for node in (primary, secondary)}
    primary.run("modprobe drbd")
    primary.up()
    for node in (primary, secondary):
        node.wait_synced()
    wanted = covered_kib(primary, touched)
    assert primary.resyncs_since(marks[primary]) == [("SyncSource", wanted)]
    assert secondary.resyncs_since(marks[secondary]) == [("SyncTarget", wanted)]
    secondary.primary()
    for extent in touched:
        assert secondary.holds(word, extent * AL_EXTENT_KIB + 512, 64)
    secondary.secondary()


def covered_kib(node: Node, extents: tuple[int, ...]) -> int:
    """How much of the device lies in these extents of the activity log."""
    size_kib = node.size_bytes() // 1024
    return sum(min(AL_EXTENT_KIB, size_kib - extent * AL_EXTENT_KIB) for extent in extents)


def swap_roles(old: Node, new: Node, word: str) -> None:
    """Hand the device over and write on the other side."""
    old.secondary()
    new.primary()
    new.write(word, 2 * MIB // 1024, 512)
    assert new.holds(word, 2 * MIB // 1024, 512)
