# SPDX-License-Identifier: GPL-2.0
"""The module with fault injection, and what each of its faults does: it is noticed, counted, and
costs no more than it must. `--long`; the parameters are the C driver's."""

import subprocess

import pytest

from config import resource
from drbdvm.image import CHECKOUT
from scenario import life, node_pair

META_WRITE, META_READ, RESYNC_WRITE, RESYNC_READ, DATA_WRITE, DATA_READ, _, BITMAP, PEER_REQUEST = (
    1 << bit for bit in range(9))
PARAMETERS = "/sys/module/drbd/parameters"
CONF = resource(protocol="C", net=life.PATIENCE, disk_options=life.FAST + " on-io-error detach;")


def inject(node, faults: int, rate: int = 100) -> None:
    """What fails from now on, of a hundred."""
    node.run(f"cd {PARAMETERS} && echo 0 > fault_count && echo {rate} > fault_rate && "
             f"echo {faults} > enable_faults")


def injected(node) -> int:
    """How many faults there were; from now on there are none."""
    return int(node.run(f"cd {PARAMETERS} && echo 0 > enable_faults && cat fault_count").out)


@pytest.fixture(scope="module")
def pair(oracle, module_lab, flavour):
    kind = "faults" if module_lab.lane == "stock" else f"faults-{module_lab.lane}"
    subprocess.run(["make", "-s", f"ko-{kind}"], cwd=CHECKOUT, check=True)
    nodes = node_pair(module_lab, flavour, CONF, disks=[life.DISK],
                      files={"root/drbd.ko": CHECKOUT / "build" / f"drbd-{kind}.ko"})
    for node in nodes:
        node.run("modprobe libcrc32c 2>/dev/null; insmod /root/drbd.ko")
    life.bring_up(nodes)
    life.first_sync(*nodes)
    return nodes


@pytest.fixture
def nodes(pair):
    """Connected, equal, the first Primary; nothing fails."""
    yield pair
    for node in pair:
        injected(node)
        if "Diskless" in node.run("drbdadm dstate r0").out.split("/")[0]:
            node.run("drbdadm attach r0")
    pair[0].wait_synced(60)


def test_a_write_that_fails_here_is_at_the_peer(nodes):
    own, _ = nodes
    inject(own, DATA_WRITE)
    own.write("fails", 0, 64)
    own.wait_state("ds:Diskless/UpToDate", 60)
    assert injected(own) > 0
    assert own.holds("fails", 0, 64)


def test_a_write_that_fails_at_the_peer_is_here(nodes):
    own, peer = nodes
    inject(peer, DATA_WRITE)
    own.write("there", 0, 64)
    own.wait_state("ds:UpToDate/Diskless", 60)
    assert injected(peer) > 0
    assert own.holds("there", 0, 64)


def test_a_read_that_fails_is_served_by_the_peer(nodes):
    own, _ = nodes
    own.write("read", 0, 64)
    inject(own, DATA_READ)
    assert own.holds("read", 0, 64)
    own.wait_state("ds:Diskless/UpToDate", 60)
    assert injected(own) > 0


def test_metadata_that_cannot_be_written_cost_the_disk(nodes):
    own, peer = nodes
    inject(peer, META_WRITE)
    # Its new state is written down first.
    peer.run("drbdadm invalidate r0", check=False)
    own.wait_state("ds:UpToDate/Diskless", 60)
    assert injected(peer) > 0


def test_metadata_that_cannot_be_read_keep_a_disk_out(nodes):
    _, peer = nodes
    peer.run("drbdadm detach r0")
    peer.wait_state("ds:Diskless/", 60)
    inject(peer, META_READ)
    result = peer.run("drbdadm attach r0", check=False)
    assert injected(peer) > 0
    assert result.code != 0 and result.err.strip()
    peer.wait_state("ds:Diskless/", 60)


def test_without_memory_for_the_bitmap_a_disk_is_not_attached(nodes):
    _, peer = nodes
    peer.run("drbdadm detach r0")
    peer.wait_state("ds:Diskless/", 60)
    inject(peer, BITMAP)
    result = peer.run("drbdadm attach r0", check=False)
    assert injected(peer) > 0
    assert result.code != 0 and result.err.strip()
    peer.wait_state("ds:Diskless/", 60)


@pytest.mark.parametrize("fault, whose", [(RESYNC_WRITE, 1), (RESYNC_READ, 0)],
                         ids=["write-at-the-target", "read-at-the-source"])
def test_a_resync_that_fails_costs_the_disk_that_failed(nodes, fault, whose):
    own, peer = nodes
    failing = nodes[whose]
    inject(failing, fault)
    peer.run("drbdadm invalidate r0")
    failing.wait_state("ds:Diskless/", 60)
    assert injected(failing) > 0
    if whose == 0:
        # The only good disk is here, attached again by its own data.
        own.run("drbdadm attach r0")


def test_requests_of_the_peer_wait_for_memory(nodes):
    own, peer = nodes
    inject(peer, PEER_REQUEST, rate=30)
    own.write("memory", 0, 1024)
    assert injected(peer) > 0
    own.wait_synced()
    assert own.holds("memory", 0, 1024)
