# SPDX-License-Identifier: GPL-2.0
"""Power cuts in the middle of writes: what was acknowledged is there afterwards, on both disks.

Each round writes until the power of the primary, of the secondary or of both is cut at some moment,
lets the pair come back, compares the disks, and checks every acknowledged block on the node that
was secondary. `--cuts N` says how many, `--cut-seed` when.
"""

import random

from config import resource
from scenario import ledger, life, node_pair, same_data
from scenario.ledger import Pair, let_it_write

VICTIMS = ("primary", "secondary", "both")
SHORTEST_S, LONGEST_S = 0.5, 4.0


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
                      files=ledger.files(lab))
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
        same_data(*nodes, pair.size_bytes())
        pair.check(secondary)
        for node in nodes:
            node.wait_state("cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate")
    print(f"{cuts} cuts, {total} acknowledged writes", flush=True)
