# SPDX-License-Identifier: GPL-2.0
"""Our driver and the C driver as each other's peer, with stock tools, through one scenario.

The tests of a pair share two guests and follow each other: every one leaves both connected, in
sync and Secondary, with protocol C. Each plays both roles on either node, so that one pair shows
both directions; `--long` runs the other pairs as well, with the C driver and itself as the control.
"""

import re
import time

import pytest

from config import volumes
from drbdvm import Lab
from scenario import Flavour, Node, node_pair, same_data
from scenario import life

PAIRS = [("ours", "c"), ("c", "ours"), ("ours", "ours"), ("c", "c")]
DISKS = [life.DISK, "8M"]
AUTHENTICATED = 'cram-hmac-alg sha256; shared-secret "a secret"; data-integrity-alg crc32c;'


@pytest.fixture(scope="module", params=PAIRS, ids=lambda modules: "_with_".join(modules))
def pair_lab(request):
    """A lab of its own for each pair, since both nodes' addresses are fixed."""
    if request.param != PAIRS[0] and not request.config.getoption("--long"):
        pytest.skip("runs with --long")
    with Lab(keep="test_pairs-" + "-".join(request.param)) as lab:
        yield request.param, lab


@pytest.fixture(scope="module")
def wire(pair_lab):
    return pair_lab[1]


@pytest.fixture(scope="module")
def nodes(pair_lab):
    modules, lab = pair_lab
    flavours = tuple(Flavour(module, "stock") for module in modules)
    nodes = node_pair(lab, flavours, life.conf(), disks=DISKS)
    life.bring_up(nodes)
    return nodes


def check_disks(*nodes: Node) -> None:
    """Both Secondary; what their disks hold is the same."""
    for node in nodes:
        node.wait_state("cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate")
    same_data(*nodes, nodes[0].size_bytes())


def restart(nodes, conf: str) -> None:
    """Down and up again with another drbd.conf."""
    for node in nodes:
        node.down()
        node.configure(conf)
    for node in nodes:
        node.up()


def test_the_first_sync_goes_one_way(nodes):
    t, shentar = nodes
    life.first_sync(t, shentar)
    t.write("first", 0, 1024)
    t.secondary()
    check_disks(*nodes)


def test_a_full_sync_goes_the_other_way(nodes):
    t, shentar = nodes
    marks = {node: node.mark() for node in nodes}
    t.run("drbdadm invalidate r0")
    for node in nodes:
        node.wait_synced()
    size_kib = t.size_bytes() // 1024
    assert t.resyncs_since(marks[t]) == [("SyncTarget", size_kib)]
    assert shentar.resyncs_since(marks[shentar]) == [("SyncSource", size_kib)]
    check_disks(*nodes)


@pytest.mark.parametrize("primary", [0, 1])
def test_an_outage_resyncs_exactly_what_was_written(nodes, wire, primary):
    writer, other = nodes[primary], nodes[1 - primary]
    writer.primary()
    life.outage(wire, writer, other, f"outage{primary}")
    life.swap_roles(writer, other, f"swap{primary}")
    assert other.holds(f"outage{primary}", 9 * 1024, 256)
    other.secondary()
    check_disks(*nodes)


@pytest.mark.parametrize("primary", [0, 1])
def test_a_primary_without_power_resyncs_what_its_activity_log_names(nodes, primary):
    life.crash_of_primary(nodes[primary], nodes[1 - primary], f"acked{primary}")
    check_disks(*nodes)


def test_a_clean_restart_resyncs_nothing(nodes):
    marks = {node: node.mark() for node in nodes}
    restart(nodes, life.conf())
    for node in nodes:
        node.wait_synced()
        assert node.resyncs_since(marks[node]) == []


@pytest.mark.parametrize("primary", [0, 1])
def test_discards_zeroes_and_flushes_reach_both_disks(nodes, primary):
    writer, other = nodes[primary], nodes[1 - primary]
    writer.primary()
    writer.write("discarded", 0, 8 * 1024)
    writer.run(f"blkdiscard -o 1M -l 2M {writer.device} && "
               f"blkdiscard -z -o 4M -l 1M {writer.device} && "
               f"blkdiscard -z -o 6M -l 4k {writer.device} && sync {writer.device}")
    assert writer.run(f"cmp -n 1M {writer.device} /dev/zero -i 4M:0", check=False).code == 0
    writer.secondary()
    check_disks(*nodes)
    assert other.state().oos_kib == 0


