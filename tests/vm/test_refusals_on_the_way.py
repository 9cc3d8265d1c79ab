# SPDX-License-Identifier: GPL-2.0
"""A disk comes back while refusals of what was written without it are still on their way.

Writes of the peer take a moment to get here, so that many come when the disk is gone. For a while
nothing gets back to the peer: the refusals have to be sent again, which the meta socket does after
a pause, while the data socket has nothing to make up for and tells of the disk at once. What the
peer learns to be refused when its bitmap is sent is in nobody's bitmap, unless this node waits.

Runs with `--long`, as it waits a lot: between two of ours, with a Primary of the C driver, and
between two of those, as the control: there it is forgotten, the resync never ends on the source,
and the disks differ.
"""

import pytest

from config import resource
from scenario import Flavour, ledger, life, node_pair, same_data
from scenario.ledger import Pair, let_it_write

PAIRS = {"ours-ours": ("ours", "ours"), "C-ours": ("c", "ours"), "C-C": ("c", "c")}
# Nobody gives the peer up.
NET = "timeout 60; ko-count 20; ping-int 60; ping-timeout 150; connect-int 1;"
WRITES_TAKE_MS = 500
NOTHING_ARRIVES_S = 4
RESYNC_TIMEOUT_S = 60


@pytest.fixture(params=[(protocol, drivers) for drivers in PAIRS for protocol in "AC"],
                ids="_".join)
def cell(request):
    if not request.config.getoption("long"):
        pytest.skip("takes a minute; give --long")
    if request.param[1] == "C-C":
        request.applymarker(pytest.mark.xfail(reason="the C driver announces a disk at once"))
    return request.param


def test_what_was_refused_is_not_forgotten(cell, lab):
    protocol, drivers = cell
    conf = resource(protocol=protocol, net=NET, disk_options=life.FAST)
    flavours = tuple(Flavour(module, "stock") for module in PAIRS[drivers])
    nodes = primary, secondary = node_pair(lab, flavours, conf, files=ledger.files(lab),
                                           disks=["8M"])
    life.bring_up(nodes)
    primary.run("drbdsetup new-current-uuid 0 --clear-bitmap")
    for node in nodes:
        node.wait_synced()
        node.run("modprobe sch_netem")
    primary.primary()
    pair = Pair(nodes)
    primary.run(f"tc qdisc add dev {life.NIC} root netem delay {WRITES_TAKE_MS}ms limit 100000")
    writer = pair.start_writing(primary)
    let_it_write(writer, 2)
    secondary.run("drbdsetup detach 0 --force && until grep -q ds:Diskless /proc/drbd; do :; done; "
                  f"tc qdisc add dev {life.NIC} root netem loss 100%; sleep {NOTHING_ARRIVES_S}; "
                  f"tc qdisc del dev {life.NIC} root; drbdadm attach r0")
    writer.close_input()
    assert writer.wait().code == 0
    pair.take_down(writer)
    for node in nodes:
        node.wait_synced(RESYNC_TIMEOUT_S)
        assert node.state().oos_kib == 0
    primary.secondary()
    same_data(*nodes, pair.size_bytes())
    for node in nodes:
        pair.check(node)
