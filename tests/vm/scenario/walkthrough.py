# SPDX-License-Identifier: GPL-2.0
"""The manual's steps in their order, on two nodes; each says what must be seen.

`make demo` shows them, test_walkthrough.py runs them. Every step is a function, so that a test's
failure names it.
"""

import re
import time

from drbdvm import Lab, TimedOut

from . import manual
from .node import Flavour, Node, node_pair, same_data
from .procfile import Minor, minors
from .story import Story

MINOR = 2
BANNER_TIMEOUT_S = 60
CONNECT_TIMEOUT_S = 60
POLL_S = 0.2

BANNER = (
    r"DRBD's startup script waits for the peer node\(s\) to appear\.",
    r"2000 seconds[. ]",
    r"\[degr-wfc-timeout\]",
    r"\[wfc-timeout\]",
    r"These values are for resource 'r0'; 0 sec -> wait forever",
    r"To abort waiting enter 'yes' \[",
)


def machines(lab: Lab, flavour: Flavour, disk: str) -> tuple[Node, Node]:
    """The manual's two machines, booted, each with a partition for DRBD and its drbd.conf."""
    files = {"etc/mke2fs.conf": manual.MKE2FS_CONF}
    return node_pair(lab, flavour, manual.DRBD_CONF, disks=[disk], minor=MINOR, files=files,
                     backing_offset=manual.PARTITION_AT_SECTOR * manual.SECTOR,
                     prepare_disk=manual.partition)


def _proc_drbd(story: Story, node: Node) -> Minor:
    return minors(story.type(node, "cat /proc/drbd"))[MINOR]


def _states(minor: Minor) -> str:
    return (f"cs:{minor.connection} ro:{minor.role}/{minor.peer_role} "
            f"ds:{minor.disk}/{minor.peer_disk} {minor.protocol} {minor.flags}")


def look_at_the_machines(story: Story, t: Node, shentar: Node) -> None:
    story.step("Two machines, each with a partition to spare and the same drbd.conf")
    for node in (t, shentar):
        assert story.type(node, "hostname").strip() == node.name
        # On User Mode Linux it is ubda1.
        assert re.search(r"\b(v|ub)da1\b", story.type(node, "cat /proc/partitions"))
    story.type(t, "cat /etc/drbd.conf")


def create_metadata(story: Story, t: Node, shentar: Node) -> None:
    story.step("Create the metadata on both")
    for node in (shentar, t):
        out = story.type(node, "drbdadm create-md r0 2>&1")
        assert "New drbd meta data block successfully created" in out, out


def start_and_connect(story: Story, t: Node, shentar: Node) -> None:
    story.step("Start the service: the first machine waits for the second")
    console = len(t.guest.log())
    story.prompt(t, "/etc/init.d/drbd start")
    waiting = t.guest.spawn("/etc/init.d/drbd start 2>&1", timeout_s=2 * BANNER_TIMEOUT_S)
    deadline = time.monotonic() + BANNER_TIMEOUT_S

    def seen() -> str:
        # Without a terminal the question goes to the console.
        return waiting.out + t.guest.log()[console:]

    while not all(re.search(line, seen()) for line in BANNER):
        t.guest.check()
        assert waiting.running(), f"the init script did not wait for the peer:\n{seen()}"
        if time.monotonic() > deadline:
            missing = [line for line in BANNER if not re.search(line, seen())]
            raise TimedOut(f"the banner lacks {missing}:\n{seen()}")
        time.sleep(POLL_S)
    shown = seen()
    story.show(shown)
    assert t.state().connection == "WFConnection"
    story.type(shentar, "/etc/init.d/drbd start")
    result = waiting.wait()
    assert result.code == 0, f"the init script on t ended with {result.code}:\n{seen()}"
    story.note("and now the first one goes on, too")
    for node in (t, shentar):
        node.wait_state("cs:Connected", CONNECT_TIMEOUT_S)


def three_threads(story: Story, t: Node, shentar: Node) -> None:
    story.step("Three kernel threads serve the resource")
    story.type(t, "ps -e -o ppid,pid,stat,comm | grep -E 'COMMAND|drbd'")
    for node in (t, shentar):
        assert node.threads() == node.flavour.threads("r0", MINOR)