@pytest.mark.parametrize("protocol, net", [
    ("A", ""), ("B", ""), ("A", AUTHENTICATED), ("C", AUTHENTICATED),
], ids=["A", "B", "A-authenticated", "C-authenticated"])
def test_protocols_and_digests(nodes, wire, protocol, net):
    restart(nodes, life.conf(protocol=protocol, net=net))
    for node in nodes:
        node.wait_state(rf"cs:Connected .*ds:UpToDate/UpToDate {protocol} ")
    for writer, other in (nodes, nodes[::-1]):
        writer.primary()
        writer.write(f"{protocol}{writer.name}", 512, 2048)
        writer.run(f"blkdiscard -o 8M -l 64k {writer.device}")
        # The C driver does not take zeroes together with digests from itself.
        if "ours" in (writer.flavour.module, other.flavour.module):
            writer.run(f"blkdiscard -z -o 9M -l 64k {writer.device}")
        writer.secondary()
        assert writer.state().connection == "Connected"
        check_disks(*nodes)
    restart(nodes, life.conf())
    check_disks(*nodes)


def left_split_brain(node: Node, mark, nodes) -> bool:
    """Once one of the nodes has left the connection: whether this one did, and why."""
    deadline = time.monotonic() + life.OUTAGE_TIMEOUT_S
    while all(each.state().connection != "StandAlone" for each in nodes):
        assert time.monotonic() < deadline, "no node leaves the connection"
        time.sleep(0.2)
    node.wait_state("cs:(StandAlone|WFConnection) ")
    log = node.log_since(mark)
    compared = "uuid_compare()=100 by rule 90" in log
    told = "Split-Brain detected but unresolved, dropping connection!" in log
    assert compared == told == (node.state().connection == "StandAlone")
    return compared


def test_a_split_brain_is_seen_and_solved_by_hand(nodes, wire):
    t, shentar = nodes
    life.lose_sight(wire, nodes)
    for node, at_kib in zip(nodes, (0, 16 * 1024)):
        node.primary()
        node.write(f"split{node.name}", at_kib, 64)
        node.secondary()
    marks = {node: node.mark() for node in nodes}
    wire.plug_wire()
    # One of them may see the connection close before it compared anything. It waits for the next.
    left = [node for node in nodes if left_split_brain(node, marks[node], nodes)]
    assert left
    for node in nodes:
        if node not in left:
            node.wait_state("cs:WFConnection ro:Secondary/Unknown")
            node.run("drbdadm disconnect r0")
        node.wait_state("cs:StandAlone ro:Secondary/Unknown", life.OUTAGE_TIMEOUT_S)
    t.run("drbdadm connect --discard-my-data r0")
    shentar.run("drbdadm connect r0")
    for node in nodes:
        node.wait_synced()
    assert t.resyncs_since(marks[t]) == [("SyncTarget", 128)]
    check_disks(*nodes)
    shentar.primary()
    assert shentar.holds("splitShentar", 16 * 1024, 64)
    assert not shentar.holds("splitt", 0, 64)
    shentar.secondary()


def test_two_volumes_over_ipv6(nodes):
    conf = volumes(net=life.PATIENCE, disk_options=life.FAST, network="ipv6")
    for number, node in enumerate(nodes, start=1):
        node.down()
        node.configure(conf)
        node.run(f"ip address add fd00::{number}/64 dev {life.NIC} nodad")
        node.run("drbdadm --force create-md r0/1 && drbdadm up r0")
    seconds = tuple(Node(node.guest, node.flavour, conf, minor=1, disk=1) for node in nodes)
    for first, second in zip(nodes, seconds):
        first.wait_synced()
        second.wait_state("cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent")
    seconds[0].run("drbdadm primary --force r0/1")
    for second in seconds:
        second.wait_synced()
    for volume in (nodes, seconds):
        volume[0].primary()
        volume[0].write(f"volume{volume[0].minor}", 1024, 512)
    nodes[0].secondary()
    for volume in (nodes, seconds):
        check_disks(*volume)
    # The connection's loss concerns both volumes, and so does its return.
    nodes[1].run("drbdadm disconnect r0")
    nodes[0].run("drbdadm primary r0")
    for volume in (nodes, seconds):
        volume[0].write("alone", 2048, 64)
        assert volume[0].state().oos_kib == 64
    nodes[0].secondary()
    nodes[1].run("drbdadm connect r0")
    for volume in (nodes, seconds):
        for node in volume:
            node.wait_synced()
        check_disks(*volume)
    restart(nodes, life.conf())
    check_disks(*nodes)


def test_the_kernels_said_nothing_bad(nodes):
    for node in nodes:
        assert not re.search(r"drbd.*(ASSERT|ERROR|LOGIC BUG|unexpected|[Pp]rotocol error)",
                             node.guest.log())
