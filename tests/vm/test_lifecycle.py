# SPDX-License-Identifier: GPL-2.0
"""Load, use, unload, twenty times: nothing stays behind, on neither side."""

import pytest

from scenario import node_pair
from scenario import life

WARM_UP_ROUNDS = 3
ROUNDS = 20
# What caches and the allocators' own slack may gain over all rounds; a leak of one page in each
# shows in slab or vmalloc, which are watched apart.
FREE_SLACK_KIB = 4096
KERNEL_SLACK_KIB = 512

ROUND = """
set -e
modprobe drbd
drbdadm up r0
for _ in $(seq 300); do
    grep -q 'cs:Connected .*ds:UpToDate/UpToDate' /proc/drbd && break
    sleep 0.1
done
drbdadm primary r0
yes round | dd of=/dev/drbd0 bs=64k count=16 iflag=fullblock oflag=direct \
    conv=notrunc,fsync status=none
drbdadm secondary r0
drbdadm down r0
rmmod drbd
"""

MEMORY = """
sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1; echo 3 > /proc/sys/vm/drop_caches
awk '/^(MemFree|SUnreclaim|VmallocUsed|Percpu|KernelStack):/ { print $1, $2 }' /proc/meminfo
"""


@pytest.fixture(scope="module")
def nodes(module_lab, flavour):
    nodes = node_pair(module_lab, flavour, life.conf(), disks=["16M"])
    life.bring_up(nodes)
    life.first_sync(*nodes)
    t, _ = nodes
    t.secondary()
    t.down()
    t.run("rmmod drbd")
    return nodes


def memory(node) -> dict[str, int]:
    """KiB by kind, without caches."""
    lines = node.run(MEMORY).out.split("\n")
    pairs = (line.split() for line in lines if line)
    return {name.rstrip(":"): int(value) for name, value in pairs}


def nothing_is_left(node):
    """No trace of a driver that is not loaded."""
    assert node.run("ls /sys/module | grep -x drbd", check=False).code == 1
    assert node.run("grep -w drbd /proc/devices", check=False).code == 1
    assert node.run("cat /proc/[0-9]*/comm | grep '^drbd[0-9_]'", check=False).code == 1
    assert node.run("cat /proc/[0-9]*/comm | grep -i 'R-drbd'", check=False).code == 1
    assert node.run("grep '\\[drbd\\]' /proc/vmallocinfo", check=False).code == 1
    assert node.run("ls /sys/kernel/slab 2>/dev/null | grep drbd", check=False).code == 1
    assert node.run("ls /proc/drbd /sys/block/drbd0 2>/dev/null", check=False).out == ""
    assert node.run("ls /dev/drbd0 2>/dev/null", check=False).out == ""
    # The backing device is nobody's any more.
    node.run("blockdev --rereadpt /dev/vda")


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    change = {name: after[name] - before[name] for name in before}
    return {"free": -change.pop("MemFree"), "kernel": sum(change.values()), **change}


def test_twenty_rounds_leave_nothing_behind(nodes, module_lab):
    t, shentar = nodes
    for _ in range(WARM_UP_ROUNDS):
        t.run(ROUND)
    before = {node: memory(node) for node in nodes}
    for _ in range(ROUNDS):
        t.run(ROUND, timeout_s=180)
    nothing_is_left(t)
    # There kmemleak looks for leaks, and the quarantine of what was freed fills.
    may_grow = module_lab.lane in ("debug", "umdebug")
    for node in nodes:
        growth = grown(before[node], memory(node))
        assert may_grow or growth["kernel"] <= KERNEL_SLACK_KIB, f"{node.name} {growth}"
        assert may_grow or growth["free"] <= FREE_SLACK_KIB, f"{node.name} {growth}"


def test_both_nodes_take_leave_at_once(nodes):
    """Each asks the other for its consent while it waits for the other's."""
    t, shentar = nodes
    t.run("modprobe drbd")
    for _ in range(4):
        t.up()
        for node in nodes:
            node.wait_synced()
        leaves = [node.guest.spawn("drbdadm down r0") for node in nodes]
        for leave in leaves:
            result = leave.wait()
            assert result.code == 0, result.out + result.err
        shentar.up()
    t.run("rmmod drbd")


def test_only_one_of_two_that_want_it_at_once_is_primary(nodes):
    t, shentar = nodes
    t.run("modprobe drbd && drbdadm up r0")
    for node in nodes:
        node.wait_synced()
    for _ in range(4):
        wishes = [node.guest.spawn("drbdadm primary r0") for node in nodes]
        codes = [wish.wait().code for wish in wishes]
        assert sorted(code == 0 for code in codes) == [False, True], codes
        primary = nodes[codes.index(0)]
        primary.wait_state("ro:Primary/Secondary")
        primary.secondary()
    t.run("drbdadm down r0 && rmmod drbd")


def test_a_volume_that_one_node_lacks_keeps_nothing_from_the_other(nodes):
    """The state of that volume is never told, so that the nodes seem to meet for ever."""
    t, shentar = nodes
    t.run("modprobe drbd && drbdadm up r0")
    t.wait_synced()
    t.run("drbdsetup new-minor r0 1 1 && drbdadm disconnect r0 && drbdadm connect r0")
    for node in nodes:
        node.wait_synced()
    shentar.run("drbdsetup primary 0")
    t.wait_state("ro:Secondary/Primary")
    shentar.run("drbdsetup secondary 0")
    t.run("drbdsetup primary 0 && drbdsetup secondary 0")
    # Without it nothing is left to be told.
    t.run("drbdsetup del-minor 1 && drbdadm down r0 && rmmod drbd")


def test_a_ping_interval_that_changes_holds_at_once(nodes):
    """A peer that stalls is noticed by the new options, within what the old ones would wait.

    It comes back although its own ping-timeout, for which it watches a new pair of sockets, is
    longer than this node waits for it then.
    """
    t, shentar = nodes
    change = "drbdsetup net-options 192.0.2.1:7788 192.0.2.2:7788 --ping-int={} --ping-timeout=5"
    t.run("modprobe drbd && drbdadm up r0")
    t.wait_synced()
    t.run(change.format(120))
    shentar.guest.stop()
    t.run("sleep 3")
    assert t.state().connection == "Connected"
    t.run(change.format(1))
    t.wait_state("cs:WFConnection", timeout_s=60)
    shentar.guest.cont()
    t.wait_synced(timeout_s=60)
    t.run("drbdadm down r0 && rmmod drbd")


def test_a_module_in_use_is_not_unloaded(nodes):
    _, shentar = nodes
    result = shentar.run("rmmod drbd", check=False)
    assert result.code != 0
    assert "is in use" in result.err
    shentar.down()
    shentar.run("rmmod drbd")
    nothing_is_left(shentar)


def test_a_loaded_module_answers_while_it_has_no_resource(nodes):
    t, _ = nodes
    t.run("modprobe drbd")
    assert "cs:" not in t.run("cat /proc/drbd").out
    assert t.run("drbdsetup show").out.strip() == ""
    t.run("rmmod drbd")
    nothing_is_left(t)


def test_resources_come_and_go_where_free_memory_is_poisoned(lab):
    """A structure that the kernel expects to be zeroed was not: the reserve of a memory pool."""
    guest = lab.guest("poisoned", tools="stock", disks=["16M"], options=["slab_debug=FZPU"])
    lab.boot(guest)
    guest.run("modprobe drbd && for _ in {1..20}; do drbdsetup new-resource r0 && "
              "drbdsetup new-minor r0 0 0 && drbdsetup down r0 || exit; done; rmmod drbd")
