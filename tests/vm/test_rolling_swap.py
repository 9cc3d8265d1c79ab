# SPDX-License-Identifier: GPL-2.0
"""A node changes drivers, C -> ours -> C, while the other one is in use; then the other node does.

Load with verification runs on the Primary all the time. A swap may cost a resync of what was
written meanwhile, never a full one, and the application never sees an error.
"""

import pytest

from scenario import Flavour, node_pair, same_data
from scenario import drivers, life

LOAD_KIB = 16 * 1024
# Each round writes at random places, then reads all of it again; the round's number is its seed.
FIO = (f"fio --name=load --filename=/dev/drbd0 --size={LOAD_KIB}k --io_size=1M --rw=randwrite "
       "--bsrange=4k-32k --direct=1 --ioengine=libaio --iodepth=4 --verify=crc32c --verify_fatal=1 "
       "--allrandrepeat=1 --output=/tmp/fio.log --randseed=")
LOAD = f"""
rm -f /tmp/stop; round=0
until [ -e /tmp/stop ]; do
    round=$((round + 1)); echo $round > /tmp/round
    {FIO}$round || {{ cat /tmp/fio.log; exit 1; }}
done
"""

def load_driver(node, module: str) -> None:
    drivers.load_driver(node.guest, module)
    node.flavour = Flavour(module, "stock")


def swap(node, peer, module: str) -> None:
    """Down, another driver, up again, while the peer goes on writing."""
    marks = {each: each.mark() for each in (node, peer)}
    node.down()
    load_driver(node, module)
    # Long enough for the peer to have written something.
    peer.guest.wait_until("cat /proc/drbd", r"oos:[1-9]")
    node.up()
    for each in (node, peer):
        each.wait_synced()
    for each, side in ((peer, "SyncSource"), (node, "SyncTarget")):
        [(found, size_kib)] = each.resyncs_since(marks[each])
        assert found == side
        assert 0 < size_kib <= LOAD_KIB
        assert "full sync required" not in each.log_since(marks[each])


@pytest.fixture(scope="module")
def nodes(module_lab):
    nodes = node_pair(module_lab, Flavour("ours", "stock"), life.conf(), disks=[life.DISK],
                      bench=True)
    for node in nodes:
        load_driver(node, "c")
        node.run("drbdadm --force create-md r0")
        node.up()
    for node in nodes:
        node.wait_state("cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent")
    life.first_sync(*nodes)
    nodes[0].secondary()
    return nodes


@pytest.mark.parametrize("used", [0, 1])
def test_a_node_changes_drivers_while_the_other_is_in_use(nodes, used):
    peer, node = nodes[used], nodes[1 - used]
    peer.primary()
    load = peer.guest.spawn(LOAD, timeout_s=600)
    try:
        for module in ("ours", "c", "ours"):
            swap(node, peer, module)
            peer.guest.wait_until("cat /tmp/round", r"\d")
            assert load.running(), load.out
    finally:
        peer.run("touch /tmp/stop")
    result = load.wait()
    assert result.code == 0, result.out
    last = peer.run("cat /tmp/round").out.strip()
    peer.secondary()
    node.wait_state("cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate")
    same_data(*nodes, node.size_bytes())
    # What the application wrote on one node is what the other one has.
    node.primary()
    node.run(f"{FIO}{last} --verify_only")
    node.secondary()
    for each in nodes:
        assert "I/O error" not in each.guest.dmesg()