def both_inconsistent(story: Story, t: Node, shentar: Node) -> None:
    story.step("Both are connected; neither has data that the other could trust")
    for node in (t, shentar):
        minor = _proc_drbd(story, node)
        assert _states(minor) == "cs:Connected ro:Secondary/Secondary " \
            "ds:Inconsistent/Inconsistent C r-----"
        assert minor.oos_kib == node.size_bytes() // 1024
    listing = story.type(t, "ls -l /dev/drbd2")
    assert re.match(r"b.* 147, +2 ", listing), listing


def overwrite_the_peer(story: Story, t: Node, shentar: Node) -> None:
    story.step("Make t primary and let its data count: the resync begins")
    story.type(t, t.flavour.overwrite_peer(MINOR))
    t.wait_state("cs:SyncSource")
    shentar.wait_state("cs:SyncTarget")
    minor = _proc_drbd(story, t)
    assert _states(minor) == "cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----"
    assert minor.total_kib == t.size_bytes() // 1024
    assert 0 < minor.left_kib <= minor.total_kib


def use_while_syncing(story: Story, t: Node, shentar: Node) -> None:
    story.step("No need to wait: make a file system and write while it syncs")
    story.type(t, "mkfs.ext3 /dev/drbd2 2>&1")
    story.type(t, "mkdir -p /drbd2 && mount /dev/drbd2 /drbd2")
    story.type(t, "echo 'hello drbd!' > /drbd2/justatest.txt && sync && cat /drbd2/justatest.txt")
    minor = _proc_drbd(story, t)
    assert minor.connection == "SyncSource", "the resync was over before the file was written"
    assert minor.counters["dw"] > 0
    assert minor.left_kib < minor.total_kib


def become_up_to_date(story: Story, t: Node, shentar: Node) -> None:
    story.step("The resync ends; both are up to date")
    for node in (t, shentar):
        node.wait_synced()
    minor = _proc_drbd(story, t)
    assert _states(minor) == "cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----"
    assert minor.oos_kib == 0


def switch_over(story: Story, source: Node, target: Node) -> None:
    """Hand the device over; the file must be on the other side."""
    story.step(f"Switch over: {source.name} gives it up, {target.name} takes it")
    story.type(source, "umount /drbd2")
    story.type(source, "drbdadm secondary all")
    source.wait_state("ro:Secondary/Secondary")
    minor = _proc_drbd(story, source)
    assert _states(minor) == "cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate C r-----"
    story.type(target, "drbdadm primary all")
    story.type(target, "mkdir -p /drbd2 && mount /dev/drbd2 /drbd2")
    assert story.type(target, "cat /drbd2/justatest.txt").startswith("hello drbd!\n")


def write_on_the_other_side(story: Story, t: Node, shentar: Node) -> None:
    story.step("Write there, and back again")
    story.type(shentar, "echo 'and back again' >> /drbd2/justatest.txt")
    switch_over(story, shentar, t)
    assert story.type(t, "cat /drbd2/justatest.txt") == "hello drbd!\nand back again\n"
    story.type(t, "umount /drbd2 && drbdadm secondary all")


def stop_and_compare(story: Story, t: Node, shentar: Node) -> None:
    story.step("Stop the service on both; the two disks are equal, byte for byte")
    size = t.size_bytes()
    for node in (t, shentar):
        story.type(node, "/etc/init.d/drbd stop")
        assert "drbd" not in node.guest.read("/proc/modules").split()
    same_data(t, shentar, size)
    story.note(f"{size} bytes of /dev/vda1 on t and on Shentar compared: no difference")


STEPS = (
    look_at_the_machines, create_metadata, start_and_connect, three_threads, both_inconsistent,
    overwrite_the_peer, use_while_syncing, become_up_to_date, switch_over,
    write_on_the_other_side, stop_and_compare,
)


def play(story: Story, t: Node, shentar: Node) -> None:
    """All steps, in order."""
    for step in STEPS:
        step(story, t, shentar)
